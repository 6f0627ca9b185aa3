//! Self-preservation holds what it promises: of a service in a zone no more than a share lapses in a window, apart from what has
//! been held back for as long as may be. That it ends is shown by `ghosts` and, for what readers are told, by `convergence`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{Invariant, Seen, ensure};
use crate::{
    catalog::{Change, Protection as Settings},
    model::{LeaseId, RemovalReason, Revision, ServiceName, Zone},
    simulation::{
        Time,
        plan::Plan,
        replica::SUSPECT_AFTER,
        request::Ask,
        truth::{State, Truth},
    },
};

/// A lease of the plan keeps so many at the most, and one lease may always lapse.
const LARGEST_LEASE: usize = 3;
/// Any service may lose so many.
const FLOOR: usize = 2;

type Group = (ServiceName, Zone);

/// See the module.
#[derive(Debug)]
pub(super) struct Protection {
    settings: Settings,
    replicas: usize,
    heard: BTreeMap<LeaseId, Time>,
    /// Those whose streams broke are overdue earlier.
    suspected: BTreeSet<LeaseId>,
    /// What has lapsed of each group: when it was decided, and how large the group was.
    lapsed: BTreeMap<Group, VecDeque<(Time, usize)>>,
}

impl Protection {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            settings: plan.protection,
            replicas: plan.replicas,
            heard: BTreeMap::new(),
            suspected: BTreeSet::new(),
            lapsed: BTreeMap::new(),
        }
    }

    /// Counts one that lapsed.
    fn count(&mut self, group: Group, decided: Time, state: &State) -> Result<(), String> {
        let instances = state.instances.values();
        let size = instances
            .filter(|i| i.key.service == group.0 && i.spec.labels.zone == group.1)
            .count();
        let lapsed = self.lapsed.entry(group.clone()).or_default();
        lapsed.push_back((decided, size));
        while lapsed
            .front()
            .is_some_and(|(at, _)| *at + self.settings.window <= decided)
        {
            lapsed.pop_front();
        }
        let largest = lapsed.iter().map(|(_, size)| *size).max().unwrap_or_default();
        let share = (largest * self.settings.share_percent / 100).max(FLOOR);
        // Any such time may reach into two of the windows that are counted; and each registry counts its own, in which it
        // sees what the others do, but each may begin one while another's goes on.
        let most = (self.replicas + 1) * share.max(LARGEST_LEASE);
        ensure(lapsed.len() <= most, || {
            format!(
                "{} of the {largest} instances of {} in {} lapsed within {:?}, and {most} may",
                lapsed.len(),
                group.0,
                group.1,
                self.settings.window
            )
        })
    }
}

impl Invariant for Protection {
    fn name(&self) -> &'static str {
        "protection"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Arrived { request, .. } => {
                if let Ask::Renew(owner, _) = request.ask {
                    self.heard.insert(owner.lease, truth.now);
                }
            }
            Seen::Suspected { lease } => {
                self.suspected.insert(*lease);
            }
            // It has forgotten what lapsed before.
            Seen::Started { .. } => self.lapsed.clear(),
            Seen::Durable { after } => {
                for entry in truth.after(*after) {
                    let before = truth
                        .state(Revision::new(entry.batch.revision.get() - 1))
                        .expect("durable");
                    for change in &entry.batch.changes {
                        let Change::Removed(gone) = change else { continue };
                        let Some(instance) = before.get(&gone.key) else {
                            continue;
                        };
                        if gone.reason != RemovalReason::Expired {
                            continue;
                        }
                        let Some(record) = before.leases.get(&instance.lease) else {
                            continue;
                        };
                        let span = match self.suspected.contains(&instance.lease) {
                            true => record.heartbeat.ttl().min(record.heartbeat.interval() + SUSPECT_AFTER),
                            false => record.heartbeat.ttl(),
                        };
                        let heard = self.heard.get(&instance.lease).copied().unwrap_or_default();
                        let silent = entry.decided.saturating_sub(heard);
                        let longest = span + self.settings.max;
                        if silent + Duration::from_millis(500) < longest {
                            let group = (gone.key.service.clone(), instance.spec.labels.zone.clone());
                            self.count(group, entry.decided, before)?;
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
