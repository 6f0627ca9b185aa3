//! How an instance that has just begun comes to its full share of the calls. Pure.
//!
//! Somebody new is idle, and so every least-loaded rule sends it everything; what it lacks (caches, connections, compiled code)
//! makes it slow just then (linkerd2#9652: the first new pod got all traffic and died). The weight is what holds it back, and
//! it is the pool that changes weights: picks know nothing of this.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::range::{OutOfRange, check};

/// How a newcomer's weight grows to its full one: `weight * max(min_share, (t / window)^(1 / aggression))`, which is Envoy's
/// formula (`SlowStartConfig`), with `t` counted from its being ready here. The default is on; see the setters.
///
/// Policies that do not go by weights ([`Policy::Random`](crate::Policy::Random), [`Policy::RoundRobin`](crate::Policy::RoundRobin))
/// know nothing of it, [`Policy::LeastActive`](crate::Policy::LeastActive) next to nothing, and weighted round robin never goes below
/// a tenth of the average.
///
/// A newcomer is an instance that appears, or registers anew, while others are being called already, and whose process has not
/// said that it started longer ago than the window. Those that a channel finds when it is built are none, unless their process
/// says that it has just started and others' have not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    window: Duration,
    min_share: f64,
    aggression: f64,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self {
            // Autoscalers wait for what they have started: minutes would be no help any more.
            window: Duration::from_secs(20),
            // Envoy's 10 % are a share of what it gets; here a power of two choices may give an idle instance twice its weight.
            min_share: 0.03,
            aggression: 1.0,
        }
    }
}

impl SlowStart {
    /// After how long it has its full weight. Default: 20 s.
    ///
    /// # Errors
    /// Zero, or above an hour.
    pub fn window(self, window: Duration) -> Result<Self, OutOfRange> {
        let window = check("the window", "above zero and at most an hour", window, |is| {
            !is.is_zero() && *is <= Duration::from_secs(3600)
        })?;
        Ok(Self { window, ..self })
    }

    /// The share of its weight that it begins with. Policies that compare two by load give an instance that idles while others are
    /// busy up to twice its weight. Default: 0.03.
    ///
    /// # Errors
    /// Below 0.01, or above 1.
    pub fn min_share(self, share: f64) -> Result<Self, OutOfRange> {
        let min_share = check("the least share", "0.01 to 1", share, |is| (0.01..=1.0).contains(is))?;
        Ok(Self { min_share, ..self })
    }

    /// 1 grows evenly; above grows early, below grows late. Default: 1.
    ///
    /// # Errors
    /// Below 0.01, or above 100.
    pub fn aggression(self, aggression: f64) -> Result<Self, OutOfRange> {
        let aggression = check("the aggression", "0.01 to 100", aggression, |is| {
            (0.01..=100.0).contains(is)
        })?;
        Ok(Self { aggression, ..self })
    }

    /// The share of its weight so long after it became ready; 1 from the end of the window on.
    fn share(&self, since: Duration) -> f64 {
        let passed = since.as_secs_f64() / self.window.as_secs_f64();
        if passed >= 1.0 {
            return 1.0;
        }
        passed.powf(1.0 / self.aggression).clamp(self.min_share, 1.0)
    }

    /// How often weights are looked at while somebody grows: fifty steps of two percent, but no more than ten a second.
    pub(super) fn step(&self) -> Duration {
        (self.window / 50).clamp(Duration::from_millis(100), Duration::from_secs(1))
    }
}

/// Where an instance is on its way to its full weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Ramp {
    /// It has it.
    #[default]
    Full,
    /// Not ready yet; when it is, it begins as if it had been for so long.
    Waiting { head_start: Duration },
    /// Under way.
    Since(Instant),
}

impl Ramp {
    /// Of an instance that appears: `others_are_called` tells a newcomer from one that is only new to a caller that has just begun.
    pub(super) fn of(
        config: Option<&SlowStart>,
        started_at: Option<SystemTime>,
        others_are_called: bool,
        now: SystemTime,
    ) -> Self {
        let Some(config) = config else {
            return Self::Full;
        };
        // Started in the future means that its clock is ahead of ours: it has just started.
        let age = started_at.map(|started_at| now.duration_since(started_at).unwrap_or_default());
        match (others_are_called, age) {
            (_, Some(age)) if age >= config.window => Self::Full,
            (true, _) => Self::Waiting {
                head_start: Duration::ZERO,
            },
            (false, Some(age)) => Self::Waiting { head_start: age },
            (false, None) => Self::Full,
        }
    }

    /// It has become ready. One that was before goes on where it is.
    pub(super) fn ready(self, now: Instant) -> Self {
        match self {
            Self::Waiting { head_start } => Self::Since(now.checked_sub(head_start).unwrap_or(now)),
            other => other,
        }
    }

    /// `None` once it has its full weight.
    pub(super) fn share(self, config: Option<&SlowStart>, now: Instant) -> Option<f64> {
        let Self::Since(since) = self else {
            return None;
        };
        let share = config?.share(now.saturating_duration_since(since));
        (share < 1.0).then_some(share)
    }
}

/// Weights are whole numbers: while somebody's is a fraction all are so many times as large.
pub(super) const SCALE: u32 = 100;

/// A weight times [`SCALE`] and that share of it, at least 1.
pub(super) fn scaled(weight: u32, share: Option<f64>) -> u32 {
    let full = weight.saturating_mul(SCALE);
    match share {
        None => full,
        Some(share) => ((f64::from(full) * share) as u32).clamp(1, full.max(1)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AGO: Duration = Duration::from_secs(5);

    fn of(started: Option<Duration>, others_are_called: bool) -> Ramp {
        let now = SystemTime::now();
        let started_at = started.map(|ago| now - ago);
        Ramp::of(Some(&SlowStart::default()), started_at, others_are_called, now)
    }

    #[test]
    fn who_is_a_newcomer() {
        let from = |head_start| Ramp::Waiting { head_start };
        assert_eq!(of(None, false), Ramp::Full, "the caller's own cold start");
        assert_eq!(of(None, true), from(Duration::ZERO));
        assert_eq!(of(Some(AGO), true), from(Duration::ZERO));
        assert_eq!(of(Some(AGO), false), from(AGO), "it says itself that it is new");
        assert_eq!(
            of(Some(Duration::from_secs(20)), true),
            Ramp::Full,
            "moved into view, warm"
        );
        assert_eq!(Ramp::of(None, None, true, SystemTime::now()), Ramp::Full, "off");
        let ahead = SystemTime::now() + AGO;
        let ramp = Ramp::of(Some(&SlowStart::default()), Some(ahead), true, SystemTime::now());
        assert_eq!(ramp, from(Duration::ZERO), "its clock is ahead");
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let slow_start = SlowStart::default();
        assert!(slow_start.window(Duration::ZERO).is_err() && slow_start.window(Duration::MAX).is_err());
        assert!(slow_start.min_share(0.0).is_err() && slow_start.min_share(1.1).is_err());
        assert!(slow_start.aggression(0.0).is_err() && slow_start.aggression(f64::NAN).is_err());
    }

    #[test]
    fn in_the_first_second_it_has_little_and_at_the_end_all() {
        let slow_start = SlowStart::default();
        let at = |millis| slow_start.share(Duration::from_millis(millis));
        assert_eq!([0, 500].map(at), [0.03, 0.03]);
        assert_eq!([1000, 10_000, 20_000, 90_000].map(at), [0.05, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn a_connection_that_breaks_on_the_way_does_not_begin_anew() {
        let now = Instant::now();
        let ramp = of(None, true).ready(now);
        assert_eq!(ramp.ready(now + AGO), ramp);
    }

    proptest! {
        #[test]
        fn it_only_ever_grows(window_ms in 1_u64..100_000, min in 0.01_f64..1.0, aggression in 0.1_f64..10.0, a in 0_u64..200_000, b in 0_u64..200_000) {
            let slow_start = SlowStart::default()
                .window(Duration::from_millis(window_ms)).expect("valid")
                .min_share(min).expect("valid")
                .aggression(aggression).expect("valid");
            let at = |millis| slow_start.share(Duration::from_millis(millis));
            prop_assert!(at(a.min(b)) <= at(a.max(b)));
            prop_assert!(at(a) >= min && at(a) <= 1.0);
            prop_assert!(at(window_ms) == 1.0);
        }

        #[test]
        fn a_scaled_weight_is_never_none_and_never_more_than_all(weight in 1_u32..=1000, share in 0.0_f64..=1.0) {
            prop_assert!((1..=weight * SCALE).contains(&scaled(weight, Some(share))));
            prop_assert_eq!(scaled(weight, None), weight * SCALE);
        }
    }
}
