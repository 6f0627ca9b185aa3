//! Expiry: what happens when owners fall silent.

use std::sync::Arc;

use super::{Batch, Catalog, Change, LeaseChange, LeaseTime, Removal, Undo, leases::Lease, undo::Step};
use crate::{
    limits,
    model::{Detail, InstanceKey, Moment, RemovalReason, WallTime},
};

impl Catalog {
    /// Ends every lease whose deadline has come, many of them in one revision: a rack that dies is one or a few deltas to each
    /// watcher. The caller has looked at the clock, and has applied the renewals that were waiting. `draw` is fresh random bits.
    pub(crate) fn expire(&mut self, wall: WallTime, _draw: u64) -> Vec<(Arc<Batch>, Undo)> {
        if self.recovering_until.is_some() || self.clock.is_stopped() {
            return Vec::new();
        }
        let now = self.clock.now();
        self.requests.forget_old(now);
        let mut batches = Vec::new();
        let mut changes = Vec::new();
        let mut leases = Vec::new();
        let mut undo = Undo::default();
        while let Some((id, lease)) = self.leases.pop_lapsed(now) {
            let detail = self.why(&lease);
            let mut keys: Vec<&InstanceKey> = lease.instances.iter().collect();
            keys.sort_unstable();
            for key in keys {
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
            undo.note(Step::Ended(id, Box::new(lease)));
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

    fn why(&self, lease: &Lease) -> Detail {
        let ttl = lease.ttl();
        if self.leases.is_orphan(lease) {
            let owner = lease.terms.owner;
            return Detail::of(&format!(
                "its replica {owner} died and no renewal of its {ttl:?} came to another"
            ));
        }
        Detail::of(&format!("no renewal within {ttl:?}"))
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
        let due: LeaseTime = match (self.leases.next_due(), self.recovering_until) {
            (Some(due), Some(until)) => due.max(until),
            (Some(due), None) => due,
            (None, Some(until)) => until,
            (None, None) => return None,
        };
        Some(self.clock.moment_of(due))
    }
}
