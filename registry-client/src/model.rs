//! What a registry knows, in our own types: instances, sets of them, the steps of a watch. Nothing here names the generated
//! types (`wire` translates) and nothing acts.

mod drain;
mod instance;
mod lease;
mod snapshot;
mod step;

pub use drain::{Drained, Late};
pub use instance::{
    DEFAULT_NAMESPACE, DEFAULT_WEIGHT, Decision, Endpoint, Governed, Health, HealthProbe, Instance, InstanceStatus,
    Protocol,
};
pub(crate) use lease::{Field, Granted, Lease, Says};
pub use snapshot::{Confidence, Snapshot, SnapshotState};
pub use step::{InstanceEvent, Removal, RemovalReason, SnapshotCause, WatchStep};
pub(crate) use step::{Resume, Told};

/// Which instances of a service are meant. Empty fields select everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// An exact version.
    pub version: String,
    /// A group.
    pub group: String,
    /// A zone.
    pub zone: String,
    /// A tag.
    pub tag: String,
}

/// A service in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSummary {
    /// Its name.
    pub service: String,
    /// How many instances are registered.
    pub instances: u32,
    /// How many of them take calls.
    pub callable: u32,
    /// The versions that run, each once.
    pub versions: Vec<String>,
}
