//! How long to wait before a retry (gRFC A6). Not how long to wait before a connect: that is [`crate::Backoff`].

use std::time::Duration;

use super::InvalidRetry;
use crate::range::FOR_EVER;

/// The pause before a retry: `initial` times `multiplier` for each retry before it, at most `max`, and of that a share drawn
/// evenly from 0.8 to 1.2 (gRFC A6).
///
/// The default is 10 ms doubling to 250 ms: a retry goes to another instance, which has done nothing to be waited for; the
/// pause only keeps callers that failed together from coming together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBackoff {
    initial: Duration,
    max: Duration,
    multiplier: f64,
}

impl Default for RetryBackoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(10),
            max: Duration::from_millis(250),
            multiplier: 2.0,
        }
    }
}

impl RetryBackoff {
    /// See [`RetryBackoff`].
    ///
    /// # Errors
    /// All of them must be above zero. `max` may be below `initial`, and then is what counts.
    pub fn try_new(initial: Duration, max: Duration, multiplier: f64) -> Result<Self, InvalidRetry> {
        if initial.is_zero() || max.is_zero() {
            return Err(InvalidRetry::ZeroBackoff);
        }
        if !(multiplier.is_finite() && multiplier > 0.0) {
            return Err(InvalidRetry::Multiplier(multiplier));
        }
        Ok(Self {
            initial: initial.min(FOR_EVER),
            max: max.min(FOR_EVER),
            multiplier,
        })
    }

    /// The pause before a retry that `before` others have preceded; `draw` is from 0 to 1.
    pub(crate) fn delay(&self, before: u32, draw: f64) -> Duration {
        let longest = self.max.as_secs_f64();
        // There are at most a few retries; a factor that overflows is infinite, and then the cap counts.
        let grown = self.initial.as_secs_f64() * self.multiplier.powi(before.min(64) as i32);
        let jitter = 0.8 + 0.4 * draw.clamp(0.0, 1.0);
        Duration::try_from_secs_f64(grown.min(longest) * jitter).unwrap_or(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_cap_and_jitters_by_a_fifth() {
        let millis = Duration::from_millis;
        let backoff = RetryBackoff::try_new(millis(100), millis(450), 2.0).expect("valid");
        let middle = |before| backoff.delay(before, 0.5).as_millis();
        assert_eq!(
            [middle(0), middle(1), middle(2), middle(3), middle(4_000)],
            [100, 200, 400, 450, 450]
        );
        assert_eq!(backoff.delay(0, 0.0), millis(80));
        assert_eq!(backoff.delay(9, 1.0), millis(540));
    }

    #[test]
    fn what_would_be_a_busy_loop_is_refused() {
        let (zero, some) = (Duration::ZERO, Duration::from_millis(1));
        assert_eq!(RetryBackoff::try_new(zero, some, 2.0), Err(InvalidRetry::ZeroBackoff));
        assert_eq!(RetryBackoff::try_new(some, zero, 2.0), Err(InvalidRetry::ZeroBackoff));
        for multiplier in [0.0, -1.0, f64::INFINITY] {
            assert_eq!(
                RetryBackoff::try_new(some, some, multiplier),
                Err(InvalidRetry::Multiplier(multiplier))
            );
        }
    }
}
