//! A process that registers itself and keeps its lease alive, by the rules of `registry-client`'s registrar: one call at a
//! time, heartbeats first, an attempt is repeated under its own id, whoever has lost its lease registers anew.

use std::time::Duration;

use crate::{
    catalog::{CatalogError, Owner, RenewError, RequestId},
    model::{Draft, Epoch, Heartbeat, InstanceKey, Revision, Status, Weight},
    simulation::{
        Time,
        request::{Answer, Ask, Ticket},
        rng::Rng,
    },
};

/// How often a process may be succeeded before its operator ends it: two that both insist would go on for ever.
const CONTESTS: u32 = 1;

/// How long a lease that is believed lost may still be renewed.
const FORMER: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug)]
pub(in crate::simulation) struct Provider {
    /// What it registers.
    pub(in crate::simulation) drafts: Vec<Draft>,
    /// Where it runs.
    pub(in crate::simulation) zone: usize,
    /// The terms of its lease.
    pub(in crate::simulation) heartbeat: Heartbeat,
    /// How often it renews.
    interval: Duration,
    /// The registry that it speaks to.
    pub(in crate::simulation) home: usize,
    /// How it stands.
    pub(in crate::simulation) phase: Phase,
    /// The call under way.
    waiting: Option<(Ticket, Time)>,
    /// The generation of its timer.
    pub(in crate::simulation) timer: u64,
    /// Stopped until then.
    pub(in crate::simulation) asleep: Option<Time>,
    /// The lease that it has lost, and until when it goes on renewing that too: some heartbeats are on their way when one hears
    /// of it.
    former: Option<(Owner, Time)>,
    /// It has asked to change the terms of its lease, and knows no answer yet.
    joining: Option<Heartbeat>,
    /// It asks for no other terms after this.
    joins_until: Time,
    /// Its registry has said that another one may do better.
    elsewhere: bool,
    contests: u32,
    rng: Rng,
}

/// How a provider stands.
#[derive(Debug, Clone)]
pub(in crate::simulation) enum Phase {
    /// It holds no lease.
    Absent {
        /// The attempt that a repeat carries on, and since when.
        attempt: Option<(RequestId, Time)>,
    },
    /// It holds one.
    Held {
        /// Its lease.
        owner: Owner,
        /// Of its instances.
        epoch: Revision,
        /// When to renew.
        beat: Time,
    },
    /// It is about to leave.
    Leaving(Owner),
    /// It has left, died, or was ended after it had been succeeded.
    Gone,
}

/// What a provider does next.
#[derive(Debug)]
pub(in crate::simulation) enum Next {
    /// Ask, and give up after a time.
    Ask(Ask, Duration),
    /// Nothing before this time.
    Wait(Time),
    /// Nothing, ever.
    Nothing,
}

/// The terms of a lease.
pub(in crate::simulation) fn terms(rng: &mut Rng) -> Heartbeat {
    let (interval, misses) = rng.pick(&[(100, 5), (150, 4), (300, 3), (500, 3), (1_000, 3)]);
    Heartbeat::try_new(Duration::from_millis(interval), misses).expect("a heartbeat")
}

impl Provider {
    pub(in crate::simulation) fn new(
        drafts: Vec<Draft>,
        zone: usize,
        heartbeat: Heartbeat,
        home: usize,
        joins_until: Time,
        rng: Rng,
    ) -> Self {
        Self {
            drafts,
            zone,
            heartbeat,
            interval: heartbeat.interval(),
            home,
            phase: Phase::Absent { attempt: None },
            waiting: None,
            timer: 0,
            asleep: None,
            former: None,
            joining: None,
            joins_until,
            elsewhere: false,
            contests: 0,
            rng,
        }
    }

    /// Whether it is to be found in the registry once all is well.
    pub(in crate::simulation) fn lives(&self) -> bool {
        !matches!(self.phase, Phase::Gone | Phase::Leaving(_))
    }

    /// Its lease, while it believes in it.
    pub(in crate::simulation) fn owner(&self) -> Option<Owner> {
        match self.phase {
            Phase::Held { owner, .. } | Phase::Leaving(owner) => Some(owner),
            _ => None,
        }
    }

    /// What it registers.
    pub(in crate::simulation) fn keys(&self) -> impl Iterator<Item = &InstanceKey> {
        self.drafts.iter().map(|draft| &draft.key)
    }

    /// It stops without a word.
    pub(in crate::simulation) fn die(&mut self) {
        self.phase = Phase::Gone;
        self.waiting = None;
    }

    /// It is told to leave.
    pub(in crate::simulation) fn leave(&mut self) {
        self.phase = match self.phase {
            Phase::Held { owner, .. } => Phase::Leaving(owner),
            _ => Phase::Gone,
        };
    }

    /// Its timer has come. A call that is under way for too long is given up.
    pub(in crate::simulation) fn next(&mut self, now: Time, replicas: usize) -> (Next, Option<Ticket>) {
        let mut given_up = None;
        if std::mem::take(&mut self.elsewhere) {
            self.home = (self.home + 1) % replicas;
        }
        if let Some((ticket, until)) = self.waiting {
            if now < until {
                return (Next::Wait(until), None);
            }
            self.waiting = None;
            given_up = Some(ticket);
            // Another registry may do better.
            if replicas > 1 && self.rng.chance(500) {
                self.home = self.rng.below(replicas);
            }
        }
        (self.decide(now), given_up)
    }

    fn decide(&mut self, now: Time) -> Next {
        let ttl = self.heartbeat.ttl();
        match &mut self.phase {
            Phase::Gone => Next::Nothing,
            Phase::Leaving(owner) => {
                let ask = Ask::Deregister(*owner, Vec::new());
                Next::Ask(ask, Duration::from_secs(1))
            }
            Phase::Absent { attempt } => {
                // The same id only while the lease that it may have made can still live.
                let repeat = attempt.filter(|(_, first)| now - *first < ttl);
                let (request, _) = *attempt.insert(repeat.unwrap_or_else(|| {
                    let (id, body) = (self.rng.wide(), [7; 32]);
                    (RequestId { id, body }, now)
                }));
                let ask = Ask::Register {
                    request,
                    drafts: self.drafts.clone(),
                    heartbeat: self.heartbeat,
                    under: None,
                };
                Next::Ask(
                    ask,
                    self.rng.between(Duration::from_millis(500), Duration::from_secs(2)),
                )
            }
            Phase::Held { owner, beat, .. } if *beat <= now => {
                *beat = now + self.rng.between(self.interval * 9 / 10, self.interval * 11 / 10);
                let former = self.former.filter(|(_, until)| now < *until).map(|(owner, _)| owner);
                Next::Ask(
                    Ask::Renew(*owner, former),
                    self.interval.min(Duration::from_millis(500)),
                )
            }
            Phase::Held { owner, epoch, beat, .. } => {
                if !self.rng.chance(300) {
                    return Next::Wait(*beat);
                }
                // Until that is answered it does not know its own epoch.
                if self.joining.is_some() || (now < self.joins_until && self.rng.chance(150)) {
                    let heartbeat = match self.joining {
                        Some(asked) => asked,
                        None => terms(&mut self.rng),
                    };
                    self.joining = Some(heartbeat);
                    // It may be so from now on.
                    self.interval = self.interval.min(heartbeat.interval());
                    *beat = (*beat).min(now + self.interval);
                    let ask = Ask::Register {
                        request: RequestId {
                            id: self.rng.wide(),
                            body: [8; 32],
                        },
                        drafts: self.drafts.clone(),
                        heartbeat,
                        under: Some(*owner),
                    };
                    return Next::Ask(ask, self.interval);
                }
                let ask = Ask::Update {
                    owner: *owner,
                    key: self.drafts[self.rng.below(self.drafts.len())].key.clone(),
                    epoch: Epoch::of(*epoch),
                    weight: Weight::try_new(u32::try_from(self.rng.below(1_000)).expect("small")).expect("a weight"),
                    status: self.rng.pick(&[Status::Up, Status::Draining]),
                };
                // No longer than a heartbeat can wait.
                Next::Ask(ask, self.interval)
            }
        }
    }

    /// A call is under way.
    pub(in crate::simulation) fn sent(&mut self, ticket: Ticket, until: Time) {
        self.waiting = Some((ticket, until));
    }

    /// An answer has come. Returns when to go on; `None` for one that nobody waits for any more.
    pub(in crate::simulation) fn answered(&mut self, ticket: Ticket, answer: &Answer, now: Time) -> Option<Time> {
        if self.waiting.is_none_or(|(waiting, _)| waiting != ticket) {
            return None;
        }
        self.waiting = None;
        let beat = now + self.rng.between(self.interval / 2, self.interval);
        match (answer, &mut self.phase) {
            (Answer::Registered { owner, revision, .. }, Phase::Absent { .. }) => {
                self.phase = Phase::Held {
                    owner: *owner,
                    epoch: *revision,
                    beat,
                };
                Some(now)
            }
            (Answer::Registered { revision, .. }, Phase::Held { epoch, beat, .. }) => {
                *epoch = *revision;
                if let Some(heartbeat) = self.joining.take() {
                    self.heartbeat = heartbeat;
                    self.interval = heartbeat.interval();
                }
                // By its new terms from now on.
                *beat = (*beat).min(now + self.interval / 2);
                Some(*beat)
            }
            (Answer::Renewed(Ok(_)), Phase::Held { beat, .. }) => Some(if self.rng.chance(150) { now } else { *beat }),
            (Answer::Renewed(Err(RenewError::Unknown)), _) => Some(self.lost(now)),
            (Answer::Renewed(Err(RenewError::Fenced)), _) => Some(self.succeeded(now)),
            (Answer::Refused(CatalogError::LeaseUnknown), Phase::Held { .. }) => Some(self.lost(now)),
            (Answer::Refused(_), Phase::Held { .. }) => Some(self.succeeded(now)),
            (Answer::Refused(_) | Answer::Deregistered(_), Phase::Leaving(_)) => {
                self.phase = Phase::Gone;
                Some(now)
            }
            (Answer::Updated(_), Phase::Held { beat, .. }) => Some(*beat),
            (Answer::Undone(..), Phase::Held { beat, .. }) => {
                self.elsewhere = true;
                *beat = now + self.interval / 4;
                Some(*beat)
            }
            (Answer::Unknown, Phase::Held { beat, .. }) => Some(*beat),
            _ => Some(now + self.interval),
        }
    }

    fn leaves_behind(&mut self, now: Time) {
        self.former = self.owner().map(|owner| (owner, now + FORMER));
        self.joining = None;
        self.interval = self.heartbeat.interval();
        self.phase = Phase::Absent { attempt: None };
    }

    /// Held → Absent: the lease has ended.
    fn lost(&mut self, now: Time) -> Time {
        self.leaves_behind(now);
        now + self.rng.between(Duration::ZERO, self.interval)
    }

    /// Held → Absent or Gone: another process has its names.
    fn succeeded(&mut self, now: Time) -> Time {
        self.contests += 1;
        if self.contests > CONTESTS {
            self.die();
            return now;
        }
        self.leaves_behind(now);
        now + self.rng.between(Duration::from_millis(300), Duration::from_secs(1))
    }
}
