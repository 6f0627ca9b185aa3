//! Speaks the registry's protocol: keeps instances registered, keeps sets of instances up to date. Balances nothing and calls
//! no service: that is `lb`'s, which takes its [`Snapshot`]s from here.

mod backoff;
mod discovery;
mod endpoints;
mod error;
mod model;
mod registrar;
mod registration;
mod registry;
mod watcher;
mod wire;

pub use backoff::{Backoff, InvalidBackoff};
pub use discovery::{DEFAULT_GRACE, Discovery};
pub use error::{Answer, Error};
pub use model::{
    Confidence, DEFAULT_NAMESPACE, DEFAULT_WEIGHT, Endpoint, Governed, Instance, InstanceEvent, InstanceStatus,
    Protocol, Removal, RemovalReason, Selector, ServiceSummary, Snapshot, SnapshotCause, SnapshotState, WatchStep,
};
pub use registrar::{Registrar, RegistrarStatus};
pub use registration::{DEFAULT_HEARTBEAT, DEFAULT_MISSES, Registration};
pub use registry::{DEFAULT_CALL_TIMEOUT, Registry, WatchStream};
pub use watcher::Watcher;
