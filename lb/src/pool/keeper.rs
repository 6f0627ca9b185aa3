//! The task behind a channel: keeps the pool in line with its target, and owns the endpoints' drivers.
//!
//! No call ever goes through this task.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use rand::rngs::StdRng;
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle, JoinSet},
    time::{Instant, Interval, interval_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Key, Newcomer, PassedOver, Pool, Roster, health, prober};
use crate::{
    endpoint::{Backoff, Dial, driver::drive},
    route::Subsetting,
    settings::{Found, Governed, WatchedFile},
    target::{Source, Updates},
};

/// What the keeper hands to the drivers.
#[derive(Clone, Debug)]
pub(crate) struct KeeperSettings {
    /// With whom to believe, services are called with TLS and not without.
    pub(crate) dial: Dial,
    /// How long a channel that nobody uses stays connected.
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) backoff: Backoff,
    /// Told what the instances announce.
    pub(crate) governed: Arc<Governed>,
    /// The caller's service config, if it has a file for it.
    pub(crate) file: Option<(PathBuf, Found)>,
    /// By which instances are chosen where only some are connected to and nobody has given a seed.
    pub(crate) subset_seed: u64,
    /// Where the last good set is kept.
    pub(crate) cache_dir: Option<PathBuf>,
}

/// Owns the task. Dropping it closes the pool: no new calls, those under way finish.
#[derive(Debug)]
pub(crate) struct Keeper {
    stop: DropGuard,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Keeper {
    /// Must be called within a Tokio runtime.
    pub(crate) fn spawn(pool: Arc<Pool>, source: Source, settings: KeeperSettings) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep(
            pool,
            source.updates(settings.dial.tls.is_some(), settings.cache_dir.as_deref()),
            settings,
            stop.clone(),
        ));
        Self {
            stop: stop.drop_guard(),
            task: tokio::sync::Mutex::new(Some(task)),
        }
    }

    /// Closes the pool and waits until every call has ended and every task with it.
    pub(crate) async fn close(&self) {
        self.stop.token().cancel();
        let mut task = self.task.lock().await;
        if let Some(handle) = task.as_mut() {
            // A panic in there was reported by the panic hook; there is nothing left to close.
            let _ = handle.await;
            *task = None;
        }
    }
}

/// Where rosters come from.
trait Rosters {
    /// The latest.
    fn current(&mut self) -> Roster;
    /// The next one. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Roster> + Send;
    /// Calls go by the one that was taken last.
    fn applied(&mut self);
    /// No more are wanted.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

impl Rosters for Updates {
    fn current(&mut self) -> Roster {
        Updates::current(self)
    }

    async fn next(&mut self) -> Roster {
        Updates::next(self).await
    }

    fn applied(&mut self) {
        Updates::applied(self);
    }

    async fn close(&mut self) {
        Updates::close(self).await;
    }
}

async fn keep(pool: Arc<Pool>, mut updates: impl Rosters, mut settings: KeeperSettings, stop: CancellationToken) {
    let mut drivers = JoinSet::new();
    let governed = Arc::clone(&settings.governed);
    let mut file = settings.file.take().map(|(path, found)| WatchedFile::new(path, found));
    let mut wanted = governed.subsetting();
    let apply = |roster: Roster, subsetting: Option<Subsetting>| {
        // Before anybody of them can be called.
        governed.hears(&roster.backends);
        pool.apply(match subsetting {
            None => roster,
            Some(subsetting) => narrowed(roster, &subsetting.seeded(settings.subset_seed)),
        })
    };
    let start = |drivers: &mut JoinSet<()>, newcomers: Vec<Newcomer>| {
        for Newcomer { endpoint, removed } in newcomers {
            let (pool, settings) = (Arc::clone(&pool), settings.clone());
            drivers.spawn(async move {
                let rng: StdRng = rand::make_rng();
                drive(
                    Arc::clone(&endpoint),
                    Arc::clone(&pool),
                    settings.dial,
                    settings.backoff,
                    rng,
                    removed,
                )
                .await;
                pool.gone(&endpoint);
            });
        }
    };
    // All that there is, of which the present subset is a part.
    let mut latest = updates.current();
    let subsetting = *wanted.borrow_and_update();
    start(&mut drivers, apply(latest.clone(), subsetting));
    updates.applied();
    let mut seen = 0;
    let mut idle = settings
        .idle_timeout
        .map(|every| interval_at(Instant::now() + every, every));
    let mut due = None;
    let prober = prober::probe(&pool, rand::make_rng::<StdRng>());
    let health = health::watch(&pool);
    tokio::pin!(prober, health);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = &mut prober => {}
            () = &mut health => {}
            roster = updates.next() => {
                latest = roster;
                let subsetting = *wanted.borrow_and_update();
                start(&mut drivers, apply(latest.clone(), subsetting));
                // Only now: an instance that drains takes this for the promise that no new call comes from here.
                updates.applied();
            }
            subsetting = other(&mut wanted) => start(&mut drivers, apply(latest.clone(), subsetting)),
            () = tick(&mut idle) => pool.rest_if_idle(&mut seen),
            (path, found) = changed(&mut file) => governed.file_changed(&path, found),
            () = pool.wants_attention(due) => due = pool.attend(Instant::now()),
            // Drivers of removed endpoints end; those of present ones never do.
            Some(ended) = drivers.join_next() => report(ended),
        }
    }
    pool.clear();
    updates.close().await;
    while let Some(ended) = drivers.join_next().await {
        report(ended);
    }
}

/// What `subsetting` leaves of it; the others are known, and passed over.
fn narrowed(mut roster: Roster, subsetting: &Subsetting) -> Roster {
    let all = roster.backends.clone();
    roster.backends = subsetting.keep(roster.backends);
    let kept: BTreeSet<&Key> = roster.backends.iter().map(|backend| &backend.key).collect();
    let others = all.iter().filter(|backend| !kept.contains(&backend.key));
    let others: Vec<PassedOver> = others.map(PassedOver::outside_subset).collect();
    roster.passed_over.extend(others);
    roster
}

/// What is wanted now, when that is something else than before. Cancel safe.
async fn other(wanted: &mut watch::Receiver<Option<Subsetting>>) -> Option<Subsetting> {
    if wanted.changed().await.is_err() {
        // Whoever could change it is gone, and with it soon this task.
        std::future::pending::<()>().await;
    }
    *wanted.borrow_and_update()
}

async fn tick(every: &mut Option<Interval>) {
    match every {
        Some(every) => drop(every.tick().await),
        None => std::future::pending().await,
    }
}

/// The next text of the file, if there is one. Cancel safe.
async fn changed(file: &mut Option<WatchedFile>) -> (PathBuf, Found) {
    match file {
        Some(file) => {
            let found = file.changed().await;
            (file.path().to_owned(), found)
        }
        None => std::future::pending().await,
    }
}

/// Nobody cancels a driver but a runtime that shuts down, and then there is nothing to report.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && !error.is_cancelled()
    {
        tracing::error!(%error, "the driver of an endpoint failed");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::mpsc;
    use tracing::{Event, Metadata, Subscriber, span};

    use super::*;
    use crate::{Policy, Target, pool::Wish};

    /// Rosters one after another, of these sizes; tells how many endpoints calls could go to whenever one is said to be applied.
    struct Script {
        sizes: std::vec::IntoIter<usize>,
        pool: Arc<Pool>,
        applied: mpsc::Sender<usize>,
    }

    impl Rosters for Script {
        fn current(&mut self) -> Roster {
            let size = self.sizes.next().expect("one more");
            let addresses = (1..=size).map(|port| format!("127.0.0.1:{port}"));
            let (_, source) = Target::fixed(addresses).expect("addresses").into_parts();
            source.updates(false, None).current()
        }

        async fn next(&mut self) -> Roster {
            if self.sizes.len() == 0 {
                std::future::pending().await
            }
            self.current()
        }

        fn applied(&mut self) {
            let callable = self.pool.scarcity(Wish::default()).callable.len();
            self.applied.try_send(callable).expect("room for one a roster");
        }

        async fn close(&mut self) {}
    }

    /// An instance that drains takes the word for the promise that no call comes from here any more. With the word given before the
    /// pool had the roster, which no test noticed, it stopped while it was still picked.
    #[tokio::test]
    async fn a_roster_is_said_to_be_applied_when_calls_go_by_it() {
        let pool = Arc::new(Pool::new(Policy::RoundRobin));
        let (applied, mut said) = mpsc::channel(3);
        let script = Script {
            sizes: vec![3, 2, 1].into_iter(),
            pool: Arc::clone(&pool),
            applied,
        };
        let settings = KeeperSettings {
            dial: Dial {
                tls: None,
                timeout: Duration::from_secs(1),
                most: 1,
            },
            idle_timeout: None,
            subset_seed: 0,
            cache_dir: None,
            backoff: Backoff::default(),
            governed: Arc::new(Governed::plain()),
            file: None,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep(pool, script, settings, stop.clone()));
        let mut callable = Vec::new();
        for _ in 0..3 {
            callable.push(said.recv().await.expect("it runs"));
        }
        assert_eq!(callable, [3, 2, 1]);
        stop.cancel();
        task.await.expect("ends");
    }

    /// Counts what is logged.
    struct Counted(Arc<AtomicUsize>);

    impl Subscriber for Counted {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    /// Every process that ended while a channel was open could end with an ERROR: the runtime cancels its tasks in whatever
    /// order, and a keeper that saw a driver cancelled called that a failure.
    #[tokio::test]
    async fn a_driver_that_is_cancelled_with_its_runtime_is_no_failure() {
        let mut drivers = JoinSet::new();
        drivers.spawn(std::future::pending::<()>());
        drivers.abort_all();
        let cancelled = drivers.join_next().await.expect("one");
        drivers.spawn(async { panic!("on purpose") });
        let panicked = drivers.join_next().await.expect("one");

        let logged = Arc::new(AtomicUsize::new(0));
        tracing::subscriber::with_default(Counted(Arc::clone(&logged)), || {
            report(Ok(()));
            report(cancelled);
            assert_eq!(logged.load(Ordering::SeqCst), 0);
            report(panicked);
            assert_eq!(logged.load(Ordering::SeqCst), 1);
        });
    }
}
