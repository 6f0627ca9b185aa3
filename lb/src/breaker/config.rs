//! How a circuit breaker is set: values and their ranges.

use std::time::Duration;

use crate::{
    Backoff,
    range::{OutOfRange, check},
};

/// When calls of a method, or of a service, fail at once for a while. Not on unless asked for; see the setters for the values.
///
/// The names and the defaults are Hystrix's (20 calls in 10 s, half of them failed, 5 s open), slow calls as in Resilience4j.
///
/// ```
/// use std::time::Duration;
///
/// # fn main() -> Result<(), lb::OutOfRange> {
/// let breaker = lb::CircuitBreaker::default()
///     .minimum_calls(10)?
///     .slow_calls(Duration::from_millis(500), 0.8)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CircuitBreaker {
    pub(super) window: Duration,
    pub(super) minimum_calls: u32,
    pub(super) error_ratio: f64,
    slow: Option<Slow>,
    pub(super) open: Backoff,
    pub(super) probes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Slow {
    from: Duration,
    ratio: f64,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            // Hystrix: rollingStats 10 s, requestVolumeThreshold 20, errorThresholdPercentage 50, sleepWindow 5 s.
            window: Duration::from_secs(10),
            minimum_calls: 20,
            error_ratio: 0.5,
            slow: None,
            open: Backoff::doubling(Duration::from_secs(5), Duration::from_secs(60), 0.2),
            // One may have met the one instance that is well, or the one that is not.
            probes: 3,
        }
    }
}

impl CircuitBreaker {
    /// Over how long a time the ratios are taken. Default: 10 s.
    ///
    /// # Errors
    /// Below 10 ms.
    pub fn window(self, window: Duration) -> Result<Self, OutOfRange> {
        let window = check("the window", "at least 10ms", window, |is| {
            *is >= Duration::from_millis(10)
        })?;
        Ok(Self { window, ..self })
    }

    /// Fewer calls in the window than that never open it. Default: 20.
    ///
    /// # Errors
    /// Zero.
    pub fn minimum_calls(self, calls: u32) -> Result<Self, OutOfRange> {
        let minimum_calls = check("the minimum of calls", "at least 1", calls, |is| *is > 0)?;
        Ok(Self { minimum_calls, ..self })
    }

    /// It opens when so large a share of the calls in the window has failed: ended with UNAVAILABLE, INTERNAL, UNKNOWN, DATA_LOSS,
    /// DEADLINE_EXCEEDED or RESOURCE_EXHAUSTED. Default: 0.5.
    ///
    /// # Errors
    /// Not above 0, or above 1.
    pub fn error_ratio(self, ratio: f64) -> Result<Self, OutOfRange> {
        let error_ratio = share("the ratio of errors", ratio)?;
        Ok(Self { error_ratio, ..self })
    }

    /// It opens as well when so large a share of the calls in the window took `from` or longer to their first message. Default: slow
    /// calls do not count.
    ///
    /// # Errors
    /// A ratio that is not above 0, or above 1.
    pub fn slow_calls(self, from: Duration, ratio: f64) -> Result<Self, OutOfRange> {
        let ratio = share("the ratio of slow calls", ratio)?;
        Ok(Self {
            slow: Some(Slow { from, ratio }),
            ..self
        })
    }

    /// How long it is open after it opened for the n-th time without having been closed in between. Default: 5 s doubling to 60 s,
    /// less up to a fifth.
    #[must_use]
    pub fn open(self, open: Backoff) -> Self {
        Self { open, ..self }
    }

    /// How many calls are let through when it has been open long enough; all of them have to succeed. Default: 3.
    ///
    /// # Errors
    /// Zero.
    pub fn probes(self, probes: u32) -> Result<Self, OutOfRange> {
        let probes = check("the number of probes", "at least 1", probes, |is| *is > 0)?;
        Ok(Self { probes, ..self })
    }

    pub(super) fn is_slow(&self, took: Duration) -> bool {
        self.slow.is_some_and(|slow| took >= slow.from)
    }

    /// Whether those counts are too bad to go on with.
    pub(super) fn trips(&self, calls: u32, failed: u32, slow: u32) -> bool {
        let share = |part: u32| f64::from(part) / f64::from(calls.max(1));
        calls >= self.minimum_calls
            && (share(failed) >= self.error_ratio || self.slow.is_some_and(|rule| share(slow) >= rule.ratio))
    }
}

fn share(setting: &'static str, ratio: f64) -> Result<f64, OutOfRange> {
    check(setting, "above 0 and at most 1", ratio, |is| *is > 0.0 && *is <= 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_makes_no_sense() {
        let breaker = CircuitBreaker::default();
        for refused in [
            breaker.window(Duration::ZERO),
            breaker.minimum_calls(0),
            breaker.error_ratio(0.0),
            breaker.error_ratio(1.1),
            breaker.error_ratio(f64::NAN),
            breaker.slow_calls(Duration::from_secs(1), 0.0),
            breaker.probes(0),
        ] {
            assert!(refused.is_err());
        }
    }

    #[test]
    fn it_takes_enough_calls_and_enough_of_them_bad() {
        let breaker = CircuitBreaker::default();
        assert!(!breaker.trips(19, 19, 0));
        assert!(!breaker.trips(20, 9, 20));
        assert!(breaker.trips(20, 10, 0));
        let slow = breaker.slow_calls(Duration::from_millis(100), 0.8).expect("valid");
        assert!(slow.trips(20, 0, 16) && !slow.trips(20, 0, 15));
        assert!(slow.is_slow(Duration::from_millis(100)) && !breaker.is_slow(Duration::from_secs(9)));
    }
}
