//! A set of instances as a watcher knows it, and how far it can be trusted.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::Instance;

/// How much the registry trusts what it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Confidence {
    /// Up to date.
    #[default]
    Fresh,
    /// Just restarted: nothing expires until the window for re-attaching has closed.
    Recovering,
    /// Too many leases lapse at once: expiry is slowed down.
    Protecting,
    /// Its store cannot be reached: true as of so long ago.
    Stale(Duration),
    /// A number of the wire that this version does not know.
    Unknown(i32),
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.pad("FRESH"),
            Self::Recovering => f.pad("RECOVERING"),
            Self::Protecting => f.pad("PROTECTING"),
            Self::Stale(age) => f.pad(&format!("STALE({age:?})")),
            Self::Unknown(number) => f.pad(&format!("UNKNOWN({number})")),
        }
    }
}

/// The instances of a service as a [`Watcher`](crate::Watcher) knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Everything up to this revision of the registry is in it; 0 before the first word of the registry.
    pub revision: i64,
    /// Ordered by service and id. Not only callable ones: see [`Instance::is_callable`].
    pub instances: Vec<Arc<Instance>>,
    /// How the watcher stands with the registry.
    pub state: SnapshotState,
    /// What the registry last said about its own certainty.
    pub confidence: Confidence,
    /// How many of the instances are kept although the registry no longer shows them: see the crate's page on the
    /// never-empty rule.
    pub unconfirmed: usize,
}

/// How a watcher stands with the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotState {
    /// Nothing is known yet, and nothing has failed yet.
    Connecting,
    /// The watch is open: what the registry knows is here a moment later.
    Fresh,
    /// The watch is broken, or never came to be: this is the last good set, perhaps an empty one (then `revision` is 0).
    Stale {
        /// Since when the registry has not been heard.
        since: Instant,
        /// Why, for people.
        reason: String,
    },
}

impl Snapshot {
    /// The set of nothing, before the first word of the registry.
    #[must_use]
    pub fn connecting() -> Self {
        Self {
            revision: 0,
            instances: Vec::new(),
            state: SnapshotState::Connecting,
            confidence: Confidence::Fresh,
            unconfirmed: 0,
        }
    }

    /// A fresh set of these instances, as for a target that is fixed or fed by hand.
    #[must_use]
    pub fn fresh(revision: i64, instances: impl IntoIterator<Item = Instance>) -> Self {
        Self {
            revision,
            instances: instances.into_iter().map(Arc::new).collect(),
            state: SnapshotState::Fresh,
            confidence: Confidence::Fresh,
            unconfirmed: 0,
        }
    }

    /// Those that take new calls.
    pub fn callable(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.iter().filter(|instance| instance.is_callable())
    }

    /// True once the registry has told its set at least once.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.revision > 0 || self.state == SnapshotState::Fresh
    }
}
