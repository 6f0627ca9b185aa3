//! When the set on disk is gone by instead of what the registry says. Pure.
//!
//! 1. Until the registry has told a set, the one on disk is gone by: at once when the registry cannot be reached, after a moment
//!    when it merely has not answered yet. A registry that answers in time is not overtaken by an older truth.
//! 2. A registry whose *first* word is that there is nobody is not believed for a grace: it may have lost its state, and its
//!    providers are about to find out. The clock runs only while it is heard.
//! 3. Once it has told of anybody, the disk has no say any more. What it takes back later is the watcher's to doubt.

use std::time::Duration;

use registry_client::DEFAULT_GRACE;
use tokio::time::Instant;

use super::Saved;

/// How long a registry has for its first word.
const MOMENT: Duration = Duration::from_millis(300);

/// What the registry has told so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing, and nothing has failed.
    NotYet,
    /// Nothing, and it cannot be reached.
    Unreachable,
    /// That there is nobody; it is heard, or not any more.
    Nobody { is_heard: bool },
    /// Of somebody.
    Somebody,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Belief {
    began: Instant,
    saved: Option<Saved>,
    /// Since when it says that there is nobody.
    nobody_since: Option<Instant>,
    is_over: bool,
}

impl Belief {
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            saved: None,
            nobody_since: None,
            is_over: false,
        }
    }

    /// What was on disk.
    pub(crate) fn finds(&mut self, saved: Option<Saved>) {
        if !self.is_over {
            self.saved = saved;
        }
    }

    /// The set to go by instead of what was told, and when to ask again if nothing happens before.
    pub(crate) fn instead_of(&mut self, told: Told, now: Instant) -> (Option<&Saved>, Option<Instant>) {
        let later = match told {
            Told::Somebody => {
                self.is_over = true;
                self.saved = None;
                return (None, None);
            }
            Told::NotYet => {
                let moment = self.began + MOMENT;
                if now < moment {
                    return (None, Some(moment));
                }
                None
            }
            Told::Unreachable | Told::Nobody { is_heard: false } => {
                self.nobody_since = None;
                None
            }
            Told::Nobody { is_heard: true } => {
                let ends = *self.nobody_since.get_or_insert(now) + DEFAULT_GRACE;
                if now >= ends {
                    self.is_over = true;
                    self.saved = None;
                    return (None, None);
                }
                Some(ends)
            }
        };
        (self.saved.as_ref(), later.filter(|_| self.saved.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn saved() -> Saved {
        Saved {
            backends: Vec::new(),
            revision: 7,
            at: SystemTime::UNIX_EPOCH,
        }
    }

    const HEARD: Told = Told::Nobody { is_heard: true };
    const AWAY: Told = Told::Nobody { is_heard: false };
    const SECOND: Duration = Duration::from_secs(1);

    /// Whether the disk is gone by, after each word of a registry at a time.
    fn check(words: &[(Duration, Told, bool)]) {
        let began = Instant::now();
        let mut belief = Belief::new(began);
        belief.finds(Some(saved()));
        for (after, told, expected) in words {
            let (disk, _) = belief.instead_of(*told, began + *after);
            assert_eq!(disk.is_some(), *expected, "{told:?} after {after:?} of {words:?}");
        }
    }

    #[test]
    fn a_registry_has_a_moment_and_one_that_is_away_has_none() {
        check(&[(Duration::ZERO, Told::NotYet, false), (MOMENT, Told::NotYet, true)]);
        check(&[(Duration::ZERO, Told::Unreachable, true)]);
    }

    #[test]
    fn once_it_has_told_of_anybody_the_disk_has_no_say() {
        check(&[
            (SECOND, Told::Unreachable, true),
            (SECOND * 2, Told::Somebody, false),
            (SECOND * 3, AWAY, false),
            (SECOND * 4, HEARD, false),
        ]);
    }

    #[test]
    fn nobody_is_not_believed_before_a_grace_in_which_it_is_heard() {
        check(&[
            (SECOND, HEARD, true),
            (SECOND * 30, HEARD, true),
            (SECOND * 31, HEARD, false),
            (SECOND * 32, Told::Unreachable, false),
        ]);
        check(&[
            (SECOND, HEARD, true),
            (SECOND * 20, AWAY, true),
            (SECOND * 60, AWAY, true),
            (SECOND * 70, HEARD, true),
            (SECOND * 99, HEARD, true),
            (SECOND * 100, HEARD, false),
        ]);
    }

    #[test]
    fn without_a_set_on_disk_nothing_is_waited_for_after_the_moment() {
        let began = Instant::now();
        let mut belief = Belief::new(began);
        assert_eq!(belief.instead_of(Told::NotYet, began).1, Some(began + MOMENT));
        assert_eq!(belief.instead_of(HEARD, began).1, None);
        belief.finds(Some(saved()));
        assert_eq!(belief.instead_of(HEARD, began).1, Some(began + DEFAULT_GRACE));
    }
}
