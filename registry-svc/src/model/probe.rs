//! How an instance wants to be probed, and what the probes say of it. Nothing here resolves or dials: see `prober`.

use std::{net::IpAddr, time::Duration};

use super::{GrpcService, ValueError};
use crate::limits;

/// What an owner asks for when it wants its instance to be probed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Probe {
    interval: Duration,
    timeout: Duration,
    misses: u32,
    service: Option<GrpcService>,
    from: Option<IpAddr>,
}

/// What the probes say of an instance, which is all that is told of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum Health {
    /// It is not probed, or has not been often enough.
    #[default]
    Unprobed,
    /// It answers.
    Passing,
    /// It does not.
    Failing,
}

impl Probe {
    /// Every `interval`, given up after `timeout` (default: 3 s, or the interval if that is less), failing after `misses` in a row;
    /// asked about `service`, or the server as a whole.
    pub(crate) fn try_new(
        interval: Option<Duration>,
        timeout: Option<Duration>,
        misses: u32,
        service: Option<GrpcService>,
    ) -> Result<Self, ValueError> {
        let within = |found: Duration, min: Duration, max: Duration| match (min..=max).contains(&found) {
            true => Ok(found),
            false => Err(ValueError::DurationOutOfRange { min, max, found }),
        };
        let interval = interval.unwrap_or(limits::PROBE_INTERVAL_DEFAULT);
        let interval = within(interval, limits::PROBE_INTERVAL_MIN, limits::PROBE_INTERVAL_MAX)?;
        let timeout = timeout.unwrap_or(limits::PROBE_TIMEOUT_DEFAULT.min(interval));
        let longest = limits::PROBE_TIMEOUT_MAX.min(interval);
        let timeout = within(timeout, limits::PROBE_TIMEOUT_MIN, longest)?;
        let misses = if misses == 0 {
            limits::PROBE_MISSES_DEFAULT
        } else {
            misses
        };
        if misses > limits::PROBE_MISSES_MAX {
            return Err(ValueError::OutOfRange {
                min: 1,
                max: limits::PROBE_MISSES_MAX.into(),
                found: misses.into(),
            });
        }
        Ok(Self {
            interval,
            timeout,
            misses,
            service,
            from: None,
        })
    }

    /// The same, registered by a connection from this address, to which it may then be sent. An IPv4 address in IPv6's clothes is
    /// an IPv4 address.
    pub(crate) fn asked_from(self, from: Option<IpAddr>) -> Self {
        Self {
            from: from.map(|address| address.to_canonical()),
            ..self
        }
    }

    /// The time between two.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// How long one may take, the look-up of the name included.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How many fail in a row before it counts as failing.
    pub(crate) fn misses(&self) -> u32 {
        self.misses
    }

    /// What is asked about; `None`: the server as a whole.
    pub(crate) fn service(&self) -> Option<&GrpcService> {
        self.service.as_ref()
    }

    /// Where the registrant's connection came from.
    pub(crate) fn from(&self) -> Option<IpAddr> {
        self.from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_have_bounds() {
        let secs = |seconds| Some(Duration::from_secs(seconds));
        let fits = |interval, timeout, misses| Probe::try_new(interval, timeout, misses, None).is_ok();
        assert!(fits(None, None, 0) && fits(secs(1), secs(1), 10) && fits(secs(3_600), None, 1));
        assert!(!fits(secs(0), None, 0) && !fits(secs(3_601), None, 0));
        assert!(!fits(secs(2), secs(3), 0), "longer than the interval");
        assert!(fits(None, secs(10), 0) && !fits(None, secs(11), 0));
        assert!(!fits(None, Some(Duration::from_millis(99)), 0) && !fits(None, None, 11));
        let short = Probe::try_new(secs(1), None, 0, None).expect("a probe");
        assert_eq!((short.timeout(), short.misses()), (Duration::from_secs(1), 3));
        let mapped = short.asked_from("::ffff:10.0.0.7".parse().ok());
        assert_eq!(mapped.from(), "10.0.0.7".parse().ok());
    }
}
