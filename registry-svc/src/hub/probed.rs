//! Which instances want to be probed: a board that every commit is put down on, and that the prober empties.
//!
//! It has the latest of each instance and no history, so that a prober that is behind finds as many entries as there are such
//! instances, and not one more.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    catalog::{Batch, Change},
    model::{Instance, InstanceKey},
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Probed {
    board: Mutex<Board>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Board {
    known: HashSet<InstanceKey>,
    /// Since it was emptied last; `None`: it is not to be probed any more.
    changes: HashMap<InstanceKey, Option<Arc<Instance>>>,
}

impl Probed {
    /// What a restart has brought back.
    pub(super) fn restore(instances: &[Arc<Instance>]) -> Self {
        let mut board = Board::default();
        for instance in instances {
            board.put(instance);
        }
        Self {
            board: Mutex::new(board),
            changed: Notify::new(),
        }
    }

    /// A batch has become durable.
    pub(super) fn apply(&self, batches: &[Arc<Batch>]) {
        let mut board = self.board();
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            match change {
                Change::Put { instance, .. } => board.put(instance),
                Change::Removed(removal) => board.remove(&removal.key),
            }
        }
        let is_changed = !board.changes.is_empty();
        drop(board);
        if is_changed {
            self.changed.notify_one();
        }
    }

    /// What has changed since this was asked last. For one prober.
    pub(crate) fn take(&self) -> HashMap<InstanceKey, Option<Arc<Instance>>> {
        std::mem::take(&mut self.board().changes)
    }

    /// Resolves when there may be something to take. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    fn put(&mut self, instance: &Arc<Instance>) {
        if instance.spec.probe.is_none() {
            return self.remove(&instance.key);
        }
        self.known.insert(instance.key.clone());
        self.changes.insert(instance.key.clone(), Some(Arc::clone(instance)));
    }

    fn remove(&mut self, key: &InstanceKey) {
        // Nearly all that is registered is not probed: a look, and nothing more.
        if self.known.remove(key) {
            self.changes.insert(key.clone(), None);
        }
    }
}
