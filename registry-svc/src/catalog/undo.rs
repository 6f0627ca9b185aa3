//! Taking back what was applied and could not be made durable.
//!
//! A store may have no room, and where several replicas share one another may have been first: then what was applied since is
//! undone, newest first, and applied again later or refused. What a renewal has done is not undone: its owner is alive whatever
//! became of the commit. So after an undo the catalog has the instances, the leases with what they keep, what operators have laid
//! over them, the remembered requests and the revision of before, and no lease is due earlier than if nothing but the renewals had
//! been there. It is due later only where its owner has registered something meanwhile, which is a sign of life as well.
//!
//! That somebody was overdue is not undone either: a window of self-preservation that began with it goes on, without what was
//! charged to it.

use std::sync::Arc;

use super::{
    Catalog, LeaseRecord, LeaseTime,
    leases::{Lease, LeaseTerms},
    protection::Charges,
    requests::Answered,
};
use crate::model::{Instance, InstanceKey, LeaseId, Override, ReplicaId, Revision};

/// Takes back one outcome: see [`Catalog::undo`].
#[derive(Debug, Default)]
pub(crate) struct Undo {
    steps: Vec<Step>,
}

/// How one thing was before.
#[derive(Debug)]
pub(super) enum Step {
    /// The catalog's revision.
    Sealed(Revision),
    /// An instance, or that there was none.
    Instance(InstanceKey, Option<Arc<Instance>>),
    /// What was laid over an instance, or that nothing was.
    Override(InstanceKey, Option<Arc<Override>>),
    /// There was no such lease.
    Granted(LeaseId),
    /// There was one.
    Ended(LeaseId, Box<Lease>),
    /// Its terms.
    Terms(LeaseId, LeaseTerms),
    /// When it was due, before the last that it kept was taken from it.
    Hastened(LeaseId, LeaseTime),
    /// Whether a name was taken from it.
    Lost(LeaseId, InstanceKey, bool),
    /// The request was new; these were remembered, the oldest last.
    Remembered(u128, Vec<(u128, Answered)>),
    /// It was not charged to these.
    Charged(Charges),
    /// The request was known.
    Forgotten(u128, Answered),
}

impl Undo {
    /// Something is about to change.
    pub(super) fn note(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// The leases that would come back by it.
    pub(crate) fn ended(&self) -> impl Iterator<Item = LeaseRecord> {
        self.steps.iter().filter_map(|step| match step {
            Step::Ended(id, lease) => Some(lease.record(*id)),
            _ => None,
        })
    }

    /// The leases that were another replica's than this one before.
    pub(crate) fn moved(&self, own: ReplicaId) -> impl Iterator<Item = LeaseId> {
        self.steps.iter().filter_map(move |step| match step {
            Step::Terms(id, before) if before.owner != own => Some(*id),
            _ => None,
        })
    }
}

impl Catalog {
    /// Takes back exactly one outcome, the newest that has not been taken back.
    pub(crate) fn undo(&mut self, undo: Undo) {
        let now = self.clock.now();
        for step in undo.steps.into_iter().rev() {
            match step {
                Step::Sealed(revision) => self.revision = revision,
                Step::Instance(_, Some(instance)) => drop(self.insert_instance(instance)),
                Step::Instance(key, None) => drop(self.remove_instance(&key)),
                Step::Override(key, laid) => {
                    let is_absent = self.instance(&key).is_none();
                    self.overrides.set(&key, laid, is_absent);
                }
                Step::Granted(id) => drop(self.leases.remove(id)),
                Step::Ended(id, lease) => self.leases.put_back(id, lease, now),
                Step::Terms(id, terms) => {
                    let undone = self.leases.set_terms(id, terms, now);
                    // Its time was that of other terms. Only who speaks asks for them.
                    if undone.is_some_and(|undone| undone.heartbeat != terms.heartbeat) {
                        self.leases.extend(id, now);
                    }
                }
                Step::Hastened(id, deadline) => self.leases.give_back(id, deadline),
                Step::Lost(id, key, lost) => {
                    if let Some(lease) = self.leases.get_mut(id) {
                        lease.set_lost(&key, lost);
                    }
                }
                Step::Remembered(id, evicted) => {
                    self.requests.forget(id);
                    for (id, answered) in evicted {
                        self.requests.remember_again(id, answered);
                    }
                }
                Step::Charged(charges) => self.groups.discharge(&charges),
                Step::Forgotten(id, answered) => self.requests.remember_again(id, answered),
            }
        }
    }
}
