//! A lease follows its owner: once a registry has answered a heartbeat of a lease that another one owns, and the store can be
//! reached, it becomes the owner within a short time, and the lease does not lapse meanwhile, unless its owner has fallen silent
//! for as long as it may. And nobody is told that all is well by a registry that has never owned the lease.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Invariant, Seen};
use crate::{
    catalog::{Change, LeaseChange},
    model::{LeaseId, RemovalReason, ReplicaId},
    simulation::{
        Time,
        plan::Plan,
        request::{Answer, Ask, lease},
        truth::Truth,
    },
};

/// See the module.
#[derive(Debug)]
pub(super) struct Ownership {
    /// What a claim may take.
    patience: Duration,
    names: BTreeMap<usize, ReplicaId>,
    /// Every registry that each lease was ever kept by: one that does not know yet that it has lost a lease promises what it may.
    owned: BTreeMap<LeaseId, BTreeSet<ReplicaId>>,
    /// Answered by a registry that does not own it.
    pending: BTreeMap<LeaseId, Pending>,
    trouble: Time,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    /// By this registry.
    by: usize,
    since: Time,
    /// The last time.
    until: Time,
    /// How long the owner may be silent from then on.
    ttl: Duration,
}

impl Ownership {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            // Two commits that are overtaken, and the news of it, which may be late.
            patience: Duration::from_millis(1_500) + (plan.disk.1 + plan.delay.1) * 6,
            names: BTreeMap::new(),
            owned: BTreeMap::new(),
            pending: BTreeMap::new(),
            trouble: Time::ZERO,
        }
    }
}

impl Invariant for Ownership {
    fn name(&self) -> &'static str {
        "ownership"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Started { replica, id, .. } => {
                self.names.insert(*replica, *id);
                self.pending.retain(|_, pending| pending.by != *replica);
            }
            Seen::Trouble { until } => {
                self.trouble = self.trouble.max(*until);
                self.pending.clear();
            }
            Seen::Answered {
                replica,
                request,
                answer: Answer::Renewed(Ok(_)),
            } => {
                let Ask::Renew(owner, _) = request.ask else {
                    return Ok(());
                };
                let by = self.names.get(replica);
                if let Some(owned) = self.owned.get(&owner.lease)
                    && by.is_some_and(|by| !owned.contains(by))
                {
                    return Err(format!(
                        "registry {replica} says that all is well with {}, which it has never owned",
                        lease(owner.lease)
                    ));
                }
                if truth.now <= self.trouble {
                    return Ok(());
                }
                match truth.present().leases.get(&owner.lease) {
                    Some(record) if Some(&record.owner) != self.names.get(replica) => {
                        let pending = self.pending.entry(owner.lease).or_insert(Pending {
                            by: *replica,
                            since: truth.now,
                            until: truth.now,
                            ttl: record.heartbeat.ttl(),
                        });
                        pending.until = truth.now;
                    }
                    // It is where it belongs; what another one has heard was late.
                    _ => drop(self.pending.remove(&owner.lease)),
                }
            }
            Seen::Durable { after } => {
                for entry in truth.after(*after) {
                    for change in &entry.batch.leases {
                        match change {
                            LeaseChange::Kept(record) => {
                                self.owned.entry(record.id).or_default().insert(record.owner);
                                self.pending.remove(&record.id);
                            }
                            LeaseChange::Ended(id) => {
                                let lapsed = entry.batch.changes.iter().any(|change| {
                                    matches!(change, Change::Removed(gone) if gone.reason == RemovalReason::Expired)
                                });
                                if let Some(Pending { by, since, until, ttl }) = self.pending.remove(id)
                                    && lapsed
                                    && entry.decided > since + self.patience
                                    && entry.decided < until + ttl
                                {
                                    return Err(format!(
                                        "{} lapsed at {}, registry {by} has answered its heartbeats from {since:?} to {until:?} and promised {ttl:?}",
                                        lease(*id),
                                        entry.batch.revision
                                    ));
                                }
                            }
                            LeaseChange::Lost(_) => {}
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
