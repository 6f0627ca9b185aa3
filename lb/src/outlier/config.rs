//! How outlier detection is set: values and their ranges.

use std::time::Duration;

use crate::range::{FOR_EVER, OutOfRange, check};

/// How instances that fail are taken out of service and come back. The default is on; see the setters for the values.
///
/// ```
/// use std::time::Duration;
///
/// # fn main() -> Result<(), lb::OutOfRange> {
/// let detection = lb::OutlierDetection::default()
///     .consecutive_failures(3)?
///     .base_ejection(Duration::from_secs(10))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierDetection {
    pub(crate) interval: Duration,
    pub(crate) base_ejection: Duration,
    max_ejection: Duration,
    pub(crate) max_ejection_percent: u8,
    pub(crate) panic_threshold_percent: u8,
    /// `None` looks at no rows.
    pub(crate) consecutive_failures: Option<u32>,
    pub(crate) success_rate: Option<SuccessRate>,
    pub(crate) failure_percentage: Option<FailurePercentage>,
}

/// Ejects whose success rate is far below the others' (gRFC A50, `success_rate_ejection`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuccessRate {
    /// In thousandths.
    pub(super) stdev_factor: u32,
    pub(super) enforcement_percent: u8,
    pub(super) minimum_hosts: u32,
    pub(super) request_volume: u32,
}

/// Ejects whoever fails more than a share of its calls (gRFC A50, `failure_percentage_ejection`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailurePercentage {
    pub(super) threshold_percent: u8,
    pub(super) enforcement_percent: u8,
    pub(super) minimum_hosts: u32,
    pub(super) request_volume: u32,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            // gRFC A50, "outlier_detection LB policy", for all but the two below.
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejection_percent: 10,
            success_rate: Some(SuccessRate::default()),
            failure_percentage: Some(FailurePercentage::default()),
            // Envoy: `consecutive_5xx` and `healthy_panic_threshold`.
            consecutive_failures: Some(5),
            panic_threshold_percent: 50,
        }
    }
}

impl OutlierDetection {
    /// How often the instances are compared, and over how long a time. Default: 10 s.
    ///
    /// # Errors
    /// Zero.
    pub fn interval(self, interval: Duration) -> Result<Self, OutOfRange> {
        let interval = check("the interval", "above zero", interval, |is| !is.is_zero())?.min(FOR_EVER);
        Ok(Self { interval, ..self })
    }

    /// How long the first ejection lasts; the n-th in a row lasts n times as long. Default: 30 s.
    ///
    /// # Errors
    /// Zero.
    pub fn base_ejection(self, base_ejection: Duration) -> Result<Self, OutOfRange> {
        let base_ejection = check("the base ejection", "above zero", base_ejection, |is| !is.is_zero())?.min(FOR_EVER);
        Ok(Self { base_ejection, ..self })
    }

    /// The longest ejection; one that is shorter than the base means the base. Default: 300 s.
    #[must_use]
    pub fn max_ejection(self, max_ejection: Duration) -> Self {
        Self {
            max_ejection: max_ejection.min(FOR_EVER),
            ..self
        }
    }

    /// How many of the instances may be out at a time. It is looked at before each ejection, so any number but 0 lets one go
    /// out, however few there are; of a set of one none is kept out, see [`OutlierDetection::panic_threshold_percent`].
    /// Default: 10.
    ///
    /// # Errors
    /// Above 100.
    pub fn max_ejection_percent(self, percent: u8) -> Result<Self, OutOfRange> {
        let max_ejection_percent = percentage("the most that are ejected", percent)?;
        Ok(Self {
            max_ejection_percent,
            ..self
        })
    }

    /// When fewer than so many percent of the connected instances that a call may go to are in service, those ejected can be picked as
    /// well. With none of them in service, a call whose route allows others goes to others first. Default: 50; 0 never.
    ///
    /// # Errors
    /// Above 100.
    pub fn panic_threshold_percent(self, percent: u8) -> Result<Self, OutOfRange> {
        let panic_threshold_percent = percentage("the panic threshold", percent)?;
        Ok(Self {
            panic_threshold_percent,
            ..self
        })
    }

    /// So many failures without a success in between eject at once. `None` looks at no rows. Default: 5.
    ///
    /// # Errors
    /// Zero.
    pub fn consecutive_failures(self, failures: impl Into<Option<u32>>) -> Result<Self, OutOfRange> {
        let consecutive_failures = check("failures in a row", "at least 1", failures.into(), |is| *is != Some(0))?;
        Ok(Self {
            consecutive_failures,
            ..self
        })
    }

    /// Compares success rates, or does not. Default: it does, see [`SuccessRate`].
    #[must_use]
    pub fn success_rate(self, success_rate: impl Into<Option<SuccessRate>>) -> Self {
        Self {
            success_rate: success_rate.into(),
            ..self
        }
    }

    /// Looks at the share of failures, or does not. Default: it does, see [`FailurePercentage`].
    #[must_use]
    pub fn failure_percentage(self, failure_percentage: impl Into<Option<FailurePercentage>>) -> Self {
        Self {
            failure_percentage: failure_percentage.into(),
            ..self
        }
    }

    /// How long the ejection lasts that is the `times`-th in a row; `draw` is in 0..1. Up to a tenth is taken off, so that
    /// callers that have ejected the same instance at the same moment do not all try it again at the same moment.
    pub(super) fn ejection(&self, times: u32, draw: f64) -> Duration {
        // A50: `base_ejection_time * multiplier`, at most `max(base_ejection_time, max_ejection_time)`.
        let full = self.base_ejection.saturating_mul(times.max(1));
        let full = full.min(self.max_ejection.max(self.base_ejection));
        full.mul_f64(1.0 - 0.1 * draw.clamp(0.0, 1.0))
    }
}

impl Default for SuccessRate {
    /// A50's: 1.9 standard deviations, always enforced, at least 5 instances with 100 calls each.
    fn default() -> Self {
        Self {
            stdev_factor: 1900,
            enforcement_percent: 100,
            minimum_hosts: 5,
            request_volume: 100,
        }
    }
}

impl SuccessRate {
    /// Ejects whose success rate in an interval is below `mean - stdev * stdev_factor / 1000`, in `enforcement_percent` of the
    /// cases, when at least `minimum_hosts` instances had at least `request_volume` calls.
    ///
    /// # Errors
    /// A percentage above 100.
    pub fn try_new(
        stdev_factor: u32,
        enforcement_percent: u8,
        minimum_hosts: u32,
        request_volume: u32,
    ) -> Result<Self, OutOfRange> {
        Ok(Self {
            stdev_factor,
            enforcement_percent: percentage("the enforcement", enforcement_percent)?,
            minimum_hosts,
            request_volume,
        })
    }
}

impl Default for FailurePercentage {
    /// A50's: above 85 %, always enforced, at least 5 instances with 50 calls each.
    fn default() -> Self {
        Self {
            threshold_percent: 85,
            enforcement_percent: 100,
            minimum_hosts: 5,
            request_volume: 50,
        }
    }
}

impl FailurePercentage {
    /// Ejects who fails more than `threshold_percent` of its calls in an interval, in `enforcement_percent` of the cases, when at
    /// least `minimum_hosts` instances had at least `request_volume` calls.
    ///
    /// # Errors
    /// A percentage above 100.
    pub fn try_new(
        threshold_percent: u8,
        enforcement_percent: u8,
        minimum_hosts: u32,
        request_volume: u32,
    ) -> Result<Self, OutOfRange> {
        Ok(Self {
            threshold_percent: percentage("the threshold", threshold_percent)?,
            enforcement_percent: percentage("the enforcement", enforcement_percent)?,
            minimum_hosts,
            request_volume,
        })
    }
}

fn percentage(setting: &'static str, percent: u8) -> Result<u8, OutOfRange> {
    check(setting, "at most 100 percent", percent, |is| *is <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_makes_no_sense() {
        let detection = OutlierDetection::default();
        for refused in [
            detection.interval(Duration::ZERO),
            detection.base_ejection(Duration::ZERO),
            detection.max_ejection_percent(101),
            detection.panic_threshold_percent(101),
            detection.consecutive_failures(0),
        ] {
            assert!(refused.is_err());
        }
        assert!(detection.consecutive_failures(None).is_ok());
        assert!(SuccessRate::try_new(1900, 101, 5, 100).is_err());
        assert!(FailurePercentage::try_new(101, 100, 5, 50).is_err());
    }

    #[test]
    fn ejections_grow_to_the_longest_and_jitter_only_shortens() {
        let detection = OutlierDetection::default();
        let seconds = |times| detection.ejection(times, 0.0).as_secs();
        assert_eq!(
            [0, 1, 2, 9, 10, 11, u32::MAX].map(seconds),
            [30, 30, 60, 270, 300, 300, 300]
        );
        assert_eq!(detection.ejection(1, 1.0).as_secs(), 27);
        let short = detection.max_ejection(Duration::from_secs(1));
        assert_eq!(short.ejection(7, 0.0).as_secs(), 30);
    }
}
