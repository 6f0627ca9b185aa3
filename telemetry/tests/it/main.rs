//! Spans and durations as an exporter sees them. One binary, one in-memory exporter; every test has a trace of its own.

mod calls;
mod collectors;
mod late;
mod metrics;
mod process;
mod secured;
mod server;
mod stats;
mod support;
