//! Speaks the registry's protocol: keeps instances registered, keeps sets of instances up to date. It balances nothing and
//! calls no service; that is `lb`'s, which takes its [`Snapshot`]s from here.
//!
//! ```no_run
//! use std::time::Duration;
//! use registry_client::{Registration, Registry, Removal};
//!
//! # async fn example() -> Result<(), registry_client::Error> {
//! let registry = Registry::connect(["http://127.0.0.1:7000"])?; // or several: any one will do
//!
//! // A provider, once it listens.
//! let registrar = registry.register(Registration::new("ticket-svc", "127.0.0.1:7101").version("1.4.2"));
//! registrar.registered(Duration::from_secs(5)).await?;
//!
//! // A consumer.
//! let mut tickets = registry.discover("ticket-svc").watch();
//! let snapshot = tickets.wait_for(|snapshot| snapshot.callable().count() > 0).await?;
//! println!("{} instances at revision {}", snapshot.instances.len(), snapshot.revision);
//!
//! // The provider leaves: callers first, registry second.
//! registrar.drain(Duration::from_secs(5)).await;
//! registrar.deregister(Removal::Drained).await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised across reconnects
//!
//! A registry may be away, slow, replaced by another replica, or back on an empty disk. Whatever it is:
//!
//! - **A registrar never gives up.** It repeats, with a jittered back-off between 100 ms and 10 s (or the delay that the
//!   registry asks for, up to 30 s), over all endpoints, until it is told to leave or dropped. A lease that the registry no
//!   longer knows is asked for again under the same instance id. What the instance says of itself (status, weight, metadata)
//!   is kept here and told again, so an instance that drains is still draining after any number of registrations. A repeat
//!   after a lost answer carries the request id of the first attempt and does not register twice. With several endpoints, one
//!   that does not know a lease which should live is not believed alone: it may be a replica that is a moment behind.
//! - **A watcher keeps the last good set.** While the registry is away its state is [`SnapshotState::Stale`] with a reason,
//!   and its instances are those that were last known. It resumes from the last revision that it was told, at another
//!   endpoint if need be. A connection that has silently died is noticed within 13 s by HTTP/2 PINGs. A replica that is STALE
//!   for more than 5 s is left for another one, and more and more rarely where all of them are. One that does not know the
//!   revision to resume from is behind, until all of them say the same.
//! - **A set is never emptied by accident.** An instance leaves the set at once when the registry tells its removal. When it
//!   is merely absent from a snapshot that gives cause for doubt (empty; of an earlier revision or of another
//!   history than the one we know; from a registry that says of itself that it is recovering or stale), it is kept as *unconfirmed* for a grace
//!   of 30 s, which is longer than live providers need to register again, and counted in [`Snapshot::unconfirmed`].
//! - **A watcher acknowledges what it has applied**, when its owner says so ([`Watcher::applied`]) and when somebody may wait
//!   for it, so that [`Registrar::drain`] ends when the last caller knows and not after a time that somebody guessed.
//! - **Every unary call is bounded**, by 5 s unless told otherwise, and goes to the next endpoint when one is away, hangs or
//!   says UNAVAILABLE. Every such call is idempotent.
//! - **No answer panics.** Enum numbers of a later version become `Unknown` and are treated with caution.
//! - **Logs tell changes, not attempts**: one line when trouble begins, one when it ends.
//!
//! # What is not
//!
//! - Whether an instance of the set is reachable: ask the instance. `lb` skips those that it cannot reach.
//! - That two processes may share an instance id. Each throws the other out when it registers; the fight is slowed down and
//!   shows as [`RegistrarStatus::Retrying`] with STALE_EPOCH, but not decided here.
//! - That a registry which names no history, lost its state *and* has since counted beyond our revision is recognised as
//!   another. Ours names it.
//! - A set that outlives the consumer's process. `lb` keeps one on disk where it is told to.
//!
//! # How it is built
//!
//! What is decided is in pure state machines (`registrar/state`, `watcher/reducer`, `backoff`), to which time and randomness
//! are arguments; `registrar` and `watcher` are one task each that performs what they say. `endpoints` knows which endpoint to
//! call, `connections` over which of its connections, and only `wire` names generated types.

mod backoff;
mod connections;
mod dial;
mod discovery;
mod endpoints;
mod error;
mod model;
mod registrar;
mod registration;
mod registry;
mod token;
mod traced;
mod watcher;
mod wire;

pub use backoff::{Backoff, InvalidBackoff};
pub use dial::{REGISTRY_IDENTITY, expected_registry};
pub use discovery::{DEFAULT_GRACE, Discovery};
pub use error::{Answer, Error};
pub use model::{
    Confidence, DEFAULT_NAMESPACE, DEFAULT_WEIGHT, Decision, Drained, Endpoint, Governed, Health, HealthProbe,
    Instance, InstanceEvent, InstanceStatus, Late, Protocol, Removal, RemovalReason, Selector, ServiceSummary,
    Snapshot, SnapshotCause, SnapshotState, WatchStep,
};
pub use registrar::{Registrar, RegistrarStatus};
pub use registration::{DEFAULT_HEARTBEAT, DEFAULT_MISSES, Registration};
pub use registry::{DEFAULT_CALL_TIMEOUT, Registry, WatchStream};
pub use token::{Bearer, InvalidToken, Token};
pub use watcher::Watcher;
