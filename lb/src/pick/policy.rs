//! Which policy, and how it is set: values with rules. How each of them chooses is in the files beside this one.

use std::{str::FromStr, sync::Arc, time::Duration};

use super::{Choose, HashKey, OwnPolicy};

/// How the instance of a call is chosen.
///
/// [`FromStr`] reads the names that gRPC's `loadBalancingConfig` uses, and gives each its defaults:
///
/// | name | policy |
/// | --- | --- |
/// | `random`, `weighted_random` | [`Policy::Random`], [`Policy::WeightedRandom`] |
/// | `round_robin`, `weighted_round_robin` | [`Policy::RoundRobin`], [`Policy::WeightedRoundRobin`] |
/// | `least_active` | [`Policy::LeastActive`] |
/// | `least_request` | [`Policy::LeastRequest`], with two choices |
/// | `peak_ewma` | [`Policy::PeakEwma`] |
/// | `ring_hash`, `maglev` | [`Policy::ConsistentHash`] by the header `request-hash-key` |
/// | `prequal` | [`Policy::Prequal`] |
///
/// ```
/// assert_eq!("peak_ewma".parse(), Ok(lb::Policy::default()));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Policy {
    /// Any of them, whatever they weigh.
    Random,
    /// Any of them, in proportion to the weights.
    WeightedRandom,
    /// One after the other, whatever they weigh. For instances that are known to be alike and calls that cost alike.
    RoundRobin,
    /// One after the other, in proportion to the weights, of which each counts as at least a tenth and at most ten times their
    /// mean (gRFC A58's static stride schedule, and its implementations' bounds).
    WeightedRoundRobin,
    /// The one with the fewest calls in flight of all; of several, one in proportion to their weights. Each pick looks at every
    /// instance, and many callers with the same view run to the same one: for small fleets.
    LeastActive,
    /// The least busy of a few drawn at random, by calls in flight; of all of them when there are at most eight of the same
    /// weight. It needs no measurements.
    LeastRequest(LeastRequest),
    /// The fastest of two drawn at random, by the latency that is to be expected under the calls in flight; of all of them when
    /// there are at most eight of the same weight. The default: it keeps away from the slow and the failing, and comes back.
    PeakEwma(PeakEwma),
    /// Calls with the same key go to the same instance as long as that is there and not overloaded.
    ConsistentHash(ConsistentHash),
    /// The fastest of those that said lately how they are and are not hot. For fleets whose instances share their machines with
    /// others: it goes by their load from all callers, which a single caller cannot see. The instances have to say it
    /// (`service-host` does); of others it knows what is seen from here.
    Prequal(Prequal),
    /// As a policy of the caller's own has it: see [`Policy::own`].
    Own(OwnPolicy),
}

impl Policy {
    /// A policy that is written outside of this crate. Not to be had by name, and so not in a service config; one of those that counts more
    /// than the code's takes its place.
    pub fn own(policy: impl Choose) -> Self {
        Self::Own(OwnPolicy(Arc::new(policy)))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::PeakEwma(PeakEwma::default())
    }
}

/// No policy has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no load balancing policy {0:?}")]
pub struct UnknownPolicy(String);

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        Ok(match name {
            "random" => Self::Random,
            "weighted_random" => Self::WeightedRandom,
            "round_robin" => Self::RoundRobin,
            "weighted_round_robin" => Self::WeightedRoundRobin,
            "least_active" => Self::LeastActive,
            "least_request" => Self::LeastRequest(LeastRequest::default()),
            "peak_ewma" => Self::PeakEwma(PeakEwma::default()),
            "ring_hash" | "maglev" => Self::ConsistentHash(ConsistentHash::default()),
            "prequal" => Self::Prequal(Prequal::default()),
            _ => return Err(UnknownPolicy(name.to_owned())),
        })
    }
}

/// A value that a policy cannot work with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPolicy {
    /// See [`LeastRequest::try_new`].
    #[error("{0} choices are not between 2 and 10")]
    Choices(u32),
    /// See [`PeakEwma::try_new`].
    #[error("a decay of {0:?} is not between 100 ms and 10 min")]
    Decay(Duration),
    /// See [`PeakEwma::penalty`].
    #[error("a penalty of {0:?} is not between 1 ms and 1 min")]
    Penalty(Duration),
    /// See [`ConsistentHash::bounded_load`].
    #[error("a load factor of {0} is not between 1.05 and 100")]
    LoadFactor(f64),
    /// See [`Prequal::try_new`].
    #[error("{0} probes a call are not between 0.01 and 3")]
    Probes(f64),
    /// See [`Prequal::hot_quantile`].
    #[error("a quantile of {0} is not between 0.5 and 0.99")]
    Quantile(f64),
}

/// Settings of [`Policy::LeastRequest`] (gRFC A48).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeastRequest {
    pub(super) choices: u32,
}

impl LeastRequest {
    /// The least busy of so many draws (`choiceCount`): 2 to 10, by default 2.
    ///
    /// # Errors
    /// [`InvalidPolicy::Choices`]. gRPC takes 10 for more; here nothing is changed in silence.
    pub fn try_new(choices: u32) -> Result<Self, InvalidPolicy> {
        if (2..=10).contains(&choices) {
            Ok(Self { choices })
        } else {
            Err(InvalidPolicy::Choices(choices))
        }
    }
}

impl Default for LeastRequest {
    fn default() -> Self {
        Self { choices: 2 }
    }
}

/// Settings of [`Policy::PeakEwma`], after Finagle's and linkerd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeakEwma {
    pub(crate) decay: Duration,
    pub(crate) penalty: Duration,
}

impl PeakEwma {
    /// How long a latency is remembered: after this time without a call it counts for 1/e. 100 ms to 10 min, by default 10 s. An
    /// instance that is ten times slower than the others gets a call now and then, about every 2.3 of these times.
    ///
    /// # Errors
    /// [`InvalidPolicy::Decay`].
    pub fn try_new(decay: Duration) -> Result<Self, InvalidPolicy> {
        if (Duration::from_millis(100)..=Duration::from_secs(600)).contains(&decay) {
            Ok(Self {
                decay,
                ..Self::default()
            })
        } else {
            Err(InvalidPolicy::Decay(decay))
        }
    }

    /// The latency that a failed call counts as at least, since failing is fast. 1 ms to 1 min, by default 1 s. Each further
    /// failure in a row doubles it, up to 32 times; it is forgotten at this pace, too. A server that says when to come back
    /// (`grpc-retry-pushback-ms`, `RetryInfo`) is believed, up to 5 min.
    ///
    /// # Errors
    /// [`InvalidPolicy::Penalty`].
    pub fn penalty(self, penalty: Duration) -> Result<Self, InvalidPolicy> {
        if (Duration::from_millis(1)..=Duration::from_secs(60)).contains(&penalty) {
            Ok(Self { penalty, ..self })
        } else {
            Err(InvalidPolicy::Penalty(penalty))
        }
    }
}

impl Default for PeakEwma {
    fn default() -> Self {
        Self {
            decay: Duration::from_secs(10),
            penalty: Duration::from_secs(1),
        }
    }
}

/// Settings of [`Policy::ConsistentHash`].
#[derive(Clone, Debug, PartialEq)]
pub struct ConsistentHash {
    pub(crate) key: HashKey,
    /// In 1/1024, so that a pick needs no floating point.
    pub(super) factor: u64,
}

impl ConsistentHash {
    /// By that key. A call without it goes anywhere.
    #[must_use]
    pub fn by(key: HashKey) -> Self {
        Self { key, ..Self::default() }
    }

    /// How much more than its share an instance may have in flight before further calls go to the next one: 1.05 to 100, by
    /// default 1.25 ("Consistent Hashing with Bounded Loads", Mirrokni et al., 2016).
    ///
    /// # Errors
    /// [`InvalidPolicy::LoadFactor`].
    pub fn bounded_load(self, factor: f64) -> Result<Self, InvalidPolicy> {
        if (1.05..=100.0).contains(&factor) {
            let factor = (factor * 1024.0) as u64;
            Ok(Self { factor, ..self })
        } else {
            Err(InvalidPolicy::LoadFactor(factor))
        }
    }
}

impl Default for ConsistentHash {
    fn default() -> Self {
        Self {
            key: HashKey::Header(http::HeaderName::from_static("request-hash-key")),
            factor: 1280,
        }
    }
}

/// Settings of [`Policy::Prequal`] (Wydrowski et al., "Load is not what you should balance", NSDI'24).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prequal {
    /// In 1/1024.
    probes: u32,
    pub(crate) hot_quantile: f32,
    /// How long a report is good for.
    pub(crate) age: Duration,
    /// Reports thrown away a call, in 1/1024.
    pub(super) removals: u32,
}

impl Prequal {
    /// So many probes for each call, on average: 0.01 to 3, by default 0.25, and never more than a thousand in a second. The paper
    /// has 3; but there reports do not come with responses as well, which is one more for every call.
    ///
    /// # Errors
    /// [`InvalidPolicy::Probes`].
    pub fn try_new(probes_per_call: f64) -> Result<Self, InvalidPolicy> {
        if (0.01..=3.0).contains(&probes_per_call) {
            let probes = (probes_per_call * 1024.0) as u32;
            Ok(Self {
                probes,
                ..Self::default()
            })
        } else {
            Err(InvalidPolicy::Probes(probes_per_call))
        }
    }

    /// Whoever has more requests in flight than this share of the latest reports is hot: 0.5 to 0.99, by default 0.6: where
    /// the paper's 0.84 lets callers run to the same few (see the benchmark `prequal`).
    ///
    /// # Errors
    /// [`InvalidPolicy::Quantile`].
    pub fn hot_quantile(self, quantile: f64) -> Result<Self, InvalidPolicy> {
        if (0.5..=0.99).contains(&quantile) {
            Ok(Self {
                hot_quantile: quantile as f32,
                ..self
            })
        } else {
            Err(InvalidPolicy::Quantile(quantile))
        }
    }

    /// Throws no report away, for a benchmark in which nobody reports.
    #[cfg(feature = "bench")]
    #[must_use]
    pub fn keeping(self) -> Self {
        Self { removals: 0, ..self }
    }

    /// How many probes so many calls are worth, at random where that is not whole.
    pub(crate) fn probes(&self, calls: u32, bits: u32) -> usize {
        let exact = u64::from(calls) * u64::from(self.probes);
        ((exact + u64::from(bits % 1024)) / 1024) as usize
    }

    /// For how many calls a report is good: the paper's reuse budget, `(1 + 1) / ((1 - m/n) * reports - removals)` with a pool of
    /// half as many reports as instances and one report with each response beside the probes.
    pub(crate) fn uses(&self) -> u16 {
        let reports = 1.0 + f64::from(self.probes) / 1024.0;
        let gained = 0.5 * reports - f64::from(self.removals) / 1024.0;
        (2.0 / gained).ceil() as u16
    }
}

impl Default for Prequal {
    fn default() -> Self {
        Self {
            probes: 256,
            hot_quantile: 0.6,
            age: Duration::from_secs(1),
            removals: 256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_a_policy() {
        for name in [
            "random",
            "weighted_random",
            "round_robin",
            "weighted_round_robin",
            "least_active",
            "least_request",
            "peak_ewma",
            "ring_hash",
            "maglev",
            "prequal",
        ] {
            name.parse::<Policy>().expect(name);
        }
        let unknown = "pick_first".parse::<Policy>().expect_err("there is none");
        assert_eq!(unknown.to_string(), "there is no load balancing policy \"pick_first\"");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert_eq!(LeastRequest::try_new(1), Err(InvalidPolicy::Choices(1)));
        assert_eq!(LeastRequest::try_new(11), Err(InvalidPolicy::Choices(11)));
        assert_eq!(LeastRequest::try_new(2), Ok(LeastRequest::default()));
        assert!(PeakEwma::try_new(Duration::ZERO).is_err());
        assert!(PeakEwma::default().penalty(Duration::from_secs(61)).is_err());
        for wrong in [0.0, 3.1, f64::NAN] {
            assert!(Prequal::try_new(wrong).is_err());
            assert!(Prequal::default().hot_quantile(wrong).is_err());
        }
        for factor in [1.0, 101.0, f64::NAN] {
            assert!(ConsistentHash::default().bounded_load(factor).is_err(), "{factor}");
        }
        assert_eq!(
            ConsistentHash::default().bounded_load(1.25),
            Ok(ConsistentHash::default())
        );
    }

    #[test]
    fn probes_are_a_share_of_the_calls() {
        let prequal = Prequal::try_new(0.25).expect("valid");
        assert_eq!(prequal, Prequal::default());
        assert_eq!(prequal.uses(), 6);
        let probes: usize = (0..1024).map(|bits| prequal.probes(1, bits)).sum();
        assert_eq!(probes, 256);
        assert_eq!(prequal.probes(8, 0), 2);
    }
}
