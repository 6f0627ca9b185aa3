//! Replicas over one log, whatever the order in which things reach them: the same revision and content everywhere, and every
//! answer as the log has it.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::stage::{Stage, Waiting, instances};
use crate::{
    catalog::{Batch, Catalog, Change, Command, Decision, Reply, Settings as CatalogSettings, Update},
    driver::{Clock, Driver, Settings},
    fixtures::{SharedLog, draft, grant, heartbeat, hub, join, key, owner},
    metrics::Metrics,
    model::{Epoch, Instance, InstanceKey, ReplicaId, Revision, Weight},
    store::{News, Verdict},
};

/// One thing that happens, to one of two replicas where it says so.
#[derive(Debug, Clone)]
enum Event {
    Register {
        at: usize,
        id: u8,
        name: u8,
    },
    Join {
        at: usize,
        id: u8,
        name: u8,
    },
    Update {
        at: usize,
        id: u8,
        name: u8,
        epoch: u8,
        weight: u32,
    },
    End {
        at: usize,
        id: u8,
    },
    Renew {
        at: usize,
        id: u8,
    },
    Drain {
        at: usize,
        name: u8,
        until: Option<i64>,
    },
    Undrain {
        at: usize,
        name: u8,
    },
    /// So many seconds pass on the wall.
    Wall {
        at: usize,
        seconds: i64,
    },
    /// What it has goes to the log; the verdict is on its way.
    Send {
        at: usize,
    },
    /// The verdict arrives.
    Verdict {
        at: usize,
    },
    /// So many revisions of the log arrive.
    News {
        at: usize,
        count: usize,
    },
    Away {
        at: usize,
    },
    Back {
        at: usize,
    },
    Full(bool),
    Pass {
        at: usize,
        millis: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let at = || 0..2_usize;
    let id = || 1..6_u8;
    let name = || 0..4_u8;
    prop_oneof![
        4 => (at(), id(), name()).prop_map(|(at, id, name)| Event::Register { at, id, name }),
        1 => (at(), id(), name()).prop_map(|(at, id, name)| Event::Join { at, id, name }),
        2 => (at(), id(), name(), 1..20_u8, 1..9_u32)
            .prop_map(|(at, id, name, epoch, weight)| Event::Update { at, id, name, epoch, weight }),
        2 => (at(), id()).prop_map(|(at, id)| Event::End { at, id }),
        2 => (at(), id()).prop_map(|(at, id)| Event::Renew { at, id }),
        2 => (at(), name(), proptest::option::of(1..9_i64))
            .prop_map(|(at, name, until)| Event::Drain { at, name, until }),
        1 => (at(), name()).prop_map(|(at, name)| Event::Undrain { at, name }),
        1 => (at(), 1..9_i64).prop_map(|(at, seconds)| Event::Wall { at, seconds }),
        6 => at().prop_map(|at| Event::Send { at }),
        6 => at().prop_map(|at| Event::Verdict { at }),
        6 => (at(), 1..4_usize).prop_map(|(at, count)| Event::News { at, count }),
        1 => at().prop_map(|at| Event::Away { at }),
        1 => at().prop_map(|at| Event::Back { at }),
        1 => any::<bool>().prop_map(Event::Full),
        3 => (at(), 1..3_000_u64).prop_map(|(at, millis)| Event::Pass { at, millis }),
    ]
}

/// A replica and its way to the log.
struct Replica {
    stage: Stage,
    verdict: Option<Verdict>,
    heard: Revision,
    waiting: Vec<Waiting>,
}

impl Replica {
    fn new(bits: u64) -> Self {
        Self {
            stage: Stage::of(ReplicaId::from_bits(bits)),
            verdict: None,
            heard: Revision::ZERO,
            waiting: Vec::new(),
        }
    }

    fn submit(&mut self, command: Command) {
        self.waiting.push(self.stage.submit(command));
    }

    fn send(&mut self, log: &SharedLog) -> bool {
        let Some(job) = self.stage.job() else { return false };
        assert!(self.verdict.is_none(), "one group at a time");
        self.verdict = Some(log.take(&job));
        true
    }

    fn hear(&mut self, log: &SharedLog, count: usize) {
        if !self.stage.core.takes_news() {
            return;
        }
        let mut batches = log.after(self.heard);
        batches.truncate(count);
        if let Some(last) = batches.last() {
            self.heard = last.revision;
            self.stage.others(&batches);
        }
    }

    /// Takes what has been answered, and holds it against the log.
    fn check(&mut self, log: &SharedLog) {
        self.stage.core.catalog.check_invariants();
        let shown = self.stage.hub.look(|view| view.revision());
        let durable = log.after(Revision::ZERO);
        assert!(durable.len() as u64 >= shown.get(), "nobody sees what is not durable");
        assert_eq!(
            fold(&durable[..usize::try_from(shown.get()).expect("fits")]),
            self.content()
        );
        for mut waiting in std::mem::take(&mut self.waiting) {
            if waiting.is_open() {
                self.waiting.push(waiting);
            }
        }
    }

    fn content(&self) -> BTreeMap<InstanceKey, Arc<Instance>> {
        let instances = instances(&self.stage.hub).into_iter();
        instances.map(|instance| (instance.key.clone(), instance)).collect()
    }
}

/// What a log comes to.
fn fold(batches: &[Arc<Batch>]) -> BTreeMap<InstanceKey, Arc<Instance>> {
    let mut content = BTreeMap::new();
    for change in batches.iter().flat_map(|batch| &batch.changes) {
        match change {
            Change::Put { instance, .. } => {
                content.insert(instance.key.clone(), Arc::clone(instance));
            }
            Change::Removed(removal) => {
                content.remove(&removal.key).expect("what leaves was there");
            }
        }
    }
    content
}

fn happen(replicas: &mut [Replica; 2], log: &SharedLog, event: &Event) {
    let instance = |name: &u8| draft("a", &name.to_string(), "");
    match event {
        Event::Register { at, id, name } => {
            let command = grant((*id).into(), heartbeat(1_000), vec![instance(name)]);
            replicas[*at].submit(Command::Register(command));
        }
        Event::Join { at, id, name } => {
            let command = join((*id).into(), vec![instance(name)]);
            replicas[*at].submit(Command::Register(command));
        }
        Event::Update {
            at,
            id,
            name,
            epoch,
            weight,
        } => replicas[*at].submit(Command::Update(Update {
            owner: owner((*id).into()),
            key: key("a", &name.to_string()),
            epoch: Epoch::of(Revision::new((*epoch).into())),
            weight: Some(Weight::try_new(*weight).expect("a weight")),
            status: None,
            metadata: None,
        })),
        Event::End { at, id } => {
            let waiting = replicas[*at].stage.end((*id).into());
            replicas[*at].waiting.push(waiting);
        }
        Event::Renew { at, id } => drop(replicas[*at].stage.renew((*id).into())),
        Event::Drain { at, name, until } => {
            let waiting = replicas[*at].stage.drain(&name.to_string(), *until);
            replicas[*at].waiting.push(waiting);
        }
        Event::Undrain { at, name } => {
            let waiting = replicas[*at].stage.govern(&name.to_string(), Decision::Undrain);
            replicas[*at].waiting.push(waiting);
        }
        Event::Wall { at, seconds } => replicas[*at].stage.wall += seconds,
        Event::Send { at } => drop(replicas[*at].send(log)),
        Event::Verdict { at } => {
            if let Some(verdict) = replicas[*at].verdict.take() {
                replicas[*at].stage.verdict(verdict);
            }
        }
        Event::News { at, count } => replicas[*at].hear(log, *count),
        Event::Away { at } => replicas[*at].stage.away(1_000),
        Event::Back { at } => replicas[*at].stage.news(News::Back),
        Event::Full(full) => log.set_full(*full),
        Event::Pass { at, millis } => replicas[*at].stage.pass(*millis),
    }
}

/// The faults stop; everything arrives.
fn heal(replicas: &mut [Replica; 2], log: &SharedLog) {
    log.set_full(false);
    for _ in 0..100 {
        let mut busy = false;
        for replica in replicas.iter_mut() {
            if let Some(verdict) = replica.verdict.take() {
                replica.stage.verdict(verdict);
            }
            replica.hear(log, usize::MAX);
            replica.stage.news(News::Back);
            busy |= replica.send(log);
        }
        let behind = |replica: &Replica| !log.after(replica.heard).is_empty() || !replica.stage.core.is_settled();
        if !busy && !replicas.iter().any(behind) {
            return;
        }
    }
    panic!("it does not settle");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn replicas_end_in_the_same_state(events in prop::collection::vec(event(), 1..80)) {
        let log = SharedLog::default();
        let mut replicas = [Replica::new(1), Replica::new(2)];
        for event in &events {
            happen(&mut replicas, &log, event);
            for replica in &mut replicas {
                replica.check(&log);
            }
        }
        heal(&mut replicas, &log);
        for replica in &mut replicas {
            replica.check(&log);
            prop_assert!(replica.waiting.is_empty(), "everybody is answered");
        }
        let [one, other] = &replicas;
        prop_assert_eq!(one.stage.revision(), other.stage.revision());
        prop_assert_eq!(one.content(), other.content());
        prop_assert_eq!(one.stage.core.catalog.leases(), other.stage.core.catalog.leases());
    }
}

/// The same over the real thing: two drivers, their threads and channels, racing for one log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_drivers_race_for_one_log() {
    const EACH: u128 = 200;
    let log = SharedLog::default();
    let stop = CancellationToken::new();
    let mut drivers = tokio::task::JoinSet::new();
    let mut callers = tokio::task::JoinSet::new();
    let mut hubs = Vec::new();
    for bits in [1, 2] {
        let shown = Arc::new(hub(&[], false));
        let clock = Clock::start();
        let settings = CatalogSettings {
            own: ReplicaId::from_bits(bits),
            ..CatalogSettings::default()
        };
        let catalog = Catalog::restore(settings, Revision::ZERO, Vec::new(), &[], clock.now().moment);
        let (driver, handle) = Driver::new(
            catalog,
            Arc::clone(&shown),
            log.join(),
            clock,
            Metrics::new(),
            Settings::default(),
            stop.clone(),
        )
        .expect("a thread");
        drivers.spawn(driver.run());
        hubs.push(shown);
        for n in 0..EACH {
            let handle = handle.clone();
            callers.spawn(async move {
                let lease = u128::from(bits) * 1_000 + n;
                let register = grant(lease, heartbeat(3_600_000), vec![draft("a", &(n % 50).to_string(), "")]);
                match handle.submit(Command::Register(register)).await.expect("registers") {
                    Reply::Registered(registered) => registered.revision,
                    other => panic!("{other:?}"),
                }
            });
        }
    }
    let mut revisions: Vec<u64> = callers.join_all().await.into_iter().map(Revision::get).collect();
    revisions.sort_unstable();
    assert_eq!(
        revisions,
        (1..=2 * EACH as u64).collect::<Vec<_>>(),
        "each change has a revision of its own"
    );
    for shown in &hubs {
        while shown.look(|view| view.revision()).get() < 2 * EACH as u64 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(instances(&hubs[0]), instances(&hubs[1]));
    stop.cancel();
    for ended in drivers.join_all().await {
        ended.expect("stops");
    }
}
