//! What a watcher is told, and what a batch means to a selection.
//!
//! With a selector, an instance that is registered anew with labels outside of the selection is told as removed (REPLACED):
//! for this watcher it has left.

use std::sync::Arc;

use telemetry::TraceParent;

use super::{Selection, snapshot::Snapshot};
use crate::{
    catalog::{Batch, Change, Removal},
    model::{Confidence, Detail, Instance, RemovalReason, Revision, WallTime},
};

/// What a watcher is told at once.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// With it everything up to this revision is told; in the middle of a snapshot, with its last part.
    pub(crate) revision: Revision,
    /// How far it can be trusted.
    pub(crate) confidence: Confidence,
    /// By how many revisions it is behind the present.
    pub(crate) lag: u64,
    /// There is nothing more to tell until the watcher is woken.
    pub(crate) is_last: bool,
    /// What.
    pub(crate) told: Told,
}

/// See [`Step`].
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// A part of what replaces everything.
    Part(Part),
    /// All of one revision.
    Delta(Arc<Batch>),
    /// Nothing.
    Bookmark,
}

/// A part of a snapshot. Not to be kept while it waits to be sent: it keeps all of the snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(super) snapshot: Arc<Snapshot>,
    /// Counted from 0.
    pub(super) number: usize,
    /// Why there is a snapshot.
    pub(crate) cause: Cause,
}

/// What is to be encoded for all watchers of a selection.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    /// The instances of a part of a snapshot, by service and id.
    Instances(&'a [Arc<Instance>]),
    /// All of one revision, in the order in which it was applied; never empty.
    Events {
        /// When it was committed.
        at: WallTime,
        /// For whose call.
        trace: Option<TraceParent>,
        /// What.
        events: Vec<Event>,
    },
}

/// One change as a watcher sees it.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// It came or changed.
    Put(Arc<Instance>),
    /// It left.
    Removed(Removal),
}

/// Why there is a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The watch began without a revision.
    Initial,
    /// It began with one that the history no longer has.
    Compacted,
    /// It was so slow that the history went past it.
    Coalesced,
    /// It began with a revision of another history.
    HistoryChanged,
}

impl Part {
    /// Its instances.
    pub(crate) fn instances(&self) -> &[Arc<Instance>] {
        self.snapshot.part(self.number)
    }

    /// Whether the snapshot begins with it. In the middle of another one, that one is void: nobody read on in it for too long.
    pub(crate) fn is_first(&self) -> bool {
        self.number == 0
    }

    /// Whether the snapshot goes on.
    pub(crate) fn has_more(&self) -> bool {
        self.snapshot.has_more(self.number)
    }
}

/// Whether a change of the selection's scope is told to its watchers.
pub(super) fn touches(change: &Change, selection: &Selection) -> bool {
    match change {
        Change::Put { instance, left } => {
            selection.takes(&instance.spec.labels) || left.as_ref().is_some_and(|left| selection.takes(left))
        }
        Change::Removed(removal) => selection.takes(&removal.labels),
    }
}

/// What they are told of a batch, roughly, in bytes.
pub(super) fn bytes(batch: &Batch, selection: &Selection) -> usize {
    let told = batch
        .changes
        .iter()
        .filter(|change| selection.scope.holds(change.key()));
    let told = told.map(|change| match change {
        Change::Put { instance, .. } if selection.takes(&instance.spec.labels) => instance.bytes(),
        // At the most.
        Change::Put { instance, .. } => 64 + instance.key.bytes(),
        Change::Removed(removal) => removal.bytes(),
    });
    told.sum()
}

/// What the watchers of a selection are told of a batch.
pub(super) fn events(batch: &Batch, selection: &Selection) -> Vec<Event> {
    let changes = batch
        .changes
        .iter()
        .filter(|change| selection.scope.holds(change.key()));
    changes
        .filter_map(|change| match change {
            Change::Put { instance, .. } if selection.takes(&instance.spec.labels) => {
                Some(Event::Put(Arc::clone(instance)))
            }
            Change::Put {
                instance,
                left: Some(left),
            } if selection.takes(left) => Some(Event::Removed(Removal {
                key: instance.key.clone(),
                labels: left.clone(),
                reason: RemovalReason::Replaced,
                detail: Detail::of("registered anew with labels that this watch does not select"),
            })),
            Change::Put { .. } => None,
            Change::Removed(removal) => selection
                .takes(&removal.labels)
                .then(|| Event::Removed(removal.clone())),
        })
        .collect()
}
