//! Points in time as the store keeps them. Never reads a clock.

use std::time::Duration;

/// Nanoseconds since 1970-01-01T00:00:00Z. Range of the type: the years 1677 to 2262.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

const NANOS_PER_SECOND: i64 = 1_000_000_000;

impl Timestamp {
    /// From nanoseconds since the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From seconds since the epoch and the nanoseconds of that second (0 to 999,999,999); `None` when out of range.
    #[must_use]
    pub fn from_parts(seconds: i64, nanos: i32) -> Option<Self> {
        if !(0..NANOS_PER_SECOND).contains(&i64::from(nanos)) {
            return None;
        }
        let whole = seconds.checked_mul(NANOS_PER_SECOND)?;
        whole.checked_add(i64::from(nanos)).map(Self)
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch, rounded down, and the nanoseconds of that second.
    #[must_use]
    pub fn to_parts(self) -> (i64, i32) {
        let nanos = i32::try_from(self.0.rem_euclid(NANOS_PER_SECOND)).unwrap_or_default();
        (self.0.div_euclid(NANOS_PER_SECOND), nanos)
    }

    /// How long after `earlier` it is; nothing if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(i128::from(self.0) - i128::from(earlier.0)).unwrap_or_default())
    }

    /// This much later; stays at the end of the range.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
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
    fn parts_round_trip_also_before_the_epoch() {
        for (seconds, nanos) in [(0, 0), (1_700_000_000, 999_999_999), (-1, 1), (-62, 5)] {
            let time = Timestamp::from_parts(seconds, nanos).expect("in range");
            assert_eq!(time.to_parts(), (seconds, nanos));
        }
    }

    #[test]
    fn the_time_between_two_is_never_negative() {
        let at = Timestamp::from_nanos;
        assert_eq!(at(7).since(at(2)), Duration::from_nanos(5));
        assert_eq!(at(2).since(at(7)), Duration::ZERO);
        assert_eq!(at(i64::MAX).since(at(i64::MIN)), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn what_does_not_fit_is_refused_or_saturates() {
        assert_eq!(Timestamp::from_parts(i64::MAX, 0), None);
        assert_eq!(Timestamp::from_parts(0, -1), None);
        assert_eq!(Timestamp::from_parts(0, 1_000_000_000), None);
        assert_eq!(
            Timestamp::from_nanos(i64::MAX).after(Duration::MAX).as_nanos(),
            i64::MAX
        );
    }
}
