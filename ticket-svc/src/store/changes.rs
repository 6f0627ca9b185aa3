//! What this process has changed, for those of it who watch: they are woken at once. Says that something changed, not what.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Changes by event. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes(Arc<Mutex<HashMap<i64, Changed>>>);

/// An event that something was asked about: entered by watchers only, so there are no more than were ever watched.
#[derive(Debug, Default)]
struct Changed {
    count: u64,
    signal: Arc<Notify>,
}

/// Wakes when an event changes, from the moment on when it was made.
pub(crate) struct Signal(OwnedNotified);

impl Changes {
    /// The event has changed, and what changed is durable.
    pub(super) fn tell(&self, event: i64) {
        if let Some(changed) = self.lock().get_mut(&event) {
            changed.count += 1;
            changed.signal.notify_waiters();
        }
    }

    /// How often the event has changed since it was first watched here.
    pub(crate) fn count(&self, event: i64) -> u64 {
        self.lock().entry(event).or_default().count
    }

    /// The next change of the event, also if it comes before anyone waits for it.
    pub(crate) fn of(&self, event: i64) -> Signal {
        let signal = self.lock().entry(event).or_default().signal.clone();
        Signal(signal.notified_owned())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Changed>> {
        // Nothing panics while it holds the lock, and the map is whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signal {
    pub(crate) async fn wait(self) {
        self.0.await;
    }
}
