//! What a channel knows, and whom it would call and why: values, for people and machines. Nothing here decides anything.
//!
//! An [`Explanation`] is made when somebody asks (`Channel::explain`, the admin port's `/lb`, a scrape of the metrics); a call
//! pays for it only while its span is recorded, see [`note`]. What the pool knows is extracted by `pool::explain`.

pub(crate) mod live;
pub(crate) mod metrics;
pub(crate) mod note;
mod text;

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::{EndpointState, Policy, pool::Origin};

pub use live::live_page;

/// Instances that one explanation lists: more is no explanation to anybody, and a page must have an end.
pub(crate) const MOST_LISTED: usize = 500;

/// What a [`Channel`](crate::Channel) knows at one moment, and whom it would call: see
/// [`Channel::explain`](crate::Channel::explain).
///
/// It is written as JSON by serde, and as a few lines of text by `Display`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The service, or the addresses of a fixed target.
    pub target: String,
    /// The name of the policy that chooses among the candidates, as service configs have it.
    pub policy: String,
    /// What that policy goes by, in words.
    pub criterion: String,
    /// Where the set comes from, and how old it is.
    pub discovery: DiscoveryView,
    /// Where the rules and the tag lead the call, in words.
    #[serde(default)]
    pub route: String,
    /// Instances that the discovery knows, callable or not.
    pub known: usize,
    /// How many of them a call could go to now.
    pub candidates: usize,
    /// All of them, candidates first, each with what is known of it. At most 500.
    pub instances: Vec<InstanceView>,
    /// How many more there are than `instances` lists.
    #[serde(default)]
    pub more: usize,
}

/// Where the set of instances comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiscoveryView {
    /// In words.
    pub text: String,
    /// The registry's revision that the set is of, if it is a registry's.
    pub revision: Option<i64>,
    /// For so many milliseconds the registry was not heard; `None` while it is.
    pub stale_for_ms: Option<u64>,
}

/// One instance, and what stands between it and the next call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct InstanceView {
    /// Its id; of a fixed target, its address.
    pub instance_id: String,
    /// `host:port`.
    pub address: String,
    /// Its version, zone, group and tag, as it says itself; may be empty.
    pub version: String,
    /// See `version`.
    pub zone: String,
    /// See `version`.
    pub group: String,
    /// See `version`.
    pub tag: String,
    /// Where it is in its life; `None` if it is only known of.
    pub state: Option<EndpointState>,
    /// What it weighs by its registration and its operators, 0 to 1000.
    pub weight: u32,
    /// What it weighs in the choice now; of a candidate.
    pub effective_weight: Option<u32>,
    /// Connections that take calls.
    pub connections: usize,
    /// Calls under way, counted until the response has ended.
    pub in_flight: u32,
    /// The microseconds until an answer that are to be expected, where the policy measures them and something is known.
    pub expected_latency_us: Option<u64>,
    /// Attempts that it has served since it is known here, those that ended with a business error included.
    pub served: u64,
    /// Attempts that it, or the way to it, has failed.
    pub failed: u64,
    /// Why it was last lost or could not be reached, if ever.
    pub last_error: Option<String>,
    /// While it is out of service: the milliseconds until it may prove itself by one call, 0 when it waits for that.
    pub ejected_for_ms: Option<u64>,
    /// What keeps calls from it; `None` of a candidate.
    pub removed: Option<Removed>,
}

/// Why an instance is no candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Removed {
    /// Which step removed it.
    pub by: Filter,
    /// In words.
    pub why: String,
}

/// The steps between what the discovery knows and who can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Filter {
    /// An operator has drained it.
    Drain,
    /// It says itself that it takes no calls, or the registry's probes do.
    Status,
    /// Its weight is 0.
    Weight,
    /// It has no address that this caller speaks to, with TLS or without.
    Protocol,
    /// This caller is to be connected to others.
    Subset,
    /// There is no connection to it.
    Connection,
    /// It failed, and is out of service for a while.
    Ejection,
    /// It is asked whether it serves, and does not say so.
    Health,
    /// The rules of the call, or its tag, lead elsewhere.
    Route,
    /// It has as many calls under way as it allows.
    Room,
    /// It is no longer in the set and finishes its calls.
    Removal,
    /// Something that another version of this program knows.
    #[serde(other)]
    Other,
}

impl Removed {
    pub(crate) fn new(by: Filter, why: impl Into<String>) -> Self {
        Self { by, why: why.into() }
    }
}

impl InstanceView {
    /// Whether the next call could go there.
    #[must_use]
    pub fn is_candidate(&self) -> bool {
        self.removed.is_none()
    }

    /// The latency that is to be expected of it, if anything is known.
    #[must_use]
    pub fn expected_latency(&self) -> Option<Duration> {
        self.expected_latency_us.map(Duration::from_micros)
    }
}

impl From<&Origin> for DiscoveryView {
    fn from(origin: &Origin) -> Self {
        let revision = match origin {
            Origin::Fresh { revision } | Origin::Stale { revision, .. } | Origin::Disk { revision, .. } => {
                Some(*revision)
            }
            _ => None,
        };
        let stale_for = origin.age(SystemTime::now());
        Self {
            text: origin.to_string(),
            revision,
            stale_for_ms: stale_for.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// A policy's name, and what it goes by.
pub(crate) fn described(policy: &Policy) -> (&'static str, &'static str) {
    match policy {
        Policy::Random => ("random", "any of them, whatever they weigh"),
        Policy::WeightedRandom => ("weighted_random", "any of them, in proportion to the weights"),
        Policy::RoundRobin => ("round_robin", "one after the other, whatever they weigh"),
        Policy::WeightedRoundRobin => (
            "weighted_round_robin",
            "one after the other, in proportion to the weights",
        ),
        Policy::LeastActive => (
            "least_active",
            "the one with the fewest calls in flight of all, by weight",
        ),
        Policy::LeastRequest(_) => (
            "least_request",
            "the one with the fewest calls in flight of a few drawn by weight, or of all when they are few",
        ),
        Policy::PeakEwma(_) => (
            "peak_ewma",
            "the cheapest by expected latency times calls in flight, of two drawn by weight, or of all when they are few",
        ),
        Policy::Prequal(_) => (
            "prequal",
            "by the loads that instances report: the fastest of those that are not hot, else the least loaded",
        ),
        Policy::Own(own) => (own.chooser().name(), own.chooser().criterion()),
        Policy::ConsistentHash(_) => (
            "ring_hash",
            "the one that the call's key leads to, unless it is overloaded",
        ),
    }
}
