//! The task behind a channel: keeps the pool in line with its target, and owns the endpoints' drivers.
//!
//! No call ever goes through this task.

use std::{sync::Arc, time::Duration};

use rand::rngs::StdRng;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Newcomer, Pool};
use crate::{
    endpoint::{Backoff, driver::drive},
    target::{Source, Updates},
};

/// What the keeper hands to the drivers.
#[derive(Clone, Debug)]
pub(crate) struct KeeperSettings {
    /// Whom to believe; then services are called with TLS and not without.
    pub(crate) tls: Option<tls::Client>,
    /// For TCP, TLS, HTTP/2 preface and the server's first word together.
    pub(crate) connect_timeout: Duration,
    pub(crate) backoff: Backoff,
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
            source.updates(settings.tls.is_some()),
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

async fn keep(pool: Arc<Pool>, mut updates: Updates, settings: KeeperSettings, stop: CancellationToken) {
    let mut drivers = JoinSet::new();
    let start = |drivers: &mut JoinSet<()>, newcomers: Vec<Newcomer>| {
        for Newcomer { endpoint, removed } in newcomers {
            let (pool, settings) = (Arc::clone(&pool), settings.clone());
            drivers.spawn(async move {
                let rng: StdRng = rand::make_rng();
                drive(
                    Arc::clone(&endpoint),
                    Arc::clone(&pool),
                    settings.tls,
                    settings.connect_timeout,
                    settings.backoff,
                    rng,
                    removed,
                )
                .await;
                pool.gone(&endpoint);
            });
        }
    };
    start(&mut drivers, pool.apply(updates.current()));
    updates.applied();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            roster = updates.next() => {
                start(&mut drivers, pool.apply(roster));
                // Only now: an instance that drains takes this for the promise that no new call comes from here.
                updates.applied();
            }
            // Drivers of removed endpoints end; those of present ones never do.
            Some(ended) = drivers.join_next() => report(ended),
        }
    }
    pool.clear();
    while let Some(ended) = drivers.join_next().await {
        report(ended);
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

    use tracing::{Event, Metadata, Subscriber, span};

    use super::*;

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
