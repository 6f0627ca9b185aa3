//! How long to wait before the next attempt: exponential, jittered, bounded. Draws from the randomness it is given and reads
//! no clock; it does not decide whether to try again.
//!
//! The jitter is "full" above a floor: each delay is uniform between the minimum and the current ceiling, and the ceiling
//! doubles with every attempt. A narrow jitter (gRPC's connection back-off takes 20 %) would keep the thousands of clients
//! that lost a registry in the same instant together, and they would come back together.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// The shortest delay unless told otherwise.
pub(crate) const DEFAULT_MIN: Duration = Duration::from_millis(100);
/// The longest delay unless told otherwise.
pub(crate) const DEFAULT_MAX: Duration = Duration::from_secs(10);

/// A jittered exponential back-off.
///
/// The n-th delay (from 1) after a [`reset`](Self::reset) is uniform in `[min, min(max, min * 2^n)]`.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    ceiling: Duration,
}

/// Why a back-off cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackoff {
    /// Without a minimum, attempts would follow each other without a pause.
    #[error("the minimum of a back-off must be above zero")]
    ZeroMinimum,
    /// The range is empty.
    #[error("the maximum of a back-off ({max:?}) is below its minimum ({min:?})")]
    MaximumBelowMinimum {
        /// The minimum given.
        min: Duration,
        /// The maximum given.
        max: Duration,
    },
}

impl Backoff {
    /// A back-off between `min` (above zero) and `max` (not below `min`), both inclusive.
    ///
    /// # Errors
    ///
    /// [`InvalidBackoff`] names the bound that does not hold.
    pub fn try_new(min: Duration, max: Duration) -> Result<Self, InvalidBackoff> {
        if min.is_zero() {
            return Err(InvalidBackoff::ZeroMinimum);
        }
        if max < min {
            return Err(InvalidBackoff::MaximumBelowMinimum { min, max });
        }
        Ok(Self { min, max, ceiling: min })
    }

    /// The delay before the next attempt.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        self.ceiling = self.ceiling.saturating_mul(2).min(self.max);
        let span = self.ceiling - self.min;
        self.min + span.mul_f64(rng.random_range(0.0..=1.0))
    }

    /// The peer answered: the next delay is a short one again.
    pub fn reset(&mut self) {
        self.ceiling = self.min;
    }
}

impl Default for Backoff {
    /// From 100 ms to 10 s.
    fn default() -> Self {
        Self {
            min: DEFAULT_MIN,
            max: DEFAULT_MAX,
            ceiling: DEFAULT_MIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn bounds_are_checked() {
        let cases = [
            (ms(0), ms(10), Err(InvalidBackoff::ZeroMinimum)),
            (
                ms(10),
                ms(9),
                Err(InvalidBackoff::MaximumBelowMinimum {
                    min: ms(10),
                    max: ms(9),
                }),
            ),
            (ms(10), ms(10), Ok(())),
            (ms(1), Duration::MAX, Ok(())),
        ];
        for (min, max, expected) in cases {
            assert_eq!(Backoff::try_new(min, max).map(|_| ()), expected, "{min:?}..{max:?}");
        }
    }

    #[test]
    fn every_delay_stays_under_its_ceiling_and_over_the_floor() {
        let ceilings = [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000, 10_000];
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut backoff = Backoff::default();
            for ceiling in ceilings {
                let delay = backoff.next(&mut rng);
                assert!(
                    (DEFAULT_MIN..=ms(ceiling)).contains(&delay),
                    "seed {seed}: {delay:?} is not in 100 ms..={ceiling} ms"
                );
            }
        }
    }

    #[test]
    fn a_reset_starts_over() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.next(&mut rng);
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= ms(200));
    }

    #[test]
    fn a_herd_spreads_over_the_whole_window() {
        // The delays of a thousand clients at their seventh attempt (window 100 ms..10 s), by tenths of the window.
        let mut tenths = [0_usize; 10];
        for seed in 0..1_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut backoff = Backoff::default();
            let delay = (0..7).map(|_| backoff.next(&mut rng)).last().unwrap_or_default();
            let tenth = ((delay - DEFAULT_MIN).as_millis() / 991).min(9) as usize;
            tenths[tenth] += 1;
        }
        assert!(tenths.iter().all(|&n| (50..=200).contains(&n)), "{tenths:?}");
    }

    #[test]
    fn no_range_overflows() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::try_new(ms(1), Duration::from_secs(u64::MAX / 4)).unwrap();
        for _ in 0..200 {
            backoff.next(&mut rng);
        }
    }
}
