//! Expiry: what happens when owners fall silent. Who of them is held back is decided by [`super::protection`].

use std::sync::Arc;

use super::{
    Batch, Catalog, Change, LeaseChange, LeaseTime, Removal, Undo,
    leases::Lease,
    protection::{Due, Parts},
    undo::Step,
};
use crate::{
    limits,
    model::{Detail, LeaseId, Moment, RemovalReason, WallTime},
};

impl Catalog {
    /// Ends every lease whose deadline has come, many of them in one revision: a rack that dies is one or a few deltas to each
    /// watcher. The caller has looked at the clock, and has applied the renewals that were waiting. `draw` is fresh random bits.
    pub(crate) fn expire(&mut self, wall: WallTime, draw: u64) -> Vec<(Arc<Batch>, Undo)> {
        let now = self.clock.now();
        if self.recovering_until.is_some() || self.clock.is_stopped() || self.respite.lasts(now) {
            return Vec::new();
        }
        self.requests.forget_old(now);
        for id in self.leases.take_released() {
            self.groups.release(id);
        }
        let mut due = Vec::new();
        while let Some((id, at_last)) = self.leases.pop_due(now) {
            let parts = self.parts_of(id);
            due.push(Due { id, parts, at_last });
        }
        // What comes first must not depend on who stood where in the queue.
        due.sort_unstable_by_key(|due| due.id);
        let (lapses, held_back) = self.groups.judge(due, now, draw);
        for id in held_back {
            self.leases.hold(id, self.groups.longest());
        }

        let mut batches = Vec::new();
        let mut changes = Vec::new();
        let mut leases = Vec::new();
        let mut undo = Undo::default();
        for (id, charges) in lapses {
            let Some(lease) = self.leases.remove(id) else { continue };
            let detail = self.why(&lease, now);
            for key in lease.instances().iter().map(|instance| &instance.key) {
                let Some(instance) = self.take_instance(key, &mut undo) else {
                    continue;
                };
                changes.push(Change::Removed(Removal {
                    key: instance.key.clone(),
                    labels: instance.spec.labels.clone(),
                    reason: RemovalReason::Expired,
                    detail: detail.clone(),
                }));
            }
            leases.push(LeaseChange::Ended(id));
            undo.note(Step::Charged(charges));
            undo.note(Step::Ended(id, lease));
            if changes.len() >= limits::REMOVALS_PER_REVISION {
                let (changes, leases) = (std::mem::take(&mut changes), std::mem::take(&mut leases));
                let batch = self.seal(wall, changes, leases, &mut undo);
                batches.push((batch, std::mem::take(&mut undo)));
            }
        }
        if !leases.is_empty() {
            let batch = self.seal(wall, changes, leases, &mut undo);
            batches.push((batch, undo));
        }
        batches
    }

    /// How many instances of which service and zone a lease keeps.
    fn parts_of(&self, id: LeaseId) -> Parts {
        let instances = self.leases.get(id).map_or(&[][..], Lease::instances);
        self.groups.parts(instances)
    }

    fn why(&self, lease: &Lease, now: LeaseTime) -> Detail {
        let ttl = lease.ttl();
        let mut why = if self.leases.is_orphan(lease) {
            let owner = lease.terms.owner;
            format!("its replica {owner} died and no renewal of its {ttl:?} came to another")
        } else {
            format!("no renewal within {ttl:?}")
        };
        if lease.held {
            let seconds = lease.overdue(now).as_secs_f64();
            why.push_str(&format!(", held back for {seconds:.1} s by self-preservation"));
        }
        Detail::of(&why)
    }

    /// A grant has become durable: the lease's life begins now, not when a slow disk was asked.
    pub(crate) fn begin_life(&mut self, batch: &Batch) {
        let now = self.clock.now();
        for change in &batch.leases {
            if let LeaseChange::Kept(record) = change {
                self.leases.extend(record.id, now);
            }
        }
    }

    /// When [`Catalog::expire`] may next have something to do, if no pause comes between.
    pub(crate) fn next_due(&self) -> Option<Moment> {
        if self.clock.is_stopped() {
            return None;
        }
        let next = self.leases.next_due().into_iter().chain(self.groups.next_look()).min();
        let next = next.map(|due| due.max(self.respite.until()));
        let due: LeaseTime = match (next, self.recovering_until) {
            (Some(due), Some(until)) => due.max(until),
            (Some(due), None) => due,
            (None, Some(until)) => until,
            (None, None) => return None,
        };
        Some(self.clock.moment_of(due))
    }
}
