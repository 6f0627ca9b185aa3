//! Watches a service for as long as somebody looks: one task a watcher, which opens the watch, feeds the pure `reducer`, and
//! opens it again when it breaks. What is believed is decided in `reducer`.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt as _, rngs::StdRng};
use tokio::{sync::watch, task::JoinHandle, time};
use tracing::{debug, info, warn};

use crate::{
    backoff::{self, Backoff},
    discovery::{Discovery, Source},
    error::Error,
    model::{Confidence, Selector, Snapshot, SnapshotState},
    registry::Registry,
    wire::steps::{Heard, Steps},
};

pub(crate) use acks::takes_out;
use acks::{Acked, Acks};
use changes::Changes;
use reducer::{Change, Reducer};
use replicas::Replicas;

mod acks;
mod changes;
mod reducer;
mod replicas;

/// How long a watch without a revision may owe its snapshot, at the first attempt. Each further one waits twice as long: a
/// registry that is mute is left for another endpoint soon, and one behind a slow link gets its large snapshot through at
/// last, for at most as much traffic again. What is dead, and not slow, HTTP/2's PINGs find out.
const FIRST_SNAPSHOT: Duration = Duration::from_secs(5);
/// The longest that a snapshot is waited for: the largest one that is read (64 MiB) at 1 Mbit/s.
const SLOWEST_SNAPSHOT: Duration = Duration::from_secs(600);
/// How long the answer to a watch that resumes is waited for at the least: a replica that is behind the revision takes up to
/// 5 s to get there before it says that it does not know it, and who is gone by then never hears it.
const RESUMED: Duration = Duration::from_secs(7);

/// The instances of a service, kept up to date.
///
/// The last good set stays when the registry goes; [`Snapshot::state`] tells how it stands. The task behind it ends when the
/// watcher and all receivers from [`subscribe`](Self::subscribe) are gone.
#[derive(Debug)]
pub struct Watcher {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The number of the snapshot that was taken last, and the way to say that it is applied.
    seen: u64,
    applied: watch::Sender<u64>,
    published: Arc<AtomicU64>,
    /// `None` when the snapshots are fed by hand.
    task: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(crate) fn start(discovery: &Discovery) -> Self {
        let (applied, applied_seen) = watch::channel(0);
        let published = Arc::new(AtomicU64::new(0));
        match &discovery.source {
            Source::Fed(snapshots) => Self {
                snapshots: snapshots.clone(),
                seen: 0,
                applied,
                published,
                task: None,
            },
            Source::Registry(registry) => {
                let (told, snapshots) = watch::channel(Arc::new(Snapshot::connecting()));
                let driver = Driver {
                    replicas: Replicas::new(registry.endpoints().count()),
                    registry: registry.clone(),
                    service: discovery.service.clone(),
                    selector: discovery.selector.clone(),
                    reducer: Reducer::new(discovery.grace),
                    backoff: Backoff::default(),
                    patience: FIRST_SNAPSHOT,
                    elsewhere: None,
                    left: None,
                    rng: rand::make_rng(),
                    told,
                    published: Arc::clone(&published),
                    loud: 0,
                    applied: applied_seen,
                    changes: Changes::default(),
                };
                Self {
                    snapshots,
                    seen: 0,
                    applied,
                    published,
                    task: Some(tokio::spawn(driver.run())),
                }
            }
        }
    }

    /// What is known now.
    #[must_use]
    pub fn borrow(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Waits for a snapshot that has not been [seen](Self::borrow_and_update) and marks it as seen. Bookmarks, which only
    /// move the revision, are not waited for. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] when nothing will ever come: the sender of a fed watcher is gone.
    pub async fn changed(&mut self) -> Result<(), Error> {
        self.snapshots.changed().await.map_err(|_| Error::Closed)
    }

    /// What is known now, marked as seen.
    pub fn borrow_and_update(&mut self) -> Arc<Snapshot> {
        let snapshot = self.snapshots.borrow_and_update();
        // While it is borrowed, nothing is published: this is the number of this one.
        self.seen = self.published.load(Ordering::Acquire);
        snapshot.clone()
    }

    /// Says that the snapshot that was last taken with [`borrow_and_update`](Self::borrow_and_update) is what calls go by from
    /// here on: who takes no calls by it gets none any more. The registry is told when it matters, so that an instance that
    /// drains can wait for its callers and for nothing else.
    ///
    /// Who never says it is waited for by everyone who drains, until their patience ends. Say it only when it is true.
    pub fn applied(&self) {
        self.applied.send_if_modified(|applied| {
            let before = *applied;
            *applied = before.max(self.seen);
            *applied != before
        });
    }

    /// Waits until a snapshot satisfies `condition`; the current one counts. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] as for [`changed`](Self::changed).
    pub async fn wait_for(&mut self, mut condition: impl FnMut(&Snapshot) -> bool) -> Result<Arc<Snapshot>, Error> {
        let found = self.snapshots.wait_for(|snapshot| condition(snapshot)).await;
        found.map(|snapshot| snapshot.clone()).map_err(|_| Error::Closed)
    }

    /// A receiver of its own, which keeps the watch alive. What is known now may count as unseen: look before you wait.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Ends the watch, for all receivers, and awaits its task.
    pub async fn stop(self) {
        if let Some(task) = self.task {
            task.abort();
            // Cancelled is what was asked for.
            let _ = task.await;
        }
    }
}

/// What the task owns.
struct Driver {
    registry: Registry,
    service: String,
    selector: Selector,
    reducer: Reducer,
    backoff: Backoff,
    /// How long the next snapshot may be owed.
    patience: Duration,
    replicas: Replicas,
    /// The endpoint to ask instead of the one that the handle prefers.
    elsewhere: Option<usize>,
    /// The endpoint that was left for being cut off from its store.
    left: Option<usize>,
    rng: StdRng,
    told: watch::Sender<Arc<Snapshot>>,
    /// Counts the snapshots that were told; changes only while one is.
    published: Arc<AtomicU64>,
    /// The last of them that the consumers were woken for: who has applied that one goes by all that was told since.
    loud: u64,
    /// Up to which of them the owner has applied them.
    applied: watch::Receiver<u64>,
    /// The spans of what was heard lately.
    changes: Changes,
}

/// An acknowledgement under way.
type Acknowledging = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// How a watch ends.
enum End {
    /// By the registry, in order.
    Told,
    /// By an error, or it could not be opened.
    Broken(Error),
    /// By us: the replica is cut off from its store, and another one may not be.
    CutOff,
}

impl Driver {
    async fn run(mut self) {
        let told = self.told.clone();
        tokio::select! {
            () = self.watch_for_ever() => {}
            // Nobody looks any more.
            () = told.closed() => {}
        }
    }

    async fn watch_for_ever(&mut self) {
        loop {
            let (endpoint, end) = self.watch_until_it_ends().await;
            let other_history = self.is_other_history(endpoint, &end);
            let change = self.reducer.broken(now(), &end.reason(), other_history);
            self.publish(change);
            self.turn_away(endpoint, &end, other_history);
            time::sleep(self.pause(&end)).await;
        }
    }

    /// A registry that has never got as far as the revision to resume from lost its state, or is another one. A replica of many
    /// may be merely behind, though: the history that we name is its own, or it had begun with a snapshot.
    fn is_other_history(&mut self, endpoint: usize, end: &End) -> bool {
        let End::Broken(error) = end else { return false };
        let is_named = !self.reducer.resume().history.is_empty();
        error.is_revision_in_future() && (!is_named || self.replicas.has_gone_back(now(), endpoint))
    }

    /// Decides whom to ask next. What this watcher alone is to be blamed for, a name that no registry takes for example, must not
    /// make all users of the handle change their endpoint again and again: each heartbeat at another replica is a commit.
    fn turn_away(&mut self, endpoint: usize, end: &End, other_history: bool) {
        let is_cut_off = matches!(end, End::CutOff);
        self.replicas.ended(is_cut_off);
        let is_at_fault = match end {
            End::Told => true,
            End::Broken(error) if error.is_revision_in_future() => !other_history,
            End::Broken(error) => error.speaks_against_the_endpoint(),
            End::CutOff => false,
        };
        if is_at_fault {
            // On the way to somebody better it goes on to the next one, until that is where it came from.
            let next = self.registry.after(endpoint);
            self.elsewhere = self.elsewhere.and(Some(next)).filter(|next| Some(*next) != self.left);
            self.registry.avoid(endpoint);
        } else if is_cut_off {
            // For this watcher only; for all, when the other one proves to be better.
            self.elsewhere = Some(endpoint + 1);
            self.left = Some(endpoint);
        }
    }

    fn pause(&mut self, end: &End) -> Duration {
        let at_least = match end {
            // Each attempt costs the registry the making of it, and the next one will hardly be smaller.
            End::Broken(Error::AnswerTooLarge { .. }) => backoff::DEFAULT_MAX.mul_f64(self.rng.random_range(1.0..=1.5)),
            End::Broken(error) => error.retry_after().unwrap_or_default().min(backoff::DEFAULT_MAX),
            End::Told | End::CutOff => Duration::ZERO,
        };
        self.backoff.next(&mut self.rng).max(at_least)
    }

    /// One watch on one endpoint, to its end, and the endpoint's index.
    async fn watch_until_it_ends(&mut self) -> (usize, End) {
        let resume = self.reducer.resume();
        let after = resume.after;
        let (endpoint, opened) = self
            .registry
            .open_watch_once(
                self.elsewhere,
                if after > 0 { RESUMED } else { Duration::ZERO },
                &self.service,
                self.selector.clone(),
                resume,
            )
            .await;
        let mut steps = match opened {
            Ok(steps) => steps,
            Err(error) => return (endpoint, End::Broken(error)),
        };
        self.reducer.opened(now());
        (endpoint, self.follow(endpoint, &mut steps, after).await)
    }

    async fn follow(&mut self, endpoint: usize, steps: &mut Steps, after: i64) -> End {
        // `None` when nothing is owed.
        let mut owed_until = (after == 0).then(|| now() + self.patience);
        // The registry knows of a watch that resumes what it was told, and not whether its owner goes by it: the watch before may
        // have broken between the two.
        let mut resumed = (after > 0).then_some((after, self.loud));
        let mut acks = Acks::default();
        let mut acknowledging: Option<Acknowledging> = None;
        loop {
            if let Some(revision) = acks.begin(now()) {
                let span = self.changes.take_acknowledged();
                let acknowledgement = span.around(steps.acknowledge(revision));
                acknowledging = Some(Box::pin(async move {
                    let answer = acknowledgement.await;
                    span.end();
                    answer
                }));
            }
            let alarms = [
                self.reducer.next_tick(),
                owed_until,
                self.replicas.leave_at(),
                acks.next_at(),
            ];
            let heard = tokio::select! {
                heard = steps.hear() => heard,
                // An owner that has gone applies nothing more; its receivers may still look.
                Ok(()) = self.applied.changed() => {
                    let applied = *self.applied.borrow_and_update();
                    acks.applied(now(), applied, &mut self.rng);
                    self.changes.applied(applied);
                    if !acks.is_due() {
                        self.changes.settle();
                    }
                    continue;
                }
                answer = answered(&mut acknowledging) => {
                    acknowledging = None;
                    acks.answered(now(), self.acked(answer), &mut self.rng);
                    continue;
                }
                () = sleep_until(alarms.into_iter().flatten().min()) => {
                    let change = self.reducer.tick(now());
                    self.publish(change);
                    if owed_until.is_some_and(|at| at <= now()) {
                        let waited = self.patience;
                        self.patience = (waited * 2).min(SLOWEST_SNAPSHOT);
                        return End::Broken(steps.silent(waited));
                    }
                    if self.replicas.leave_at().is_some_and(|at| at <= now()) {
                        return End::CutOff;
                    }
                    continue;
                }
            };
            match heard {
                // What is large takes its time. A watch that resumed owes the rest of it, too.
                Ok(Some(Heard::Part)) => {
                    self.reducer.part();
                    owed_until = Some(now() + self.patience);
                }
                Ok(Some(Heard::Step(told))) if !self.reducer.admits(&told) => {
                    return End::Broken(steps.of_another_history());
                }
                Ok(Some(Heard::Step(told))) => {
                    owed_until = None;
                    self.patience = FIRST_SNAPSHOT;
                    self.backoff.reset();
                    self.compare(endpoint, told.step.confidence());
                    // Not before the first step, which names the watch.
                    if let Some((revision, publication)) = resumed.take() {
                        acks.told(revision, publication);
                        let applied = *self.applied.borrow();
                        acks.applied(now(), applied, &mut self.rng);
                    }
                    let (takes_out, revision) = (takes_out(&told.step), told.step.revision());
                    if let Some(cause) = told.cause {
                        // What is published next has it.
                        let publication = self.published.load(Ordering::Acquire) + 1;
                        self.changes
                            .heard(cause, &self.service, revision, takes_out, publication);
                    }
                    let change = self.reducer.step(now(), told);
                    self.publish(change);
                    if takes_out {
                        acks.told(revision, self.loud);
                    }
                }
                Ok(None) => return End::Told,
                Err(error) => return End::Broken(error),
            }
        }
    }

    /// Takes in how well the endpoint stands with its store. If better than the one that was left, that one is nobody's choice.
    fn compare(&mut self, endpoint: usize, confidence: Confidence) {
        let is_in_touch = self.replicas.told(now(), confidence, &mut self.rng);
        if is_in_touch
            && let Some(left) = self.left.take()
            && left != endpoint
        {
            self.registry.avoid(left);
        }
    }

    /// What the answer to an acknowledgement means. Not a word louder: it is said for others, and the set is as good without.
    fn acked(&self, answer: Result<(), Error>) -> Acked {
        let Err(error) = answer else { return Acked::Yes };
        debug!(service = self.service, %error, "an acknowledgement was not taken");
        // Who does not know the watch will not get to know it: something on the way spreads a connection over several registries.
        let is_unknown = matches!(&error, Error::Answered(answer) if answer.code == tonic::Code::NotFound);
        if error.is_retryable() && !is_unknown {
            Acked::NotNow
        } else {
            Acked::Never
        }
    }

    /// Gives the set to the consumers, waking them only when there is something to act upon, and logs a change of the link:
    /// once, not at each attempt.
    fn publish(&mut self, change: Change) {
        if change == Change::None {
            return;
        }
        let snapshot = Arc::new(self.reducer.snapshot());
        let was = self.told.borrow().state.clone();
        let service = &self.service;
        match (&was, &snapshot.state) {
            (SnapshotState::Fresh | SnapshotState::Connecting, SnapshotState::Stale { reason, .. }) => {
                warn!(
                    service,
                    reason,
                    instances = snapshot.instances.len(),
                    "watch broken; keeping the last good set"
                );
            }
            (SnapshotState::Stale { .. } | SnapshotState::Connecting, SnapshotState::Fresh) => {
                let (revision, instances) = (snapshot.revision, snapshot.instances.len());
                info!(
                    service,
                    revision,
                    instances,
                    unconfirmed = snapshot.unconfirmed,
                    "watching"
                );
            }
            _ => {}
        }
        let mut number = 0;
        self.told.send_if_modified(|told| {
            *told = snapshot;
            // While nobody can look: who takes the snapshot takes its number.
            number = self.published.fetch_add(1, Ordering::Release) + 1;
            change == Change::Told
        });
        if change == Change::Told {
            self.loud = number;
        }
    }
}

impl End {
    /// What consumers are told of it.
    fn reason(&self) -> String {
        match self {
            Self::Told => "the registry ended the watch".to_owned(),
            Self::Broken(error) => error.to_string(),
            Self::CutOff => "the registry cannot reach its store; asking another one".to_owned(),
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn answered(acknowledging: &mut Option<Acknowledging>) -> Result<(), Error> {
    match acknowledging {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}

fn now() -> Instant {
    // tokio's clock, which tests may hold.
    time::Instant::now().into_std()
}
