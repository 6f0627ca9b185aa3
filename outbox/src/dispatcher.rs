//! Takes due events from the store and hands them to the sink, batch after batch. Every process has one; they share the work.

use std::{sync::Arc, time::Duration};

use service_store::{Database, failpoint};
use telemetry::{
    KeyValue, WithContext as _,
    work::{Kind, Work},
};
use tokio::{sync::Notify, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    event::Recorded,
    metrics,
    sink::{NotDelivered, Sink},
    table::{self, Batch, Failure},
};

/// How events are delivered. [`Settings::default`] is for services.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The longest wait between two looks when nothing was due; from a half to the whole of it. Default: 250 ms.
    pub look: Duration,
    /// Events taken at once. Default: 100, some 100 KB.
    pub batch: u32,
    /// How long a batch is this process's, and no other one takes it. Default: 30 s.
    pub lease: Duration,
    /// After so many attempts an event is a dead letter. Default: 12, some six minutes.
    pub attempts: u32,
    /// The wait after the first failure; it doubles up to [`Settings::most_pause`]. Default: 200 ms.
    pub pause: Duration,
    /// The longest wait between attempts. Default: 60 s.
    pub most_pause: Duration,
    /// How long delivered events are kept. Default: 7 days.
    pub keep: Duration,
}

/// The task that delivers the events of a store. Dropped, it ends at once, as a crash would.
#[derive(Debug)]
pub struct Dispatcher {
    stop: CancellationToken,
    wake: Arc<Notify>,
    task: Option<JoinHandle<()>>,
}

/// Delivered events removed at once: a short write.
const PRUNED: u32 = 500;

/// How often the store is asked what waits, and what is old is removed.
const TIDY: Duration = Duration::from_secs(10);

impl Default for Settings {
    fn default() -> Self {
        Self {
            look: Duration::from_millis(250),
            batch: 100,
            lease: Duration::from_secs(30),
            attempts: 12,
            pause: Duration::from_millis(200),
            most_pause: Duration::from_secs(60),
            keep: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

impl Dispatcher {
    /// Starts to deliver what is in `database` to `sink`.
    pub fn start(database: Database, sink: Arc<dyn Sink>, settings: Settings) -> Self {
        // They are there from the start, at nought.
        metrics::delivered();
        metrics::failed();
        let (stop, wake) = (CancellationToken::new(), Arc::<Notify>::default());
        let work = Deliveries {
            database,
            sink,
            settings,
        };
        let task = tokio::spawn(work.run(stop.clone(), wake.clone()));
        Self {
            stop,
            wake,
            task: Some(task),
        }
    }

    /// Looks now: something was written.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Finishes the batch under way and ends.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            // It panics never; were it to, its events are delivered again.
            let _ = task.await;
        }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Deliveries {
    database: Database,
    sink: Arc<dyn Sink>,
    settings: Settings,
}

impl Deliveries {
    async fn run(self, stop: CancellationToken, wake: Arc<Notify>) {
        let (mut failures, mut tidied) = (0_u32, None::<Instant>);
        while !stop.is_cancelled() {
            if tidied.is_none_or(|at| at.elapsed() >= TIDY) {
                tidied = Some(Instant::now());
                if let Err(error) = self.tidy().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the outbox was not tidied");
                }
            }
            let wait = match self.deliver_once().await {
                Ok(0) => {
                    failures = 0;
                    self.settings.look.mul_f64(rand::random_range(0.5..=1.0))
                }
                // More may be due by now, the next ones of the same keys at least.
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "events wait: the store does not answer"
                    );
                    failures = failures.saturating_add(1);
                    self.pause(failures)
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// How many were taken.
    async fn deliver_once(&self) -> Result<usize, sqlx::Error> {
        if !table::any_due(&self.database).await? {
            return Ok(0);
        }
        let batch = table::claim(&self.database, self.settings.batch, self.settings.lease).await?;
        if batch.events.is_empty() {
            return Ok(0);
        }
        let failures = self.hand_over(&batch).await;
        table::settle(&self.database, &batch, &failures).await?;
        metrics::delivered().inc_by((batch.events.len() - failures.len()) as u64);
        metrics::failed().inc_by(failures.len() as u64);
        Ok(batch.events.len())
    }

    async fn hand_over(&self, batch: &Batch) -> Vec<Failure> {
        failpoint("outbox.send.before").await;
        // Half of the lease: what is noted of the batch must come before another process takes it.
        let spans: Vec<Work> = batch.events.iter().map(span).collect();
        let delivering = self.sink.deliver(&batch.events).with_context(under(&spans));
        let answers = tokio::time::timeout(self.settings.lease / 2, delivering).await;
        failpoint("outbox.send.after").await;
        let answers =
            answers.unwrap_or_else(|_| vec![Err(NotDelivered("no answer in time".to_owned())); batch.events.len()]);
        let answers = batch.events.iter().zip(&spans).zip(answers);
        answers
            .filter_map(|((event, span), answer)| {
                let NotDelivered(error) = answer.err()?;
                span.fail("not_delivered");
                Some(self.failure(event, error))
            })
            .collect()
    }

    fn failure(&self, event: &Recorded, error: String) -> Failure {
        let attempts = u32::try_from(event.attempts).unwrap_or(u32::MAX);
        let is_dead = attempts >= self.settings.attempts;
        if is_dead {
            tracing::error!(event = %event.id, kind = event.kind, key = event.key, error, "a dead letter: it holds its key back");
        } else {
            tracing::warn!(event = %event.id, kind = event.kind, key = event.key, error, attempts, "not delivered; again soon");
        }
        Failure {
            seq: event.seq,
            error,
            again_after: (!is_dead).then(|| self.pause(attempts)),
        }
    }

    /// Exponential, from a half to the whole of the bound.
    fn pause(&self, attempts: u32) -> Duration {
        let doubled = self
            .settings
            .pause
            .saturating_mul(1 << attempts.saturating_sub(1).min(16));
        doubled
            .min(self.settings.most_pause)
            .mul_f64(rand::random_range(0.5..=1.0))
    }

    async fn tidy(&self) -> Result<(), sqlx::Error> {
        metrics::show(table::waiting(&self.database).await?, self.database.now());
        table::prune(&self.database, self.settings.keep, PRUNED).await?;
        Ok(())
    }
}

/// A trace of its own with a link to the request that wrote it, which was answered long ago.
fn span(event: &Recorded) -> Work {
    event.trace.map_or(Work::NONE, |cause| {
        Work::linked(Kind::Producer, "deliver event", cause, || {
            vec![
                KeyValue::new("messaging.message.id", event.id.to_string()),
                KeyValue::new("tessera.event.kind", event.kind.clone()),
            ]
        })
    })
}

/// What a batch is delivered under: the only event's span, or none of them.
fn under(spans: &[Work]) -> telemetry::Context {
    match spans {
        [one] => one.context().cloned().unwrap_or_default(),
        _ => telemetry::Context::new(),
    }
}
