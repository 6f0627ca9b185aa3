//! The registries that share one store. With an embedded store there is one, and it has no need of a name.

use std::{collections::BTreeSet, fmt};

/// One life of one registry process: 64 random bits, drawn when it starts. 0 is the registry that is alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct ReplicaId(u64);

/// Who is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Replicas {
    /// This one.
    pub(crate) own: ReplicaId,
    /// Those whose session with the store lives.
    pub(crate) alive: BTreeSet<ReplicaId>,
    /// Whether this one ends what dead replicas have left behind.
    pub(crate) elected: bool,
}

impl ReplicaId {
    /// The registry that is alone.
    pub(crate) const ALONE: Self = Self(0);

    /// From its bits, new or stored.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
