//! Time as the core sees it: two clocks, both arguments.
//!
//! Deadlines are decided on [`Moment`] alone; [`WallTime`] is for people and decides nothing but when an operator's decision ends
//! that says so in their time.

use std::time::Duration;

/// A point on the process's monotonic clock: the nanoseconds since it started, of which 64 bits hold 584 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Moment(u64);

/// A point on the wall clock, to the nanosecond, as protobuf has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WallTime {
    /// Since 1970-01-01T00:00:00Z.
    pub(crate) seconds: i64,
    /// 0 to 999,999,999.
    pub(crate) nanos: u32,
}

/// Both clocks, read together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Decides.
    pub(crate) moment: Moment,
    /// Is told.
    pub(crate) wall: WallTime,
}

impl Moment {
    /// So long after the start.
    pub(crate) fn after_start(elapsed: Duration) -> Self {
        Self(nanos(elapsed))
    }

    /// The time since the start.
    pub(crate) fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// The time from `earlier` to here; zero when it is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// So much later.
    pub(crate) fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(nanos(time)))
    }

    /// So much earlier, but not before the start.
    pub(crate) fn minus(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(time)))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
