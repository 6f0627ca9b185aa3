//! Expiry: what happens when owners fall silent.

use std::sync::Arc;

use super::{Batch, Catalog, Change, LeaseChange, LeaseTime, Removal};
use crate::{
    limits,
    model::{Detail, InstanceKey, Moment, RemovalReason, WallTime},
};

impl Catalog {
    /// Ends every lease whose deadline has come, many of them in one revision: a rack that dies is one or a few deltas to each
    /// watcher. The caller has looked at the clock, and has applied the renewals that were waiting.
    pub(crate) fn expire(&mut self, wall: WallTime) -> Vec<Arc<Batch>> {
        if self.recovering_until.is_some() {
            return Vec::new();
        }
        let now = self.clock.now();
        self.requests.forget_old(now);
        let mut batches = Vec::new();
        let mut changes = Vec::new();
        let mut leases = Vec::new();
        while let Some((id, lease)) = self.leases.pop_lapsed(now) {
            let detail = Detail::of(&format!("no renewal within {:?}", lease.heartbeat().ttl()));
            let mut keys: Vec<&InstanceKey> = lease.instances.iter().collect();
            keys.sort_unstable();
            for instance in keys.into_iter().filter_map(|key| self.instances.remove(key)) {
                changes.push(Change::Removed(Removal {
                    key: instance.key.clone(),
                    labels: instance.spec.labels.clone(),
                    reason: RemovalReason::Expired,
                    detail: detail.clone(),
                }));
            }
            leases.push(LeaseChange::Ended(id));
            if changes.len() >= limits::REMOVALS_PER_REVISION {
                batches.push(self.seal(wall, std::mem::take(&mut changes), std::mem::take(&mut leases)));
            }
        }
        if !leases.is_empty() {
            batches.push(self.seal(wall, changes, leases));
        }
        batches
    }

    /// A grant has become durable: the lease's life begins now, not when a slow disk was asked.
    pub(crate) fn begin_life(&mut self, batch: &Batch) {
        let now = self.clock.now();
        for change in &batch.leases {
            if let LeaseChange::Kept(record) = change {
                self.leases.extend(record.id, None, now);
            }
        }
    }

    /// When [`Catalog::expire`] may next have something to do, if no pause comes between.
    pub(crate) fn next_due(&self) -> Option<Moment> {
        let due: LeaseTime = match (self.leases.next_due(), self.recovering_until) {
            (Some(due), Some(until)) => due.max(until),
            (Some(due), None) => due,
            (None, Some(until)) => until,
            (None, None) => return None,
        };
        Some(self.clock.moment_of(due))
    }
}
