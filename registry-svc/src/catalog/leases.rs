//! The leases that live, and who is due when.
//!
//! Renewing is the hottest path of a registry, so it only writes the lease's deadline. The queue keeps for each lease the
//! deadline that it had when it was last queued: never later than the true one. What comes up early is queued again, which
//! happens at most once in a time to live.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use super::{LeaseRecord, LeaseTime, Owner, RenewError};
use crate::model::{Heartbeat, InstanceKey, LeaseId, ReplicaId, SecretHash};

/// A lease that lives.
#[derive(Debug)]
pub(super) struct Lease {
    secret: SecretHash,
    heartbeat: Heartbeat,
    owner: ReplicaId,
    deadline: LeaseTime,
    queued: LeaseTime,
    /// What it keeps.
    pub(super) instances: HashSet<InstanceKey>,
    /// What other leases have taken from it.
    pub(super) replaced: HashSet<InstanceKey>,
    /// See [`LeaseRecord::emptied`].
    pub(super) emptied: bool,
}

/// All leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_id: HashMap<LeaseId, Lease>,
    queue: BTreeSet<(LeaseTime, LeaseId)>,
}

impl Lease {
    /// How often it is renewed and how long it lives.
    pub(super) fn heartbeat(&self) -> Heartbeat {
        self.heartbeat
    }

    /// The last that it kept was taken: its owner is a process that has been succeeded. One that had something left and ended
    /// it itself has not been.
    pub(super) fn is_fenced(&self) -> bool {
        self.instances.is_empty() && !self.replaced.is_empty() && !self.emptied
    }

    /// What the store keeps of it.
    pub(super) fn record(&self, id: LeaseId) -> LeaseRecord {
        let mut replaced: Vec<InstanceKey> = self.replaced.iter().cloned().collect();
        // Hash order must not reach the disk: the same history gives the same bytes.
        replaced.sort_unstable();
        LeaseRecord {
            id,
            secret: self.secret,
            heartbeat: self.heartbeat,
            owner: self.owner,
            replaced,
            emptied: self.emptied,
        }
    }
}

impl Leases {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: LeaseId) -> Option<&mut Lease> {
        self.by_id.get_mut(&id)
    }

    /// The lease, if the caller owns it.
    pub(super) fn owned_by(&self, owner: &Owner) -> Option<&Lease> {
        self.by_id
            .get(&owner.lease)
            .filter(|lease| lease.secret == owner.secret)
    }

    /// A new lease, or one that a restart brings back.
    pub(super) fn insert(&mut self, record: LeaseRecord, now: LeaseTime) {
        let deadline = now.plus(record.heartbeat.ttl());
        let lease = Lease {
            secret: record.secret,
            heartbeat: record.heartbeat,
            owner: record.owner,
            deadline,
            queued: deadline,
            instances: HashSet::new(),
            replaced: record.replaced.into_iter().collect(),
            emptied: record.emptied,
        };
        if let Some(former) = self.by_id.insert(record.id, lease) {
            self.queue.remove(&(former.queued, record.id));
        }
        self.queue.insert((deadline, record.id));
    }

    /// Ends a lease.
    pub(super) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.by_id.remove(&id)?;
        self.queue.remove(&(lease.queued, id));
        Some(lease)
    }

    /// The owner is alive: its lease has its full time again.
    pub(super) fn renew(&mut self, owner: &Owner, now: LeaseTime) -> Result<Duration, RenewError> {
        let lease = self
            .by_id
            .get_mut(&owner.lease)
            .filter(|lease| lease.secret == owner.secret)
            .ok_or(RenewError::LeaseUnknown)?;
        if lease.is_fenced() {
            return Err(RenewError::LeaseFenced);
        }
        let ttl = lease.heartbeat.ttl();
        lease.deadline = now.plus(ttl);
        Ok(ttl)
    }

    /// The owner asks again for a lease that it was granted: like a renewal, from one who may not know the secret yet. Whether
    /// the lease lives. A fenced one lives but gains no time, for its owner has been succeeded.
    pub(super) fn revive(&mut self, id: LeaseId, now: LeaseTime) -> bool {
        let Some(lease) = self.by_id.get_mut(&id) else {
            return false;
        };
        if !lease.is_fenced() {
            lease.deadline = now.plus(lease.heartbeat.ttl());
        }
        true
    }

    /// Gives a lease its full time under its present or new terms.
    pub(super) fn extend(&mut self, id: LeaseId, heartbeat: Option<Heartbeat>, now: LeaseTime) {
        let Some(lease) = self.by_id.get_mut(&id) else { return };
        lease.heartbeat = heartbeat.unwrap_or(lease.heartbeat);
        lease.deadline = now.plus(lease.heartbeat.ttl());
        // Shorter terms may pull the deadline before the queued one, and the queue must never be late.
        if lease.deadline < lease.queued {
            self.queue.remove(&(lease.queued, id));
            lease.queued = lease.deadline;
            self.queue.insert((lease.queued, id));
        }
    }

    /// Takes the next lease whose deadline has come.
    pub(super) fn pop_lapsed(&mut self, now: LeaseTime) -> Option<(LeaseId, Lease)> {
        while let Some(&(queued, id)) = self.queue.first() {
            if queued > now {
                return None;
            }
            self.queue.pop_first();
            let Some(lease) = self.by_id.get_mut(&id) else { continue };
            if lease.deadline > now {
                lease.queued = lease.deadline;
                self.queue.insert((lease.queued, id));
                continue;
            }
            return self.by_id.remove(&id).map(|lease| (id, lease));
        }
        None
    }

    /// The earliest time at which a lease may be due.
    pub(super) fn next_due(&self) -> Option<LeaseTime> {
        self.queue.first().map(|(queued, _)| *queued)
    }

    /// Panics where the two structures disagree.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.queue.len(), self.by_id.len(), "each lease is queued once");
        for (id, lease) in &self.by_id {
            assert!(
                self.queue.contains(&(lease.queued, *id)),
                "{id} is queued where it says"
            );
            assert!(lease.queued <= lease.deadline, "{id} is never queued late");
            assert!(
                lease.instances.is_disjoint(&lease.replaced),
                "{id} has lost what it keeps"
            );
            assert!(
                !lease.emptied || lease.instances.is_empty(),
                "{id} keeps something again"
            );
        }
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&LeaseId, &Lease)> {
        self.by_id.iter()
    }
}
