//! What readers see: the durable state and the recent history.
//!
//! The driver publishes a batch when it is on disk, and not before; lists, gets and watches read here and never wait for the
//! catalog or the disk. A watcher is a cursor into the history that its stream pulls on ([`Watcher`]): nothing is queued for
//! it, so a slow one costs its cursor, what its stream has taken already, and nobody else. One that falls behind the history
//! continues with a snapshot.
//!
//! Which watches are open, and what each of them has acknowledged, is on a board ([`Acks`]) for those who drain.
//!
//! What many watchers are told is encoded once ([`Watcher::encoded`]); how, is the `api`'s matter. The lock of the state is held
//! for look-ups and reference counts, a page of them at the most or one for each service of a namespace, and by the writer for
//! what a commit changes; never while encoding or waking and never across an await. Locks are taken in this order: the snapshots
//! of a feed, the state, the feeds.

mod acks;
mod by_scope;
mod encodings;
mod feeds;
mod past;
mod probed;
mod selection;
mod snapshot;
mod step;
mod story;
#[cfg(test)]
mod tests;
mod trust;
mod view;
mod wakers;
mod watcher;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) use acks::{AckError, Acks, Holder, Standing};
use by_scope::ByScope;
use encodings::Encodings;
use feeds::Feeds;
use past::Past;
use probed::Probed;
pub(crate) use selection::{Scope, Selection};
#[cfg(test)]
use snapshot::Snapshot;
pub(crate) use step::{Cause, Content, Event, Step, Told};
pub(crate) use story::{Episode, Story, What};
use tokio::sync::watch;
pub(crate) use trust::Trust;
pub(crate) use view::{ServiceView, View, within};
pub(crate) use watcher::{FutureRevision, WatchFrom, Watcher};

use crate::{
    catalog::Batch,
    history::HistoryLimits,
    model::{Confidence, HistoryId, Instance, Moment, OverrideRecord, Revision},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    history_id: HistoryId,
    is_replicated: bool,
    state: RwLock<State>,
    feeds: Mutex<Feeds>,
    encodings: Encodings,
    acks: Acks,
    probed: Probed,
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

/// What was found, as of when, and how far it can be trusted.
#[derive(Debug)]
pub(crate) struct Listing<T> {
    /// Of this revision.
    pub(crate) revision: Revision,
    /// How far to trust it.
    pub(crate) confidence: Confidence,
    /// What there is.
    pub(crate) found: T,
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
    /// All that is laid over instances, registered or not.
    pub(crate) overrides: Vec<OverrideRecord>,
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
            overrides: Vec::new(),
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
        // Who begins with a history has told nobody of anything.
        let acks = Acks::new(restored.revision > Revision::ZERO, restored.trust.recovering);
        let state = State {
            view: View::restore(restored.revision, restored.instances, restored.overrides),
            past,
            trust: restored.trust,
        };
        Self {
            history_id: restored.history_id,
            is_replicated: restored.is_replicated,
            state: RwLock::new(state),
            feeds: Mutex::default(),
            encodings: Encodings::default(),
            acks,
            probed: Probed::restore(restored.instances),
            part_bytes: snapshot::PART_BYTES,
            present: watch::Sender::new(restored.revision),
        }
    }

    /// The history that revisions count.
    pub(crate) fn history_id(&self) -> HistoryId {
        self.history_id
    }

    /// Which watches are open, and what they have acknowledged.
    pub(crate) fn acks(&self) -> &Acks {
        &self.acks
    }

    /// Which instances want to be probed.
    pub(crate) fn probed(&self) -> &Probed {
        &self.probed
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
        let mut lost = Vec::new();
        let present = {
            let mut state = self.write();
            for batch in kept {
                debug_assert_eq!(batch.revision, state.view.revision.next(), "revisions are consecutive");
                state.view.apply(&batch);
                lost.extend(state.past.push(batch));
            }
            if !lost.is_empty() {
                self.feeds().lose(&lost);
            }
            state.view.revision
        };
        // After all of them, so that a watcher that wakes finds the whole group, and outside of the lock of the state, which it
        // will want. Who began to watch in between is woken for nothing.
        self.present.send_replace(present);
        self.probed.apply(batches);
        let touched = self.feeds().touched(batches);
        for feed in touched {
            feed.wakers().wake();
        }
        // The last who had them, nearly always: a thousand instances may go with each.
        drop(lost);
    }

    /// Changes how far answers can be trusted. Watchers whom it concerns are told, if there is nothing else to tell them by a
    /// bookmark.
    pub(crate) fn set_trust(&self, trust: Trust) {
        if self.read().trust == trust {
            return;
        }
        self.acks.set_recovering(trust.recovering);
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
    #[cfg(test)]
    pub(crate) fn confidence(&self, scope: &Scope, now: Moment) -> Confidence {
        self.read().trust.confidence(scope, now)
    }

    /// Looks at the durable state. Keep it to look-ups and clones of `Arc`s: writers wait meanwhile.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.read().view)
    }

    /// Looks at what is in a scope, with what there is to tell of it: all of one moment.
    pub(crate) fn list<T>(&self, scope: &Scope, now: Moment, look: impl FnOnce(&View) -> T) -> Listing<T> {
        let state = self.read();
        Listing {
            revision: state.view.revision,
            confidence: state.trust.confidence(scope, now),
            found: look(&state.view),
        }
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

    /// Lets go of the snapshots in which nobody has read on for [`snapshot::UNREAD`]. To be called now and then.
    pub(crate) fn tidy(&self, now: Moment) {
        let feeds: Vec<_> = self.feeds().iter().cloned().collect();
        for feed in feeds {
            let unread = feed.snapshots().take_unread(now);
            // Outside of the lock: a million instances may go with it.
            drop(unread);
        }
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
