//! A lease follows its owner: once a registry has answered a heartbeat of a lease that another one owns, and the store can be
//! reached, it becomes the owner within a short time, and the lease does not lapse meanwhile.

use std::{collections::BTreeMap, time::Duration};

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
    /// Answered by a registry that does not own it, since when.
    pending: BTreeMap<LeaseId, (usize, Time)>,
    trouble: Time,
}

impl Ownership {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            // Two commits that are overtaken, and the news of it, which may be late.
            patience: Duration::from_millis(1_500) + (plan.disk.1 + plan.delay.1) * 6,
            names: BTreeMap::new(),
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
                self.pending.retain(|_, (at, _)| at != replica);
            }
            Seen::Trouble { until } => {
                self.trouble = self.trouble.max(*until);
                self.pending.clear();
            }
            Seen::Answered {
                replica,
                request,
                answer: Answer::Renewed(Ok(_)),
            } if truth.now > self.trouble => {
                let Ask::Renew(owner, _) = request.ask else {
                    return Ok(());
                };
                let record = truth.present().leases.get(&owner.lease);
                if record.is_some_and(|record| Some(&record.owner) != self.names.get(replica)) {
                    self.pending.entry(owner.lease).or_insert((*replica, truth.now));
                } else {
                    // It is where it belongs; what another one has heard was late.
                    self.pending.remove(&owner.lease);
                }
            }
            Seen::Durable { after } => {
                for entry in truth.after(*after) {
                    for change in &entry.batch.leases {
                        match change {
                            LeaseChange::Kept(record) => drop(self.pending.remove(&record.id)),
                            LeaseChange::Ended(id) => {
                                let lapsed = entry.batch.changes.iter().any(|change| {
                                    matches!(change, Change::Removed(gone) if gone.reason == RemovalReason::Expired)
                                });
                                if let Some((replica, since)) = self.pending.remove(id)
                                    && lapsed
                                    && entry.decided > since + self.patience
                                {
                                    return Err(format!(
                                        "{} lapsed at {}, registry {replica} has answered its heartbeats since {since:?}",
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
