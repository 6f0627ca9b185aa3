//! The only place that reads clocks. Through tokio's, so that tests can pause time.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::model::{Moment, Now, WallTime};

/// Both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// Moments count from now.
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Reads both.
    pub(crate) fn now(&self) -> Now {
        Now {
            moment: Moment::after_start(self.start.elapsed()),
            wall: Self::wall(),
        }
    }

    /// Reads the one on the wall, where nothing is measured.
    pub(crate) fn wall() -> WallTime {
        // A wall clock before 1970 is a machine without a clock battery; it still has to serve.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime {
            seconds: i64::try_from(wall.as_secs()).unwrap_or(i64::MAX),
            nanos: wall.subsec_nanos(),
        }
    }

    /// A moment as the timer wants it.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        // Deadlines reach at most 100 hours ahead; a sum beyond the clock's range would only mean "not now".
        self.start.checked_add(moment.since_start()).unwrap_or(self.start)
    }
}
