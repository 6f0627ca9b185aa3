//! The name of a history. Revisions are only comparable within one; what a history holds is the hub's and the store's.

use std::fmt;

/// Names the history that revisions count: 64 random bits, drawn when a store is made, 16 hexadecimal digits on the wire.
/// Nobody gains by guessing it, so it only has to differ by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct HistoryId(u64);

impl HistoryId {
    /// From its random bits, new or stored.
    pub(crate) fn from_random(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for HistoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
