//! A snapshot of a selection, in parts that a client accepts.
//!
//! Watchers that begin at the same revision share it, and each of its parts is encoded when the first of them gets there, so
//! that a storm of reconnecting watchers costs one snapshot and not thousands.

use std::{ops::Range, sync::Arc};

use crate::model::{Instance, Revision};

/// Bytes, roughly, after which a part ends: far below the 4 MiB that a stock gRPC client accepts, and large enough that what
/// frames it does not count.
pub(super) const PART_BYTES: usize = 1_024 * 1_024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Snapshot {
    revision: Revision,
    /// By service and id.
    instances: Vec<Arc<Instance>>,
    /// Where each part ends, and what it costs on the wire, roughly. At least one, which is empty if there are no instances.
    parts: Vec<(usize, usize)>,
}

impl Snapshot {
    /// With parts of about `part_bytes`; a single instance is never split.
    pub(super) fn new(revision: Revision, instances: Vec<Arc<Instance>>, part_bytes: usize) -> Self {
        let mut parts = Vec::new();
        let mut bytes = 0;
        for (index, instance) in instances.iter().enumerate() {
            let more = instance.bytes();
            if bytes > 0 && bytes + more > part_bytes {
                parts.push((index, bytes));
                bytes = 0;
            }
            bytes += more;
        }
        parts.push((instances.len(), bytes));
        Self {
            revision,
            instances,
            parts,
        }
    }

    /// The revision that all of its parts are of.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// The instances of a part.
    pub(super) fn part(&self, number: usize) -> &[Arc<Instance>] {
        let begin = number.checked_sub(1).map_or(0, |before| self.end(before));
        let range: Range<usize> = begin..self.end(number);
        self.instances.get(range).unwrap_or_default()
    }

    /// What a part costs on the wire, roughly.
    pub(super) fn part_bytes(&self, number: usize) -> usize {
        self.parts.get(number).map_or(0, |(_, bytes)| *bytes)
    }

    /// Whether there are parts after this one.
    pub(super) fn has_more(&self, number: usize) -> bool {
        number + 1 < self.parts.len()
    }

    fn end(&self, number: usize) -> usize {
        self.parts.get(number).map_or(self.instances.len(), |(end, _)| *end)
    }
}
