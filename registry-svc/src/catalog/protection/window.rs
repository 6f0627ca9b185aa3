//! The budget of a group in a window of time: settings and sums, no leases' lives.

use std::time::Duration;

use super::{FLOOR, LeaseTime, pool::Pool};

/// The settings of self-preservation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Protection {
    /// Whether it is on.
    pub(crate) enabled: bool,
    /// Percent of a group that may lapse in a window without anybody thinking of an accident. 15, as in Eureka.
    pub(crate) share_percent: usize,
    /// A minute: several times the default time to live, so that one event is seen as one, and short enough for the trickle to
    /// end nine in ten of a service that has really died within [`Protection::max`] (0.85 to the 15th is 0.09).
    pub(crate) window: Duration,
    /// A quarter of an hour: what has not come back in that time was not a hiccup of the network, and callers have given up on it.
    pub(crate) max: Duration,
}

impl Default for Protection {
    fn default() -> Self {
        Self {
            enabled: true,
            share_percent: 15,
            window: Duration::from_secs(60),
            max: Duration::from_secs(15 * 60),
        }
    }
}

/// The present window of a group.
#[derive(Debug)]
pub(super) struct Window {
    /// When it began.
    pub(super) start: LeaseTime,
    /// The group's instances then.
    pub(super) base: usize,
    /// Instances that have lapsed in it.
    pub(super) lapsed: usize,
    /// Instances that are overdue and have not lapsed.
    pub(super) overdue: usize,
    /// The leases that these are of.
    pub(super) overdue_leases: usize,
    /// Rule 4.
    pub(super) trickles: bool,
    /// Those of the overdue that are held back.
    pub(super) held: Pool,
    /// When it stands on the agenda.
    pub(super) next: Option<LeaseTime>,
}

/// How a lease that was held back went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Its owner is alive, or it is not ours any more.
    Recovered,
    /// It lapsed within the budget.
    Lapsed,
    /// It was held back for the longest time.
    TimedOut,
}

impl Protection {
    /// What may lapse in a window that began with so many instances.
    pub(super) fn budget(&self, base: usize) -> usize {
        (base.saturating_mul(self.share_percent) / 100).max(FLOOR)
    }
}

impl Window {
    /// A window of `base` instances begins.
    pub(super) fn new(start: LeaseTime, base: usize) -> Self {
        Self {
            start,
            base,
            lapsed: 0,
            overdue: 0,
            overdue_leases: 0,
            trickles: false,
            held: Pool::default(),
            next: None,
        }
    }

    /// Rule 3: whether all that is overdue may lapse.
    pub(super) fn has_room_for_all(&self, settings: &Protection) -> bool {
        let is_one_lease = self.lapsed == 0 && self.overdue_leases <= 1;
        is_one_lease || self.lapsed + self.overdue <= settings.budget(self.base)
    }

    /// Rule 4: whether `instances` of one lease may lapse now.
    pub(super) fn has_room_for(&self, instances: usize, settings: &Protection, now: LeaseTime) -> bool {
        self.lapsed == 0 || self.lapsed + instances <= self.allowed(settings, now)
    }

    /// The part of the budget that goes with the part of the window that has passed.
    fn allowed(&self, settings: &Protection, now: LeaseTime) -> usize {
        let budget = settings.budget(self.base);
        let elapsed = now.since(self.start);
        if elapsed >= settings.window {
            return budget;
        }
        let part = budget as u128 * elapsed.as_nanos() / settings.window.as_nanos();
        usize::try_from(part).unwrap_or(budget).clamp(FLOOR, budget)
    }

    /// When the next instance may lapse, or the window ends.
    pub(super) fn next_room(&self, settings: &Protection) -> LeaseTime {
        let end = self.start.plus(settings.window);
        if !self.trickles {
            return end;
        }
        let budget = settings.budget(self.base) as u128;
        // Rounded up, or the look would come just before.
        let nanos = (settings.window.as_nanos() * (self.lapsed as u128 + 1)).div_ceil(budget);
        let after = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.start.plus(after).min(end)
    }
}
