//! How each of our servers lives and dies.
//!
//! ```no_run
//! # async fn example(routes: tonic::service::Routes, descriptors: &'static [u8]) -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use service_host::{Config, Host, signal::Shutdown};
//!
//! let shutdown = Shutdown::install()?;
//! let listen = "127.0.0.1:7101".parse()?;
//! let host = Host::bind(Config::new("ticket-svc", listen).admin(Some("127.0.0.1:9101".parse()?))).await?;
//! let running = host.serve(routes, &[descriptors]); // listening, health says NOT_SERVING
//! running.set_all_serving();
//! shutdown.wait().await;
//! println!("{}", running.drain(Duration::from_secs(10)).await);
//! # Ok(())
//! # }
//! ```
//!
//! A [`Host`] binds its listeners first, so that an address can be announced only when it is real. Every server gets a
//! hardened HTTP/2 listener ([`Limits`]), health, reflection (v1 and v1alpha), deadlines that hold to the end of a stream,
//! spans and durations, errors that say what to do next ([`status`]), an admin endpoint (`/healthz`, `/metrics`) and a
//! drain that ends ([`Running::drain`]).
//!
//! Callers that ask (`tessera-load-report`) are told with each response how loaded the instance is, as an ORCA report in the trailers.
//!
//! A [`Gate`] decides, if there is one, who may call what.
//!
//! Not here: what is served, registration in the registry (the roles order that around [`Running`]), whom a gate admits.

mod config;
mod host;
mod running;

pub mod signal;
pub mod status;

mod admin;
mod catalogue;
mod connection;
mod drain;
mod gate;
mod health;
mod layers;
mod listener;
mod peer;
mod reflection;

pub use config::{Config, Limits, MAX_REQUEST_MESSAGE};
pub use drain::DrainSignal;
pub use gate::{Credentials, Gate, Pass, Revocation};
pub use host::{BindError, Host};
pub use layers::INSTANCE_HEADER;
pub use listener::whose;
pub use peer::Peer;
pub use running::{DrainReport, Failure, Running};
