//! Fixtures for tests of the whole system: real processes on ports that the kernel chose, and waits that are bounded.
//!
//! - [`Process`] runs the `tessera` binary with piped output, and ends it when dropped.
//! - [`Cluster`] starts a registry, tickets and users as processes of their own, the way an operator would.
//! - [`otlp::Receiver`] is a trace backend in the test's own process.
//! - [`registry`] is a registry to be hurt, with raw clients that keep book; [`trial`] and [`strace`] are what hurts it.
//! - [`etcd::Cluster`] is the store of its replicas; [`network::Branch`] is a network that can be cut off.
//! - [`market::Market`] sells to buyers who keep book, and holds their books against the services.
//! - [`proxy::Proxy`] is a network that delays, repeats and loses single calls.
//! - [`scrape`] reads an admin port's metrics.
//! - [`wait::until`] asks again until a condition holds or time is up. Nothing here sleeps and hopes.
//!
//! The tests themselves are in `tests/it`.

mod account;
mod admin;
mod binary;
mod cluster;
pub mod etcd;
pub mod market;
pub mod network;
pub mod otlp;
mod process;
pub mod proxy;
pub mod registry;
pub mod strace;
pub mod trial;
pub mod wait;

pub use account::Account;
pub use admin::scrape;
pub use binary::tessera;
pub use cluster::{Cluster, ClusterOptions, Stores};
pub use process::{Ended, Process, run};

/// The README's Rust snippets, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
