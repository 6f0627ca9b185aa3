//! Client-side throttling (Google SRE book, "Handling Overload"): the probability to reject, and who counts for it.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use tokio::time::Instant;

use super::Throttling;
use crate::window::Window;

/// A call's place in the counts.
const ACCEPTED: [u32; 2] = [1, 1];
const REJECTED: [u32; 2] = [1, 0];

/// The throttle of one channel. What it rejects counts as a call that was not accepted, which is what keeps the probability up
/// while callers keep asking.
#[derive(Debug)]
pub(crate) struct Throttle {
    config: Throttling,
    /// Of 2^32 calls so many are rejected, as of the last one that ended: nothing to lock while that is none.
    odds: AtomicU32,
    /// Calls, and those accepted.
    counts: Mutex<Window<2>>,
}

impl Throttle {
    pub(crate) fn new(config: Throttling, now: Instant) -> Self {
        Self {
            config,
            odds: AtomicU32::new(0),
            counts: Mutex::new(Window::new(config.window, now)),
        }
    }

    /// Whether a call may be made; `draw` is 32 random bits.
    pub(crate) fn admits(&self, now: Instant, draw: impl FnOnce() -> u32) -> bool {
        if self.odds.load(Ordering::Relaxed) == 0 || draw() >= self.odds.load(Ordering::Relaxed) {
            return true;
        }
        self.count(now, REJECTED);
        false
    }

    /// A call that was made has ended.
    pub(crate) fn learn(&self, now: Instant, accepted: bool) {
        self.count(now, if accepted { ACCEPTED } else { REJECTED });
    }

    fn count(&self, now: Instant, call: [u32; 2]) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.add(now, call);
        let [calls, accepted] = counts.totals(now);
        let odds = probability(calls, accepted, self.config.k).min(self.config.most) * f64::from(u32::MAX);
        self.odds.store(odds as u32, Ordering::Relaxed);
    }
}

/// The book's formula: `max(0, (requests - K * accepts) / (requests + 1))`.
fn probability(calls: u32, accepted: u32, k: f64) -> f64 {
    let calls = f64::from(calls);
    ((calls - k * f64::from(accepted)) / (calls + 1.0)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn half_may_be_refused_before_anything_is_rejected_here() {
        assert_eq!(probability(0, 0, 2.0), 0.0);
        assert_eq!(probability(100, 50, 2.0), 0.0);
        assert!((probability(99, 0, 2.0) - 0.99).abs() < 1e-9);
        assert!((probability(199, 50, 2.0) - 0.495).abs() < 1e-9);
    }

    /// A server that takes `capacity` calls in each tenth of a second; callers make `offered`. How many were sent and how many
    /// of them taken, in the last second.
    fn run(
        throttle: &Throttle,
        now: &mut Instant,
        rng: &mut StdRng,
        offered: u32,
        capacity: u32,
        seconds: u32,
    ) -> (u32, u32) {
        let (mut sent, mut taken) = (0, 0);
        for tick in 0..seconds * 10 {
            let mut room = capacity;
            for _ in 0..offered {
                if throttle.admits(*now, || rng.next_u32()) {
                    let accepted = room > 0;
                    room = room.saturating_sub(1);
                    throttle.learn(*now, accepted);
                    if tick >= (seconds - 1) * 10 {
                        sent += 1;
                        taken += u32::from(accepted);
                    }
                }
            }
            *now += Duration::from_millis(100);
        }
        (sent, taken)
    }

    #[test]
    fn an_overloaded_service_is_asked_twice_what_it_takes_and_not_ten_times() {
        let (mut now, mut rng) = (Instant::now(), StdRng::seed_from_u64(7));
        let throttle = Throttle::new(Throttling::default(), now);
        let (sent, taken) = run(&throttle, &mut now, &mut rng, 100, 10, 60);
        assert!((150..=250).contains(&sent), "{sent} sent of 1000");
        assert!(taken >= 95, "{taken} of 100 taken");
    }

    /// Without a limit to what is rejected the few calls that get through show only to a few more that the service is well
    /// again: the share that gets through doubles once a window, from next to nothing.
    #[test]
    fn a_service_that_refused_everything_is_found_well_within_30_s() {
        let (mut now, mut rng) = (Instant::now(), StdRng::seed_from_u64(7));
        let throttle = Throttle::new(Throttling::default(), now);
        let (sent, _) = run(&throttle, &mut now, &mut rng, 90, 0, 60);
        assert!((100..=260).contains(&sent), "{sent} sent of 900");
        let (_, taken) = run(&throttle, &mut now, &mut rng, 90, 100, 30);
        assert!(taken * 100 >= 900 * 95, "{taken} of 900");
    }

    #[test]
    fn goodput_comes_back_within_30_s_after_an_overload() {
        for times in [2, 4, 10] {
            let (mut now, mut rng) = (Instant::now(), StdRng::seed_from_u64(7));
            let throttle = Throttle::new(Throttling::default(), now);
            run(&throttle, &mut now, &mut rng, 10 * times, 10, 120);
            let (_, taken) = run(&throttle, &mut now, &mut rng, 9, 10, 30);
            assert!(taken * 100 >= 90 * 95, "{taken} of 90 after {times} times the load");
        }
    }

    proptest! {
        #[test]
        fn it_is_a_probability_and_none_while_enough_is_accepted(calls in 0_u32..10_000, refused in 0_u32..10_000, k in 1.0_f64..5.0) {
            let accepted = calls.saturating_sub(refused);
            let probability = probability(calls, accepted, k);
            prop_assert!((0.0..=1.0).contains(&probability));
            prop_assert!(probability == 0.0 || f64::from(accepted) * k < f64::from(calls));
        }
    }
}
