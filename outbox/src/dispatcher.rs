//! Takes due events from the store and hands them on, batch after batch: to the subscribers of the process first, then to the
//! broker. Every process has one; they share the work.

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
    line::{BrokerLine, Turn},
    metrics,
    parked::unpark,
    sink::{Broker, NotDelivered, NotTaken, Subscribers},
    table::{self, Batch, Failure, Then},
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

/// Who is told.
#[derive(Default)]
pub struct Destinations {
    /// Those in this process.
    pub subscribers: Subscribers,
    /// Everybody else. Processes that share a store have the same one, or none: who has none delivers for all of them.
    pub broker: Option<Arc<dyn Broker>>,
}

/// Says that events were committed, so that they are delivered at once. Clones ring the same one. A process that does not ring,
/// or dies before it does, delivers late, and not less.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// Something was committed.
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

/// The task that delivers the events of a store. Dropped, it ends at once, as a crash would.
#[derive(Debug)]
pub struct Dispatcher {
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// Delivered events removed at once: a short write.
const PRUNED: u32 = 500;

/// How often the store is asked what waits, and what is old is removed.
const TIDY: Duration = Duration::from_secs(10);

/// It rests so many times as long as it worked, at most [`Settings::look`]: the calls that the store is there for come first. On a
/// file each batch keeps all other writers waiting twice.
const REST: u32 = 3;

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
    /// Starts to deliver what is in `database`, at the latest [`Settings::look`] after it was committed, and at once when
    /// `bell` rings.
    pub fn start(database: Database, to: Destinations, bell: Bell, settings: Settings) -> Self {
        // They are there from the start, at nought.
        metrics::delivered();
        metrics::failed();
        if to.broker.is_some() {
            metrics::broker_away(false);
        }
        let stop = CancellationToken::new();
        let work = Deliveries {
            database,
            to,
            settings,
            line: BrokerLine::default(),
            // What was parked before this process began.
            has_parked: true,
        };
        let task = tokio::spawn(work.run(stop.clone(), bell));
        Self { stop, task: Some(task) }
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
    to: Destinations,
    settings: Settings,
    line: BrokerLine,
    /// Perhaps. Other processes park as well, so it is looked up from time to time.
    has_parked: bool,
}

impl Deliveries {
    async fn run(mut self, stop: CancellationToken, bell: Bell) {
        let (mut failures, mut tidied) = (0_u32, None::<Instant>);
        while !stop.is_cancelled() {
            if tidied.is_none_or(|at| at.elapsed() >= TIDY) {
                self.has_parked = true;
                tidied = Some(Instant::now());
                match self.tidy().await {
                    // There is more that is old.
                    Ok(removed) if removed >= u64::from(PRUNED) => tidied = None,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "the outbox was not tidied");
                    }
                }
            }
            let began = Instant::now();
            let (wait, may_be_rung) = match self.deliver_once().await {
                Ok(0) => {
                    failures = 0;
                    (self.settings.look.mul_f64(rand::random_range(0.5..=1.0)), true)
                }
                // More may be due by now, the next ones of the same keys at least.
                Ok(_) => (began.elapsed().saturating_mul(REST).min(self.settings.look), false),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "events wait: the store does not answer"
                    );
                    failures = failures.saturating_add(1);
                    (self.pause(failures), true)
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = bell.0.notified(), if may_be_rung => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// How many were taken.
    async fn deliver_once(&mut self) -> Result<usize, sqlx::Error> {
        if self.has_parked && self.line.is_open(Instant::now()) {
            // No more than is delivered at once: while it is away, to try it with; and each claim looks at all that is due.
            self.has_parked = unpark(&self.database, self.settings.batch).await? > 0;
        }
        if !table::any_due(&self.database).await? {
            return Ok(0);
        }
        let batch = table::claim(&self.database, self.settings.batch, self.settings.lease).await?;
        if batch.events.is_empty() {
            return Ok(0);
        }
        let failures = self.hand_over(&batch).await;
        table::settle(&self.database, &batch, &failures).await?;
        let parked = failures.iter().filter(|failure| failure.then == Then::Park).count();
        self.has_parked |= parked > 0;
        metrics::delivered().inc_by((batch.events.len() - failures.len()) as u64);
        metrics::failed().inc_by((failures.len() - parked) as u64);
        Ok(batch.events.len())
    }

    async fn hand_over(&mut self, batch: &Batch) -> Vec<Failure> {
        failpoint("outbox.send.before").await;
        let spans: Vec<Work> = batch.events.iter().map(span).collect();
        let told = self.tell(&batch.events).with_context(under(&spans)).await;
        failpoint("outbox.send.after").await;
        let told = batch.events.iter().zip(&spans).zip(told);
        told.filter_map(|((event, span), told)| {
            let not_taken = told.err()?;
            span.fail("not_delivered");
            Some(self.failure(event, not_taken))
        })
        .collect()
    }

    /// Tells the subscribers, and then the broker of what they have taken in: while it is away they go on.
    async fn tell(&mut self, events: &[Recorded]) -> Vec<Result<(), NotTaken>> {
        // Half of the lease, and a quarter for the broker: what is noted of the batch must come before another process takes it.
        let telling = self.to.subscribers.deliver(events);
        let answers = tokio::time::timeout(self.settings.lease / 2, telling).await;
        let answers = answers.unwrap_or_else(|_| vec![Err(NotDelivered("no answer in time".to_owned())); events.len()]);
        let mut told: Vec<_> = answers
            .into_iter()
            .map(|answer| answer.map_err(|NotDelivered(error)| NotTaken::Refused(error)))
            .collect();
        let Some(broker) = self.to.broker.clone() else {
            return told;
        };
        let (places, taken_in): (Vec<_>, Vec<_>) = (0..).zip(events).filter(|(place, _)| told[*place].is_ok()).unzip();
        if taken_in.is_empty() {
            return told;
        }
        let answers = if self.line.is_open(Instant::now()) {
            let taking = broker.take_over(&taken_in);
            let answers = tokio::time::timeout(self.settings.lease / 4, taking).await;
            let answers = answers.unwrap_or_else(|_| away(taken_in.len(), "no answer in time"));
            self.heard(&answers);
            answers
        } else {
            away(taken_in.len(), "the broker is away")
        };
        for (place, answer) in places.into_iter().zip(answers) {
            told[place] = answer;
        }
        told
    }

    /// What the broker's answers say of the broker.
    fn heard(&mut self, answers: &[Result<(), NotTaken>]) {
        let error = answers.iter().find_map(|answer| match answer {
            Err(NotTaken::Away(error)) => Some(error),
            _ => None,
        });
        let turn = match error {
            Some(_) => self.line.failed(Instant::now()),
            None => self.line.answered(),
        };
        match turn {
            Some(Turn::Lost) => tracing::warn!(error, "the broker takes no events over: they wait"),
            Some(Turn::Found) => tracing::info!("the broker takes events over again"),
            None => {}
        }
        metrics::broker_away(self.line.is_away());
    }

    fn failure(&self, event: &Recorded, not_taken: NotTaken) -> Failure {
        let (seq, id) = (event.seq, event.id);
        let error = match not_taken {
            // Said once, of the broker.
            NotTaken::Away(error) => {
                let then = Then::Park;
                return Failure { seq, error, then };
            }
            NotTaken::Refused(error) => error,
        };
        let attempts = u32::try_from(event.attempts).unwrap_or(u32::MAX);
        let is_dead = attempts >= self.settings.attempts;
        if is_dead {
            tracing::error!(event = %id, kind = event.kind, key = event.key, error, "a dead letter: it holds its key back");
        } else {
            tracing::warn!(event = %id, kind = event.kind, key = event.key, error, attempts, "not delivered; again soon");
        }
        let then = if is_dead {
            Then::Dead
        } else {
            Then::Again(self.pause(attempts))
        };
        Failure { seq, error, then }
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

    /// How many that are old were removed.
    async fn tidy(&self) -> Result<u64, sqlx::Error> {
        metrics::show(table::waiting(&self.database).await?, self.database.now());
        table::prune(&self.database, self.settings.keep, PRUNED).await
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

fn away(events: usize, why: &str) -> Vec<Result<(), NotTaken>> {
    vec![Err(NotTaken::Away(why.to_owned())); events]
}

impl std::fmt::Debug for Destinations {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Destinations")
            .field("subscribers", &self.subscribers)
            .field("broker", &self.broker.is_some())
            .finish()
    }
}
