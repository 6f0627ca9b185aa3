//! Attacks that fail and promises that hold, against real servers on port 0.

mod admin;
mod admitting;
mod attacks;
#[cfg(unix)]
mod crowd;
mod deadlines;
mod draining;
mod errors;
#[cfg(target_os = "linux")]
mod files;
mod openssl;
mod reflecting;
mod reports;
mod secured;
mod stopping;
mod support;
mod tracing;
mod uploads;
