//! The state machine of the registry: instances, leases, deadlines.
//!
//! Pure: commands, both clocks and everything random come in as arguments; answers and batches go out. It does not await,
//! read a clock, draw randomness, log or touch a disk. What it holds may be ahead of the disk, so nobody but the driver sees
//! it; readers see the `hub`, which is told only what is durable.
//!
//! Invariants, checked after every step of the property tests:
//! 1. An instance is kept by exactly one lease, that lease lives and lists it.
//! 2. A lease is queued exactly once, never later than its deadline.
//! 3. epoch ≤ revision of an instance ≤ revision of the catalog.
//! 4. A refused command changes nothing.
//! 5. Revisions of batches are consecutive.
//! 6. During recovery nothing lapses.

mod batch;
mod clock;
mod command;
mod expiry;
mod leases;
mod mutate;
mod register;
mod requests;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

pub(crate) use batch::{Batch, Change, LeaseChange, LeaseRecord, Removal};
use clock::LeaseClock;
pub(crate) use clock::{LeaseTime, PULSE};
pub(crate) use command::{
    CatalogError, Command, Deregister, LeaseChoice, Outcome, Owner, Register, Registered, RenewError, Reply, RequestId,
    Secret, Update,
};
use leases::Leases;
use requests::RecentRequests;

use crate::{
    limits,
    model::{Confidence, Instance, InstanceKey, Moment, Now, Revision, WallTime},
};

/// How much the whole registry may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    /// Instances.
    pub(crate) instances: usize,
    /// Leases.
    pub(crate) leases: usize,
}

/// How long after a restart nothing expires, at the most. Leases of a longer time to live outlast it anyway.
pub(crate) const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Catalog {
    capacity: Capacity,
    revision: Revision,
    instances: HashMap<InstanceKey, Arc<Instance>>,
    leases: Leases,
    clock: LeaseClock,
    requests: RecentRequests,
    recovering_until: Option<LeaseTime>,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            instances: limits::INSTANCES,
            leases: limits::LEASES,
        }
    }
}

impl Catalog {
    /// What a restart brings back, or nothing. Every lease has its full time from now; until the longest of them has passed
    /// (at most [`RECOVERY_MAX`]) nothing lapses, so that no owner is punished for the time the registry was away.
    pub(crate) fn restore(
        capacity: Capacity,
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
            capacity,
            revision,
            instances: HashMap::with_capacity(instances.len()),
            leases: Leases::default(),
            recovering_until: window.map(|window| clock.now().plus(window)),
            clock,
            requests: RecentRequests::default(),
        };
        for lease in leases {
            catalog.leases.insert(lease, catalog.clock.now());
        }
        for instance in instances {
            if let Some(lease) = catalog.leases.get_mut(instance.lease) {
                lease.instances.insert(instance.key.clone());
            }
            catalog.instances.insert(instance.key.clone(), Arc::clone(instance));
        }
        catalog
    }

    /// Applies a command. The caller has looked at the clock with [`Catalog::look`].
    pub(crate) fn apply(&mut self, command: Command, wall: WallTime) -> Outcome {
        let applied = match command {
            Command::Register(register) => self.register(register, wall),
            Command::Update(update) => self.update(update, wall),
            Command::Deregister(deregister) => self.deregister(&deregister, wall),
        };
        match applied {
            Ok((reply, batch)) => Outcome {
                reply: Ok(reply),
                batch,
            },
            Err(error) => Outcome {
                reply: Err(error),
                batch: None,
            },
        }
    }

    /// Tells the catalog the time; every input of the driver begins with it. Returns the length of a pause that it noticed,
    /// which counts against no lease.
    pub(crate) fn look(&mut self, now: Now) -> Option<Duration> {
        let pause = self.clock.look(now.moment);
        if self.recovering_until.is_some_and(|until| until <= self.clock.now()) {
            self.recovering_until = None;
        }
        pause
    }

    /// A heartbeat. It touches a deadline and nothing else.
    pub(crate) fn renew(&mut self, owner: &Owner) -> Result<Duration, RenewError> {
        self.leases.renew(owner, self.clock.now())
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

    /// Puts a finished revision on the record.
    fn seal(&mut self, wall: WallTime, changes: Vec<Change>, leases: Vec<LeaseChange>) -> Arc<Batch> {
        self.revision = self.revision.next();
        Arc::new(Batch {
            revision: self.revision,
            at: wall,
            changes,
            leases,
        })
    }

    /// Panics where an invariant of the module's list is broken.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        self.leases.check_invariants();
        self.requests.check_invariants();
        for (key, instance) in &self.instances {
            assert_eq!(*key, instance.key);
            let lease = self.leases.get(instance.lease).expect("an instance's lease lives");
            assert!(lease.instances.contains(key), "{key} is listed by its lease");
            assert!(
                instance.epoch.revision() <= instance.revision,
                "{key}: epoch after revision"
            );
            assert!(instance.revision <= self.revision, "{key} is of the future");
        }
        let listed: usize = self.leases.iter().map(|(_, lease)| lease.instances.len()).sum();
        assert_eq!(listed, self.instances.len(), "leases list nothing else");
        for (id, lease) in self.leases.iter() {
            assert!(
                lease.instances.len() + lease.replaced.len() <= limits::INSTANCES_PER_LEASE,
                "{id} is too large"
            );
        }
        assert!(self.instances.len() <= self.capacity.instances);
        assert!(self.leases.len() <= self.capacity.leases);
    }
}
