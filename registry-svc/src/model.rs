//! The registry's vocabulary: values that are right by construction.
//!
//! What has a rule is built by `try_new` and keeps its fields to itself, so that nothing past the `api` checks again. No
//! generated types, no I/O and no clock here.

use std::time::Duration;

mod endpoint;
mod governance;
mod history_id;
mod instance;
mod lease;
mod metadata;
mod name;
mod packed;
mod peer;
mod probe;
mod registrant;
mod replica;
mod shared;
mod time;
mod value_error;
mod version;
mod watch_id;

pub(crate) use endpoint::{Endpoint, EndpointView, Endpoints, Host, Port, Protocol};
pub(crate) use governance::{Act, Override, OverrideRecord, Ruling, Who};
pub(crate) use history_id::HistoryId;
pub(crate) use instance::{
    Draft, Epoch, Instance, InstanceKey, Labels, Profile, Revision, ServiceKey, Spec, Status, Weight,
};
pub(crate) use lease::{ByLease, Heartbeat, LeaseId, LeaseSecret, SecretHash, Terms};
pub(crate) use metadata::Metadata;
pub(crate) use name::{Detail, GrpcService, InstanceId, Label, Namespace, ServiceName, Zone};
pub(crate) use peer::PeerKey;
pub(crate) use probe::{Health, Probe};
pub(crate) use registrant::Registrant;
pub(crate) use replica::{ReplicaId, Replicas};
pub(crate) use shared::Shared;
pub(crate) use time::{Moment, Now, WallTime};
pub(crate) use value_error::ValueError;
pub(crate) use version::Version;
pub(crate) use watch_id::WatchId;

/// Why an instance left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RemovalReason {
    /// Its owner deregistered it.
    Deregistered,
    /// Its owner deregistered it after draining.
    Drained,
    /// Its lease lapsed.
    Expired,
    /// Another lease registered the same id.
    Replaced,
}

impl RemovalReason {
    /// For logs and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Deregistered => "deregistered",
            Self::Drained => "drained",
            Self::Expired => "expired",
            Self::Replaced => "replaced",
        }
    }
}

/// How far an answer can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confidence {
    /// Up to date.
    Fresh,
    /// Just restarted: nothing expires until the owners have had the time to come back.
    Recovering,
    /// Too many leases lapse at once: expiry is slowed down.
    Protecting,
    /// The store cannot be reached: true as of so long ago.
    Stale {
        /// How long ago.
        age: Duration,
    },
}
