//! The registry as fault tests use it: a process that is killed and started again, raw clients that keep book of what they
//! were told, and the checks over these books.
//!
//! - [`RegistryProcess`] is one `tessera registry` that keeps its folder and its address over restarts.
//! - [`wire`] is what is said to it.
//! - [`Ledger`] is one writer's book: which states its instances may be in; [`Load`] runs several of them.
//! - [`Fleet`] is owners that renew their leases, or fall silent.
//! - [`Journal`] is what a watch was told; [`Truth`] is what it should have been told.
//! - [`linear`] checks whether a history of calls is linearizable.
//! - [`Frames`] is a watch without a gRPC library, for clients that do not read.

mod fleet;
mod frames;
mod journal;
mod ledger;
pub mod linear;
mod load;
mod process;
mod truth;
pub mod wire;

pub use fleet::Fleet;
pub use frames::{Frames, LARGEST_WINDOW, Told, WINDOW};
pub use journal::{Entry, Journal, Recorder};
pub use ledger::Ledger;
pub use load::{Load, check};
pub use process::RegistryProcess;
pub(crate) use process::loopback;
pub use truth::Truth;
