//! The registrar as a state machine: what to do next, and what an outcome means. It never awaits, reads a clock, draws from a
//! source of its own or logs; `registrar` performs what it says.
//!
//! Two states carry it. *Absent*: no lease is held, one is to be asked for. *Held*: a lease is held, to be renewed, and what
//! the registry was told is compared with what the owner wants it to say. What the owner wants is level-triggered: it is an
//! argument of every question, never a queue of commands, so nothing that was missed while the registry was away needs to be
//! remembered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rand::{Rng, RngExt as _};

use crate::{
    backoff::Backoff,
    error::{Error, LeaseVerdict},
    model::{Field, Granted, InstanceStatus, Lease, Removal, Says},
};

/// A registry that asks for more patience than this is not obeyed: a registrar that sleeps for an hour because of one wrong
/// number would be the outage.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// Heartbeats are never closer than this, whatever lifetime a registry claims for a lease: half of the contract's shortest
/// interval.
const MIN_PERIOD: Duration = Duration::from_millis(50);
/// Nor further apart: the contract's longest interval.
const MAX_PERIOD: Duration = Duration::from_secs(3_600);

/// The shortest time that a call is given, however short the lease: below it a busy machine looks like a dead registry.
const MIN_PATIENCE: Duration = Duration::from_millis(50);

/// What the owner wants of its registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Desired {
    /// What the registry is to know.
    pub(crate) says: Says,
    /// Set: leave, for this reason.
    pub(crate) leave: Option<Removal>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask for a lease. A repeat after a lost answer carries the same id and the same body.
    Register { request_id: String, says: Says },
    /// Heartbeat. An answer that takes longer than `within` is no use.
    Renew { lease: Lease, within: Duration },
    /// Tell what has changed of one field. Given up after `within`, so that it does not keep a heartbeat waiting.
    Update {
        lease: Lease,
        epoch: i64,
        field: Field,
        says: Says,
        within: Duration,
    },
    /// Leave.
    Deregister { lease: Lease, removal: Removal },
    /// Nothing before this time, unless the owner wants something else.
    Wait { until: Instant },
    /// Nothing, ever: it has left.
    Done,
}

/// What became of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Registered(Result<Granted, Error>),
    Renewed(Result<Option<Duration>, Error>),
    Updated(Result<i64, Error>),
    Deregistered(Result<(), Error>),
}

/// How a registration stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrarStatus {
    /// The first answer is awaited.
    Registering,
    /// The registry holds the instance.
    Registered {
        /// The instance.
        instance_id: String,
        /// The revision of its registration.
        epoch: i64,
        /// The revision of its last change.
        revision: i64,
    },
    /// Something fails, and is tried again for ever. The lease may still live.
    Retrying {
        /// Since when.
        since: Instant,
        /// Why the last attempt failed.
        reason: Error,
    },
    /// The registry holds the instance and knows that it drains.
    Draining {
        /// The instance.
        instance_id: String,
        /// The revision of its registration.
        epoch: i64,
        /// The revision of the drain.
        revision: i64,
    },
    /// Deregistered, or given up to its lapsing lease at the end.
    Left,
}

/// The state machine of one registration.
#[derive(Debug)]
pub(crate) struct Machine {
    /// How often to renew while the registry does not ask for more.
    interval: Duration,
    /// How long a lease lives when the registry does not say.
    assumed_ttl: Duration,
    /// The registry has another endpoint to ask.
    is_replicated: bool,
    phase: Phase,
    /// Between registrations, and between heartbeats that fail.
    backoff: Backoff,
    /// Between updates that fail: a refused update must not slow the heartbeats down, nor a heartbeat speed it up.
    update_backoff: Backoff,
    trouble: Option<Trouble>,
    /// Another process has registered this id since: no reset of `backoff` before a lease has been held for a TTL.
    contested: bool,
}

#[derive(Debug)]
enum Phase {
    Absent { attempt: Option<Attempt>, at: Instant },
    Held(Held),
    Left,
}

/// A registration that has been sent and whose effect is not known.
#[derive(Debug, Clone)]
struct Attempt {
    request_id: String,
    says: Says,
    first: Instant,
}

#[derive(Debug)]
struct Held {
    granted: Granted,
    /// What the registry knows.
    told: Says,
    since: Instant,
    ttl: Duration,
    /// The lease is known to live for `ttl` from here: when the request was *sent* that the registry has confirmed. Its answer
    /// may have been long on the way, or lost and asked for again.
    confirmed: Instant,
    /// When the last heartbeat was sent.
    beat_at: Instant,
    renew_at: Instant,
    /// Updates that were sent and are not confirmed, at most one a field: until one is, what the registry knows of the field is
    /// in doubt. Fields go one by one, so that one that the registry refuses does not hold back another: a drain, for example.
    updates: BTreeMap<Field, Update>,
    /// What a registry that does not know the lease has refused. It may be a replica that has not heard of it yet: the same is
    /// asked once more, of another one if there is one, before a lease that should live is given up.
    denied: BTreeSet<Duty>,
    /// The field of the update sent last. Another one that is due goes first, or one that changes all the time would be the
    /// only one told.
    updated: Option<Field>,
}

#[derive(Debug)]
struct Update {
    says: Says,
    /// When to repeat it. Other words than these need not wait.
    again_at: Instant,
}

#[derive(Debug, Clone)]
struct Trouble {
    with: Duty,
    since: Instant,
    reason: Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Duty {
    Lease,
    Update,
}

impl Machine {
    pub(crate) fn new(interval: Duration, misses: u32, is_replicated: bool, now: Instant) -> Self {
        Self {
            interval,
            assumed_ttl: interval.saturating_mul(misses),
            is_replicated,
            phase: Phase::Absent { attempt: None, at: now },
            backoff: Backoff::default(),
            update_backoff: Backoff::default(),
            trouble: None,
            contested: false,
        }
    }

    /// What to do at `now`. Asked again after every outcome, every wait and every change of `desired`.
    pub(crate) fn next(&mut self, now: Instant, desired: &Desired, rng: &mut impl Rng) -> Action {
        match &mut self.phase {
            Phase::Left => Action::Done,

            // Held → Left, by way of the registry.
            Phase::Held(held) if desired.leave.is_some() => Action::Deregister {
                lease: held.granted.lease.clone(),
                removal: desired.leave.unwrap_or(Removal::Deregistered),
            },
            // Absent → Left. A registration in doubt lapses with its lease.
            Phase::Absent { .. } if desired.leave.is_some() => {
                self.phase = Phase::Left;
                Action::Done
            }

            Phase::Absent { at, .. } if now < *at => Action::Wait { until: *at },
            Phase::Absent { attempt, .. } => {
                // The same id only for the same body, and only while the lease that it may have made can still live: the
                // registry would repeat its answer of then.
                let repeat = attempt.take().filter(|attempt| {
                    attempt.says == desired.says && now.duration_since(attempt.first) < self.assumed_ttl
                });
                let attempt = attempt.insert(repeat.unwrap_or_else(|| Attempt {
                    request_id: uuid::Builder::from_random_bytes(rng.random()).into_uuid().to_string(),
                    says: desired.says.clone(),
                    first: now,
                }));
                Action::Register {
                    request_id: attempt.request_id.clone(),
                    says: attempt.says.clone(),
                }
            }

            // Before an update: what is said of an instance is worth nothing without the instance, and a registry whose store
            // stalls still takes heartbeats. Otherwise an owner that changes its mind all the time, or a store that does not
            // answer, would starve the lease.
            Phase::Held(held) if held.renew_at <= now => {
                held.beat_at = now;
                Action::Renew {
                    lease: held.granted.lease.clone(),
                    within: held.patience(),
                }
            }
            Phase::Held(held) => match held.update_due(now, &desired.says) {
                Some(field) => {
                    let says = desired.says.clone();
                    held.updates.insert(field, Update { says, again_at: now });
                    held.updated = Some(field);
                    Action::Update {
                        lease: held.granted.lease.clone(),
                        epoch: held.granted.epoch,
                        field,
                        says: desired.says.clone(),
                        within: held.patience(),
                    }
                }
                None => {
                    let repeats = held.updates.values().map(|update| update.again_at);
                    Action::Wait {
                        until: repeats.fold(held.renew_at, Instant::min),
                    }
                }
            },
        }
    }

    /// Takes in what became of the action that `next` last asked for.
    pub(crate) fn apply(&mut self, now: Instant, outcome: Outcome, rng: &mut impl Rng) {
        match outcome {
            Outcome::Registered(Ok(granted)) => self.registered(now, granted, rng),
            Outcome::Registered(Err(error)) => self.not_registered(now, error, rng),
            Outcome::Renewed(Ok(ttl)) => self.renewed(now, ttl, rng),
            Outcome::Renewed(Err(error)) => match error.lease_verdict() {
                LeaseVerdict::Standing => {
                    let delay = self.backoff.next(rng).min(self.interval);
                    if let Phase::Held(held) = &mut self.phase {
                        held.renew_at = now + delay.min(held.haste(now));
                    }
                    self.troubled(Duty::Lease, now, error);
                }
                LeaseVerdict::Unknown if self.doubts(Duty::Lease, now) => {
                    let asked = error.retry_after();
                    let delay = asked.unwrap_or_else(|| self.backoff.next(rng));
                    if let Phase::Held(held) = &mut self.phase {
                        held.renew_at = now + delay.min(held.haste(now));
                    }
                    self.troubled(Duty::Lease, now, error);
                }
                verdict => self.lost(verdict, now, error, rng),
            },
            Outcome::Updated(Ok(revision)) => self.updated(revision),
            Outcome::Updated(Err(error)) => match error.lease_verdict() {
                LeaseVerdict::Standing => self.not_updated(now, error, rng),
                LeaseVerdict::Unknown if self.doubts(Duty::Update, now) => self.not_updated(now, error, rng),
                verdict => self.lost(verdict, now, error, rng),
            },
            // Held → Left, whatever the answer: a lease that nobody renews lapses.
            Outcome::Deregistered(_) => {
                self.phase = Phase::Left;
                self.trouble = None;
            }
        }
    }

    /// How it stands.
    pub(crate) fn status(&self) -> RegistrarStatus {
        match (&self.phase, &self.trouble) {
            (Phase::Left, _) => RegistrarStatus::Left,
            (_, Some(trouble)) => RegistrarStatus::Retrying {
                since: trouble.since,
                reason: trouble.reason.clone(),
            },
            (Phase::Absent { .. }, None) => RegistrarStatus::Registering,
            (Phase::Held(held), None) => {
                let instance_id = held.granted.instance_id.clone();
                let (epoch, revision) = (held.granted.epoch, held.granted.revision);
                if held.told.status == InstanceStatus::Draining {
                    RegistrarStatus::Draining {
                        instance_id,
                        epoch,
                        revision,
                    }
                } else {
                    RegistrarStatus::Registered {
                        instance_id,
                        epoch,
                        revision,
                    }
                }
            }
        }
    }

    /// Absent → Held.
    fn registered(&mut self, now: Instant, granted: Granted, rng: &mut impl Rng) {
        let Phase::Absent {
            attempt: Some(attempt), ..
        } = &mut self.phase
        else {
            return;
        };
        let told = attempt.says.clone();
        // The first of the repeats may be the one that took effect.
        let confirmed = attempt.first;
        let ttl = granted.ttl.unwrap_or(self.assumed_ttl);
        self.phase = Phase::Held(Held {
            granted,
            told,
            since: now,
            ttl,
            confirmed,
            beat_at: now,
            renew_at: confirmed + period(self.interval, ttl, rng),
            updates: BTreeMap::new(),
            denied: BTreeSet::new(),
            updated: None,
        });
        self.trouble = None;
        self.update_backoff.reset();
        if !self.contested {
            self.backoff.reset();
        }
    }

    /// Absent → Absent, later.
    fn not_registered(&mut self, now: Instant, error: Error, rng: &mut impl Rng) {
        let delay = self.delay(&error, rng);
        if let Phase::Absent { attempt, at } = &mut self.phase {
            *at = now + delay;
            if !error.is_in_doubt() {
                *attempt = None;
            }
        }
        self.troubled(Duty::Lease, now, error);
    }

    /// Held → Held, for another while.
    fn renewed(&mut self, now: Instant, ttl: Option<Duration>, rng: &mut impl Rng) {
        let Phase::Held(held) = &mut self.phase else { return };
        held.ttl = ttl.unwrap_or(held.ttl);
        held.confirmed = held.beat_at;
        held.renew_at = held.confirmed + period(self.interval, held.ttl, rng);
        held.denied.remove(&Duty::Lease);
        if !self.contested || now.duration_since(held.since) >= held.ttl {
            self.contested = false;
            self.backoff.reset();
        }
        self.relieved(Duty::Lease);
    }

    /// Whether a registry that does not know the lease is to be believed only when it has been asked again: see
    /// [`Held::denied`]. Not of a lease that may have lapsed.
    fn doubts(&mut self, duty: Duty, now: Instant) -> bool {
        let Phase::Held(held) = &mut self.phase else {
            return false;
        };
        let should_live = now.duration_since(held.confirmed) < held.ttl;
        self.is_replicated && should_live && held.denied.insert(duty)
    }

    /// Held → Absent: the registry does not know the lease, or somebody else has the id.
    fn lost(&mut self, verdict: LeaseVerdict, now: Instant, error: Error, rng: &mut impl Rng) {
        self.contested |= verdict == LeaseVerdict::Taken;
        let delay = match error.retry_after() {
            // The registry spreads the returning by itself.
            Some(delay) if verdict == LeaseVerdict::Unknown => delay.min(MAX_RETRY_AFTER),
            _ => self.delay(&error, rng),
        };
        self.phase = Phase::Absent {
            attempt: None,
            at: now + delay,
        };
        self.troubled(Duty::Lease, now, error);
    }

    fn updated(&mut self, revision: i64) {
        let Phase::Held(held) = &mut self.phase else { return };
        if let Some(field) = held.updated
            && let Some(update) = held.updates.remove(&field)
        {
            held.told.take(field, update.says);
        }
        held.granted.revision = revision;
        held.denied.remove(&Duty::Update);
        self.update_backoff.reset();
        self.relieved(Duty::Update);
    }

    fn not_updated(&mut self, now: Instant, error: Error, rng: &mut impl Rng) {
        let delay = self
            .update_backoff
            .next(rng)
            .max(error.retry_after().unwrap_or_default().min(MAX_RETRY_AFTER));
        if let Phase::Held(held) = &mut self.phase
            && let Some(update) = held.updated.and_then(|field| held.updates.get_mut(&field))
        {
            update.again_at = now + delay;
        }
        self.troubled(Duty::Update, now, error);
    }

    /// The back-off, or what the registry asks for when that is longer.
    fn delay(&mut self, error: &Error, rng: &mut impl Rng) -> Duration {
        let asked = error.retry_after().unwrap_or_default().min(MAX_RETRY_AFTER);
        self.backoff.next(rng).max(asked)
    }

    fn troubled(&mut self, with: Duty, now: Instant, reason: Error) {
        let since = self.trouble.as_ref().map_or(now, |trouble| trouble.since);
        self.trouble = Some(Trouble { with, since, reason });
    }

    fn relieved(&mut self, of: Duty) {
        self.trouble = self.trouble.take().filter(|trouble| trouble.with != of);
    }
}

impl Held {
    /// How long one call may take of the lease's life: see [`period`].
    fn patience(&self) -> Duration {
        (self.ttl / 4).max(MIN_PATIENCE)
    }

    /// How long a heartbeat that failed may wait for its repeat while the lease may still be saved: see [`period`].
    fn haste(&self, now: Instant) -> Duration {
        if now.duration_since(self.confirmed) < self.ttl {
            (self.ttl / 8).max(MIN_PERIOD)
        } else {
            Duration::MAX
        }
    }

    fn update_due(&self, now: Instant, says: &Says) -> Option<Field> {
        let mut due = Field::ALL.into_iter().filter(|field| match self.updates.get(field) {
            None => !self.told.agrees(says, *field),
            Some(update) => !update.says.agrees(says, *field) || update.again_at <= now,
        });
        let first = due.next();
        if first == self.updated {
            due.next().or(first)
        } else {
            first
        }
    }
}

/// The time from one heartbeat to the next: the interval, but never more than half of what the lease lives; less up to a tenth,
/// so that a fleet that started together does not beat together.
///
/// Half of the life to the heartbeat, a quarter for its answer ([`Held::patience`]), and at most an eighth before it is
/// repeated ([`Held::haste`]): a heartbeat that hangs does not cost the lease, whatever interval and misses were asked for.
fn period(interval: Duration, ttl: Duration, rng: &mut impl Rng) -> Duration {
    interval
        .min(ttl / 2)
        .clamp(MIN_PERIOD, MAX_PERIOD)
        .mul_f64(rng.random_range(0.9..=1.0))
}

#[cfg(test)]
mod tests;
