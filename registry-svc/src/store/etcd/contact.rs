//! Whether etcd can be reached, and when that is told.
//!
//! Two things say that it cannot: looks that fail, and a commit that etcd does not take although looks succeed, as it is when
//! the right to write was revoked or a member has found its data corrupt. A commit that went through is as good as a look.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::shared::Shared;

/// Silence of so long is told. An election takes a second or two, and changes nothing for readers.
const AWAY: Duration = Duration::from_secs(3);
/// One look that failed may be our own pause: a process that was stopped finds its timers run out before its answers.
const FAILURES: u32 = 2;
/// A commit that is repeated for so long is told, whatever looks say.
const STUCK: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Contact {
    shared: Arc<Shared>,
    last: Instant,
    failures: u32,
    away: bool,
}

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// It cannot be reached, since then.
    Begins(Duration),
    /// It still cannot.
    Lasts(Duration),
}

impl Contact {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            last: Instant::now(),
            failures: 0,
            away: false,
        }
    }

    /// A look that began then has found a majority.
    pub(super) fn reached(&mut self, begun: Instant) -> Option<Absence> {
        self.last = self.last.max(begun);
        self.failures = 0;
        let stuck = self.shared.stuck_since()?.elapsed();
        (stuck >= STUCK).then(|| self.absent(stuck))
    }

    /// A look has failed.
    pub(super) fn missed(&mut self) -> Option<Absence> {
        self.failures += 1;
        let last = self
            .shared
            .contact()
            .map_or(self.last, |contact| contact.max(self.last));
        let since = last.elapsed();
        (since >= AWAY && self.failures >= FAILURES).then(|| self.absent(since))
    }

    /// All that was committed has been told. Whether that is the end of an absence.
    pub(super) fn is_back(&mut self) -> bool {
        let back = self.away && self.failures == 0 && self.shared.stuck_since().is_none();
        self.away &= !back;
        back
    }

    fn absent(&mut self, since: Duration) -> Absence {
        if std::mem::replace(&mut self.away, true) {
            Absence::Lasts(since)
        } else {
            Absence::Begins(since)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(millis: u64) {
        tokio::time::advance(Duration::from_millis(millis)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn two_looks_fail_and_three_seconds_pass() {
        let mut contact = Contact::new(Arc::default());
        pass(4_000).await;
        assert_eq!(contact.missed(), None, "it may be our own pause");
        assert_eq!(contact.missed(), Some(Absence::Begins(Duration::from_secs(4))));
        pass(1_000).await;
        assert_eq!(contact.missed(), Some(Absence::Lasts(Duration::from_secs(5))));
        assert!(!contact.is_back());
        assert_eq!(contact.reached(Instant::now()), None);
        assert!(contact.is_back());
        assert!(!contact.is_back(), "once");
    }

    /// An etcd that takes a second and a half for a call takes commits, which have two seconds, and fails looks, which have
    /// one. All writes were refused, which gave it time to recover, and so on and off.
    #[tokio::test(start_paused = true)]
    async fn a_commit_that_went_through_is_contact() {
        let shared = Arc::new(Shared::default());
        let mut contact = Contact::new(Arc::clone(&shared));
        for _ in 0..5 {
            pass(1_500).await;
            shared.answered(Instant::now());
            assert_eq!(contact.missed(), None);
        }
    }

    /// Looks succeed and commits do not: those who waited ran into their deadlines, and nothing said why.
    #[tokio::test(start_paused = true)]
    async fn a_commit_that_is_never_taken_is_an_absence() {
        let shared = Arc::new(Shared::default());
        let mut contact = Contact::new(Arc::clone(&shared));
        shared.unanswered(Instant::now());
        pass(4_900).await;
        assert_eq!(contact.reached(Instant::now()), None);
        shared.unanswered(Instant::now());
        pass(100).await;
        assert_eq!(contact.reached(Instant::now()), Some(Absence::Begins(STUCK)));
        assert!(!contact.is_back());
        shared.answered(Instant::now());
        assert_eq!(contact.reached(Instant::now()), None);
        assert!(contact.is_back());
    }
}
