//! What a watch tells, step by step, and why instances leave.

use std::{fmt, sync::Arc, time::SystemTime};

use telemetry::TraceParent;

use super::{Confidence, Instance};

/// What an owner says when it takes its instance back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Removal {
    /// It leaves.
    Deregistered,
    /// It leaves after draining.
    Drained,
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deregistered => RemovalReason::Deregistered.fmt(f),
            Self::Drained => RemovalReason::Drained.fmt(f),
        }
    }
}

/// Why an instance left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemovalReason {
    /// Its owner deregistered it.
    Deregistered,
    /// Its owner deregistered it after draining.
    Drained,
    /// Its lease lapsed.
    Expired,
    /// Another lease registered the same id.
    Replaced,
    /// A number of the wire that this version does not know.
    Unknown(i32),
}

impl fmt::Display for RemovalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deregistered => f.pad("DEREGISTERED"),
            Self::Drained => f.pad("DRAINED"),
            Self::Expired => f.pad("EXPIRED"),
            Self::Replaced => f.pad("REPLACED"),
            Self::Unknown(number) => f.pad(&format!("UNKNOWN({number})")),
        }
    }
}

/// Why a snapshot was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SnapshotCause {
    /// The watch began without a revision.
    Initial,
    /// The revision to resume from is older than the history that the registry keeps.
    Compacted,
    /// The watcher was so slow that its changes were merged into one snapshot.
    Coalesced,
    /// The revision to resume from belongs to another history: the registry has begun anew.
    HistoryChanged,
    /// A number of the wire that this version does not know.
    Unknown(i32),
}

impl fmt::Display for SnapshotCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Initial => f.pad("INITIAL"),
            Self::Compacted => f.pad("COMPACTED"),
            Self::Coalesced => f.pad("COALESCED"),
            Self::HistoryChanged => f.pad("HISTORY_CHANGED"),
            Self::Unknown(number) => f.pad(&format!("UNKNOWN({number})")),
        }
    }
}

/// Where a watch resumes. The default begins with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Resume {
    /// The last revision that was applied; 0 asks for a snapshot.
    pub(crate) after: i64,
    /// The history that counts it; empty: not known.
    pub(crate) history: String,
}

/// A step as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// The history that counts its revision; empty when the registry does not name it.
    pub(crate) history: String,
    pub(crate) step: WatchStep,
    /// The call that caused a delta, if the registry names it.
    pub(crate) cause: Option<TraceParent>,
}

/// One step of a raw watch: see [`Registry::watch`](crate::Registry::watch).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchStep {
    /// Replaces everything that was known of the selection.
    Snapshot {
        /// The revision it is of.
        revision: i64,
        /// Ordered by service and id.
        instances: Vec<Instance>,
        /// Why it was sent.
        cause: SnapshotCause,
        /// How far to trust it.
        confidence: Confidence,
    },
    /// What changed, all of one revision.
    Delta {
        /// The revision.
        revision: i64,
        /// In the order in which they were applied.
        events: Vec<InstanceEvent>,
        /// How far to trust it.
        confidence: Confidence,
    },
    /// Nothing changed in the selection.
    Bookmark {
        /// A safe point to resume from.
        revision: i64,
        /// How far to trust it.
        confidence: Confidence,
    },
}

impl WatchStep {
    /// Everything up to this revision has been told.
    #[must_use]
    pub fn revision(&self) -> i64 {
        match self {
            Self::Snapshot { revision, .. } | Self::Delta { revision, .. } | Self::Bookmark { revision, .. } => {
                *revision
            }
        }
    }

    /// How far the registry trusts what it tells.
    #[must_use]
    pub fn confidence(&self) -> Confidence {
        match self {
            Self::Snapshot { confidence, .. } | Self::Delta { confidence, .. } | Self::Bookmark { confidence, .. } => {
                *confidence
            }
        }
    }
}

/// An instance came, changed or left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceEvent {
    /// It came or changed: what it is now.
    Put(Arc<Instance>),
    /// It left.
    Removed {
        /// Its service.
        service: String,
        /// Its id.
        id: String,
        /// Why.
        reason: RemovalReason,
        /// For people.
        detail: String,
        /// By the registry's wall clock.
        removed_at: Option<SystemTime>,
    },
}
