//! So many a second and no more: what may be recorded beyond what was asked for. Pure: time is an argument.

use std::time::Duration;

/// A bucket of tokens that fills at a steady rate and holds those of one second, one at the least.
#[derive(Debug, Clone)]
pub struct Budget {
    per_second: f64,
    tokens: f64,
    at: Duration,
}

impl Budget {
    /// Full, at the beginning of time. 0 or what is no number: never anything.
    pub fn new(per_second: f64) -> Self {
        let per_second = if per_second.is_finite() {
            per_second.max(0.0)
        } else {
            0.0
        };
        Self {
            per_second,
            tokens: Self::most(per_second),
            at: Duration::ZERO,
        }
    }

    /// Takes one, if there is one, at a time since any fixed moment. A time before the last one counts as that.
    pub fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * self.per_second).min(Self::most(self.per_second));
        // Many small additions may come to a little less than one.
        let is_there = self.tokens > 1.0 - 1e-6;
        if is_there {
            self.tokens = (self.tokens - 1.0).max(0.0);
        }
        is_there
    }

    fn most(per_second: f64) -> f64 {
        if per_second == 0.0 { 0.0 } else { per_second.max(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_its_rate_gets_through_however_it_is_asked() {
        for (per_second, seconds, expected) in [(10.0, 5_u64, 60), (0.5, 10, 6), (0.0, 10, 0), (f64::NAN, 10, 0)] {
            let mut budget = Budget::new(per_second);
            let taken = (0..=seconds * 1_000)
                .filter(|millis| budget.take(Duration::from_millis(*millis)))
                .count();
            // The last one may be a rounding away.
            let about = expected.max(1) - 1..=expected;
            assert!(
                about.contains(&taken),
                "{per_second} a second for {seconds} s, and what it began with: {taken}"
            );
        }
    }

    #[test]
    fn an_idle_hour_saves_one_second() {
        let mut budget = Budget::new(3.0);
        let later = Duration::from_secs(3_600);
        assert_eq!((0..100).filter(|_| budget.take(later)).count(), 3);
        assert!(!budget.take(Duration::ZERO), "time does not go back");
    }
}
