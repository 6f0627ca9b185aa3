//! The registry: who exists, where, how well, and since which revision.
//!
//! Providers register instances under a lease and keep it alive with heartbeats; consumers list them or watch them change.
//! The wire, `tessera.registry.v1`, is the contract. This crate is one process of it, alone over an embedded store or one of
//! several over an etcd cluster; it dials nothing that clients register unless they ask to be probed, and losing it stops no traffic between them.
//!
//! The way of a change: `api` validates it into the `model`'s types → `driver` hands it to the `catalog` (a pure state machine)
//! → the `store` makes it durable together with whatever else waits → `hub` shows it to readers and watchers → the answer.
//! Heartbeats end at the catalog: they touch no disk.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = registry_svc::Config { data_dir: "data/registry".into(), ..Default::default() };
//! let mut running = registry_svc::Registry::start(config).await?;
//! println!("serving on {}", running.local_addr());
//! tokio::select! {
//!     error = running.failed() => return Err(error.into()),
//!     _ = tokio::signal::ctrl_c() => {}
//! }
//! running.stop().await;
//! # Ok(())
//! # }
//! ```

mod limits;
mod model;
mod protobuf;

mod access;
mod gatekeeper;

mod catalog;
mod history;
mod hub;
mod store;

mod driver;
mod metrics;
mod prober;

mod api;

pub mod backup;
mod config;
mod running;
pub mod tokens;

#[cfg(test)]
#[path = "../tests/it/etcd_server.rs"]
mod etcd_server;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod simulation;

pub use access::Access;
pub use config::{Config, StoreLocation};
pub use prober::{Cidr, InvalidCidr};
pub use running::{Error, Registry, Running, StartError, StopReport};
pub use store::{EtcdUrl, EtcdUrlError};
