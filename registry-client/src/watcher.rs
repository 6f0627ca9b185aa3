//! Watches a service for as long as somebody looks: one task a watcher, which opens the watch, feeds the pure `reducer`, and
//! opens it again when it breaks. What is believed is decided in `reducer`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::rngs::StdRng;
use tokio::{sync::watch, task::JoinHandle, time};
use tracing::{info, warn};

use crate::{
    backoff::{self, Backoff},
    discovery::{Discovery, Source},
    error::Error,
    model::{Selector, Snapshot, SnapshotState},
    registry::Registry,
    wire::peer::{Heard, Steps},
};

use reducer::{Change, Reducer};

mod reducer;

/// How long a watch without a revision may owe its snapshot, at the first attempt. Each further one waits twice as long: a
/// registry that is mute is left for another endpoint soon, and one behind a slow link gets its large snapshot through at
/// last, for at most as much traffic again. What is dead, and not slow, HTTP/2's PINGs find out.
const FIRST_SNAPSHOT: Duration = Duration::from_secs(5);
/// The longest that a snapshot is waited for: the largest one that is read (64 MiB) at 1 Mbit/s.
const SLOWEST_SNAPSHOT: Duration = Duration::from_secs(600);

/// The instances of a service, kept up to date.
///
/// The last good set stays when the registry goes; [`Snapshot::state`] tells how it stands. The task behind it ends when the
/// watcher and all receivers from [`subscribe`](Self::subscribe) are gone.
#[derive(Debug)]
pub struct Watcher {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// `None` when the snapshots are fed by hand.
    task: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(crate) fn start(discovery: &Discovery) -> Self {
        match &discovery.source {
            Source::Fed(snapshots) => Self {
                snapshots: snapshots.clone(),
                task: None,
            },
            Source::Registry(registry) => {
                let (told, snapshots) = watch::channel(Arc::new(Snapshot::connecting()));
                let driver = Driver {
                    registry: registry.clone(),
                    service: discovery.service.clone(),
                    selector: discovery.selector.clone(),
                    reducer: Reducer::new(discovery.grace),
                    backoff: Backoff::default(),
                    patience: FIRST_SNAPSHOT,
                    rng: rand::make_rng(),
                    told,
                };
                Self {
                    snapshots,
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
        self.snapshots.borrow_and_update().clone()
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
    rng: StdRng,
    told: watch::Sender<Arc<Snapshot>>,
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
            let (endpoint, error) = self.watch_until_broken().await;
            let in_future = error.as_ref().is_some_and(Error::is_revision_in_future);
            let change = self
                .reducer
                .broken(now(), &reducer::reason_of(error.as_ref()), in_future);
            self.publish(change);
            // A registry that does not know our revision is well, and owes us a snapshot.
            if !in_future {
                self.registry.avoid(endpoint);
            }
            let at_least = match &error {
                // Each attempt costs the registry the making of it, and the next one will hardly be smaller.
                Some(Error::AnswerTooLarge { .. }) => backoff::DEFAULT_MAX,
                Some(error) => error.retry_after().unwrap_or_default().min(backoff::DEFAULT_MAX),
                None => Duration::ZERO,
            };
            time::sleep(self.backoff.next(&mut self.rng).max(at_least)).await;
        }
    }

    /// One watch on one endpoint, to its end: the endpoint's index and the error, if it was one.
    async fn watch_until_broken(&mut self) -> (usize, Option<Error>) {
        let resume = self.reducer.resume();
        let after = resume.after;
        let (endpoint, opened) = self
            .registry
            .open_watch_once(&self.service, self.selector.clone(), resume)
            .await;
        let mut steps = match opened {
            Ok(steps) => steps,
            Err(error) => return (endpoint, Some(error)),
        };
        self.reducer.opened(now());
        (endpoint, self.follow(&mut steps, after).await)
    }

    async fn follow(&mut self, steps: &mut Steps, after: i64) -> Option<Error> {
        // Far away when nothing is owed.
        let mut owed_until = (after == 0).then(|| now() + self.patience);
        loop {
            let alarm = [self.reducer.next_tick(), owed_until].into_iter().flatten().min();
            let heard = tokio::select! {
                heard = steps.hear() => heard,
                () = sleep_until(alarm) => {
                    let change = self.reducer.tick(now());
                    self.publish(change);
                    if owed_until.is_some_and(|at| at <= now()) {
                        let waited = self.patience;
                        self.patience = (waited * 2).min(SLOWEST_SNAPSHOT);
                        return Some(steps.silent(waited));
                    }
                    continue;
                }
            };
            match heard {
                // What is large takes its time.
                Ok(Some(Heard::Part)) => owed_until = owed_until.map(|_| now() + self.patience),
                Ok(Some(Heard::Step(told))) if !self.reducer.admits(&told) => return Some(steps.of_another_history()),
                Ok(Some(Heard::Step(told))) => {
                    owed_until = None;
                    self.patience = FIRST_SNAPSHOT;
                    self.backoff.reset();
                    let change = self.reducer.step(now(), told);
                    self.publish(change);
                }
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
    }

    /// Gives the set to the consumers, waking them only when there is something to act upon, and logs a change of the link:
    /// once, not at each attempt.
    fn publish(&self, change: Change) {
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
        self.told.send_if_modified(|told| {
            *told = snapshot;
            change == Change::Told
        });
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn now() -> Instant {
    // tokio's clock, which tests may hold.
    time::Instant::now().into_std()
}
