//! The state machine of the registry: instances, leases, deadlines.
//!
//! Pure: commands, both clocks and everything random come in as arguments; answers and batches go out. It does not await,
//! read a clock, draw randomness, log or touch a disk. What it holds may be ahead of the disk, so nobody but the driver sees
//! it; readers see the `hub`, which is told only what is durable.
//!
//! Invariants, checked after every step of the property tests:
//! 1. An instance is kept by exactly one lease, that lease lives and lists it.
//! 2. A lease is queued at most once, never later than its deadline.
//! 3. epoch ≤ revision of an instance ≤ revision of the catalog.
//! 4. A refused command changes nothing.
//! 5. Revisions of batches are consecutive.
//! 6. During recovery, while the store is away, and shortly after a pause nothing lapses.
//! 7. A lease has a place in the queue exactly where its time is counted here: it is this replica's own, or an orphan and this
//!    replica is elected.
//! 8. Self-preservation's sums are what a recount gives; a group that protects loses no more than its budget in a window, and
//!    nothing is held back for longer than the longest time.
//! 9. An instance carries what is laid over its name, and nothing else; what is laid over names that nobody has registered is
//!    bounded.
//! 10. What is undone was never there; only renewals and what else is a sign of life stay, and only where they make a lease due later,
//!     and windows of self-preservation, without what is undone.

mod batch;
mod clock;
mod command;
mod expiry;
mod govern;
mod judge;
mod leases;
mod mutate;
mod overrides;
mod protection;
mod register;
mod replicas;
mod requests;
mod respite;
#[cfg(test)]
mod tests;
mod undo;
mod wheel;

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashSet},
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

pub(crate) use batch::{Batch, Change, LeaseChange, LeaseRecord, OverrideChange, Removal};
use clock::LeaseClock;
pub(crate) use clock::{LeaseTime, PULSE};
pub(crate) use command::{
    Asked, Beat, CatalogError, Command, Decision, Deregister, Govern, Judge, LeaseChoice, Names, Outcome, Owner,
    Register, Registered, RenewError, Renewed, Reply, RequestId, Secret, Update,
};
use leases::Leases;
use overrides::Overrides;
use protection::Groups;
pub(crate) use protection::{Protection, ProtectionStatus};
use requests::RecentRequests;
use respite::Respite;
use undo::Step;
pub(crate) use undo::Undo;

use crate::{
    access::Bounds,
    limits,
    model::{
        Confidence, Instance, InstanceKey, LeaseId, Moment, Now, ReplicaId, Revision, ServiceKey, Shared, WallTime,
    },
};

/// What replicas must agree on: the instances, of the leases what the store keeps, and what operators have laid over names.
#[cfg(test)]
pub(crate) type Content = (
    std::collections::BTreeMap<InstanceKey, Arc<Instance>>,
    std::collections::BTreeMap<LeaseId, LeaseRecord>,
    std::collections::BTreeMap<InstanceKey, Arc<crate::model::Override>>,
);

/// How much the whole registry may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    /// Instances.
    pub(crate) instances: usize,
    /// Instances of one registrant; `None`: as many as there is room for.
    pub(crate) instances_of_registrant: Option<usize>,
    /// Leases.
    pub(crate) leases: usize,
    /// Overrides of instances that are not registered, of one service.
    pub(crate) overrides_of_service: usize,
    /// Overrides of instances that are not registered, of all services.
    pub(crate) overrides: usize,
}

/// How a catalog is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// This replica.
    pub(crate) own: ReplicaId,
    /// How much it may hold.
    pub(crate) capacity: Capacity,
    /// What the leases of a replica that has died are given beyond their time to live: their owners have to notice, find
    /// another replica and perhaps stand in line there. A lease that moves is given it too, once.
    pub(crate) orphan_grace: Duration,
    /// Self-preservation.
    pub(crate) protection: Protection,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            own: ReplicaId::ALONE,
            capacity: Capacity::default(),
            orphan_grace: Duration::from_secs(10),
            protection: Protection::default(),
        }
    }
}

/// How long after a restart nothing expires, at the most. Leases of a longer time to live outlast it anyway.
pub(crate) const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Catalog {
    capacity: Capacity,
    revision: Revision,
    instances: HashSet<Held>,
    /// What they have in common.
    shared: Shared,
    leases: Leases,
    overrides: Overrides,
    clock: LeaseClock,
    requests: RecentRequests,
    recovering_until: Option<LeaseTime>,
    respite: Respite,
    groups: Groups,
}

/// An instance, found by its name.
#[derive(Debug)]
struct Held(Arc<Instance>);

impl Borrow<InstanceKey> for Held {
    fn borrow(&self) -> &InstanceKey {
        &self.0.key
    }
}

impl Hash for Held {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Held {}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            instances: limits::INSTANCES,
            instances_of_registrant: None,
            leases: limits::LEASES,
            overrides_of_service: limits::OVERRIDES_KEPT_OF_SERVICE,
            overrides: limits::OVERRIDES_KEPT,
        }
    }
}

impl Catalog {
    /// What a restart brings back, or nothing. Every lease has its full time from now; until the longest of them has passed
    /// (at most [`RECOVERY_MAX`]) nothing lapses, so that no owner is punished for the time the registry was away.
    pub(crate) fn restore(
        settings: Settings,
        revision: Revision,
        leases: Vec<LeaseRecord>,
        instances: &[Arc<Instance>],
        now: Moment,
    ) -> Self {
        let clock = LeaseClock::new(now);
        let window = leases
            .iter()
            .map(|lease| lease.heartbeat.ttl())
            .max()
            .map(|ttl| ttl.min(RECOVERY_MAX));
        let mut catalog = Self {
            capacity: settings.capacity,
            revision,
            instances: HashSet::with_capacity(instances.len()),
            shared: Shared::default(),
            leases: Leases::new(settings.own, settings.orphan_grace, clock.now()),
            overrides: Overrides::default(),
            recovering_until: window.map(|window| clock.now().plus(window)),
            respite: Respite::over(clock.now()),
            clock,
            requests: RecentRequests::default(),
            groups: Groups::new(settings.protection),
        };
        for mut lease in leases {
            // Whatever replicas there were before: who is alone hears everybody.
            if settings.own == ReplicaId::ALONE {
                lease.owner = settings.own;
            }
            catalog.leases.insert(lease, catalog.clock.now());
        }
        for instance in instances {
            catalog.shared.learn(instance);
            catalog.insert_instance(Arc::clone(instance));
        }
        // Only now is it known who keeps nothing.
        catalog.leases.begin_again(catalog.clock.now());
        catalog
    }

    /// Applies a command. The caller has looked at the clock with [`Catalog::look`].
    pub(crate) fn apply(&mut self, command: &Command, wall: WallTime) -> Outcome {
        let mut undo = Undo::default();
        let applied = match command {
            Command::Register(register) => self.register(register, wall, &mut undo),
            Command::Update(update) => self.update(update, wall, &mut undo),
            Command::Deregister(deregister) => self.deregister(deregister, wall, &mut undo),
            Command::Govern(govern) => self.govern(govern, wall, &mut undo),
            Command::Judge(judge) => self.judge(judge, wall, &mut undo),
            Command::Claim(owners) => Ok(self.claim(owners, wall, &mut undo)),
        };
        let (reply, batch) = match applied {
            Ok((reply, batch)) => (Ok(reply), batch),
            Err(error) => (Err(error), None),
        };
        Outcome { reply, batch, undo }
    }

    /// Tells the catalog the time; every input of the driver begins with it. Returns the length of a pause that it noticed,
    /// which counts against no lease, and after which nothing lapses for a little while.
    pub(crate) fn look(&mut self, now: Now) -> Option<Duration> {
        let pause = self.clock.look(now.moment);
        if let Some(pause) = pause {
            self.respite.begin(self.clock.now(), pause);
        }
        if self.recovering_until.is_some_and(|until| until <= self.clock.now()) {
            self.recovering_until = None;
        }
        pause
    }

    /// A heartbeat. It touches a deadline and nothing else.
    pub(crate) fn renew(&mut self, owner: &Owner) -> Result<Renewed, RenewError> {
        self.leases.renew(owner, self.clock.now())
    }

    /// The same from one who may be bound to certain services. Where it is this costs a look at each name of the lease: a caller
    /// who remembers [`Renewed::names`] need not say what binds it while they are the same.
    pub(crate) fn renew_within(&mut self, owner: &Owner, within: Option<&Bounds>) -> Result<Renewed, RenewError> {
        if within.is_some()
            && let Some(lease) = self.leases.owned_by(owner)
            && !lease.is_within(within)
        {
            return Err(RenewError::NotCovered);
        }
        self.renew(owner)
    }

    /// The stream that carried these renewals broke, which is how a process that dies looks from here. Its owner is alive if it
    /// renews by any way within one heartbeat interval and `slack`; that is all it is given, instead of all the misses that its
    /// lease allows. Who was heard elsewhere since is not touched, nor is who belongs to another replica. Returns how many
    /// leases are now due earlier.
    pub(crate) fn suspect(&mut self, heard: &[(LeaseId, Beat)], slack: Duration) -> usize {
        let now = self.clock.now();
        let suspected = heard
            .iter()
            .filter(|(lease, beat)| self.leases.suspect(*lease, *beat, slack, now));
        suspected.count()
    }

    /// How many instances there are.
    pub(crate) fn instances(&self) -> usize {
        self.instances.len()
    }

    /// How many leases live.
    pub(crate) fn leases(&self) -> usize {
        self.leases.len()
    }

    /// How far answers can be trusted.
    pub(crate) fn confidence(&self) -> Confidence {
        match self.recovering_until {
            Some(_) => Confidence::Recovering,
            None => Confidence::Fresh,
        }
    }

    /// The services whose expiry is slowed down. The same `Arc` while nothing of it has changed.
    pub(crate) fn protecting(&self) -> Arc<BTreeSet<ServiceKey>> {
        self.groups.protecting()
    }

    /// How self-preservation stands, for metrics.
    pub(crate) fn protection(&self) -> ProtectionStatus {
        self.groups.status()
    }

    /// An instance by its name.
    fn instance(&self, key: &InstanceKey) -> Option<&Arc<Instance>> {
        self.instances.get(key).map(|held| &held.0)
    }

    /// All ways that lead an instance in pass here: its lease keeps it from now on, and whichever kept one of this name does not.
    fn insert_instance(&mut self, instance: Arc<Instance>) -> Option<Arc<Instance>> {
        self.groups.came(&instance);
        self.overrides.came(&instance.key);
        self.leases.keep(&instance);
        let lease = instance.lease;
        let former = self.instances.replace(Held(instance))?.0;
        self.groups.went(&former);
        if former.lease != lease {
            self.leases.lose(&former);
        }
        Some(former)
    }

    /// And all that lead out.
    fn remove_instance(&mut self, key: &InstanceKey) -> Option<Arc<Instance>> {
        let former = self.instances.take(key)?.0;
        self.groups.went(&former);
        self.overrides.went(key);
        self.leases.lose(&former);
        Some(former)
    }

    /// Puts a finished revision on the record.
    fn seal(&mut self, wall: WallTime, changes: Vec<Change>, leases: Vec<LeaseChange>, undo: &mut Undo) -> Arc<Batch> {
        let overrides = self.prune_overrides(&changes, undo);
        self.seal_with(wall, changes, leases, overrides, undo)
    }

    fn seal_with(
        &mut self,
        wall: WallTime,
        changes: Vec<Change>,
        leases: Vec<LeaseChange>,
        overrides: Vec<OverrideChange>,
        undo: &mut Undo,
    ) -> Arc<Batch> {
        undo.note(Step::Sealed(self.revision));
        self.revision = self.revision.next();
        Arc::new(Batch {
            revision: self.revision,
            at: wall,
            changes,
            leases,
            overrides,
            by: None,
            trace: None,
        })
    }

    /// What it holds, in order.
    #[cfg(test)]
    pub(crate) fn content(&self) -> Content {
        let instances = self.instances.iter();
        let instances = instances.map(|held| (held.0.key.clone(), Arc::clone(&held.0)));
        let leases = self.leases.iter().map(|(id, lease)| (*id, lease.record(*id)));
        let overrides = self.overrides.iter();
        let overrides = overrides.map(|(key, laid)| (key.clone(), Arc::clone(laid)));
        (instances.collect(), leases.collect(), overrides.collect())
    }

    /// Panics where an invariant of the module's list is broken.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        self.leases.check_invariants();
        self.requests.check_invariants();
        self.groups.check_invariants(self.instances.iter().map(|held| &*held.0));
        let most = (self.capacity.overrides_of_service, self.capacity.overrides);
        self.overrides
            .check_invariants(|key| self.instances.contains(key), most);
        for Held(instance) in &self.instances {
            let key = &instance.key;
            assert_eq!(
                instance.governance.as_ref(),
                self.overrides.get(key),
                "{key} carries what is laid over it"
            );
            let lease = self.leases.get(instance.lease).expect("an instance's lease lives");
            let kept = lease.instances().iter().find(|kept| kept.key == *key);
            assert!(
                kept.is_some_and(|kept| Arc::ptr_eq(kept, instance)),
                "{key} is kept by its lease"
            );
            assert!(
                instance.epoch.revision() <= instance.revision,
                "{key}: epoch after revision"
            );
            assert!(instance.revision <= self.revision, "{key} is of the future");
        }
        let listed: usize = self.leases.iter().map(|(_, lease)| lease.instances().len()).sum();
        assert_eq!(listed, self.instances.len(), "leases list nothing else");
        for (id, lease) in self.leases.iter() {
            assert!(lease.names() <= limits::INSTANCES_PER_LEASE, "{id} is too large");
        }
        assert!(self.instances.len() <= self.capacity.instances);
        assert!(self.leases.len() <= self.capacity.leases);
    }
}
