//! The concurrency limit as a function of latency (Netflix concurrency-limits, `Gradient2Limit`). Pure.
//!
//! `gradient = clamp(tolerance * long / short, 0.5, 1)`, `limit = 0.8 limit + 0.2 (limit * gradient + 4)`, and no change while
//! less than half of it is used. Differences: a sample is the mean of a quarter of a second and not of a whole one, or it would
//! take minutes to grow back after an overload; and servers that refuse calls count as if latency had risen a little, since
//! refusing is quick.

use std::time::Duration;

use tokio::time::Instant;

use super::ConcurrencyLimit;

/// What latency is averaged over before it counts.
const SAMPLE: Duration = Duration::from_millis(250);
/// Fewer calls are no sample (`WindowedLimit`, windowSize).
const MIN_CALLS: u32 = 10;
/// How many samples the long average goes back (`longWindow`), and how many begin it as a plain mean.
const LONG: f64 = 600.0;
const WARM_UP: u32 = 10;
/// What may queue at the server before it counts as waiting (`queueSize`).
const QUEUE: f64 = 4.0;
const SMOOTHING: f64 = 0.2;
/// What a sample with refused calls is worth (`AIMDLimit`, backoffRatio).
const REFUSED: f64 = 0.9;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Gradient {
    limit: f64,
    /// Seconds.
    long: f64,
    samples: u32,
    sample: Sample,
}

/// What has come in since the last sample.
#[derive(Debug)]
struct Sample {
    since: Instant,
    /// Seconds.
    sum: f64,
    calls: u32,
    most_in_flight: u32,
    refused: bool,
}

impl Sample {
    fn from(now: Instant) -> Self {
        Self {
            since: now,
            sum: 0.0,
            calls: 0,
            most_in_flight: 0,
            refused: false,
        }
    }
}

impl Gradient {
    pub(super) fn new(config: &ConcurrencyLimit, now: Instant) -> Self {
        Self {
            limit: f64::from(config.min),
            long: 0.0,
            samples: 0,
            sample: Sample::from(now),
        }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// A call that began among so many has been answered after so long. The new limit, when a sample is complete.
    pub(super) fn learn(
        &mut self,
        took: Duration,
        among: u32,
        refused: bool,
        now: Instant,
        config: &ConcurrencyLimit,
    ) -> Option<u32> {
        let sample = &mut self.sample;
        sample.most_in_flight = sample.most_in_flight.max(among);
        sample.refused |= refused;
        // How quickly somebody refuses tells nothing of how long the work takes.
        if !refused {
            sample.sum += took.as_secs_f64();
            sample.calls += 1;
        }
        let complete = sample.calls >= MIN_CALLS || sample.refused;
        if !complete || now.saturating_duration_since(sample.since) < SAMPLE {
            return None;
        }
        let sample = std::mem::replace(&mut self.sample, Sample::from(now));
        self.update(&sample, config);
        Some(self.limit())
    }

    fn update(&mut self, sample: &Sample, config: &ConcurrencyLimit) {
        let mut gradient = 1.0;
        if sample.calls > 0 {
            let short = (sample.sum / f64::from(sample.calls)).max(1e-9);
            self.samples = self.samples.saturating_add(1);
            let share = if self.samples <= WARM_UP {
                1.0 / f64::from(self.samples)
            } else {
                2.0 / (LONG + 1.0)
            };
            self.long += (short - self.long) * share;
            // After a long overload the long average is far too high; it comes down faster than it went up.
            if self.long / short > 2.0 {
                self.long *= 0.95;
            }
            gradient = (config.tolerance * self.long / short).clamp(0.5, 1.0);
        }
        if sample.refused {
            gradient = gradient.min(REFUSED);
        }
        // Not used, so nothing is known of whether more would do.
        if f64::from(sample.most_in_flight) < self.limit / 2.0 {
            return;
        }
        let wanted = self.limit * gradient + if sample.refused { 0.0 } else { QUEUE };
        self.limit =
            ((1.0 - SMOOTHING) * self.limit + SMOOTHING * wanted).clamp(f64::from(config.min), f64::from(config.max));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server that works on `slots` calls at a time, each for `work`, and queues the rest; so the latency among `n` is
    /// `work * max(1, n / slots)`. Callers offer `offered` calls at a time for that long. The goodput in the last second, as a
    /// share of what the server could do or was asked for.
    struct Fleet {
        gradient: Gradient,
        config: ConcurrencyLimit,
        now: Instant,
        slots: f64,
        work: Duration,
    }

    impl Fleet {
        fn new(slots: f64) -> Self {
            let (config, now) = (ConcurrencyLimit::default(), Instant::now());
            Self {
                gradient: Gradient::new(&config, now),
                config,
                now,
                slots,
                work: Duration::from_millis(10),
            }
        }

        fn latency(&self, among: f64) -> Duration {
            self.work.mul_f64((among / self.slots).max(1.0))
        }

        fn run(&mut self, offered: f64, seconds: u64) {
            let end = self.now + Duration::from_secs(seconds);
            while self.now < end {
                let among = offered.min(f64::from(self.gradient.limit()));
                // All of them at once, ten milliseconds apart.
                for _ in 0..among as u32 {
                    self.gradient
                        .learn(self.latency(among), among as u32, false, self.now, &self.config);
                }
                self.now += Duration::from_millis(10);
            }
        }

        fn goodput(&self, offered: f64) -> f64 {
            let among = offered.min(f64::from(self.gradient.limit()));
            among.min(self.slots) / offered.min(self.slots)
        }
    }

    #[test]
    fn it_grows_to_what_is_used_and_latency_stays() {
        let mut fleet = Fleet::new(60.0);
        fleet.run(50.0, 30);
        assert!(fleet.goodput(50.0) > 0.99, "{:?}", fleet.gradient);
    }

    #[test]
    fn under_twice_the_load_it_bounds_latency_and_goodput_comes_back_within_30_s() {
        let mut fleet = Fleet::new(50.0);
        fleet.run(45.0, 30);
        fleet.run(100.0, 60);
        let among = f64::from(fleet.gradient.limit()).min(100.0);
        assert!(
            fleet.latency(among) <= Duration::from_millis(20),
            "{:?}",
            fleet.gradient
        );
        assert!(fleet.goodput(100.0) >= 0.95, "{:?}", fleet.gradient);
        fleet.run(45.0, 30);
        assert!(fleet.goodput(45.0) >= 0.95, "{:?}", fleet.gradient);
    }

    #[test]
    fn servers_that_refuse_quickly_do_not_look_quick() {
        let (config, mut now) = (ConcurrencyLimit::default(), Instant::now());
        let mut gradient = Gradient::new(&config, now);
        gradient.limit = 200.0;
        for _ in 0..400 {
            now += Duration::from_millis(100);
            let limit = gradient.limit();
            gradient.learn(Duration::from_micros(10), limit, true, now, &config);
        }
        assert_eq!(gradient.limit(), config.min);
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let (config, mut now) = (ConcurrencyLimit::default(), Instant::now());
        let mut gradient = Gradient::new(&config, now);
        for _ in 0..1000 {
            now += Duration::from_millis(50);
            gradient.learn(Duration::from_millis(5), 9, false, now, &config);
        }
        assert_eq!(gradient.limit(), 20);
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds(
            calls in prop::collection::vec((0_u64..10_000_000, 0_u32..400, any::<bool>(), 0_u64..400), 1..300),
            min in 1_u32..50, span in 0_u32..200,
        ) {
            let config = ConcurrencyLimit::default().bounds(min, min + span).expect("valid");
            let mut now = Instant::now();
            let mut gradient = Gradient::new(&config, now);
            for (micros, among, refused, after) in calls {
                now += Duration::from_millis(after);
                if let Some(limit) = gradient.learn(Duration::from_micros(micros), among, refused, now, &config) {
                    prop_assert!((min..=min + span).contains(&limit));
                }
            }
        }
    }
}
