//! How long to wait before the next connect: exponential, capped, jittered. Not a timer: the driver sleeps.
//!
//! The jitter only shortens. A fleet of callers that lost the same server at the same instant would otherwise come back to
//! it at the same instant too, again and again; and a delay that never exceeds its cap keeps the promise of the name `max`.

use std::time::Duration;

use rand::{Rng, RngExt};

use crate::range::FOR_EVER;

/// Exponential back-off between attempts to connect to one endpoint. See [`Backoff::try_new`].
///
/// The default is 100 ms doubling to 10 s with a jitter of one half.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    jitter: f64,
}

/// Why a [`Backoff`] was refused.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidBackoff {
    /// A back-off of nothing is a busy loop.
    #[error("the shortest back-off must be longer than zero")]
    ZeroMin,
    /// The range is empty.
    #[error("the shortest back-off, {min:?}, is longer than the longest, {max:?}")]
    MinExceedsMax {
        /// The shortest back-off asked for.
        min: Duration,
        /// The longest back-off asked for.
        max: Duration,
    },
    /// Jitter is a share of the delay.
    #[error("the jitter must be between 0 and 1, not {0}")]
    JitterOutOfRange(f64),
}

impl Default for Backoff {
    fn default() -> Self {
        // A server that restarts in the same place is back within a second; beyond 10 s a person would be waiting for us.
        Self {
            min: Duration::from_millis(100),
            max: Duration::from_secs(10),
            jitter: 0.5,
        }
    }
}

impl Backoff {
    /// The delay after the n-th failure in a row is drawn evenly from `d * (1 - jitter) ..= d`, where `d` is `min` doubled
    /// n-1 times but at most `max`.
    ///
    /// # Errors
    /// `min` must be above zero and not above `max`; `jitter` must be in 0..=1.
    pub fn try_new(min: Duration, max: Duration, jitter: f64) -> Result<Self, InvalidBackoff> {
        if min.is_zero() {
            return Err(InvalidBackoff::ZeroMin);
        }
        if min > max {
            return Err(InvalidBackoff::MinExceedsMax { min, max });
        }
        if !(0.0..=1.0).contains(&jitter) {
            return Err(InvalidBackoff::JitterOutOfRange(jitter));
        }
        let (min, max) = (min.min(FOR_EVER), max.min(FOR_EVER));
        Ok(Self { min, max, jitter })
    }

    /// One whose numbers are known to be valid.
    pub(crate) const fn doubling(min: Duration, max: Duration, jitter: f64) -> Self {
        Self { min, max, jitter }
    }

    /// The delay after `failures` failures in a row (at least one).
    pub(crate) fn delay(&self, failures: u32, rng: &mut impl Rng) -> Duration {
        // 2^31 times the shortest possible delay of 1 ns is already 2 s; saturation takes care of the rest.
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.min.saturating_mul(1 << doublings).min(self.max);
        full.mul_f64(1.0 - self.jitter * rng.random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn refuses_what_makes_no_sense() {
        let (ms, s) = (Duration::from_millis(1), Duration::from_secs(1));
        assert_eq!(Backoff::try_new(Duration::ZERO, s, 0.5), Err(InvalidBackoff::ZeroMin));
        assert_eq!(
            Backoff::try_new(s, ms, 0.5),
            Err(InvalidBackoff::MinExceedsMax { min: s, max: ms })
        );
        assert_eq!(Backoff::try_new(ms, s, 1.1), Err(InvalidBackoff::JitterOutOfRange(1.1)));
        assert!(matches!(
            Backoff::try_new(ms, s, f64::NAN),
            Err(InvalidBackoff::JitterOutOfRange(_))
        ));
    }

    #[test]
    fn without_jitter_it_doubles_to_the_cap() {
        let backoff = Backoff::try_new(Duration::from_millis(100), Duration::from_secs(1), 0.0).expect("valid");
        let mut rng = StdRng::seed_from_u64(1);
        let millis: Vec<u128> = (1..=6).map(|n| backoff.delay(n, &mut rng).as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1000, 1000]);
    }

    proptest! {
        #[test]
        fn every_delay_is_within_its_bounds(
            min_ms in 1_u64..5_000, span_ms in 0_u64..100_000, jitter in 0.0_f64..=1.0, failures in 0_u32.., seed in any::<u64>(),
        ) {
            let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(min_ms + span_ms));
            let backoff = Backoff::try_new(min, max, jitter).expect("valid");
            let delay = backoff.delay(failures, &mut StdRng::seed_from_u64(seed));
            prop_assert!(delay <= max);
            prop_assert!(delay + Duration::from_micros(1) >= min.mul_f64(1.0 - jitter));
        }
    }
}
