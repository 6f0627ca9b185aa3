//! What a watcher owes the registry: the word that it has applied what takes instances out. Pure: time and randomness are
//! arguments.
//!
//! Somebody may wait for that word, and nobody can tell from here. So it is given, and given sparingly:
//!
//! 1. It is owed for a snapshot, which may lack an instance, for a delta after which an instance takes no calls, and once by a
//!    watch that resumes, for what was told before it. What is new, what changes otherwise, and bookmarks owe nothing: a fleet that grows costs no acknowledgements.
//! 2. It is due when the watcher's *owner* has applied the set, not when it was received: see
//!    [`Watcher::applied`](crate::Watcher::applied).
//! 3. One is under way at a time, and says the latest that was applied: the registry takes it for all before.
//!
//! What a broken watch owed is settled by the next one: it begins with a snapshot, or owes the revision that it resumes from.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt as _};

use crate::model::{InstanceEvent, WatchStep};

/// How long what is due may wait for more: instances leave in groups, and thousands of watchers are told in the same moment. Short
/// against what a process takes to stop.
const GATHER: Duration = Duration::from_millis(10);
/// How long after a failure the next try is made, and up to half as much again.
const RETRY: Duration = Duration::from_secs(1);

/// See the module. Of one open watch.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// Told to the owner, who has not applied it yet.
    owed: Option<Owed>,
    /// Applied, to be said.
    due: Option<Due>,
    /// Said, and not answered yet.
    under_way: Option<i64>,
    /// The registry does not take them.
    is_refused: bool,
}

#[derive(Debug, Clone, Copy)]
struct Owed {
    revision: i64,
    /// Which publication the owner has to apply.
    publication: u64,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    revision: i64,
    at: Instant,
}

/// What became of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acked {
    /// It was taken.
    Yes,
    /// It was not, and a later one may be.
    NotNow,
    /// It was not, and none will be on this watch: the registry is of an earlier version, for example.
    Never,
}

/// Whether somebody may want to know when a step has been applied: after it, an instance takes no calls that may have taken some.
pub(crate) fn takes_out(step: &WatchStep) -> bool {
    match step {
        WatchStep::Snapshot { .. } => true,
        // By what is told and not by what was known: who has never called an instance is waited for as well.
        WatchStep::Delta { events, .. } => events.iter().any(|event| match event {
            InstanceEvent::Put(instance) => !instance.is_callable(),
            InstanceEvent::Removed { .. } => true,
        }),
        WatchStep::Bookmark { .. } => false,
    }
}

impl Acks {
    /// Something that [takes out](takes_out) was told to the owner with this publication.
    pub(crate) fn told(&mut self, revision: i64, publication: u64) {
        // What was owed before is in it.
        self.owed = Some(Owed { revision, publication });
    }

    /// The owner has applied all publications up to this one.
    pub(crate) fn applied(&mut self, now: Instant, publication: u64, rng: &mut impl Rng) {
        if let Some(owed) = self.owed.take_if(|owed| owed.publication <= publication) {
            let at = match self.due {
                Some(due) => due.at,
                None => now + GATHER.mul_f64(rng.random_range(0.0..=1.0)),
            };
            let revision = owed.revision;
            self.due = Some(Due { revision, at });
        }
    }

    /// Whether one is to be said.
    pub(crate) fn is_due(&self) -> bool {
        self.due.is_some() && !self.is_refused
    }

    /// When the next one is to be said.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        let may = self.under_way.is_none() && !self.is_refused;
        self.due.filter(|_| may).map(|due| due.at)
    }

    /// The revision to acknowledge, if it is time. To be [answered](Self::answered).
    pub(crate) fn begin(&mut self, now: Instant) -> Option<i64> {
        self.next_at().filter(|at| *at <= now)?;
        let due = self.due.take()?;
        self.under_way = Some(due.revision);
        self.under_way
    }

    /// The one that was under way has come to this.
    pub(crate) fn answered(&mut self, now: Instant, acked: Acked, rng: &mut impl Rng) {
        let said = self.under_way.take();
        match acked {
            Acked::Yes => {}
            Acked::Never => self.is_refused = true,
            Acked::NotNow => {
                let at = now + RETRY.mul_f64(rng.random_range(1.0..=1.5));
                // The later one, if there is one, stands for both.
                let latest = self.due.map(|due| due.revision).or(said);
                self.due = latest.map(|revision| Due { revision, at });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::model::{Confidence, Instance, InstanceStatus, RemovalReason, SnapshotCause};

    fn rng() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    /// Everything that is due by now.
    fn said(acks: &mut Acks, now: Instant) -> Option<i64> {
        acks.begin(now + GATHER)
    }

    #[test]
    fn what_takes_an_instance_out_is_acknowledged_and_nothing_else() {
        let up = Instance::new("s", "a", "127.0.0.1:1");
        let put = |instance: Instance| WatchStep::Delta {
            revision: 1,
            events: vec![InstanceEvent::Put(Arc::new(instance))],
            confidence: Confidence::Fresh,
        };
        let with_status = |status| Instance { status, ..up.clone() };
        let cases = [
            (put(up.clone()), false),
            (
                put(Instance {
                    weight: 1,
                    ..up.clone()
                }),
                false,
            ),
            (
                put(Instance {
                    weight: 0,
                    ..up.clone()
                }),
                true,
            ),
            (
                put(Instance {
                    drained: true,
                    ..up.clone()
                }),
                true,
            ),
            (put(with_status(InstanceStatus::Draining)), true),
            (put(with_status(InstanceStatus::Down)), true),
            (put(with_status(InstanceStatus::Unknown(77))), true),
            (
                WatchStep::Delta {
                    revision: 1,
                    events: vec![
                        InstanceEvent::Put(Arc::new(up.clone())),
                        InstanceEvent::Removed {
                            service: "s".into(),
                            id: "b".into(),
                            reason: RemovalReason::Expired,
                            detail: String::new(),
                            removed_at: None,
                        },
                    ],
                    confidence: Confidence::Fresh,
                },
                true,
            ),
            (
                WatchStep::Snapshot {
                    revision: 1,
                    instances: vec![up],
                    cause: SnapshotCause::Initial,
                    confidence: Confidence::Fresh,
                },
                true,
            ),
            (
                WatchStep::Bookmark {
                    revision: 1,
                    confidence: Confidence::Fresh,
                },
                false,
            ),
        ];
        for (step, expected) in cases {
            assert_eq!(takes_out(&step), expected, "{step:?}");
        }
    }

    #[test]
    fn nothing_is_said_before_it_is_applied() {
        let (now, mut acks) = (Instant::now(), Acks::default());
        acks.told(5, 2);
        assert_eq!(acks.next_at(), None);
        acks.applied(now, 1, &mut rng());
        assert_eq!(acks.next_at(), None, "the publication before");
        acks.applied(now, 2, &mut rng());
        assert!(acks.next_at().is_some_and(|at| at <= now + GATHER));
        assert_eq!(said(&mut acks, now), Some(5));
        acks.answered(now, Acked::Yes, &mut rng());
        acks.applied(now, 3, &mut rng());
        assert_eq!(said(&mut acks, now), None, "once");
    }

    #[test]
    fn one_is_under_way_at_a_time_and_the_latest_stands_for_all() {
        let (now, mut acks) = (Instant::now(), Acks::default());
        for revision in 1..=3 {
            acks.told(revision, 1);
            acks.applied(now, 1, &mut rng());
        }
        assert_eq!(said(&mut acks, now), Some(3));
        for revision in 4..=6 {
            acks.told(revision, 2);
            acks.applied(now, 2, &mut rng());
        }
        assert_eq!(said(&mut acks, now), None);
        acks.answered(now, Acked::Yes, &mut rng());
        assert_eq!(said(&mut acks, now), Some(6));
    }

    /// Changes that come faster than they can be gathered must not put the word off for ever.
    #[test]
    fn what_comes_later_does_not_put_off_what_is_due() {
        let (now, mut acks) = (Instant::now(), Acks::default());
        acks.told(1, 1);
        acks.applied(now, 1, &mut rng());
        let at = acks.next_at();
        acks.told(2, 2);
        assert_eq!(acks.next_at(), at);
        acks.applied(now + GATHER, 2, &mut rng());
        assert_eq!(acks.next_at(), at);
        assert_eq!(said(&mut acks, now), Some(2));
    }

    #[test]
    fn a_failure_is_tried_again_later_and_a_refusal_never() {
        let (now, mut acks) = (Instant::now(), Acks::default());
        acks.told(1, 1);
        acks.applied(now, 1, &mut rng());
        assert_eq!(said(&mut acks, now), Some(1));
        acks.answered(now, Acked::NotNow, &mut rng());
        assert_eq!(said(&mut acks, now), None);
        assert_eq!(said(&mut acks, now + 2 * RETRY), Some(1));
        acks.answered(now, Acked::Never, &mut rng());
        acks.told(2, 2);
        acks.applied(now, 2, &mut rng());
        assert_eq!(acks.next_at(), None);
    }
}
