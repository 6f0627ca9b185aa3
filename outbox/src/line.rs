//! The line to the broker: whether it takes events over, and when to try again if it did not. Pure; time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// The wait after the first failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest wait. A trial is one batch; somebody who has repaired the broker watches this.
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// How it stands.
#[derive(Debug, Default)]
pub(crate) struct BrokerLine {
    away: Option<Away>,
}

#[derive(Debug)]
struct Away {
    failures: u32,
    again_at: Instant,
}

/// What one more answer has changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It takes nothing over any more.
    Lost,
    /// It does again.
    Found,
}

impl BrokerLine {
    /// May it be asked now?
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.away.as_ref().is_none_or(|away| away.again_at <= now)
    }

    pub(crate) fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// It was asked, and took nothing over.
    pub(crate) fn failed(&mut self, now: Instant) -> Option<Turn> {
        let failures = self.away.as_ref().map_or(0, |away| away.failures);
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(MOST_PAUSE);
        let again_at = now + pause;
        let before = self.away.replace(Away {
            failures: failures.saturating_add(1),
            again_at,
        });
        before.is_none().then_some(Turn::Lost)
    }

    /// It was asked, and answered.
    pub(crate) fn answered(&mut self) -> Option<Turn> {
        self.away.take().map(|_| Turn::Found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_again_after_pauses_that_grow_and_told_of_once() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut line = BrokerLine::default();
        assert!(line.is_open(start) && !line.is_away());
        assert_eq!(line.failed(start), Some(Turn::Lost));
        assert!(!line.is_open(after(199)) && line.is_open(after(200)) && line.is_away());
        assert_eq!(line.failed(after(200)), None);
        assert!(!line.is_open(after(599)) && line.is_open(after(600)));
        for _ in 0..40 {
            assert_eq!(line.failed(after(600)), None);
        }
        assert!(!line.is_open(after(5_599)) && line.is_open(after(5_600)));
        assert_eq!(line.answered(), Some(Turn::Found));
        assert_eq!(line.answered(), None);
        assert!(line.is_open(start));
    }
}
