//! One watch: a cursor that its stream pulls forward.
//!
//! The promises are etcd's six: ordered, unique, reliable, atomic, resumable, bookmarkable. They follow from the shape: there
//! is one history, the cursor only moves forward through it, a step tells all of one revision, and a watcher that the history
//! has left behind begins anew with a snapshot and is told so.
//!
//! With a selector, an instance that is registered anew with labels outside of the selection is told as removed (REPLACED):
//! for this watcher it has left.

use std::{ops::Bound, sync::Arc};

use thiserror::Error;
use tokio::sync::watch;

use super::{Hub, Selection, State, view};
use crate::{
    catalog::{Batch, Change, Removal},
    model::{Detail, Instance, RemovalReason, Revision, WallTime},
};

/// See the module. Dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Watcher {
    hub: Arc<Hub>,
    selection: Selection,
    position: Position,
    /// `None` only while dropping.
    wake: Option<watch::Receiver<()>>,
}

#[derive(Debug, Clone, Copy)]
enum Position {
    /// Nothing was told yet.
    Begin(WatchFrom),
    /// All up to this revision was told.
    Told(Revision),
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WatchFrom {
    /// It knows nothing.
    Nothing,
    /// It has been told this revision of this history; resume if the history still reaches back to it.
    Revision(Revision),
    /// It has been told a revision of another history, which means nothing in this one.
    OtherHistory,
}

/// What a watcher is told.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Replaces everything.
    Snapshot {
        /// Of this revision.
        revision: Revision,
        /// Why.
        cause: Cause,
        /// By service and id.
        instances: Vec<Arc<Instance>>,
    },
    /// All of one revision.
    Delta {
        /// Of this revision.
        revision: Revision,
        /// When it was committed.
        at: WallTime,
        /// In the order in which they were applied; never empty.
        events: Vec<Told>,
    },
    /// Nothing, up to this revision.
    Bookmark {
        /// A safe point to resume from.
        revision: Revision,
    },
}

/// One change as this watcher sees it.
#[derive(Debug, Clone)]
pub(crate) enum Told {
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

/// The revision to resume from has not happened here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("revision {asked} is in the future, the registry is at {present}: watch from 0 to begin with a snapshot")]
pub(crate) struct FutureRevision {
    /// What was asked for.
    pub(crate) asked: Revision,
    /// What is.
    pub(crate) present: Revision,
}

impl Step {
    /// Roughly what it costs on the wire.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Snapshot { instances, .. } => instances.iter().map(|instance| instance.bytes()).sum(),
            Self::Delta { events, .. } => {
                let event = |told: &Told| match told {
                    Told::Put(instance) => instance.bytes(),
                    Told::Removed(removal) => removal.bytes(),
                };
                events.iter().map(event).sum()
            }
            Self::Bookmark { .. } => 0,
        }
    }
}

impl Watcher {
    pub(super) fn begin(hub: Arc<Hub>, selection: Selection, from: WatchFrom) -> Result<Self, FutureRevision> {
        let wake = {
            let mut state = hub.write();
            let present = state.view.revision;
            if let WatchFrom::Revision(asked) = from
                && asked > present
            {
                return Err(FutureRevision { asked, present });
            }
            state.topics.join(&selection.scope)
        };
        Ok(Self {
            hub,
            selection,
            position: Position::Begin(from),
            wake: Some(wake),
        })
    }

    /// The next step, if there is one. Each call moves the cursor at most to the end of one revision that is told.
    pub(crate) fn try_next(&mut self) -> Option<Step> {
        let found = {
            let state = self.hub.read();
            match self.position {
                Position::Begin(WatchFrom::Nothing) => Found::snapshot(&state, &self.selection, Cause::Initial),
                Position::Begin(WatchFrom::OtherHistory) => {
                    Found::snapshot(&state, &self.selection, Cause::HistoryChanged)
                }
                Position::Begin(WatchFrom::Revision(after)) if after < state.window.compacted() => {
                    Found::snapshot(&state, &self.selection, Cause::Compacted)
                }
                Position::Told(told) if told < state.window.compacted() => {
                    Found::snapshot(&state, &self.selection, Cause::Coalesced)
                }
                Position::Begin(WatchFrom::Revision(after)) | Position::Told(after) => {
                    match state.after(after).find(|batch| touches(batch, &self.selection)) {
                        Some(batch) => Found::Batch(Arc::clone(batch)),
                        None => Found::Nothing(state.view.revision),
                    }
                }
            }
        };
        // Outside of the lock: this part costs time in proportion to what is told.
        let resumed = matches!(self.position, Position::Begin(_));
        let (position, step) = match found {
            Found::Snapshot {
                revision,
                cause,
                services,
            } => {
                let instances = view::select(&services, &self.selection);
                (
                    revision,
                    Some(Step::Snapshot {
                        revision,
                        cause,
                        instances,
                    }),
                )
            }
            Found::Batch(batch) => {
                let events = tell(&batch, &self.selection);
                (
                    batch.revision,
                    Some(Step::Delta {
                        revision: batch.revision,
                        at: batch.at,
                        events,
                    }),
                )
            }
            // A watcher that resumes and has missed nothing is told so at once: it can trust what it has.
            Found::Nothing(revision) if resumed => (revision, Some(Step::Bookmark { revision })),
            Found::Nothing(revision) => (revision, None),
        };
        self.position = Position::Told(position);
        step
    }

    /// Where the watcher is, after [`Watcher::try_next`] had nothing.
    pub(crate) fn bookmark(&self) -> Step {
        let (Position::Told(revision) | Position::Begin(WatchFrom::Revision(revision))) = self.position else {
            return Step::Bookmark {
                revision: Revision::ZERO,
            };
        };
        Step::Bookmark { revision }
    }

    /// Resolves when something of the scope was published since the last call. May resolve without anything to tell. Cancel
    /// safe.
    pub(crate) async fn changed(&mut self) {
        if let Some(wake) = &mut self.wake
            && wake.changed().await.is_ok()
        {
            return;
        }
        // The hub outlives its watchers, so its sender does not go away.
        std::future::pending().await
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // First leave, then ask whether somebody is left.
        self.wake = None;
        self.hub.write().topics.left(&self.selection.scope);
    }
}

enum Found {
    Snapshot {
        revision: Revision,
        cause: Cause,
        services: Vec<(crate::model::ServiceName, Arc<super::ServiceView>)>,
    },
    Batch(Arc<Batch>),
    Nothing(Revision),
}

impl Found {
    fn snapshot(state: &State, selection: &Selection, cause: Cause) -> Self {
        let services = state.view.services(&selection.scope, Bound::Unbounded, usize::MAX);
        Self::Snapshot {
            revision: state.view.revision,
            cause,
            services,
        }
    }
}

fn touches(batch: &Batch, selection: &Selection) -> bool {
    batch.changes.iter().any(|change| {
        selection.scope.holds(change.key())
            && match change {
                Change::Put { instance, left } => {
                    selection.takes(&instance.spec.labels) || left.as_ref().is_some_and(|left| selection.takes(left))
                }
                Change::Removed(removal) => selection.takes(&removal.labels),
            }
    })
}

fn tell(batch: &Batch, selection: &Selection) -> Vec<Told> {
    let changes = batch
        .changes
        .iter()
        .filter(|change| selection.scope.holds(change.key()));
    changes
        .filter_map(|change| match change {
            Change::Put { instance, .. } if selection.takes(&instance.spec.labels) => {
                Some(Told::Put(Arc::clone(instance)))
            }
            Change::Put {
                instance,
                left: Some(left),
            } if selection.takes(left) => Some(Told::Removed(Removal {
                key: instance.key.clone(),
                labels: left.clone(),
                reason: RemovalReason::Replaced,
                detail: Detail::of("registered anew with labels that this watch does not select"),
            })),
            Change::Put { .. } => None,
            Change::Removed(removal) => selection.takes(&removal.labels).then(|| Told::Removed(removal.clone())),
        })
        .collect()
}
