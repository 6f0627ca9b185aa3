//! The task that reports: takes what was counted at the end of each interval and sends what waits. It reads the clock; what it
//! keeps is `backlog`'s business.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb::Channel;
use rand::RngExt as _;
use registry_client::Registry;
use telemetry::{
    Context, WithContext as _,
    metrics::{self, Counter, Gauge},
    propagation::ensure_unsampled,
    stats::{self, Taker},
};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};
use uuid::Uuid;

use crate::{
    backlog::Backlog,
    report,
    wire::{Monitor, NotCounted, Reporting},
};

/// What the monitor is called in the registry.
pub const SERVICE: &str = "console";
/// How often a process reports, if nobody says otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// A monitor that is not there is told of at once; what waits is tried again at the next interval.
const READY: Duration = Duration::from_millis(500);
/// All processes have the same intervals, and shall not all report in the same moment.
const MAX_JITTER: Duration = Duration::from_secs(1);

/// Who reports, and how often.
#[derive(Debug, Clone)]
pub struct Settings {
    service: String,
    instance_id: String,
    interval: Duration,
}

/// A process that reports. [`Reporter::stop`] sends what is left; dropped, it is lost, as in a crash.
#[derive(Debug)]
pub struct Reporter {
    stop: oneshot::Sender<Instant>,
    task: JoinHandle<()>,
}

impl Settings {
    /// Reports as this instance of this service (both as they are registered), every [`DEFAULT_INTERVAL`].
    pub fn new(service: impl Into<String>, instance_id: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            instance_id: instance_id.into(),
            interval: DEFAULT_INTERVAL,
        }
    }

    /// Reports so often; below 100 ms it is that, above an hour that. A monitor keeps points of 10 s: less often makes its curves
    /// coarse, more often makes them no finer, but loses less in a crash.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.clamp(Duration::from_millis(100), Duration::from_secs(3_600));
        self
    }
}

impl Reporter {
    /// Counts this process's calls and reports them to the monitor of the registry's namespace. Dials nothing yet, and never fails
    /// for a monitor that is not there. `None` if this process reports already. Has to be called within a Tokio runtime.
    #[must_use]
    pub fn start(registry: &Registry, settings: Settings) -> Option<Self> {
        let channel = Channel::builder(registry.discover(SERVICE))
            .ready_timeout(READY)
            .build();
        Self::to(channel, settings)
    }

    /// As [`Reporter::start`], over a channel of one's own: to a monitor that is in no registry.
    #[must_use]
    pub fn to(channel: Channel, settings: Settings) -> Option<Self> {
        let taker = stats::install(&settings.service)?;
        let (stop, stopped) = oneshot::channel();
        let work = Work {
            taker,
            monitor: Monitor::new(channel),
            who: Reporting {
                id: Uuid::new_v4(),
                service: settings.service,
                instance_id: settings.instance_id,
            },
            interval: settings.interval,
            began: now(),
            backlog: Backlog::default(),
            standing: Standing::default(),
            metrics: Metrics::new(),
        };
        Some(Self {
            stop,
            // A report every ten seconds of every process would be most of the traces of a quiet platform.
            task: tokio::spawn(work.run(stopped).with_context(ensure_unsampled(&Context::new()))),
        })
    }

    /// Ends counting, and sends what is left for so long at the most. A monitor that is away is not waited for.
    pub async fn stop(self, patience: Duration) {
        // If nobody hears it, the task is over already.
        let _ = self.stop.send(Instant::now() + patience);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the reporter to the monitor failed");
        }
    }
}

/// What the task has.
struct Work {
    taker: Taker,
    monitor: Monitor,
    who: Reporting,
    interval: Duration,
    /// When the interval that is being counted began, since 1970.
    began: Duration,
    backlog: Backlog,
    standing: Standing,
    metrics: Metrics,
}

/// What was said of the monitor last: each change is said once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Standing {
    /// Nothing was sent yet.
    #[default]
    New,
    Heard,
    Away,
}

struct Metrics {
    up: Gauge,
    waiting: Gauge,
    sent: Counter,
    dropped: Counter,
}

impl Work {
    async fn run(mut self, mut stopped: oneshot::Receiver<Instant>) {
        loop {
            let end = boundary(self.began, self.interval);
            let left = end.saturating_sub(now());
            let jitter = rand::rng().random_range(Duration::ZERO..=MAX_JITTER.min(self.interval / 10));
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                until = &mut stopped => return self.end(until.ok()).await,
            }
            self.take();
            let next = Instant::now() + boundary(self.began, self.interval).saturating_sub(now());
            tokio::select! {
                () = async {
                    sleep_until(Instant::now() + jitter).await;
                    // What was not answered by then is sent again: it counts once.
                    let _ = timeout_at(next, self.send()).await;
                } => {}
                until = &mut stopped => return self.end(until.ok()).await,
            }
        }
    }

    /// The last interval. Without an end in time the handle was dropped: nobody waits for what is left.
    async fn end(mut self, until: Option<Instant>) {
        let Some(until) = until else { return };
        self.take();
        if timeout_at(until, self.send()).await.is_err() || self.backlog.len() > 0 {
            let reports = self.backlog.len();
            match self.standing {
                // That it is away was said before.
                Standing::Away => tracing::info!(reports, "the last statistics are lost"),
                _ => tracing::warn!(reports, "the last statistics have not reached the monitor"),
            }
        }
    }

    /// What was counted up to now joins what waits.
    fn take(&mut self) {
        let now = now();
        // A clock that was set back makes an interval of no length.
        let length = now.saturating_sub(self.began).max(Duration::from_millis(1));
        let length = length.min(Duration::from_secs(3_600));
        let began = std::mem::replace(&mut self.began, now);
        for interval in report::reports(began, length, self.taker.take()) {
            self.metrics.dropped.inc_by(self.backlog.push(interval));
        }
        self.metrics.waiting.set(self.backlog.len() as f64);
    }

    /// Sends what waits, in order, up to the first that is not taken.
    async fn send(&mut self) {
        while let Some(report) = self.backlog.next() {
            match self.monitor.report(&self.who, report).await {
                Ok(()) => {
                    self.metrics.sent.inc();
                    self.is_heard();
                }
                Err(NotCounted::Never(status)) => {
                    tracing::error!(error = %status.message(), "the monitor refuses a report; it is dropped");
                    self.metrics.dropped.inc();
                }
                Err(NotCounted::Later(status)) => return self.is_away(&status),
            }
            self.backlog.pop();
            self.metrics.waiting.set(self.backlog.len() as f64);
        }
    }

    fn is_heard(&mut self) {
        if self.standing == Standing::Away {
            tracing::info!(
                waiting = self.backlog.len(),
                "the monitor is back; statistics reach it again"
            );
        }
        self.standing = Standing::Heard;
        self.metrics.up.set(1.0);
    }

    fn is_away(&mut self, status: &tonic::Status) {
        match self.standing {
            Standing::New => tracing::info!(why = %status.message(), "no monitor takes statistics yet; they wait"),
            Standing::Heard => tracing::warn!(why = %status.message(), "the monitor is away; statistics wait for it"),
            Standing::Away => {}
        }
        self.standing = Standing::Away;
        self.metrics.up.set(0.0);
    }
}

impl Metrics {
    fn new() -> Self {
        let up = metrics::gauge(
            "tessera_monitor_up",
            "Whether the monitor took the last report of this process",
            &[],
        );
        let waiting = metrics::gauge(
            "tessera_monitor_waiting_reports",
            "Reports that wait for the monitor",
            &[],
        );
        let sent = metrics::counter(
            "tessera_monitor_sent_reports",
            "Reports that the monitor has taken",
            &[],
        );
        let dropped = metrics::counter(
            "tessera_monitor_dropped_reports",
            "Reports that were dropped: too many waited, or the monitor refused them",
            &[],
        );
        Self {
            up: up.with(&[]),
            waiting: waiting.with(&[]),
            sent: sent.with(&[]),
            dropped: dropped.with(&[]),
        }
    }
}

/// The end of the interval that `at` lies in. Intervals are the same for all processes, and fit the monitor's points.
fn boundary(at: Duration, interval: Duration) -> Duration {
    let width = interval.as_nanos().max(1);
    let end = (at.as_nanos() / width + 1) * width;
    Duration::from_nanos(u64::try_from(end).unwrap_or(u64::MAX))
}

/// Since 1970, by the wall clock: points are moments that people look for.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_end_where_points_do() {
        let check = |at: f64, interval: f64, end: f64| {
            let seconds = Duration::from_secs_f64;
            assert_eq!(boundary(seconds(at), seconds(interval)), seconds(end));
        };
        check(1_800_000_000.0, 10.0, 1_800_000_010.0);
        check(1_800_000_009.5, 10.0, 1_800_000_010.0);
        check(7.3, 0.5, 7.5);
        check(7.3, 60.0, 60.0);
    }
}
