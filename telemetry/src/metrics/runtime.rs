//! How late the runtime is, measured by a task that asks to be woken and looks at the clock; and which program this is.

use std::time::Duration;

use tokio::{task::JoinHandle, time::Instant};

use super::{gauge, histogram};
use crate::init::Config;

/// How often it looks: often enough to meet a worker that is blocked for a second, rarely enough to cost nothing.
const EVERY: Duration = Duration::from_millis(250);
/// Seconds of lag. tokio's timer counts whole milliseconds, so the first bound is what an idle process has.
const BUCKETS: &[f64] = &[0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Says which program this is, for joins with other series: `target_info`, as OpenTelemetry maps resources, and the build.
pub(crate) fn identify(config: &Config) {
    let target = gauge(
        "target_info",
        "Which service and instance this is",
        &["service_name", "service_version", "service_instance_id"],
    );
    let instance = config.instance_id.as_deref().unwrap_or_default();
    target
        .with(&[&config.service_name, &config.service_version, instance])
        .set(1.0);
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    gauge(
        "tessera_build_info",
        "What this program was built of",
        &["version", "profile"],
    )
    .with(&[env!("CARGO_PKG_VERSION"), profile])
    .set(1.0);
}

/// The task that measures; [`crate::Guard`] owns it.
#[derive(Debug)]
pub(crate) struct Probe {
    task: JoinHandle<()>,
}

impl Probe {
    /// Starts it. Must be called within a tokio runtime.
    pub(crate) fn start() -> Self {
        Self {
            task: tokio::spawn(measure()),
        }
    }

    /// Ends it.
    pub(crate) async fn end(mut self) {
        self.task.abort();
        // It holds nothing that would want an end.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn measure() {
    let lag = histogram(
        "tokio_runtime_lag_seconds",
        "How late a task was woken that waited for a moment",
        &[],
        BUCKETS,
    )
    .with(&[]);
    loop {
        // From now on and not from the last time: what is late once is not counted twice.
        let due = Instant::now() + EVERY;
        tokio::time::sleep_until(due).await;
        lag.observe(due.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker that is blocked wakes nobody: that is what is to be seen.
    #[tokio::test(start_paused = true)]
    async fn a_blocked_worker_is_seen() {
        let probe = Probe::start();
        // It has begun to wait by then.
        tokio::time::sleep(EVERY / 2).await;
        tokio::time::advance(EVERY / 2 + Duration::from_millis(700)).await;
        tokio::task::yield_now().await;
        probe.end().await;
        let text = crate::metrics::encode();
        let count = |le: &str| -> u64 {
            let start = format!("tokio_runtime_lag_seconds_bucket{{le=\"{le}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&*start));
            line.unwrap_or_else(|| panic!("no {le} in {text}"))
                .parse()
                .expect("a count")
        };
        assert_eq!((count("0.5"), count("1.0")), (0, 1), "{text}");
    }
}
