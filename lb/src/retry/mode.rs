//! What becomes of a call that fails: the modes, as values. Each is performed by a file of its own in `call`.

use std::time::Duration;

use super::{HedgingPolicy, InvalidRetry, RetryPolicy};

/// What is done about a call that fails, or may fail. Dubbo's cluster modes, and gRPC's hedging.
///
/// In every mode a call that provably reached no handler goes elsewhere unseen. All others than [`Mode::Failfast`] may have a
/// call processed more than once, or hide that it was not at all: they are for methods that are known to bear it. A caller
/// that repeats by itself, which it tells by sending `grpc-previous-rpc-attempts`, gets [`Mode::Failfast`]: only one layer
/// retries.
///
/// A request that is a stream is repeated as long as what was sent of it is at most 64 KiB and no response has begun; in
/// [`Mode::Forking`] and [`Mode::Hedging`] it has one attempt, in [`Mode::Failback`] it is not tried again, and
/// [`Mode::Broadcast`] refuses it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Mode {
    /// One attempt; its failure is the call's. For whatever must not happen twice. The default.
    #[default]
    Failfast,
    /// Further attempts on other instances, within the channel's [`RetryBudget`](crate::RetryBudget). Once the response has
    /// begun (its headers are there, and are not its end) it is the call's.
    Failover(RetryPolicy),
    /// A failure becomes an empty message, with [`Swallowed`](crate::Swallowed) in the response's extensions; it is logged and
    /// counted. Errors of the business (NOT_FOUND, INVALID_ARGUMENT ...) are answers, and stay. For unary calls whose result
    /// nobody waits for, such as an audit record.
    Failsafe,
    /// As [`Mode::Failsafe`], and the call is tried again in the background. For unary calls that must get there at some time,
    /// such as a notification.
    Failback(FailbackPolicy),
    /// To several instances at once; the first success is the answer, and the others are cancelled. For unary reads that must be
    /// quick, at the price of as many times the load. Outside of any budget.
    Forking(Forks),
    /// To every instance, at most 16 at a time; fails if any of them does. What each said is in the response's extensions as
    /// [`BroadcastResults`](crate::BroadcastResults), or in the error's details; the message is that of the first by instance
    /// id. For unary calls that concern what each instance holds by itself, such as a cache.
    Broadcast,
    /// To one more instance when the answer is late, within the channel's budget for hedges. For reads with a tail.
    Hedging(HedgingPolicy),
}

/// To how many instances a call forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forks(u32);

impl Default for Forks {
    /// Two, as Dubbo does.
    fn default() -> Self {
        Self(2)
    }
}

impl Forks {
    /// To `instances` at once, or to all if there are fewer.
    ///
    /// # Errors
    /// It must be 2 to 16.
    pub fn try_new(instances: u32) -> Result<Self, InvalidRetry> {
        if (2..=16).contains(&instances) {
            Ok(Self(instances))
        } else {
            Err(InvalidRetry::Forks(instances))
        }
    }

    pub(crate) fn instances(self) -> u32 {
        self.0
    }
}

/// How a failed call is tried again in the background.
///
/// The default is Dubbo's: every 5 s, 3 times. At most 100 calls of a channel wait; one more fails as if there were no such
/// mode. [`Channel::close`](crate::Channel::close) tries each that waits once more and logs those that were not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailbackPolicy {
    every: Duration,
    times: u32,
}

impl Default for FailbackPolicy {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5),
            times: 3,
        }
    }
}

impl FailbackPolicy {
    /// `times` more attempts, the first after `every`, and so on. Each may take as long as the method's call timeout, or 5 s if
    /// it has none.
    ///
    /// # Errors
    /// `every` must be 1 ms to 1 h, `times` 1 to 100.
    pub fn try_new(every: Duration, times: u32) -> Result<Self, InvalidRetry> {
        let sane = (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&every);
        if sane && (1..=100).contains(&times) {
            Ok(Self { every, times })
        } else {
            Err(InvalidRetry::Failback { every, times })
        }
    }

    pub(crate) fn every(self) -> Duration {
        self.every
    }

    pub(crate) fn times(self) -> u32 {
        self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_meant_is_refused() {
        assert_eq!(Forks::try_new(1), Err(InvalidRetry::Forks(1)));
        assert_eq!(Forks::try_new(17), Err(InvalidRetry::Forks(17)));
        let (every, times) = (Duration::ZERO, 3);
        assert_eq!(
            FailbackPolicy::try_new(every, times),
            Err(InvalidRetry::Failback { every, times })
        );
        let (every, times) = (Duration::from_secs(5), 0);
        assert_eq!(
            FailbackPolicy::try_new(every, times),
            Err(InvalidRetry::Failback { every, times })
        );
    }
}
