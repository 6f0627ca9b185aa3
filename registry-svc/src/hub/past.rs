//! The recent history, with an index by scope.
//!
//! Who resumes a watch of one service must not walk through the revisions of all others: the history of a busy registry is
//! ten thousand revisions long, and a restart makes everybody resume in the same second.

use std::{collections::VecDeque, sync::Arc};

use super::{ByScope, Scope};
use crate::{
    catalog::{Batch, Change},
    history::{HistoryLimits, HistoryWindow},
    model::Revision,
};

type Batches = VecDeque<Arc<Batch>>;

/// See the module. A batch is kept once; the index points to it.
#[derive(Debug)]
pub(super) struct Past {
    window: HistoryWindow,
    batches: Batches,
    by_scope: ByScope<Batches>,
}

impl Past {
    /// Nothing is kept yet; `compacted` is the last revision that is already gone.
    pub(super) fn new(limits: HistoryLimits, compacted: Revision) -> Self {
        Self {
            window: HistoryWindow::new(limits, compacted),
            batches: Batches::new(),
            by_scope: ByScope::default(),
        }
    }

    /// Keeps the next revision. Returns those that are lost for it, oldest first.
    pub(super) fn push(&mut self, batch: Arc<Batch>) -> Vec<Arc<Batch>> {
        let compacted = self.window.push(batch.bytes());
        for change in &batch.changes {
            self.by_scope.change_holding(change.key(), |batches| {
                if batches.back().is_none_or(|last| last.revision != batch.revision) {
                    batches.push_back(Arc::clone(&batch));
                }
            });
        }
        self.batches.push_back(batch);
        let mut lost = Vec::new();
        while let Some(oldest) = pop_if(&mut self.batches, |oldest| oldest.revision <= compacted) {
            self.forget(&oldest);
            lost.push(oldest);
        }
        lost
    }

    /// The batches of a scope after a revision that is not compacted, oldest first.
    pub(super) fn after(&self, scope: &Scope, revision: Revision) -> impl Iterator<Item = &Arc<Batch>> {
        self.by_scope.get(scope).into_iter().flat_map(move |batches| {
            let seen = batches.partition_point(|batch| batch.revision <= revision);
            batches.range(seen..)
        })
    }

    /// All batches, of all scopes.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Arc<Batch>> {
        self.batches.iter().rev()
    }

    /// How many batches of a scope there are after a revision.
    pub(super) fn count_after(&self, scope: &Scope, revision: Revision) -> usize {
        self.by_scope.get(scope).map_or(0, |batches| {
            batches.len() - batches.partition_point(|batch| batch.revision <= revision)
        })
    }

    /// The last revision that is gone. A watcher that has seen it can resume.
    pub(super) fn compacted(&self) -> Revision {
        self.window.compacted()
    }

    /// What will be gone when these have come.
    pub(super) fn compacted_after(&self, batches: &[Arc<Batch>]) -> Revision {
        self.window.compacted_after(batches.iter().map(|batch| batch.bytes()))
    }

    fn forget(&mut self, oldest: &Batch) {
        for key in oldest.changes.iter().map(Change::key) {
            self.by_scope.change_holding(key, |batches| {
                pop_if(batches, |first| first.revision == oldest.revision);
            });
            self.by_scope
                .tidy(&key.namespace, Some(&key.service), VecDeque::is_empty);
        }
    }

    #[cfg(test)]
    pub(super) fn batches(&self) -> impl ExactSizeIterator<Item = &Arc<Batch>> {
        self.batches.iter()
    }

    /// The index holds exactly what a walk through everything would find.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let mut entries = 0;
        for batches in self.by_scope.values() {
            assert!(
                batches.iter().is_sorted_by(|a, b| a.revision < b.revision),
                "each once, in order"
            );
            entries += batches.len();
        }
        let mut expected = 0;
        for batch in &self.batches {
            let mut scopes = std::collections::HashSet::new();
            for change in &batch.changes {
                scopes.insert((change.key().namespace.clone(), None));
                scopes.insert((change.key().namespace.clone(), Some(change.key().service.clone())));
            }
            expected += scopes.len();
            for (namespace, service) in scopes {
                let found = self.by_scope.get(&Scope { namespace, service }).expect("indexed");
                assert!(found.iter().any(|entry| entry.revision == batch.revision));
            }
        }
        assert_eq!(entries, expected, "nothing that is gone");
    }
}

fn pop_if(batches: &mut Batches, condition: impl FnOnce(&Batch) -> bool) -> Option<Arc<Batch>> {
    batches
        .front()
        .is_some_and(|first| condition(first))
        .then(|| batches.pop_front())?
}
