//! What an instance took lately, in two atomics: the latency of its answers, and a penalty for its failures. Pure: the time is an
//! argument. What is made of it is `pick::ewma`'s.
//!
//! *Latency* is a moving average that jumps to peaks at once and comes down slowly, and that fades while nothing is heard: an
//! instance that was slow is asked again when the others are no longer better than its fading past. (Finagle's peak EWMA.)
//!
//! *Penalty* stands apart because failing is fast: with failures among the latencies a dead instance is the fastest of all and
//! draws the traffic (a third and more of it, measured with tower's load metrics; linkerd/linkerd2-proxy#4537). It doubles with
//! each failure in a row and fades at its own pace, which is quicker: a single failure must not empty an instance for a
//! minute, while one that fails every time is asked ever less.
//!
//! Each value shares a word with the time it was written at, so that no lock is needed to see both. Of two updates at once, each
//! is applied to what the other has left.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::Tick;
use crate::PeakEwma;

/// A penalty is doubled so often at most: 32 times the first one.
const MAX_DOUBLINGS: u32 = 5;

/// What a new answer counts for among the older ones, at the least.
const SHARE: f32 = 1.0 / 16.0;

/// No server is believed to want longer than this (linkerd's bound, too).
const MAX_PUSHBACK: Duration = Duration::from_secs(300);

/// [`PeakEwma`] as it is needed here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Per tick.
    latency_fades: f32,
    penalty_fades: f32,
    /// In microseconds.
    penalty: f32,
}

impl From<PeakEwma> for Pace {
    fn from(settings: PeakEwma) -> Self {
        Self {
            latency_fades: 1.0 / Tick::span(settings.decay),
            penalty_fades: 1.0 / Tick::span(settings.penalty),
            penalty: micros(settings.penalty),
        }
    }
}

/// A pace that may change while it is read: a reader in between sees some of both, which is a guess as good as either.
#[derive(Debug)]
pub(super) struct LivePace([AtomicU32; 3]);

impl LivePace {
    pub(super) fn new(pace: Pace) -> Self {
        let live = Self(Default::default());
        live.set(pace);
        live
    }

    pub(super) fn set(&self, pace: Pace) {
        for (word, value) in self
            .0
            .iter()
            .zip([pace.latency_fades, pace.penalty_fades, pace.penalty])
        {
            word.store(value.to_bits(), Relaxed);
        }
    }

    pub(super) fn get(&self) -> Pace {
        let value = |at: usize| f32::from_bits(self.0[at].load(Relaxed));
        Pace {
            latency_fades: value(0),
            penalty_fades: value(1),
            penalty: value(2),
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Ewma {
    latency: Faded,
    penalty: Faded,
    /// Failures in a row.
    failures: AtomicU32,
}

impl Ewma {
    /// As new: the place of one that is gone is somebody else's now.
    pub(super) fn forget(&self) {
        self.latency.0.store(0, Relaxed);
        self.penalty.0.store(0, Relaxed);
        self.failures.store(0, Relaxed);
    }

    /// An answer has come, so long after the call was picked.
    pub(super) fn answered(&self, after: Duration, now: Tick, pace: &Pace) {
        if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
        }
        self.latency.update(now, |latency, age| {
            let sample = micros(after);
            match latency {
                Some(latency) if sample < latency => {
                    let keeps = fading(age, pace.latency_fades).min(1.0 - SHARE);
                    latency * keeps + sample * (1.0 - keeps)
                }
                _ => sample,
            }
        });
    }

    /// A call was given up that had waited so long for its answer: the latency is that at least.
    pub(super) fn given_up(&self, after: Duration, now: Tick, pace: &Pace) {
        let sample = micros(after);
        if self
            .latency
            .at(now, pace.latency_fades)
            .is_none_or(|latency| sample > latency)
        {
            self.latency.update(now, |_, _| sample);
        }
    }

    /// A call has failed after so long; the instance asks to be left alone for `pushback`.
    pub(super) fn failed(&self, after: Duration, pushback: Option<Duration>, now: Tick, pace: &Pace) {
        let doublings = self.failures.fetch_add(1, Relaxed).min(MAX_DOUBLINGS);
        let asked = micros(pushback.unwrap_or_default().min(MAX_PUSHBACK));
        let penalty = (pace.penalty * (1_u32 << doublings) as f32)
            .max(asked)
            .max(micros(after));
        // It does not begin to fade before the time that was asked for.
        let until = now.after(pushback.unwrap_or_default().min(MAX_PUSHBACK));
        self.penalty.update_until(now, until, |former, age| {
            former.map_or(penalty, |former| penalty.max(former * fading(age, pace.penalty_fades)))
        });
    }

    /// The microseconds to be expected at `now`; `None` if nothing was ever heard.
    pub(super) fn latency(&self, now: Tick, pace: &Pace) -> Option<f32> {
        let latency = self.latency.at(now, pace.latency_fades);
        match self.penalty.at(now, pace.penalty_fades) {
            None => latency,
            Some(penalty) => Some(penalty.max(latency.unwrap_or_default())),
        }
    }

    /// What is left of the penalty at `now`, in microseconds.
    pub(super) fn penalty(&self, now: Tick, pace: &Pace) -> f32 {
        self.penalty.at(now, pace.penalty_fades).unwrap_or_default()
    }
}

/// A number above zero, and when it was true.
#[derive(Debug, Default)]
struct Faded(AtomicU64);

impl Faded {
    fn at(&self, now: Tick, fades: f32) -> Option<f32> {
        let (value, since) = unpack(self.0.load(Relaxed))?;
        Some(value * fading(now.since(since), fades))
    }

    /// `change` makes the new value of the old one, if there is any, and its age in ticks.
    fn update(&self, now: Tick, change: impl Fn(Option<f32>, f32) -> f32) {
        self.update_until(now, now, change);
    }

    /// As [`Faded::update`]; the new value is true until then.
    fn update_until(&self, now: Tick, until: Tick, change: impl Fn(Option<f32>, f32) -> f32) {
        let mut packed = self.0.load(Relaxed);
        loop {
            let old = unpack(packed);
            let age = old.map_or(0.0, |(_, since)| now.since(since));
            let value = change(old.map(|(value, _)| value), age).max(f32::MIN_POSITIVE);
            // A late writer does not turn the clock back.
            let stamp = old.map_or(until, |(_, since)| if since.since(until) > 0.0 { since } else { until });
            let next = u64::from(value.to_bits()) << 32 | u64::from(stamp.0);
            match self.0.compare_exchange_weak(packed, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(seen) => packed = seen,
            }
        }
    }
}

fn unpack(packed: u64) -> Option<(f32, Tick)> {
    (packed != 0).then(|| (f32::from_bits((packed >> 32) as u32), Tick(packed as u32)))
}

fn micros(duration: Duration) -> f32 {
    // Never zero: a value of zero is none.
    (duration.as_secs_f32() * 1e6).max(1.0)
}

/// About `e^-x` for an age of `x` decay times, in a few multiplications: (1 + x/16)^-16. It is the larger one, by 3 % at `x` = 1
/// and by 15 % at 2, falls as steadily, and nothing here depends on more than that.
fn fading(age: f32, per_tick: f32) -> f32 {
    let y = 1.0 + age * per_tick / 16.0;
    let y2 = y * y;
    let y4 = y2 * y2;
    let y8 = y4 * y4;
    1.0 / (y8 * y8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pace() -> Pace {
        PeakEwma::default().into()
    }

    fn at(time: Duration) -> Tick {
        Tick::ZERO.after(time)
    }

    /// In milliseconds.
    fn latency(ewma: &Ewma, time: Duration) -> f32 {
        ewma.latency(at(time), &pace()).expect("something is known") / 1000.0
    }

    #[test]
    fn nothing_is_known_of_a_newcomer() {
        assert_eq!(Ewma::default().latency(at(MS), &pace()), None);
    }

    /// Two slow instances of four got 4 % of the calls, because whenever the caller's machine stood still for 40 ms the two fast
    /// ones had "taken" that, and came down from it over the ten seconds of the decay.
    #[test]
    fn a_peak_that_dozens_of_answers_contradict_is_gone() {
        let ewma = Ewma::default();
        ewma.answered(40 * MS, at(MS), &pace());
        for n in 1..=48 {
            ewma.answered(5 * MS, at((1 + n) * MS), &pace());
        }
        assert!(latency(&ewma, 50 * MS) < 7.0);
    }

    #[test]
    fn it_jumps_to_a_peak_and_comes_down_slowly() {
        let ewma = Ewma::default();
        ewma.answered(5 * MS, at(MS), &pace());
        assert_eq!(latency(&ewma, MS), 5.0);
        ewma.answered(50 * MS, at(2 * MS), &pace());
        assert_eq!(latency(&ewma, 2 * MS), 50.0);
        for n in 1..=5 {
            ewma.answered(5 * MS, at(2 * MS + n * 10 * MS), &pace());
        }
        let after = latency(&ewma, 52 * MS);
        assert!((35.0..40.0).contains(&after), "{after}");
    }

    #[test]
    fn in_silence_it_fades() {
        let ewma = Ewma::default();
        ewma.answered(50 * MS, at(MS), &pace());
        let after = |seconds: u32| latency(&ewma, MS + 1000 * seconds * MS);
        assert!((17.0..20.0).contains(&after(10)), "{}", after(10));
        assert!((6.0..9.0).contains(&after(20)), "{}", after(20));
        assert!(after(60) < 1.0);
    }

    /// With failures counted as latencies, a dead instance was the best one: it failed within a millisecond.
    #[test]
    fn a_fast_failure_is_slow() {
        let ewma = Ewma::default();
        ewma.failed(MS, None, at(MS), &pace());
        assert_eq!(latency(&ewma, MS), 1000.0);
        for n in 1..20 {
            ewma.failed(MS, None, at((n + 1) * MS), &pace());
        }
        assert!((31_000.0..=32_000.0).contains(&latency(&ewma, 20 * MS)));
    }

    #[test]
    fn a_single_failure_is_forgotten_within_seconds_and_does_not_become_a_latency() {
        let ewma = Ewma::default();
        ewma.answered(5 * MS, at(MS), &pace());
        ewma.failed(MS, None, at(2 * MS), &pace());
        ewma.answered(5 * MS, at(3 * MS), &pace());
        assert!(latency(&ewma, 3 * MS) > 900.0);
        assert!(latency(&ewma, 8000 * MS) < 5.0);
        // And the next one is a first one again.
        ewma.failed(MS, None, at(20_000 * MS), &pace());
        assert_eq!(latency(&ewma, 20_000 * MS), 1000.0);
    }

    #[test]
    fn who_asks_to_be_left_alone_is_left_alone() {
        let ewma = Ewma::default();
        ewma.failed(MS, Some(Duration::from_secs(20)), at(MS), &pace());
        assert_eq!(latency(&ewma, 19_000 * MS), 20_000.0);
        assert!(latency(&ewma, 35_000 * MS) < 20.0);
        ewma.failed(MS, Some(Duration::from_secs(100_000)), at(MS), &pace());
        assert_eq!(latency(&ewma, MS), 300_000.0);
    }

    #[test]
    fn who_was_given_up_took_that_long_at_least() {
        let ewma = Ewma::default();
        ewma.given_up(80 * MS, at(MS), &pace());
        assert_eq!(latency(&ewma, MS), 80.0);
        ewma.given_up(MS, at(2 * MS), &pace());
        assert!(latency(&ewma, 2 * MS) > 79.0, "an early end tells nothing");
    }

    #[test]
    fn the_clock_may_wrap_and_callers_may_be_late() {
        let ewma = Ewma::default();
        let before = Tick(u32::MAX - 10);
        ewma.answered(50 * MS, before, &pace());
        let later = before.after(Duration::from_secs(10));
        assert!(later < before);
        let faded = ewma.latency(later, &pace()).expect("known");
        assert!((17_000.0..20_000.0).contains(&faded), "{faded}");
        // Read, or written, by somebody who took the time a moment earlier.
        ewma.answered(50 * MS, Tick(before.0 - 5), &pace());
        assert_eq!(ewma.latency(Tick(before.0 - 5), &pace()), Some(50_000.0));
    }

    proptest! {
        #[test]
        fn it_stays_within_what_was_seen(samples in prop::collection::vec((1_u32..10_000, 0_u32..5_000), 1..40)) {
            let (ewma, mut now) = (Ewma::default(), Duration::ZERO);
            let (mut least, mut most) = (f32::INFINITY, 0.0_f32);
            for (sample, pause) in samples {
                now += pause * MS;
                ewma.answered(sample * MS, at(now), &pace());
                (least, most) = (least.min(sample as f32), most.max(sample as f32));
                let estimate = latency(&ewma, now);
                prop_assert!((least * 0.999..=most * 1.001).contains(&estimate), "{estimate} of {least} to {most}");
                prop_assert!(estimate * 1.001 >= sample as f32, "a peak counts at once");
            }
        }

        #[test]
        fn fading_only_ever_falls(a in 0.0_f32..1e9, b in 0.0_f32..1e9) {
            let (sooner, later) = (a.min(b), a.max(b));
            prop_assert!(fading(sooner, 1e-5) >= fading(later, 1e-5));
            prop_assert!((0.0..=1.0).contains(&fading(a, 1e-5)));
        }
    }
}
