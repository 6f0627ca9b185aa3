//! The task that tidies away expired holds, so that those who watch hear of it. Nothing is correct because of it.

use std::time::Duration;

use service_host::DrainSignal;
use tokio::task::JoinHandle;

use crate::store::Store;

/// How often it looks. A hold that nobody wants counts as free at once, and is written down as over so much later.
const EVERY: Duration = Duration::from_secs(1);

/// So many holds in one transaction: a few milliseconds of it, and buyers who wait for the store wait no longer than that.
const BATCH: u32 = 50;

/// Sweeps until dropped or stopped.
#[derive(Debug)]
pub(crate) struct Sweeper(Option<JoinHandle<()>>);

impl Sweeper {
    /// Starts it; it ends by itself when the instance drains.
    pub(crate) fn start(store: Store, drain: DrainSignal) -> Self {
        Self(Some(tokio::spawn(run(store, drain))))
    }

    /// Waits until it has ended, after the instance began to drain.
    pub(crate) async fn stopped(mut self) {
        if let Some(task) = self.0.take() {
            // It does not panic, and nobody else can abort it.
            let _ = task.await;
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

async fn run(store: Store, drain: DrainSignal) {
    loop {
        // A whole batch means that there may be more.
        let more = match store.sweep(BATCH).await {
            Ok(swept) => swept >= BATCH as usize,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "expired holds could not be swept"
                );
                false
            }
        };
        let pause = if more { Duration::ZERO } else { EVERY };
        tokio::select! {
            () = drain.wait() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
