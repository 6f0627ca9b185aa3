//! The task behind the logs: it takes back filters that end by themselves and says what was left out. [`crate::Guard`] owns it.

use std::sync::Arc;

use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{INSTALLED, Installed, repeats};

/// The task, until it is ended.
#[derive(Debug)]
pub(crate) struct Keeper {
    task: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it, for the subscriber that is installed. Must be called within a tokio runtime.
    pub(crate) fn start() -> Self {
        Self {
            task: INSTALLED
                .get()
                .map(|installed| tokio::spawn(keep(Arc::clone(installed)))),
        }
    }

    /// Ends it, and says what is still owed.
    pub(crate) async fn end(mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // It holds nothing that would want an end.
            let _ = task.await;
        }
        repeats::say(Instant::now(), true);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn keep(installed: Arc<Installed>) {
    let mut windows = interval(repeats::WINDOW);
    windows.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let ends = installed.levels().ends();
        let over = async {
            match ends {
                Some(ends) => sleep_until(ends).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => installed.expire(Instant::now()),
            // It ends at another time now, or not at all.
            () = installed.changed.notified() => {}
            _ = windows.tick() => repeats::say(Instant::now(), false),
        }
    }
}
