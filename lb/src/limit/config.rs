//! How limit and throttle are set: values and their ranges.

use std::time::Duration;

use crate::range::{OutOfRange, check};

/// How many calls of a channel may be under way at a time, found by how their latency changes. Not on unless asked for.
///
/// The algorithm is Netflix's Gradient2 (concurrency-limits): while recent latency is as it was in the long run the limit grows, by
/// what is allowed to queue; when it rises, the limit falls in proportion. A call beyond it fails at once with
/// RESOURCE_EXHAUSTED, reason CONCURRENCY_LIMIT: whoever called us is overloading us, and with UNAVAILABLE it would look as if we
/// had failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConcurrencyLimit {
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) tolerance: f64,
}

/// Rejects in the caller what the callee would reject anyway. Not on unless asked for, since some services use RESOURCE_EXHAUSTED
/// for the quota of one user.
///
/// After Google's SRE book, chapter "Handling Overload", "Client-Side Throttling": with `r` calls in the window of which `a` were
/// accepted, one in `max(0, (r - K a) / (r + 1))` is rejected at once (RESOURCE_EXHAUSTED, reason THROTTLED). Accepted is what did
/// not end with RESOURCE_EXHAUSTED.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttling {
    pub(super) window: Duration,
    pub(super) k: f64,
    pub(super) most: f64,
}

impl Default for ConcurrencyLimit {
    /// 20 to 200 calls; latency may rise to 1.5 times of what is usual (Gradient2's defaults).
    fn default() -> Self {
        Self {
            min: 20,
            max: 200,
            tolerance: 1.5,
        }
    }
}

impl ConcurrencyLimit {
    /// The limit is never below `min`, where it begins, and never above `max`. Default: 20 and 200.
    ///
    /// # Errors
    /// A `min` of zero or above `max`.
    pub fn bounds(self, min: u32, max: u32) -> Result<Self, OutOfRange> {
        let (min, max) = check(
            "the limit of concurrency",
            "at least 1 and at most its maximum",
            (min, max),
            |(min, max)| (1..=*max).contains(min),
        )?;
        Ok(Self { min, max, ..self })
    }

    /// How far latency may rise above the usual before the limit falls. Default: 1.5 times.
    ///
    /// # Errors
    /// Below 1, or not a number.
    pub fn tolerance(self, tolerance: f64) -> Result<Self, OutOfRange> {
        let tolerance = check("the tolerance", "at least 1", tolerance, |is| {
            is.is_finite() && *is >= 1.0
        })?;
        Ok(Self { tolerance, ..self })
    }
}

impl Default for Throttling {
    /// K = 2 as in the book; 20 s instead of its two minutes, or an overload that is over would be felt for minutes; and never more
    /// than 80 % (Envoy's admission control), or nobody would find out that it is over.
    fn default() -> Self {
        Self {
            window: Duration::from_secs(20),
            k: 2.0,
            most: 0.8,
        }
    }
}

impl Throttling {
    /// Over how long a time calls are counted, and so how long an overload that has ended is remembered. Default: 20 s.
    ///
    /// # Errors
    /// Below 10 ms.
    pub fn window(self, window: Duration) -> Result<Self, OutOfRange> {
        let window = check("the window", "at least 10ms", window, |is| {
            *is >= Duration::from_millis(10)
        })?;
        Ok(Self { window, ..self })
    }

    /// The largest share of the calls that is rejected here. Default: 0.8.
    ///
    /// # Errors
    /// Not above 0, or above 0.99.
    pub fn most(self, most: f64) -> Result<Self, OutOfRange> {
        let most = check("the most that is rejected", "above 0 and at most 0.99", most, |is| {
            *is > 0.0 && *is <= 0.99
        })?;
        Ok(Self { most, ..self })
    }

    /// How many calls are made for each that is accepted before any is rejected here. Lower is stricter. Default: 2.
    ///
    /// # Errors
    /// Below 1, or not a number.
    pub fn k(self, k: f64) -> Result<Self, OutOfRange> {
        let k = check("K", "at least 1", k, |is| is.is_finite() && *is >= 1.0)?;
        Ok(Self { k, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_makes_no_sense() {
        let (limit, throttling) = (ConcurrencyLimit::default(), Throttling::default());
        for refused in [
            limit.bounds(0, 1),
            limit.bounds(2, 1),
            limit.tolerance(0.9),
            limit.tolerance(f64::NAN),
        ] {
            assert!(refused.is_err());
        }
        for refused in [
            throttling.window(Duration::ZERO),
            throttling.k(0.5),
            throttling.k(f64::INFINITY),
            throttling.most(1.0),
        ] {
            assert!(refused.is_err());
        }
    }
}
