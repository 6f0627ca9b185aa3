//! What readers see: the durable state and the recent history.
//!
//! The driver publishes a batch when it is on disk, and not before; lists, gets and watches read here and never wait for the
//! catalog or the disk. A watcher is a cursor into the history that its stream pulls on ([`Watcher`]): nothing is queued for
//! it, so a slow one costs its cursor and nobody else. One that falls behind the history continues with a snapshot.
//!
//! What many watchers are told is encoded once ([`Watcher::encoded`]); how, is the `api`'s matter. The lock of the state is held
//! for map look-ups and reference counts, never while encoding or waking and never across an await. Who needs the feeds as
//! well takes the state first.

mod by_scope;
mod encodings;
mod feeds;
mod past;
mod selection;
mod snapshot;
mod step;
#[cfg(test)]
mod tests;
mod trust;
mod view;
mod wakers;
mod watcher;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use by_scope::ByScope;
use encodings::Encodings;
use feeds::Feeds;
use past::Past;
pub(crate) use selection::{Scope, Selection};
use snapshot::Snapshot;
pub(crate) use step::{Cause, Content, Event, Step, Told};
use tokio::sync::watch;
pub(crate) use trust::Trust;
pub(crate) use view::{ServiceView, View};
pub(crate) use watcher::{FutureRevision, WatchFrom, Watcher};

use crate::{
    catalog::Batch,
    history::HistoryLimits,
    model::{Confidence, HistoryId, Instance, Moment, Revision},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    history_id: HistoryId,
    is_replicated: bool,
    state: RwLock<State>,
    feeds: Mutex<Feeds>,
    encodings: Encodings,
    part_bytes: usize,
    /// The present revision, for those who wait for one.
    present: watch::Sender<Revision>,
}

#[derive(Debug)]
struct State {
    view: View,
    past: Past,
    trust: Trust,
}

/// What a restart brings back.
#[derive(Debug)]
pub(crate) struct Restored<'a> {
    /// How much of the history is kept.
    pub(crate) limits: HistoryLimits,
    /// The history that revisions count.
    pub(crate) history_id: HistoryId,
    /// The present.
    pub(crate) revision: Revision,
    /// The last revision that the history has lost.
    pub(crate) compacted: Revision,
    /// All instances at `revision`.
    pub(crate) instances: &'a [Arc<Instance>],
    /// All batches after `compacted` up to `revision`.
    pub(crate) history: Vec<Batch>,
    /// How far that can be trusted.
    pub(crate) trust: Trust,
    /// Whether other replicas may be ahead of this one.
    pub(crate) is_replicated: bool,
}

#[cfg(test)]
impl Hub {
    /// Snapshots come in smaller parts.
    pub(crate) fn with_parts_of(self, part_bytes: usize) -> Self {
        Self { part_bytes, ..self }
    }
}

#[cfg(test)]
impl Restored<'_> {
    /// An empty registry that is alone.
    pub(crate) fn empty(limits: HistoryLimits) -> Self {
        Self {
            limits,
            history_id: HistoryId::default(),
            revision: Revision::ZERO,
            compacted: Revision::ZERO,
            instances: &[],
            history: Vec::new(),
            trust: Trust::default(),
            is_replicated: false,
        }
    }
}

impl Hub {
    /// What a restart brings back.
    pub(crate) fn restore(restored: Restored<'_>) -> Self {
        let mut past = Past::new(restored.limits, restored.compacted);
        for batch in restored.history {
            past.push(Arc::new(batch));
        }
        let state = State {
            view: View::restore(restored.revision, restored.instances),
            past,
            trust: restored.trust,
        };
        Self {
            history_id: restored.history_id,
            is_replicated: restored.is_replicated,
            state: RwLock::new(state),
            feeds: Mutex::default(),
            encodings: Encodings::default(),
            part_bytes: snapshot::PART_BYTES,
            present: watch::Sender::new(restored.revision),
        }
    }

    /// The history that revisions count.
    pub(crate) fn history_id(&self) -> HistoryId {
        self.history_id
    }

    /// Whether other replicas may be ahead of this one: then a revision that has not happened here may well have happened.
    pub(crate) fn is_replicated(&self) -> bool {
        self.is_replicated
    }

    /// What the history will have lost once these batches are published: what the store may forget when it commits them.
    pub(crate) fn compacted_after(&self, batches: &[Arc<Batch>]) -> Revision {
        self.read().past.compacted_after(batches)
    }

    /// Shows durable batches to readers and wakes those whom they touch.
    pub(crate) fn publish(&self, batches: &[Arc<Batch>]) {
        let kept: Vec<Arc<Batch>> = batches.iter().map(Batch::for_history).collect();
        let (present, touched) = {
            let mut state = self.write();
            let feeds = self.feeds();
            for batch in kept {
                debug_assert_eq!(batch.revision, state.view.revision.next(), "revisions are consecutive");
                state.view.apply(&batch);
                for lost in state.past.push(batch) {
                    feeds.lose(&lost);
                }
            }
            (state.view.revision, feeds.touched(batches))
        };
        // After all of them, so that a watcher that wakes finds the whole group, and outside of the locks, which it will want.
        self.present.send_replace(present);
        for feed in touched {
            feed.wakers().wake();
        }
    }

    /// Changes how far answers can be trusted. Watchers whom it concerns are told, if there is nothing else to tell them by a
    /// bookmark.
    pub(crate) fn set_trust(&self, trust: Trust) {
        if self.read().trust == trust {
            return;
        }
        let concerned: Vec<_> = {
            let mut state = self.write();
            let before = std::mem::replace(&mut state.trust, trust);
            let feeds = self.feeds();
            let concerned = feeds
                .iter()
                .filter(|feed| before.differs(&state.trust, &feed.selection().scope));
            concerned.cloned().collect()
        };
        for feed in concerned {
            feed.wakers().wake();
        }
    }

    /// How far an answer about this scope can be trusted.
    pub(crate) fn confidence(&self, scope: &Scope, now: Moment) -> Confidence {
        self.read().trust.confidence(scope, now)
    }

    /// Looks at the durable state. Keep it to look-ups and clones of `Arc`s: writers wait meanwhile.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.read().view)
    }

    /// Resolves when this revision has happened here. Cancel safe.
    pub(crate) async fn reached(&self, revision: Revision) {
        // The sender is ours, so this does not fail.
        let _ = self.present.subscribe().wait_for(|present| *present >= revision).await;
    }

    /// Begins to watch.
    pub(crate) fn watch(self: &Arc<Self>, selection: &Selection, from: WatchFrom) -> Result<Watcher, FutureRevision> {
        let state = self.read();
        let present = state.view.revision;
        if let WatchFrom::Revision(asked) = from
            && asked > present
        {
            return Err(FutureRevision { asked, present });
        }
        let feed = self.feeds().join(selection, state.past.compacted());
        drop(state);
        Ok(Watcher::new(Arc::clone(self), feed, from))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic under the write lock would have stopped the driver, and with it the process: what is read meanwhile does
        // not matter any more.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn feeds(&self) -> MutexGuard<'_, Feeds> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
