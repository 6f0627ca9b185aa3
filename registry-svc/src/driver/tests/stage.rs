//! One [`Core`] on a stage: the test is its clients, its store and its clock.

use std::{ops::Bound, sync::Arc, time::Duration};

use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::{
    access::Bounds,
    catalog::{
        Batch, Catalog, Command, Decision, Deregister, Govern, Owner, RenewError, Renewed, Reply,
        Settings as CatalogSettings,
    },
    driver::{Answer, Core, DriverError, NotRenewed, Settings, SubmitError, core::Job},
    fixtures::{WALL, draft, end, grant, heartbeat, hub, key, now, owner, scope},
    hub::Hub,
    metrics::Metrics,
    model::{Confidence, Detail, Instance, Now, PeerKey, ReplicaId, Replicas, Revision, WallTime, Who},
    store::{News, Verdict},
};

/// Not the beginning of time, so that there is a before.
const START: u64 = 10_000;

/// See the module.
pub(super) struct Stage {
    pub(super) core: Core,
    pub(super) hub: Arc<Hub>,
    pub(super) millis: u64,
    /// Seconds by which the clock on the wall is ahead of [`WALL`].
    pub(super) wall: i64,
}

/// An answer that may have come.
pub(super) struct Waiting(oneshot::Receiver<Answer>);

impl Stage {
    /// Alone with its store.
    pub(super) fn new() -> Self {
        Self::of(ReplicaId::ALONE)
    }

    /// One of several replicas.
    pub(super) fn of(own: ReplicaId) -> Self {
        let hub = Arc::new(hub(&[], false));
        let settings = CatalogSettings {
            own,
            ..CatalogSettings::default()
        };
        let start = now(START).moment;
        let catalog = Catalog::restore(settings, Revision::ZERO, Vec::new(), &[], start);
        let core = Core::new(catalog, Arc::clone(&hub), Metrics::new(), Settings::default(), start);
        let mut stage = Self {
            core,
            hub,
            millis: START,
            wall: 0,
        };
        if own != ReplicaId::ALONE {
            let replicas = Replicas {
                own,
                alive: [ReplicaId::from_bits(1), ReplicaId::from_bits(2)].into(),
                elected: own == ReplicaId::from_bits(1),
            };
            stage.news(News::Replicas(replicas));
        }
        stage
    }

    pub(super) fn now(&mut self) -> Now {
        let mut now = now(self.millis);
        now.wall.seconds += self.wall;
        self.core.look(now);
        now
    }

    pub(super) fn submit(&mut self, command: Command) -> Waiting {
        let (caller, answer) = oneshot::channel();
        let now = self.now();
        self.core.mutate(command, caller, now);
        Waiting(answer)
    }

    /// Under the new lease number `n`.
    pub(super) fn register(&mut self, n: u128, id: &str) -> Waiting {
        self.submit(Command::Register(grant(n, heartbeat(1_000), vec![draft("a", id, "")])))
    }

    /// Takes an instance out until so many seconds after [`WALL`], or for good.
    pub(super) fn drain(&mut self, id: &str, until: Option<i64>) -> Waiting {
        let until = until.map(|seconds| WallTime {
            seconds: WALL.seconds + seconds,
            ..WALL
        });
        self.govern(id, Decision::Drain { until })
    }

    /// Has an operator decide.
    pub(super) fn govern(&mut self, id: &str, decision: Decision) -> Waiting {
        self.submit(Command::Govern(Govern {
            key: key("a", id),
            decision,
            who: Who::of("ann"),
            why: Detail::of("a disk"),
        }))
    }

    /// Whether readers are told that it takes calls; `None`: it is not there.
    pub(super) fn is_callable(&self, id: &str) -> Option<bool> {
        let found = self.hub.look(|view| view.get(&key("a", id)));
        found.map(|instance| instance.is_callable())
    }

    /// Ends the lease number `n`.
    pub(super) fn end(&mut self, n: u128) -> Waiting {
        let all = Deregister {
            owner: owner(n),
            ..end(n, &[])
        };
        self.submit(Command::Deregister(all))
    }

    /// What goes to the store now, if anything.
    pub(super) fn job(&mut self) -> Option<Job> {
        let now = self.now();
        self.core.next_job(now)
    }

    /// What goes to the store now.
    pub(super) fn batches(&mut self) -> Vec<Arc<Batch>> {
        self.job().expect("something is to be committed").batches
    }

    pub(super) fn verdict(&mut self, verdict: Verdict) {
        let now = self.now();
        self.core.committed(verdict, Duration::ZERO, now, 0).expect("goes on");
    }

    /// Has all of it committed until nothing is left.
    pub(super) fn commit_all(&mut self) {
        while self.job().is_some() {
            self.verdict(Verdict::Durable);
        }
    }

    pub(super) fn try_news(&mut self, news: News) -> Result<(), DriverError> {
        let now = self.now();
        self.core.news(news, now)
    }

    pub(super) fn news(&mut self, news: News) {
        self.try_news(news).expect("goes on");
    }

    /// Another replica has committed these.
    pub(super) fn others(&mut self, batches: &[Arc<Batch>]) {
        self.news(News::Batches(batches.to_vec()));
    }

    /// Registers an instance under a lease, and returns what that committed.
    pub(super) fn commits(&mut self, n: u128, id: &str) -> Vec<Arc<Batch>> {
        let granted = self.register(n, id);
        let batches = self.batches();
        self.verdict(Verdict::Durable);
        granted.ok();
        batches
    }

    pub(super) fn away(&mut self, since_millis: u64) {
        self.news(News::Away {
            since: Duration::from_millis(since_millis),
        });
    }

    /// Time passes, in pulses.
    pub(super) fn pass(&mut self, millis: u64) {
        let end = self.millis + millis;
        while self.millis < end {
            self.millis = end.min(self.millis + 100);
            let now = self.now();
            self.core.pulse(now, 0);
        }
    }

    pub(super) fn renew(&mut self, n: u128) -> Result<Renewed, RenewError> {
        let owners: [Owner; 1] = [owner(n)];
        self.now();
        self.core.renew(&owners, None)[0]
    }

    /// As a stream does it: the answer may have to wait.
    pub(super) fn hear(&mut self, n: u128) -> oneshot::Receiver<Vec<Result<Renewed, NotRenewed>>> {
        self.hear_all(&[n])
    }

    /// Several in one round.
    pub(super) fn hear_all(&mut self, leases: &[u128]) -> oneshot::Receiver<Vec<Result<Renewed, NotRenewed>>> {
        self.hear_from(None, leases)
    }

    /// From somebody.
    pub(super) fn hear_from(
        &mut self,
        peer: Option<PeerKey>,
        leases: &[u128],
    ) -> oneshot::Receiver<Vec<Result<Renewed, NotRenewed>>> {
        self.hear_within(None, peer, leases)
    }

    /// From somebody who may be bound to certain services.
    pub(super) fn hear_within(
        &mut self,
        within: Option<Bounds>,
        peer: Option<PeerKey>,
        leases: &[u128],
    ) -> oneshot::Receiver<Vec<Result<Renewed, NotRenewed>>> {
        let (caller, answer) = oneshot::channel();
        self.now();
        let owners = leases.iter().copied().map(owner).collect();
        self.core.hear(owners, within, peer, caller);
        answer
    }

    pub(super) fn confidence(&self) -> Confidence {
        crate::fixtures::confidence(&self.hub, now(self.millis))
    }

    pub(super) fn revision(&self) -> u64 {
        self.hub.look(|view| view.revision()).get()
    }

    /// What readers see.
    pub(super) fn instances(&self) -> Vec<Arc<Instance>> {
        instances(&self.hub)
    }

    /// The ids of what readers see.
    pub(super) fn ids(&self) -> Vec<String> {
        self.instances()
            .iter()
            .map(|instance| instance.key.id.to_string())
            .collect()
    }
}

impl Waiting {
    /// Whether no answer has come.
    pub(super) fn is_open(&mut self) -> bool {
        match self.0.try_recv() {
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Closed) => panic!("the caller was forgotten"),
            Ok(_) => false,
        }
    }

    /// The answer, which has come.
    pub(super) fn answer(mut self) -> Answer {
        self.0.try_recv().expect("answered")
    }

    pub(super) fn ok(self) -> Reply {
        self.answer().expect("is done")
    }

    pub(super) fn err(self) -> SubmitError {
        self.answer().expect_err("is refused")
    }
}

/// What readers see.
pub(super) fn instances(hub: &Hub) -> Vec<Arc<Instance>> {
    let scope = scope("").scope;
    let services = hub.look(|view| view.services(&scope, Bound::Unbounded, usize::MAX));
    services.iter().flat_map(|(_, view)| view.values().cloned()).collect()
}
