//! No lease lapses whose owner was heard in time: between the last that came of its owner and the decision to end it lies its
//! whole time to live, of time in which the registry that decides ran and could have heard it.
//!
//! Judged by when heartbeats come to the door, not by when they are taken: who has knocked must not lapse for standing in a
//! queue, before a stopped process, or behind a slow disk. Over several registries the one that owns the lease counts; what a
//! dead one has left has a grace on top, from its death on. And whichever ends a lease: if the one that owns it has told its
//! owner that all is well, its time to live lies between that and its end. That owners are found where they are heard is
//! `ownership`'s.

use std::{collections::BTreeMap, time::Duration};

use super::{Invariant, Seen};
use crate::{
    catalog::{Change, LeaseChange, PULSE},
    model::{LeaseId, RemovalReason, ReplicaId, Revision},
    simulation::{
        Time,
        replica::{ORPHAN_GRACE, SUSPECT_AFTER},
        request::{Answer, Ask, lease},
        store::SESSION,
        truth::{Entry, Truth},
    },
};

/// A shorter stop may pass for a busy box.
const NOTICED: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lifetime {
    /// At which registry, and when.
    heard: BTreeMap<(LeaseId, usize), Vec<Time>>,
    /// Told that all is well by the registry that owned it, and when.
    promised: BTreeMap<LeaseId, (usize, Time)>,
    /// When a registration or a claim became durable.
    kept: BTreeMap<LeaseId, Time>,
    suspected: BTreeMap<LeaseId, Vec<Time>>,
    /// When each registry began each of its lives, and its name in it: what it sent to the store in one may arrive in the next.
    lives: BTreeMap<usize, Vec<(Time, ReplicaId)>>,
    died: BTreeMap<ReplicaId, Time>,
    stops: Vec<(usize, Time, Time)>,
}

impl Invariant for Lifetime {
    fn name(&self) -> &'static str {
        "lifetime"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Arrived { request, .. } => {
                if let Ask::Renew(owner, _) = request.ask {
                    self.heard.entry((owner.lease, request.to)).or_default().push(truth.now);
                }
            }
            Seen::Answered {
                replica,
                request,
                answer: Answer::Renewed(Ok(_)),
            } => {
                if let Ask::Renew(owner, _) = &request.ask
                    && let Some(record) = truth.present().leases.get(&owner.lease)
                    && self.life(*replica, truth.now).1 == record.owner
                {
                    self.promised.insert(owner.lease, (*replica, truth.now));
                }
            }
            Seen::Suspected { lease } => {
                self.suspected.entry(*lease).or_default().push(truth.now);
            }
            Seen::Started { replica, id, .. } => {
                // A stop ends with the process.
                for (_, _, end) in self.stops.iter_mut().filter(|(of, ..)| of == replica) {
                    *end = truth.now.min(*end);
                }
                self.lives.entry(*replica).or_default().push((truth.now, *id));
            }
            Seen::Died { id } => {
                self.died.insert(*id, truth.now);
            }
            Seen::Stopped { replica, until } => self.stops.push((*replica, truth.now, *until)),
            Seen::Durable { after } => {
                for entry in truth.after(*after) {
                    for change in &entry.batch.leases {
                        match change {
                            LeaseChange::Kept(record) => {
                                self.kept.insert(record.id, truth.now);
                            }
                            LeaseChange::Ended(id) => self.ended(*id, entry, truth)?,
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

impl Lifetime {
    fn ended(&self, id: LeaseId, entry: &Entry, truth: &Truth) -> Result<(), String> {
        let revision = entry.batch.revision;
        let Some(before) = truth.state(Revision::new(revision.get() - 1)) else {
            return Ok(());
        };
        let Some(record) = before.leases.get(&id) else {
            return Ok(());
        };
        let by = entry.by.0;
        // Of one that keeps nothing nobody misses anything; its owner has been succeeded, or has left.
        let lapsed = entry.batch.changes.iter().any(|change| match change {
            Change::Removed(removal) => {
                let kept = before.get(&removal.key).is_some_and(|instance| instance.lease == id);
                kept && removal.reason == RemovalReason::Expired
            }
            Change::Put { .. } => false,
        });
        if !lapsed {
            return Ok(());
        }
        self.keeps_promises(id, record.heartbeat.ttl(), entry)?;
        let (since, own) = self.life(by, entry.decided);
        // What came after the decision came too late.
        let heard = self.heard.get(&(id, by)).into_iter().flatten();
        let heard = heard
            .rev()
            .find(|at| **at <= entry.decided)
            .copied()
            .unwrap_or_default();
        let kept = self.kept.get(&id).copied().unwrap_or_default();
        let (ttl, interval) = (record.heartbeat.ttl(), record.heartbeat.interval());
        let (from, span) = if record.owner == own {
            (heard.max(kept).max(since), ttl)
        } else {
            let died = self.died.get(&record.owner).copied().unwrap_or_default();
            (heard.max(died).max(since), ttl + ORPHAN_GRACE)
        };
        // One whose stream broke has an interval and a little more from then on.
        let mut suspected = self.suspected.get(&id).into_iter().flatten();
        let suspected = suspected
            .find(|at| **at >= from)
            .is_some_and(|at| self.silence(by, *at, entry.decided) >= interval + SUSPECT_AFTER);
        let silent = self.silence(by, from, entry.decided);
        if silent < span && !suspected {
            return Err(format!(
                "{} lapsed at {revision} by registry {by} after {silent:?} of silence, it was to have {span:?} \
                 (last heard there at {heard:?}, kept at {kept:?})",
                lease(id),
            ));
        }
        Ok(())
    }

    /// The life that a registry led at a time.
    fn life(&self, replica: usize, at: Time) -> (Time, ReplicaId) {
        let lives = self.lives.get(&replica).into_iter().flatten();
        lives.rev().find(|(since, _)| *since <= at).copied().unwrap_or_default()
    }

    /// Of another registry's promise the one that ends a lease may know nothing, but then it must not be the one to end it.
    fn keeps_promises(&self, id: LeaseId, ttl: Duration, entry: &Entry) -> Result<(), String> {
        let Some((by, at)) = self.promised.get(&id).copied().filter(|(by, _)| *by != entry.by.0) else {
            return Ok(());
        };
        // One that was stopped does not know how long, and answers what has waited for it before it hears of anything.
        let unaware = SESSION + ORPHAN_GRACE + ttl;
        let stopped = self.stopped(by, at.saturating_sub(unaware), at) > Duration::ZERO;
        let suspected = self.suspected.get(&id).into_iter().flatten().any(|when| *when >= at);
        let silent = entry.at.saturating_sub(at);
        if silent < ttl && !stopped && !suspected {
            return Err(format!(
                "{} lapsed at {} by registry {}, {silent:?} after its owner, registry {by}, had promised {ttl:?}",
                lease(id),
                entry.batch.revision,
                entry.by.0
            ));
        }
        Ok(())
    }

    /// How much of a time may be charged to an owner that was not heard in it.
    fn silence(&self, replica: usize, from: Time, to: Time) -> Duration {
        to.saturating_sub(from).saturating_sub(self.stopped(replica, from, to))
    }

    /// How much of a time a registry did not run, as far as it must notice.
    fn stopped(&self, replica: usize, from: Time, to: Time) -> Duration {
        let stops = self
            .stops
            .iter()
            .filter(|(of, begin, end)| *of == replica && *end - *begin > NOTICED);
        stops
            .map(|(_, begin, end)| (*end).min(to).saturating_sub((*begin).max(from)).saturating_sub(PULSE))
            .sum()
    }
}
