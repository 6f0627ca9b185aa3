//! The monitor centre: keeps what callers and providers count, and answers questions about it: rates, failures, percentiles, who
//! calls whom.
//!
//! Read in this order: `monitor` has the time series (pure), `store` keeps them in one file, `driver` brings both together with
//! the clock, `access` says who may call what, `api` speaks `tessera.monitor.v1`, and [`Console::start`] is the life of a process.
//!
//! What it promises: a report that was answered is durable, and counts once however often it is sent. Memory and disk are
//! bounded. Who reports is elsewhere (`monitor-client`), and nobody's call waits for a monitor.

mod access;
mod api;
mod config;
mod driver;
mod monitor;
mod service;
mod store;

pub use self::{
    config::Config,
    service::{Console, Failure, Running, SERVICE, StartError, StopReport},
    store::StoreError,
};
