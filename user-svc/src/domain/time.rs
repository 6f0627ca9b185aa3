//! Points in time as the store keeps them. Never reads a clock.

use std::time::Duration;

/// Nanoseconds since 1970-01-01T00:00:00Z. Range of the type: the years 1677 to 2262.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Timestamp(i64);

const NANOS_PER_SECOND: i64 = 1_000_000_000;

impl Timestamp {
    /// From nanoseconds since the epoch.
    pub(crate) const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the epoch.
    pub(crate) const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch, rounded down, and the nanoseconds of that second.
    pub(crate) fn to_parts(self) -> (i64, i32) {
        let nanos = i32::try_from(self.0.rem_euclid(NANOS_PER_SECOND)).unwrap_or_default();
        (self.0.div_euclid(NANOS_PER_SECOND), nanos)
    }

    /// This much later; stays at the end of the range.
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_rounded_down_also_before_the_epoch() {
        for (nanos, parts) in [(0, (0, 0)), (1_000_000_001, (1, 1)), (-1, (-1, 999_999_999))] {
            assert_eq!(Timestamp::from_nanos(nanos).to_parts(), parts);
        }
        assert_eq!(Timestamp::from_nanos(1).after(Duration::MAX).as_nanos(), i64::MAX);
    }
}
