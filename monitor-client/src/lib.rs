//! Reports what a process has counted to the monitor centre, once an interval.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! let registry = registry_client::Registry::connect(["http://127.0.0.1:7000"])?;
//! let reporter = monitor_client::Reporter::start(&registry, monitor_client::Settings::new("shop", "shop-1"));
//! // From here on every call over `lb` is counted, and every one that this process answers through `telemetry::server`.
//! if let Some(reporter) = reporter {
//!     reporter.stop(Duration::from_secs(2)).await;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A caller needs nothing but `lb` for it. The monitor is the service `console` of the caller's namespace, found through the
//! registry. No call ever waits for it: counting is a few additions ([`telemetry::stats`]), and sending is one task beside. While
//! the monitor is away reports wait, up to [`MAX_REPORTS`] of them; then the oldest are dropped and counted. That it is away is
//! said once, and once that it is back.
//!
//! In reading order: `backlog` (what waits; pure), `report` (from counts to messages' content; pure), `wire` (the message and the
//! call), `reporter` (the task).

mod backlog;
mod report;
mod reporter;
mod wire;

pub use self::{
    backlog::{MAX_REPORTS, MAX_SERIES},
    reporter::{DEFAULT_INTERVAL, Reporter, SERVICE, Settings},
};
