//! Owners of leases: one instance each, renewed over one KeepAlive stream, until some of them fall silent.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use proto::registry::v1::keep_alive_result::Outcome;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{
    RegistryProcess,
    wire::{self, Client},
};
use crate::wait;

/// See the module. They all fall silent when it is dropped.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    owners: Vec<Owner>,
    silent: Vec<Owner>,
    rounds: u64,
    lost: Vec<String>,
}

#[derive(Debug, Clone)]
struct Owner {
    id: String,
    lease: wire::RegisterResponse,
}

/// Renewals of one request: the registry's limit.
const ROUND: usize = 1_000;

impl Fleet {
    /// Registers `count` instances `NAME-0`, `NAME-1` … of `service`, each under a lease of its own.
    ///
    /// # Panics
    /// When one is refused.
    pub async fn start(registry: &RegistryProcess, service: &str, name: &str, count: usize, ttl: Duration) -> Self {
        let mut client = registry.client();
        let mut owners = Vec::with_capacity(count);
        let fleet = Self {
            shared: Arc::new(Mutex::new(State {
                owners: Vec::new(),
                silent: Vec::new(),
                rounds: 0,
                lost: Vec::new(),
            })),
            task: tokio::spawn(std::future::pending()),
        };
        for first in (0..count).step_by(64) {
            let registered = (first..count.min(first + 64)).map(|number| {
                let id = format!("{name}-{number}");
                let request = wire::leased([wire::instance(service, &id)], ttl);
                let mut client = client.clone();
                async move { (id, client.register(request).await.expect("registers").into_inner()) }
            });
            for (id, lease) in futures_util::future::join_all(registered).await {
                owners.push(Owner { id, lease });
            }
            // While the later ones register the earlier ones must live.
            let renewals: Vec<_> = owners.iter().map(|owner| wire::renewal(&owner.lease)).collect();
            for renewals in renewals.chunks(ROUND).map(<[_]>::to_vec) {
                let round = tokio_stream::once(wire::KeepAliveRequest { renewals });
                let mut answers = client.keep_alive(round).await.expect("renews").into_inner();
                answers.message().await.expect("renews");
            }
        }
        fleet.lock().owners = owners;
        let shared = Arc::clone(&fleet.shared);
        let channel = registry.channel();
        let task = tokio::spawn(renew(channel, ttl / 5, shared));
        Self {
            shared: Arc::clone(&fleet.shared),
            task,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.lock().expect("not poisoned")
    }

    /// Rounds of renewals that were answered in full.
    pub fn rounds(&self) -> u64 {
        self.lock().rounds
    }

    /// Those whom the registry has told to register again.
    pub fn lost(&self) -> Vec<String> {
        self.lock().lost.clone()
    }

    /// From now on the last `count` of them are silent. Returns their ids.
    pub fn silence(&self, count: usize) -> Vec<String> {
        let mut state = self.lock();
        let at = state.owners.len().saturating_sub(count);
        let silent = state.owners.split_off(at);
        let ids = silent.iter().map(|owner| owner.id.clone()).collect();
        state.silent.extend(silent);
        ids
    }

    /// The silent ones renew again.
    pub fn wake(&self) {
        let mut state = self.lock();
        let silent = std::mem::take(&mut state.silent);
        state.owners.extend(silent);
    }

    /// Waits until so many more rounds were answered.
    pub async fn beats(&self, more: u64) {
        let goal = self.rounds() + more;
        wait::until("heartbeats", || async {
            match self.rounds() {
                rounds if rounds >= goal => Ok(()),
                rounds => Err(format!("{rounds} of {goal} rounds")),
            }
        })
        .await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One stream after the other, for ever.
async fn renew(channel: Channel, every: Duration, shared: Arc<Mutex<State>>) {
    let mut client = Client::new(channel);
    loop {
        // One round at a time is on its way.
        let (requests, rounds) = mpsc::channel(1);
        if let Ok(answers) = client.keep_alive(ReceiverStream::new(rounds)).await {
            let mut answers = answers.into_inner();
            'stream: loop {
                let owners = shared.lock().expect("not poisoned").owners.clone();
                for owners in owners.chunks(ROUND) {
                    let renewals = owners.iter().map(|owner| wire::renewal(&owner.lease)).collect();
                    if requests.send(wire::KeepAliveRequest { renewals }).await.is_err() {
                        break 'stream;
                    }
                    let Ok(Some(answer)) = answers.message().await else {
                        break 'stream;
                    };
                    let mut state = shared.lock().expect("not poisoned");
                    for (owner, result) in owners.iter().zip(answer.results) {
                        if !matches!(result.outcome, Some(Outcome::Ttl(_))) {
                            state.lost.push(owner.id.clone());
                        }
                    }
                }
                shared.lock().expect("not poisoned").rounds += 1;
                tokio::time::sleep(every).await;
            }
        }
        // Between two attempts at a registry that is away.
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
