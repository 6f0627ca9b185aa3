//! So many traces a second, however many calls there are: the probability follows the rate of roots (Dapper, section 4.4, has a
//! target of traces instead of a share, so that quiet services are not lost and busy ones not drowned). Pure: the time and the
//! draw are arguments; shared by threads without a lock.
//!
//! Each second the probability is made anew of the larger of the last second's rate and a slower average: a burst counts at
//! once, its end later. Within a second at most twice the target is taken, so that a sudden flood costs no more than that.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

const WINDOW: Duration = Duration::from_secs(1);
/// What the last second counts for in the slower average.
const SHARE: f32 = 0.25;
/// So many times the target may be taken within one second.
const AT_MOST: f32 = 2.0;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Adaptive {
    target: f32,
    /// Of the present second, in nanoseconds since any fixed moment.
    ends: AtomicU64,
    seen: AtomicU32,
    taken: AtomicU32,
    /// As bits.
    probability: AtomicU32,
    average: AtomicU32,
}

impl Adaptive {
    /// `target` traces a second.
    pub(crate) fn new(target: f32) -> Self {
        Self {
            target,
            ends: AtomicU64::new(0),
            seen: AtomicU32::new(0),
            taken: AtomicU32::new(0),
            probability: AtomicU32::new(1.0_f32.to_bits()),
            average: AtomicU32::new(0.0_f32.to_bits()),
        }
    }

    /// Whether the root that begins at `now` is recorded; then, with which probability that was so. `draw` is even in 0 to 1.
    pub(crate) fn takes(&self, draw: f32, now: Duration) -> Option<f32> {
        self.turn(now);
        self.seen.fetch_add(1, Relaxed);
        let probability = f32::from_bits(self.probability.load(Relaxed));
        // Less than one a second is still one now and then.
        let most = (self.target * AT_MOST).max(1.0);
        let is_taken = draw < probability && (self.taken.fetch_add(1, Relaxed) as f32) < most;
        is_taken.then_some(probability)
    }

    /// Ends the second, if it is over: one of those who see that does.
    fn turn(&self, now: Duration) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let ends = self.ends.load(Relaxed);
        let window = WINDOW.as_nanos() as u64;
        if now < ends
            || self
                .ends
                .compare_exchange(ends, now + window, Relaxed, Relaxed)
                .is_err()
        {
            return;
        }
        let seen = self.seen.swap(0, Relaxed) as f32;
        self.taken.store(0, Relaxed);
        if ends == 0 {
            return;
        }
        // From the beginning of the second that is over: a quiet one may have lasted long.
        let lasted = (now - ends + window) as f32 / window as f32;
        let rate = seen / lasted;
        let average = f32::from_bits(self.average.load(Relaxed));
        let average = average + (rate - average) * SHARE;
        self.average.store(average.to_bits(), Relaxed);
        let expected = rate.max(average);
        let probability = if expected > self.target {
            self.target / expected
        } else {
            1.0
        };
        self.probability.store(probability.to_bits(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many are taken in each second, of `rate` roots a second; draws go round evenly.
    fn taken(adaptive: &Adaptive, rate: u32, from: u64, seconds: u64) -> Vec<u32> {
        let mut draw = 0.5_f32;
        (from..from + seconds)
            .map(|second| {
                (0..rate)
                    .filter(|n| {
                        draw = (draw + 0.618_034).fract();
                        let now = Duration::from_secs(second) + WINDOW.mul_f64(f64::from(*n) / f64::from(rate));
                        adaptive.takes(draw, now).is_some()
                    })
                    .count() as u32
            })
            .collect()
    }

    #[test]
    fn a_quiet_service_is_recorded_whole() {
        let adaptive = Adaptive::new(10.0);
        assert_eq!(taken(&adaptive, 5, 1, 10), [5; 10]);
    }

    #[test]
    fn a_busy_one_by_its_target() {
        let adaptive = Adaptive::new(10.0);
        let taken = taken(&adaptive, 5_000, 1, 20);
        assert!(taken[0] <= 20, "twice at the most: {taken:?}");
        assert!(taken[2..].iter().all(|count| (8..=12).contains(count)), "{taken:?}");
    }

    #[test]
    fn after_a_burst_it_comes_back() {
        let adaptive = Adaptive::new(10.0);
        taken(&adaptive, 5_000, 1, 5);
        let after = taken(&adaptive, 8, 6, 60);
        assert_eq!(after[59], 8, "{after:?}");
    }

    #[test]
    fn the_probability_is_told() {
        let adaptive = Adaptive::new(10.0);
        taken(&adaptive, 1_000, 1, 20);
        let told = adaptive.takes(0.0, Duration::from_millis(21_001)).expect("taken");
        assert!((told - 0.01).abs() < 0.002, "{told}");
    }

    proptest! {
        #[test]
        fn never_more_than_twice_the_target(
            target in 1.0_f32..50.0,
            rates in prop::collection::vec(1_u32..2_000, 1..12),
        ) {
            let adaptive = Adaptive::new(target);
            for (second, rate) in (1..).zip(rates) {
                let taken = taken(&adaptive, rate, second, 1)[0];
                prop_assert!(taken as f32 <= (target * AT_MOST).ceil(), "{taken} of {rate} for {target}");
            }
        }
    }
}
