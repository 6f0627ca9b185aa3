//! What readers see: the durable state and the recent history.
//!
//! The driver publishes a batch when it is on disk, and not before; lists, gets and watches read here and never wait for the
//! catalog or the disk. A watcher is a cursor into the history that its stream pulls on ([`Watcher`]): nothing is queued for
//! it, so a slow one costs its cursor and nobody else. One that falls behind the history continues with a snapshot.
//!
//! The lock is held for map look-ups and reference counts, never while encoding and never across an await.

mod selection;
#[cfg(test)]
mod tests;
mod topics;
mod view;
mod watcher;

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

pub(crate) use selection::{Scope, Selection};
use topics::Topics;
pub(crate) use view::{ServiceView, View};
pub(crate) use watcher::{Cause, FutureRevision, Step, Told, WatchFrom, Watcher};

use crate::{
    catalog::Batch,
    history::{HistoryLimits, HistoryWindow},
    model::{Confidence, HistoryId, Instance, Revision},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    history_id: HistoryId,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    view: View,
    history: VecDeque<Arc<Batch>>,
    window: HistoryWindow,
    topics: Topics,
    confidence: Confidence,
}

impl Hub {
    /// What a restart brings back: the instances at `revision` and the history up to it.
    pub(crate) fn restore(
        limits: HistoryLimits,
        history_id: HistoryId,
        revision: Revision,
        compacted: Revision,
        instances: &[Arc<Instance>],
        history: Vec<Batch>,
        confidence: Confidence,
    ) -> Self {
        let mut state = State {
            view: View::restore(revision, instances),
            history: VecDeque::new(),
            window: HistoryWindow::new(limits, compacted),
            topics: Topics::default(),
            confidence,
        };
        for batch in history {
            state.remember(Arc::new(batch));
        }
        Self {
            history_id,
            state: RwLock::new(state),
        }
    }

    /// The history that revisions count.
    pub(crate) fn history_id(&self) -> HistoryId {
        self.history_id
    }

    /// What the history will have lost once these batches are published: what the store may forget when it commits them.
    pub(crate) fn compacted_after(&self, batches: &[Arc<Batch>]) -> Revision {
        let mut window = self.read().window.clone();
        for batch in batches {
            window.push(batch.bytes());
        }
        window.compacted()
    }

    /// Shows durable batches to readers and wakes those whom they touch.
    pub(crate) fn publish(&self, batches: &[Arc<Batch>]) {
        let kept: Vec<Arc<Batch>> = batches.iter().map(Batch::for_history).collect();
        let mut state = self.write();
        for batch in kept {
            debug_assert_eq!(batch.revision, state.view.revision.next(), "revisions are consecutive");
            state.view.apply(&batch);
            state.remember(batch);
        }
        // After all of them, so that a watcher that wakes finds the whole group.
        for batch in batches {
            for change in &batch.changes {
                state.topics.mark(change.key());
            }
        }
        state.topics.wake();
    }

    /// Changes how far answers can be trusted.
    pub(crate) fn set_confidence(&self, confidence: Confidence) {
        if self.read().confidence != confidence {
            self.write().confidence = confidence;
        }
    }

    /// How far answers can be trusted.
    pub(crate) fn confidence(&self) -> Confidence {
        self.read().confidence
    }

    /// Looks at the durable state. Keep it to look-ups and clones of `Arc`s: writers wait meanwhile.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.read().view)
    }

    /// Begins to watch.
    pub(crate) fn watch(self: &Arc<Self>, selection: Selection, from: WatchFrom) -> Result<Watcher, FutureRevision> {
        Watcher::begin(Arc::clone(self), selection, from)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic under the write lock would have stopped the driver, and with it the process: what is read meanwhile does
        // not matter any more.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remember(&mut self, batch: Arc<Batch>) {
        let compacted = self.window.push(batch.bytes());
        self.history.push_back(batch);
        while self.history.front().is_some_and(|oldest| oldest.revision <= compacted) {
            self.history.pop_front();
        }
    }

    /// The batches after a revision that is not compacted, oldest first.
    fn after(&self, revision: Revision) -> impl Iterator<Item = &Arc<Batch>> {
        let skip = revision.get().saturating_sub(self.window.compacted().get());
        self.history
            .range(usize::try_from(skip).unwrap_or(usize::MAX).min(self.history.len())..)
    }
}
