//! Every silent one goes: a lease that nobody keeps is gone within its time to live, and what a recovery and the troubles of
//! the registry add.

use std::{collections::BTreeMap, time::Duration};

use super::{Invariant, Seen};
use crate::{
    catalog::LeaseChange,
    model::LeaseId,
    simulation::{
        Time,
        plan::Plan,
        replica::ORPHAN_GRACE,
        request::{Answer, Ask, lease},
        store::{CONTACT, SESSION},
        truth::Truth,
    },
};

/// What noticing and committing take.
const SLACK: Duration = Duration::from_millis(500);
/// How often to look.
const PERIOD: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub(super) struct Ghosts {
    commit: Duration,
    /// The longest that self-preservation holds it back.
    held_back: Duration,
    /// What it takes to find out that a registry is dead, and to wait for its leases' owners.
    orphans: Duration,
    /// What a lease that moved has beyond its time.
    moved: Duration,
    heard: BTreeMap<LeaseId, Time>,
    /// Until when registries could not be expected to be on time.
    trouble: Time,
    next: Time,
}

impl Ghosts {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            // The one that is on its way, and the one that ends the lease; or several, where others are faster, and late news.
            held_back: plan.protection.max,
            commit: match plan.replicas {
                1 => plan.disk.1 * 2,
                _ => plan.disk.1 * 6 + Duration::from_secs(2),
            },
            orphans: match plan.replicas {
                1 => Duration::ZERO,
                _ => SESSION + ORPHAN_GRACE + CONTACT,
            },
            moved: match plan.replicas {
                1 => Duration::ZERO,
                _ => ORPHAN_GRACE,
            },
            heard: BTreeMap::new(),
            trouble: Time::ZERO,
            next: Time::ZERO,
        }
    }
}

impl Invariant for Ghosts {
    fn name(&self) -> &'static str {
        "ghosts"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Arrived { request, .. } => {
                let lease = match &request.ask {
                    Ask::Renew(owner, _) => owner.lease,
                    _ => return Ok(()),
                };
                self.heard.insert(lease, truth.now);
            }
            // A repeated registration is a sign of life too.
            Seen::Answered {
                answer: Answer::Registered { owner, .. },
                ..
            } => {
                self.heard.insert(owner.lease, truth.now);
            }
            Seen::Durable { after } => {
                for entry in truth.after(*after) {
                    for change in &entry.batch.leases {
                        if let LeaseChange::Kept(record) = change {
                            self.heard.insert(record.id, truth.now);
                        }
                    }
                }
            }
            Seen::Trouble { until } => self.trouble = self.trouble.max(*until),
            Seen::Started { .. } => self.trouble = self.trouble.max(truth.now),
            Seen::Stepped { .. } if truth.now >= self.next => {
                self.next = truth.now + PERIOD;
                return self.look(truth);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Ghosts {
    fn look(&self, truth: &Truth) -> Result<(), String> {
        let leases = &truth.present().leases;
        let recovery = leases
            .values()
            .map(|record| record.heartbeat.ttl())
            .max()
            .unwrap_or_default();
        for (id, record) in leases.iter() {
            let heard = self.heard.get(id).copied().unwrap_or_default();
            // A recovery lasts as long as the longest time to live of its beginning, which is at most 3 s here.
            let recovery = recovery.max(Duration::from_secs(3));
            let due = (heard + record.heartbeat.ttl() + self.moved).max(self.trouble + recovery + self.orphans)
                + self.held_back
                + self.commit
                + SLACK;
            if truth.now > due {
                return Err(format!(
                    "{} was last heard at {heard:?} and should be gone since {due:?}",
                    lease(*id)
                ));
            }
        }
        Ok(())
    }
}
