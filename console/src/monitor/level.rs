//! The resolutions that are kept: hours fine, weeks coarse. Pure.

use std::time::Duration;

/// One resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Level {
    /// 10 s, for 6 h: what happened just now.
    Fine,
    /// 1 min, for 2 days: yesterday at the same time.
    Minutes,
    /// 1 h, for 35 days: five weeks show what a week is like.
    Hours,
}

impl Level {
    /// From the finest to the coarsest.
    pub(crate) const ALL: [Self; 3] = [Self::Fine, Self::Minutes, Self::Hours];

    /// Seconds of a point; each divides the next one.
    pub(crate) const fn width(self) -> u64 {
        match self {
            Self::Fine => 10,
            Self::Minutes => 60,
            Self::Hours => 3_600,
        }
    }

    /// Seconds for which points are kept.
    pub(crate) const fn retention(self) -> u64 {
        match self {
            Self::Fine => 6 * 3_600,
            Self::Minutes => 48 * 3_600,
            Self::Hours => 35 * 24 * 3_600,
        }
    }

    /// The point that a moment (seconds since 1970) belongs to.
    pub(crate) fn slot(self, at: u64) -> u32 {
        u32::try_from(at / self.width()).unwrap_or(u32::MAX)
    }

    /// The first moment of a point.
    pub(crate) fn start(self, slot: u32) -> u64 {
        u64::from(slot) * self.width()
    }

    /// The oldest point that is kept at that time.
    pub(crate) fn horizon(self, now: u64) -> u32 {
        self.slot(now.saturating_sub(self.retention()))
    }

    /// As the store has it.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Minutes => 1,
            Self::Hours => 2,
        }
    }

    /// From the store.
    pub(crate) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.number() == number)
    }

    /// The finest that still has what happened at `since`.
    pub(crate) fn finest(since: u64, now: u64) -> Self {
        let has = |level: &Self| level.slot(since) >= level.horizon(now);
        Self::ALL.into_iter().find(has).unwrap_or(Self::Hours)
    }

    /// The coarsest whose points make up steps of so many seconds: fewer points to add up for the same sums.
    pub(crate) fn for_step(step: u64) -> Self {
        let fits = |level: &Self| step.is_multiple_of(level.width());
        Self::ALL.into_iter().rev().find(fits).unwrap_or(Self::Fine)
    }

    /// The one to add up a window from: the finest that has it, or a coarser one where that is a sixtieth of it at most.
    pub(crate) fn for_window(since: u64, until: u64, now: u64) -> Self {
        let finest = Self::finest(since, now);
        let enough = |level: &Self| *level > finest && level.width() * 60 <= until.saturating_sub(since);
        Self::ALL.into_iter().rev().find(enough).unwrap_or(finest)
    }
}

/// The longest that anything is kept.
pub(crate) const LONGEST: Duration = Duration::from_secs(Level::Hours.retention());

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_question_goes_to_the_resolution_that_has_the_answer() {
        let hour = 3_600;
        for (ago, expected) in [
            (60, Level::Fine),
            (6 * hour, Level::Fine),
            (7 * hour, Level::Minutes),
            (48 * hour, Level::Minutes),
            (49 * hour, Level::Hours),
            (400 * 24 * hour, Level::Hours),
        ] {
            assert_eq!(Level::finest(NOW - ago, NOW), expected, "{ago} s ago");
        }
        assert_eq!(Level::for_step(10), Level::Fine);
        assert_eq!(Level::for_step(90), Level::Fine);
        assert_eq!(Level::for_step(120), Level::Minutes);
        assert_eq!(Level::for_step(7_200), Level::Hours);
        assert_eq!(Level::for_window(NOW - 600, NOW, NOW), Level::Fine);
        assert_eq!(Level::for_window(NOW - 3_600, NOW, NOW), Level::Minutes);
        assert_eq!(Level::for_window(NOW - 7 * 24 * 3_600, NOW, NOW), Level::Hours);
    }
}
