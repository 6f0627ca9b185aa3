//! What is watched: one feed for each distinct selection, shared by all of its watchers.
//!
//! A change wakes the feeds that it touches, and nobody else (the hidden cliff of registries that wake every blocking query on
//! every change). Waking carries no data: a watcher that wakes pulls from the history.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{ByScope, Selection, snapshot::Snapshots, step, wakers::Wakers};
use crate::{catalog::Batch, model::Revision};

/// One selection that somebody watches.
#[derive(Debug)]
pub(super) struct Feed {
    /// Its name: no two feeds of a hub ever have the same.
    number: u64,
    selection: Selection,
    wakers: Wakers,
    /// The last revision of this selection that the history has lost. A watcher that has seen it has all that comes after
    /// ahead of it, however much the history has lost of others: without this a quiet service's watchers would be sent
    /// snapshots for nothing while others churn.
    lost: AtomicU64,
    /// Those that somebody is told.
    snapshots: Mutex<Snapshots>,
}

/// All feeds of a hub.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    by_scope: ByScope<HashMap<Selection, Member>>,
    made: u64,
}

#[derive(Debug)]
struct Member {
    feed: Arc<Feed>,
    watchers: usize,
}

impl Feed {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Its watchers.
    pub(super) fn wakers(&self) -> &Wakers {
        &self.wakers
    }

    pub(super) fn lost(&self) -> Revision {
        // Written and read under the lock of the hub's state, which orders it.
        Revision::new(self.lost.load(Ordering::Relaxed))
    }

    /// Its large snapshots. Taken before the state and never with it, and locked while one is made, so that a thousand watchers
    /// that begin together make one.
    pub(super) fn snapshots(&self) -> MutexGuard<'_, Snapshots> {
        // Making one is all that could panic, and leaves nothing half done.
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feeds {
    /// A watcher of this selection comes. `compacted` is what the history has lost of everything.
    pub(super) fn join(&mut self, selection: &Selection, compacted: Revision) -> Arc<Feed> {
        let members = self.by_scope.entry(&selection.scope);
        if let Some(member) = members.get_mut(selection) {
            member.watchers += 1;
            return Arc::clone(&member.feed);
        }
        self.made += 1;
        let feed = Arc::new(Feed {
            number: self.made,
            selection: selection.clone(),
            wakers: Wakers::default(),
            lost: AtomicU64::new(compacted.get()),
            snapshots: Mutex::default(),
        });
        let member = Member {
            feed: Arc::clone(&feed),
            watchers: 1,
        };
        members.insert(selection.clone(), member);
        feed
    }

    /// A watcher goes, and with the last one the feed.
    pub(super) fn leave(&mut self, feed: &Feed) {
        let Selection { scope, .. } = &feed.selection;
        let members = self.by_scope.entry(scope);
        if let Some(member) = members.get_mut(&feed.selection) {
            member.watchers -= 1;
            if member.watchers == 0 {
                members.remove(&feed.selection);
            }
        }
        self.by_scope
            .tidy(&scope.namespace, scope.service.as_ref(), HashMap::is_empty);
    }

    /// The feeds that have something to tell of these batches, each once.
    pub(super) fn touched(&self, batches: &[Arc<Batch>]) -> Vec<Arc<Feed>> {
        let mut touched: HashMap<u64, &Arc<Feed>> = HashMap::new();
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            for Member { feed, .. } in self.by_scope.holding(change.key()).flat_map(HashMap::values) {
                if !touched.contains_key(&feed.number) && step::touches(change, &feed.selection) {
                    touched.insert(feed.number, feed);
                }
            }
        }
        touched.into_values().cloned().collect()
    }

    /// The history has lost these batches, oldest first.
    pub(super) fn lose(&self, batches: &[Arc<Batch>]) {
        for batch in batches {
            for change in &batch.changes {
                for Member { feed, .. } in self.by_scope.holding(change.key()).flat_map(HashMap::values) {
                    if feed.lost() < batch.revision && step::touches(change, &feed.selection) {
                        feed.lost.store(batch.revision.get(), Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Feed>> {
        self.by_scope
            .values()
            .flat_map(HashMap::values)
            .map(|member| &member.feed)
    }
}
