//! Lease time: the monotonic clock without the registry's own pauses.
//!
//! A registry that was stopped (SIGSTOP, a frozen virtual machine, a starved box) heard no heartbeat meanwhile, so that time
//! must not count against any owner. To move every deadline would cost time for each lease just when the registry is behind;
//! instead the clock that deadlines are read on stands still during a pause. It also stands still while the store is away: what
//! lapses then could not be committed, and whoever comes back with the store would find that all time has run out at once.

use std::time::Duration;

use crate::model::Moment;

/// How often the driver looks at the clock at the least. It bounds how late an expiry is noticed, and a longer gap between
/// two looks is a pause.
pub(crate) const PULSE: Duration = Duration::from_millis(100);

/// How late a look may be before it counts: what a busy box does to a timer without anything being wrong.
pub(crate) const TOLERANCE: Duration = Duration::from_millis(150);

/// A point in lease time. Only comparable with its own kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeaseTime(Moment);

/// See the module.
#[derive(Debug)]
pub(crate) struct LeaseClock {
    last: Moment,
    paused: Duration,
    stopped: bool,
}

impl LeaseTime {
    /// From its nanoseconds.
    pub(super) fn at_nanos(nanos: u64) -> Self {
        Self(Moment::after_start(Duration::from_nanos(nanos)))
    }

    /// Its nanoseconds.
    pub(super) fn nanos(self) -> u64 {
        u64::try_from(self.0.since_start().as_nanos()).unwrap_or(u64::MAX)
    }

    /// So much later.
    pub(crate) fn plus(self, time: Duration) -> Self {
        Self(self.0.plus(time))
    }

    /// The time from `earlier` to here.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.since(earlier.0)
    }
}

impl LeaseClock {
    /// Starts without a pause.
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            last: now,
            paused: Duration::ZERO,
            stopped: false,
        }
    }

    /// Reads the clock. A gap of more than [`PULSE`] + [`TOLERANCE`] since the last look was a pause; returns it.
    pub(crate) fn look(&mut self, now: Moment) -> Option<Duration> {
        let gap = now.since(self.last);
        self.last = self.last.max(now);
        if self.stopped {
            self.paused += gap;
            return None;
        }
        if gap <= PULSE + TOLERANCE {
            return None;
        }
        let pause = gap - PULSE;
        self.paused += pause;
        Some(pause)
    }

    /// Stands still from the last look on.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Runs again.
    pub(crate) fn go(&mut self, now: Moment) {
        self.look(now);
        self.stopped = false;
    }

    /// Whether it stands still on purpose.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The time of the last look.
    pub(crate) fn now(&self) -> LeaseTime {
        LeaseTime(self.last.minus(self.paused))
    }

    /// When, if no pause comes between, the monotonic clock will show `time`.
    pub(crate) fn moment_of(&self, time: LeaseTime) -> Moment {
        time.0.plus(self.paused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::after_start(Duration::from_millis(millis))
    }

    #[test]
    fn runs_with_the_monotonic_clock() {
        let mut clock = LeaseClock::new(at(0));
        for step in 1..=20 {
            assert_eq!(clock.look(at(step * 240)), None);
        }
        assert_eq!(clock.now(), LeaseTime(at(4_800)));
    }

    #[test]
    fn stands_still_during_a_pause() {
        let mut clock = LeaseClock::new(at(1_000));
        assert_eq!(clock.look(at(61_100)), Some(Duration::from_secs(60)));
        assert_eq!(clock.now(), LeaseTime(at(1_100)));
        assert_eq!(clock.moment_of(LeaseTime(at(1_200))), at(61_200));
        // The time after the pause counts as before.
        assert_eq!(clock.look(at(61_200)), None);
        assert_eq!(clock.now(), LeaseTime(at(1_200)));
    }

    #[test]
    fn stands_still_while_it_is_stopped() {
        let mut clock = LeaseClock::new(at(1_000));
        clock.stop();
        // Neither many short gaps nor a long one counts, and none is reported as a pause: we were here.
        for millis in [1_100, 1_200, 91_200] {
            assert_eq!(clock.look(at(millis)), None);
            assert_eq!(clock.now(), LeaseTime(at(1_000)));
        }
        clock.go(at(91_300));
        assert_eq!(clock.now(), LeaseTime(at(1_000)));
        assert_eq!(clock.look(at(91_400)), None);
        assert_eq!(clock.now(), LeaseTime(at(1_100)));
    }

    #[test]
    fn a_clock_that_steps_back_changes_nothing() {
        let mut clock = LeaseClock::new(at(1_000));
        assert_eq!(clock.look(at(500)), None);
        assert_eq!(clock.now(), LeaseTime(at(1_000)));
    }
}
