//! Row 9. Many clients on few keys, through kills and pauses: each key's history must be one that a register of one thing at a
//! time could have had.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use e2e::{
    registry::{
        RegistryProcess,
        linear::{self, Answered, Asked, Call},
        wire::{self, Client},
    },
    trial::Trial,
    wait,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rustix::process::Signal;
use tonic::Status;

const KEYS: usize = 5;
const CLIENTS: u64 = 10;

/// What all clients know of a key.
#[derive(Debug, Default)]
struct Key {
    calls: Mutex<Vec<Call>>,
    /// Leases that were granted for it, with the value that they registered.
    owners: Mutex<Vec<(u64, wire::RegisterResponse)>>,
}

#[derive(Debug)]
struct Shared {
    keys: Vec<Key>,
    epoch: Instant,
    values: AtomicU64,
    answered: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).expect("centuries")
    }
}

async fn client(shared: Arc<Shared>, mut client: Client, mut rng: StdRng) {
    while !shared.stop.load(Ordering::Relaxed) {
        let number = rng.random_range(0..KEYS);
        let (key, id) = (&shared.keys[number], number.to_string());
        let value = shared.values.fetch_add(1, Ordering::Relaxed);
        // One of the last owners: mostly the present one, sometimes one that has been succeeded.
        let owner = {
            let owners = key.owners.lock().expect("not poisoned");
            let recent = owners.len().saturating_sub(2);
            (!owners.is_empty()).then(|| owners[rng.random_range(recent..owners.len())].clone())
        };
        let from = shared.now();
        let (asked, answered) = match (rng.random_range(0..10), owner) {
            (0..4, _) => (Asked::Get, get(&mut client, &id).await),
            (4..8, Some((owner, lease))) => {
                let request = wire::update(&lease, wire::valued("a-svc", &id, value));
                let answer = client.update_instance(request).await;
                (Asked::Update { owner, value }, outcome(answer.map(|_| ())))
            }
            (8, Some((owner, lease))) => {
                let answer = client.deregister(wire::deregistration(&lease)).await;
                (Asked::Deregister { owner }, outcome(answer.map(|_| ())))
            }
            _ => {
                let request = wire::lasting([wire::valued("a-svc", &id, value)]);
                let answer = client.register(request).await;
                if let Ok(granted) = &answer {
                    let mut owners = key.owners.lock().expect("not poisoned");
                    owners.push((value, granted.get_ref().clone()));
                }
                (Asked::Register(value), outcome(answer.map(|_| ())))
            }
        };
        let Some(answered) = answered else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let lost = answered == Answered::Lost;
        let latest = if lost { u64::MAX } else { shared.now() };
        key.calls.lock().expect("not poisoned").push(Call {
            asked,
            answered,
            from,
            latest,
        });
        if lost {
            tokio::time::sleep(Duration::from_millis(10)).await;
        } else {
            shared.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// `None`: it reached nobody. While a registry comes back, most calls are of that kind, and to ask of each whether it may have
/// taken effect would be work without end.
fn outcome(answer: Result<(), Status>) -> Option<Answered> {
    match answer {
        Ok(()) => Some(Answered::Done),
        Err(status) if wire::reached_nobody(&status) => None,
        Err(status) if wire::in_doubt(&status) => Some(Answered::Lost),
        Err(status) => {
            use tonic::Code::{FailedPrecondition, NotFound};
            assert!(matches!(status.code(), FailedPrecondition | NotFound), "{status:?}");
            Some(Answered::Refused)
        }
    }
}

async fn get(client: &mut Client, id: &str) -> Option<Answered> {
    let request = wire::GetInstanceRequest {
        service: "a-svc".into(),
        id: id.into(),
        ..Default::default()
    };
    match client.get_instance(request).await {
        Ok(found) => Some(Answered::Read(wire::value(
            &found.into_inner().instance.expect("an instance"),
        ))),
        Err(status) if status.code() == tonic::Code::NotFound => Some(Answered::Read(None)),
        Err(status) if wire::reached_nobody(&status) => None,
        Err(status) => {
            assert!(wire::in_doubt(&status), "{status:?}");
            Some(Answered::Lost)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_on_one_instance_are_linearizable_through_kills_and_pauses() {
    let mut trial = Trial::begin("calls_on_one_instance_are_linearizable_through_kills_and_pauses").await;
    let mut registry = RegistryProcess::start().await;
    let shared = Arc::new(Shared {
        keys: (0..KEYS).map(|_| Key::default()).collect(),
        epoch: Instant::now(),
        values: AtomicU64::new(1),
        answered: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let rng = StdRng::seed_from_u64(trial.rng.random());
        clients.spawn(client(Arc::clone(&shared), registry.client(), rng));
    }
    let flows = async |more: u64| {
        let goal = shared.answered.load(Ordering::Relaxed) + more;
        wait::until("answers", || async {
            let answered = shared.answered.load(Ordering::Relaxed);
            if answered >= goal { Ok(()) } else { Err(answered) }
        })
        .await;
    };
    let faults = trial.times(20);
    for fault in 0..faults {
        flows(100).await;
        tokio::time::sleep(Duration::from_millis(trial.rng.random_range(0..150))).await;
        if fault % 4 == 3 {
            registry.signal(Signal::STOP);
            tokio::time::sleep(Duration::from_millis(300)).await;
            registry.signal(Signal::CONT);
            continue;
        }
        registry.kill().await;
        // Whatever was on its way has taken effect by now, or never will.
        let dead = shared.now();
        for key in &shared.keys {
            for call in key.calls.lock().expect("not poisoned").iter_mut() {
                if call.answered == Answered::Lost && call.latest == u64::MAX {
                    call.latest = dead;
                }
            }
        }
        registry.begin().await;
    }
    flows(100).await;
    shared.stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    for (number, key) in shared.keys.iter().enumerate() {
        let calls = key.calls.lock().expect("not poisoned").clone();
        let lost = calls.iter().filter(|call| call.answered == Answered::Lost).count();
        println!("key {number}: {} calls, {lost} without an answer", calls.len());
        assert!(calls.len() > faults, "there was traffic");
        if let Err(best) = linear::check(&calls) {
            let explained: Vec<&Call> = best.iter().rev().take(5).rev().map(|&call| &calls[call]).collect();
            let end = explained.last().map_or(0, |call| call.from);
            let around: Vec<&Call> = calls
                .iter()
                .enumerate()
                .filter(|(call, around)| !best.contains(call) && around.from <= end.saturating_add(500_000_000))
                .map(|(_, call)| call)
                .collect();
            panic!("key {number} is not linearizable; explained up to {explained:#?}, but not {around:#?}");
        }
    }
}
