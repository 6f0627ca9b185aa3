//! How much of the past is kept: so many revisions, and no more than so many bytes.
//!
//! The same window decides for the memory of the `hub` and for the disk of the `store`, so a restart forgets nothing that
//! was still there and brings nothing back that was gone. Counting bytes as well as revisions bounds memory against revisions
//! of 64 instances with full metadata.

use std::collections::VecDeque;

use crate::model::Revision;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HistoryLimits {
    /// Revisions; at least 1.
    pub(crate) revisions: usize,
    /// Bytes of their changes, roughly; the newest revision is kept whatever its size.
    pub(crate) bytes: usize,
}

/// Which revisions are kept: those after [`HistoryWindow::compacted`].
#[derive(Debug, Clone)]
pub(crate) struct HistoryWindow {
    limits: HistoryLimits,
    compacted: Revision,
    sizes: VecDeque<usize>,
    bytes: usize,
}

impl HistoryWindow {
    /// Keeps nothing yet; `compacted` is the last revision that is already gone.
    pub(crate) fn new(limits: HistoryLimits, compacted: Revision) -> Self {
        Self {
            limits,
            compacted,
            sizes: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The next revision has been committed and costs so much. Returns what is then compacted.
    pub(crate) fn push(&mut self, bytes: usize) -> Revision {
        self.sizes.push_back(bytes);
        self.bytes += bytes;
        while self.sizes.len() > 1 && (self.sizes.len() > self.limits.revisions || self.bytes > self.limits.bytes) {
            self.bytes -= self.sizes.pop_front().unwrap_or_default();
            self.compacted = self.compacted.next();
        }
        self.compacted
    }

    /// The last revision that is gone. A watcher that has seen it can resume.
    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_by_count_and_by_bytes() {
        let mut window = HistoryWindow::new(
            HistoryLimits {
                revisions: 3,
                bytes: 100,
            },
            Revision::ZERO,
        );
        for (bytes, compacted) in [
            (10, 0),
            (10, 0),
            (10, 0),
            (10, 1),
            (90, 3),
            (5, 4),
            (6, 5),
            (500, 7),
            (1, 8),
        ] {
            assert_eq!(window.push(bytes).get(), compacted, "after {bytes}");
        }
    }
}
