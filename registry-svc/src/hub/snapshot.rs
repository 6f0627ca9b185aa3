//! A snapshot of a selection, in parts that a client accepts.
//!
//! Watchers that begin at the same revision share it, and each of its parts is encoded when the first of them gets there, so
//! that a storm of reconnecting watchers costs one snapshot and not thousands.

use std::{ops::Range, sync::Arc};

use crate::model::{Instance, Revision};

/// Bytes, roughly, after which a part ends: large enough that what frames it does not count, and small enough for a watch that
/// is not read, which holds two of them and a send buffer, to hold no more than 64 KiB. What is larger by itself is one instance
/// with nearly all that it may have, some 40 KiB.
pub(super) const PART_BYTES: usize = 20 * 1_024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Snapshot {
    revision: Revision,
    /// By service and id.
    instances: Vec<Arc<Instance>>,
    /// Where each part ends. At least one, which is empty if there are no instances.
    parts: Vec<usize>,
}

impl Snapshot {
    /// With parts of about `part_bytes`; a single instance is never split.
    pub(super) fn new(revision: Revision, instances: Vec<Arc<Instance>>, part_bytes: usize) -> Self {
        let mut parts = Vec::new();
        let mut bytes = 0;
        for (index, instance) in instances.iter().enumerate() {
            let more = instance.bytes();
            if bytes > 0 && bytes + more > part_bytes {
                parts.push(index);
                bytes = 0;
            }
            bytes += more;
        }
        parts.push(instances.len());
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

    /// Whether there are parts after this one.
    pub(super) fn has_more(&self, number: usize) -> bool {
        number + 1 < self.parts.len()
    }

    fn end(&self, number: usize) -> usize {
        self.parts.get(number).copied().unwrap_or(self.instances.len())
    }
}
