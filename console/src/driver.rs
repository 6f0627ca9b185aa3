//! Drives the core: one thread takes what waits, applies it, writes it in one transaction and then answers all of it. Readers share
//! the state with it. Reads the clock; decides nothing about series.

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use telemetry::metrics;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    monitor::{Applied, Bounds, Change, Refused, Report, State},
    store::{Store, StoreError},
};

/// Reports that wait for the disk. Each reporter has one on its way, and they wait for one transaction of some milliseconds: what
/// comes beyond is told to come again.
const WAITING: usize = 256;
/// Reports of one transaction: a bound on how long those that are read meanwhile wait.
const TOGETHER: usize = 64;

/// Why a report was not counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReportError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("too many reports wait for the disk")]
    Busy,
    #[error("the store failed; the monitor's log says why")]
    StoreFailed,
}

/// A handle of the running monitor. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Driver {
    state: Arc<RwLock<State>>,
    reports: mpsc::Sender<Waiting>,
}

/// The thread that writes. It ends when every [`Driver`] is gone.
#[derive(Debug)]
pub(crate) struct Writer {
    thread: Option<thread::JoinHandle<()>>,
    failed: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Waiting {
    report: Report,
    answer: oneshot::Sender<Result<Applied, ReportError>>,
}

/// Reads what was kept and begins. Blocks on the disk.
pub(crate) fn start(store: Store, bounds: Bounds) -> Result<(Driver, Writer), StoreError> {
    let mut state = State::new(bounds);
    store.load(|change| state.restore(change))?;
    let mut changes = Vec::new();
    state.expire(now(), &mut changes);
    store.write(&changes)?;
    let state = Arc::new(RwLock::new(state));
    let (reports, waiting) = mpsc::channel(WAITING);
    let (failing, failed) = watch::channel(false);
    let shared = Arc::clone(&state);
    let thread = thread::Builder::new()
        .name("monitor-store".into())
        .spawn(move || {
            if let Err(error) = write_all(&store, &shared, waiting) {
                tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
                failing.send_replace(true);
            }
        })
        .map_err(|error| StoreError::Engine(Box::new(redb::Error::Io(error))))?;
    let writer = Writer {
        thread: Some(thread),
        failed,
    };
    Ok((Driver { state, reports }, writer))
}

impl Driver {
    /// Counts a report; returns when it is durable.
    pub(crate) async fn report(&self, report: Report) -> Result<Applied, ReportError> {
        let (answer, answered) = oneshot::channel();
        self.reports
            .try_send(Waiting { report, answer })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => ReportError::Busy,
                mpsc::error::TrySendError::Closed(_) => ReportError::StoreFailed,
            })?;
        answered.await.unwrap_or(Err(ReportError::StoreFailed))
    }

    /// The series. They are not written to while this is held, so it is held for one question.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Resolves when nothing can be written any more. What is in memory may then be ahead of the disk: the process has to end.
    pub(crate) async fn failed(&mut self) {
        if self.failed.wait_for(|failed| *failed).await.is_err() {
            // It ended in order.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until all that was taken is written. Every [`Driver`] has to be gone.
    pub(crate) async fn end(mut self) {
        let Some(thread) = self.thread.take() else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the thread that writes the store failed");
        }
    }
}

fn write_all(store: &Store, state: &RwLock<State>, mut waiting: mpsc::Receiver<Waiting>) -> Result<(), StoreError> {
    let counted = metrics::counter(
        "tessera_monitor_reports",
        "Reports taken, by what became of them",
        &["outcome"],
    );
    let [taken, duplicate, refused] = ["counted", "duplicate", "refused"].map(|outcome| counted.with(&[outcome]));
    let missed = metrics::counter(
        "tessera_monitor_reports_missed",
        "Reports that reporters had to drop while the monitor was away",
        &[],
    )
    .with(&[]);
    let series = metrics::gauge("tessera_monitor_series", "Time series that are kept", &[]).with(&[]);
    let bytes = metrics::gauge("tessera_monitor_point_bytes", "Memory of the points that are kept", &[]).with(&[]);
    let mut batch = Vec::with_capacity(TOGETHER);
    while waiting.blocking_recv_many(&mut batch, TOGETHER) > 0 {
        let (mut changes, mut outcomes) = (Vec::new(), Vec::with_capacity(batch.len()));
        {
            let mut state = state.write().unwrap_or_else(PoisonError::into_inner);
            let now = now();
            state.expire(now, &mut changes);
            for Waiting { report, answer } in batch.drain(..) {
                outcomes.push((state.apply(&report, now, &mut changes), answer));
            }
            series.set(state.len() as f64);
            bytes.set(state.bytes() as f64);
        }
        write(store, &changes)?;
        for (outcome, answer) in outcomes {
            match &outcome {
                Ok(applied) if applied.duplicate => duplicate.inc(),
                Ok(applied) => {
                    taken.inc();
                    missed.inc_by(applied.missed);
                }
                Err(_) => refused.inc(),
            }
            // Who no longer waits reports again and is told that it was counted.
            let _ = answer.send(outcome.map_err(ReportError::Refused));
        }
    }
    Ok(())
}

fn write(store: &Store, changes: &[Change]) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    store.write(changes)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
