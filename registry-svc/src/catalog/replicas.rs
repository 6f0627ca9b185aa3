//! The catalog among its like: what other replicas have committed, who is there, and whose leases are whose.

use std::sync::Arc;

use super::{Batch, Catalog, Change, LeaseChange, LeaseRecord, Owner, Reply, Undo, leases::LeaseTerms, undo::Step};
use crate::model::{LeaseId, Now, RemovalReason, ReplicaId, Replicas, WallTime};

impl Catalog {
    /// Applies a batch that another replica has committed. Its revision is the one after ours.
    pub(crate) fn follow(&mut self, batch: &Batch) {
        debug_assert_eq!(batch.revision, self.revision.next(), "revisions are consecutive");
        // Before the instances that it is to keep.
        for change in &batch.leases {
            match change {
                LeaseChange::Kept(record) | LeaseChange::Lost(record) => self.follow_lease(record),
                LeaseChange::Ended(_) => {}
            }
        }
        for change in &batch.changes {
            match change {
                Change::Put { instance, .. } => drop(self.insert_instance(Arc::clone(instance))),
                Change::Removed(removal) => {
                    if removal.reason == RemovalReason::Expired
                        && let Some(instance) = self.instances.get(&removal.key)
                    {
                        self.groups.lapsed_elsewhere(&instance.0, self.clock.now());
                    }
                    self.remove_instance(&removal.key);
                }
            }
        }
        self.follow_overrides(&batch.overrides);
        for change in &batch.leases {
            match change {
                LeaseChange::Ended(id) => drop(self.leases.remove(*id)),
                LeaseChange::Lost(record) => drop(self.leases.hasten_if_fenced(record.id, self.clock.now())),
                // It tells that the owner is alive.
                LeaseChange::Kept(record) => self.leases.extend(record.id, self.clock.now()),
            }
        }
        self.revision = batch.revision;
    }

    fn follow_lease(&mut self, record: &LeaseRecord) {
        let now = self.clock.now();
        if self.leases.get(record.id).is_none() {
            self.leases.insert(record.clone(), now);
            return;
        }
        let terms = LeaseTerms {
            heartbeat: record.heartbeat,
            owner: record.owner,
            emptied: record.emptied,
        };
        self.leases.set_terms(record.id, terms, now);
        if let Some(lease) = self.leases.get_mut(record.id) {
            // What it keeps is told by the instances themselves.
            lease.set_all_lost(record.replaced.iter().cloned());
        }
    }

    /// Who is there. The time of a dead replica's leases is counted by the elected one: their full time and a grace, from the
    /// later of its election and the death that it saw, so that nobody is charged for a time in which nobody listened.
    pub(crate) fn replicas(&mut self, replicas: &Replicas) {
        self.leases.set_replicas(replicas, self.clock.now());
        // Who joins others that have never stopped has nobody to wait for.
        if self.leases.all_are_heard() {
            self.recovering_until = None;
        }
    }

    /// This replica.
    pub(crate) fn own(&self) -> ReplicaId {
        self.leases.own()
    }

    /// Makes this replica the one that hears the heartbeats of some leases. Those that have ended meanwhile, or are ours, are
    /// passed over: their owners hear the one by the next renewal, and nothing of the other.
    pub(super) fn claim(&mut self, owners: &[Owner], wall: WallTime, undo: &mut Undo) -> (Reply, Option<Arc<Batch>>) {
        let mut leases = Vec::new();
        for owner in owners {
            let Some(lease) = self.leases.owned_by(owner).filter(|lease| !lease.is_fenced()) else {
                continue;
            };
            let terms = LeaseTerms {
                owner: self.leases.own(),
                ..lease.terms
            };
            // Asked for twice, as it may be: renewals come in faster than a commit.
            if terms == lease.terms {
                continue;
            }
            self.set_terms(owner.lease, terms, undo);
            let record = self.leases.get(owner.lease).map(|lease| lease.record(owner.lease));
            leases.extend(record.map(LeaseChange::Kept));
        }
        let batch = (!leases.is_empty()).then(|| self.seal(wall, Vec::new(), leases, undo));
        (Reply::Claimed, batch)
    }

    /// Changes the terms of a lease, in a way that can be taken back.
    pub(super) fn set_terms(&mut self, id: LeaseId, terms: LeaseTerms, undo: &mut Undo) {
        let now = self.clock.now();
        if let Some(before) = self.leases.set_terms(id, terms, now)
            && before != terms
        {
            if before.owner != terms.owner {
                self.leases.take_over(id, now);
            }
            undo.note(Step::Terms(id, before));
        }
    }

    /// The store cannot be reached. Lease time stands still from now on: nothing could be committed of what would lapse.
    pub(crate) fn away(&mut self) {
        self.clock.stop();
    }

    /// The store is there again: every lease has what it had, or more where it was renewed meanwhile. Orphans have their full
    /// time and the grace anew: their replica may have been back, and heard them, and have died once more.
    pub(crate) fn back(&mut self, now: Now) {
        self.clock.go(now.moment);
        self.leases.restart_orphans(self.clock.now());
    }
}
