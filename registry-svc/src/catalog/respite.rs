//! A respite after a pause of the registry. Heartbeats that came during the pause still lie in sockets, and the first to run again
//! is the timer: nobody lapses before what lies there could be read.
//!
//! A box that is starved pauses all the time, and must not keep the dead for ever by it: between two respites at least as much
//! time passes as the first one took.

use std::time::Duration;

use super::LeaseTime;

/// Long enough to read some ten thousand sockets; what came in a shorter pause is read in less.
const LONGEST: Duration = Duration::from_secs(2);

/// The last one.
#[derive(Debug)]
pub(super) struct Respite {
    until: LeaseTime,
    /// Until then there is no other one.
    next: LeaseTime,
}

impl Respite {
    /// It has ended.
    pub(super) fn over(now: LeaseTime) -> Self {
        Self { until: now, next: now }
    }

    /// A pause of this length has just ended.
    pub(super) fn begin(&mut self, now: LeaseTime, pause: Duration) {
        if self.next <= now {
            let length = pause.min(LONGEST);
            self.until = now.plus(length);
            self.next = self.until.plus(length);
        }
    }

    /// Whether it is not over yet.
    pub(super) fn lasts(&self, now: LeaseTime) -> bool {
        now < self.until
    }

    /// When it is over.
    pub(super) fn until(&self) -> LeaseTime {
        self.until
    }
}
