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

    /// What would be compacted if these were committed too.
    pub(crate) fn compacted_after(&self, sizes: impl Iterator<Item = usize>) -> Revision {
        let sizes: Vec<usize> = sizes.collect();
        let mut revisions = self.sizes.len() + sizes.len();
        let mut bytes = self.bytes + sizes.iter().sum::<usize>();
        let mut compacted = self.compacted;
        for size in self.sizes.iter().chain(&sizes) {
            if revisions <= 1 || (revisions <= self.limits.revisions && bytes <= self.limits.bytes) {
                break;
            }
            revisions -= 1;
            bytes -= size;
            compacted = compacted.next();
        }
        compacted
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
    fn foresees_what_pushing_does() {
        let limits = HistoryLimits {
            revisions: 4,
            bytes: 100,
        };
        let sizes = [10, 60, 30, 200, 1, 1, 1, 1, 1, 99, 2, 40, 40, 40, 40];
        for split in 0..sizes.len() {
            for until in split..=sizes.len() {
                let mut window = HistoryWindow::new(limits, Revision::new(7));
                for size in &sizes[..split] {
                    window.push(*size);
                }
                let foreseen = window.compacted_after(sizes[split..until].iter().copied());
                for size in &sizes[split..until] {
                    window.push(*size);
                }
                assert_eq!(foreseen, window.compacted(), "{split}..{until}");
            }
        }
    }

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
