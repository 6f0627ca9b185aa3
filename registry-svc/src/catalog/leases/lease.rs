//! One lease: what it is granted on, what it keeps and what was taken from it. When it ends is for others to say.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::super::{Beat, LeaseRecord, LeaseTime, Names, wheel::Tick};
use crate::{
    access::Bounds,
    model::{Heartbeat, Instance, InstanceKey, LeaseId, Registrant, ReplicaId, SecretHash, ServiceKey},
};

/// A lease that lives.
#[derive(Debug)]
pub(in crate::catalog) struct Lease {
    pub(super) secret: SecretHash,
    pub(in crate::catalog) terms: LeaseTerms,
    pub(super) beat: Beat,
    /// How many names have come to it.
    pub(super) named: Names,
    pub(super) deadline: LeaseTime,
    /// Where it stands in the queue, if its time is counted here.
    pub(super) queued: Option<Tick>,
    /// It is overdue and self-preservation holds it back: it stands in the queue where that ends.
    pub(in crate::catalog) held: bool,
    /// In whose quota it counts, whoever joins it.
    pub(in crate::catalog) registrant: Option<Registrant>,
    /// What it keeps, by name.
    pub(super) instances: Vec<Arc<Instance>>,
    /// What other leases have taken from it.
    #[allow(clippy::box_collection, reason = "few ever lose anything: 8 bytes instead of 24")]
    pub(super) replaced: Option<Box<BTreeSet<InstanceKey>>>,
}

/// What a command may change of a lease besides what it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::catalog) struct LeaseTerms {
    /// How often it is renewed and how long it lives.
    pub(in crate::catalog) heartbeat: Heartbeat,
    /// The replica that hears it.
    pub(in crate::catalog) owner: ReplicaId,
    /// See [`LeaseRecord::emptied`].
    pub(in crate::catalog) emptied: bool,
}

impl Lease {
    /// One that keeps nothing yet and is due now.
    pub(super) fn new(record: LeaseRecord, now: LeaseTime) -> Self {
        let mut lease = Self {
            secret: record.secret,
            terms: LeaseTerms {
                heartbeat: record.heartbeat,
                owner: record.owner,
                emptied: record.emptied,
            },
            beat: Beat::default(),
            named: Names::default(),
            deadline: now,
            queued: None,
            held: false,
            registrant: record.registrant,
            instances: Vec::new(),
            replaced: None,
        };
        lease.set_all_lost(record.replaced);
        lease
    }

    /// The last that it kept was taken: its owner is a process that has been succeeded. One that had something left and ended
    /// it itself has not been.
    pub(in crate::catalog) fn is_fenced(&self) -> bool {
        self.instances.is_empty() && self.replaced.is_some() && !self.terms.emptied
    }

    /// How long it lives without a renewal.
    pub(in crate::catalog) fn ttl(&self) -> Duration {
        self.terms.heartbeat.ttl()
    }

    /// How long it has been overdue.
    pub(in crate::catalog) fn overdue(&self, now: LeaseTime) -> Duration {
        now.since(self.deadline)
    }

    /// When it is due.
    #[cfg(test)]
    pub(in crate::catalog) fn deadline(&self) -> LeaseTime {
        self.deadline
    }

    /// What the store keeps of it.
    pub(in crate::catalog) fn record(&self, id: LeaseId) -> LeaseRecord {
        LeaseRecord {
            id,
            secret: self.secret,
            heartbeat: self.terms.heartbeat,
            owner: self.terms.owner,
            replaced: self.replaced().cloned().collect(),
            emptied: self.terms.emptied,
            registrant: self.registrant,
        }
    }

    /// What it keeps, by name.
    pub(in crate::catalog) fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// Whether it keeps an instance of this name.
    pub(in crate::catalog) fn keeps(&self, key: &InstanceKey) -> bool {
        self.place(key).is_ok()
    }

    /// What other leases have taken from it, by name.
    pub(in crate::catalog) fn replaced(&self) -> impl Iterator<Item = &InstanceKey> {
        self.replaced.iter().flat_map(|replaced| replaced.iter())
    }

    /// Whether an instance of this name was taken from it.
    pub(in crate::catalog) fn has_lost(&self, key: &InstanceKey) -> bool {
        self.replaced.as_ref().is_some_and(|replaced| replaced.contains(key))
    }

    /// How many names it has, kept or lost.
    pub(in crate::catalog) fn names(&self) -> usize {
        self.instances.len() + self.replaced.as_ref().map_or(0, |replaced| replaced.len())
    }

    /// Whether a caller who is bound so may act for it: for all that it keeps, and all that was taken from it. One that has no
    /// names is whoever's has the secret.
    pub(in crate::catalog) fn is_within(&self, bounds: Option<&Bounds>) -> bool {
        let Some(bounds) = bounds else { return true };
        let kept = self.instances.iter().map(|instance| &instance.key);
        let mut last: Option<&ServiceKey> = None;
        // In order, so those of one service are asked about once.
        kept.chain(self.replaced()).all(|key| {
            let service: &ServiceKey = key;
            let is_known = last.is_some_and(|last| std::ptr::eq(last, service) || last == service);
            last = Some(service);
            is_known || bounds.cover(service)
        })
    }

    /// Says whether a name was taken from it. Returns whether it was before.
    pub(in crate::catalog) fn set_lost(&mut self, key: &InstanceKey, lost: bool) -> bool {
        if lost {
            return !self.replaced.get_or_insert_default().insert(key.clone());
        }
        let Some(replaced) = &mut self.replaced else {
            return false;
        };
        let was = replaced.remove(key);
        if replaced.is_empty() {
            self.replaced = None;
        }
        was
    }

    /// All that was taken from it.
    pub(in crate::catalog) fn set_all_lost(&mut self, keys: impl IntoIterator<Item = InstanceKey>) {
        let keys: BTreeSet<InstanceKey> = keys.into_iter().collect();
        self.replaced = (!keys.is_empty()).then(|| Box::new(keys));
    }

    /// It keeps this instance from now on, instead of what it kept by this name. Whether that was nothing.
    pub(super) fn keep(&mut self, instance: &Arc<Instance>) -> bool {
        let place = self.place(&instance.key);
        match place {
            Ok(place) => self.instances[place] = Arc::clone(instance),
            Err(place) => {
                self.named = self.named.next();
                // Most keep one, and a vector would make room for four.
                if self.instances.is_empty() {
                    self.instances.reserve_exact(1);
                }
                self.instances.insert(place, Arc::clone(instance));
            }
        }
        place.is_err()
    }

    /// It keeps nothing by this name any more. Whether it did.
    pub(super) fn lose(&mut self, key: &InstanceKey) -> bool {
        let place = self.place(key);
        if let Ok(place) = place {
            self.instances.remove(place);
        }
        place.is_ok()
    }

    fn place(&self, key: &InstanceKey) -> Result<usize, usize> {
        self.instances.binary_search_by(|instance| instance.key.cmp(key))
    }
}
