//! Logs, traces and metrics, and what travels with a call: its trace and its deadline.
//!
//! Libraries of this workspace *emit* (through [`tracing`], [`client`], [`server`] and [`metrics`]); only a binary
//! *installs*, once, with [`init`]. Without an OTLP endpoint in the environment nothing is dialled and spans are not made
//! at all, but trace ids still travel: logs, orders and downstream calls carry the caller's id, or one made here.
//!
//! RPC spans are made with the OpenTelemetry API itself rather than through `tracing` spans: the attributes of the RPC
//! conventions are explicit, the status is read where gRPC puts it (trailers), and a process that exports nothing passes
//! its caller's span context through untouched.
//!
//! Not here: what a service measures about its own domain (that is the service's), the listener, and the admin endpoint
//! that serves [`metrics::encode`] (both are `service-host`'s).

pub mod semconv;

pub mod deadline;
pub mod propagation;
mod traceparent;

pub mod client;
pub mod server;
pub mod work;

pub mod budget;

pub mod logs;
pub mod messages;
pub mod metrics;
pub mod stats;

mod env;
mod export;
mod init;
mod resource;
pub mod rpc;
mod sampling;
mod span;

#[cfg(feature = "testing")]
pub mod testing;

pub use init::{Config, Guard, InitError, LogFormat, init};
/// What a task carries: the span it works under, and its baggage. Re-exported so that callers name one version.
pub use opentelemetry::Context;
/// An attribute of a span's event.
pub use opentelemetry::KeyValue;
/// Attaches a [`Context`] to a future, for work that is spawned off a call: `tokio::spawn(work.with_context(cx))`.
pub use opentelemetry::trace::FutureExt as WithContext;
pub use traceparent::{InvalidTraceParent, TraceParent};
