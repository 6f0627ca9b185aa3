//! What calls write of their instance: counts without a lock. It judges only rows; the rest is for the sweep.

use crate::sync::{AtomicBool, AtomicU32, Ordering};

/// Rows of no length are looked at: counted for the sweep, never suspect.
const NO_ROW: u32 = u32::MAX;
/// Nothing is counted.
const OFF: u32 = 0;

/// How the attempts at one instance ended, since it was last looked at.
#[derive(Debug)]
pub(crate) struct Record {
    /// Failures in a row that make it suspect.
    row: AtomicU32,
    in_row: AtomicU32,
    served: AtomicU32,
    failed: AtomicU32,
    /// One call is to be let through.
    ticket: AtomicBool,
}

impl Record {
    pub(crate) fn new() -> Self {
        Self {
            row: AtomicU32::new(OFF),
            in_row: AtomicU32::new(0),
            served: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            ticket: AtomicBool::new(false),
        }
    }

    /// From now on it counts, and so many failures in a row make it suspect; `None` never do.
    pub(crate) fn watch(&self, row: Option<u32>) {
        self.row.store(row.unwrap_or(NO_ROW), Ordering::Relaxed);
    }

    /// From now on it counts nothing.
    pub(crate) fn ignore(&self) {
        self.row.store(OFF, Ordering::Relaxed);
    }

    pub(crate) fn learns_of_success(&self) {
        if self.row.load(Ordering::Relaxed) != OFF {
            self.served.fetch_add(1, Ordering::Relaxed);
            // Hardly ever anything else, and reading is cheaper than writing what others read.
            if self.in_row.load(Ordering::Relaxed) != 0 {
                self.in_row.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Whether the instance has become suspect by this one: one caller a row is told so.
    pub(crate) fn learns_of_failure(&self) -> bool {
        let row = self.row.load(Ordering::Relaxed);
        if row == OFF {
            return false;
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        // Of those that reach the length at the same time the first one to begin a new row is told. As in Envoy the row begins
        // anew whether or not anybody could be ejected, so that it is not tried at each further failure.
        let length = self.in_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        length >= row && self.in_row.swap(0, Ordering::Relaxed) >= row
    }

    /// Served and failed since the last look.
    pub(crate) fn take(&self) -> (u32, u32) {
        (
            self.served.swap(0, Ordering::Relaxed),
            self.failed.swap(0, Ordering::Relaxed),
        )
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.take();
        self.in_row.store(0, Ordering::Relaxed);
        self.ticket.store(false, Ordering::Relaxed);
    }

    /// One call may be let through.
    pub(crate) fn offer(&self) {
        self.ticket.store(true, Ordering::Release);
    }

    /// Whether this is the call.
    pub(crate) fn claim(&self) -> bool {
        self.ticket.load(Ordering::Relaxed)
            && self
                .ticket
                .compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_row_makes_suspect_and_a_success_ends_the_row() {
        let record = Record::new();
        record.watch(Some(3));
        let failures = |count| (0..count).map(|_| record.learns_of_failure()).collect::<Vec<_>>();
        assert_eq!(failures(2), [false; 2]);
        record.learns_of_success();
        assert_eq!(failures(6), [false, false, true, false, false, true]);
        assert_eq!(record.take(), (1, 8));
        assert_eq!(record.take(), (0, 0));
    }

    #[test]
    fn what_is_off_counts_nothing_and_rows_can_be_off_alone() {
        let record = Record::new();
        record.learns_of_success();
        assert!(!record.learns_of_failure());
        assert_eq!(record.take(), (0, 0));
        record.watch(None);
        assert!((0..100).all(|_| !record.learns_of_failure()));
        assert_eq!(record.take(), (0, 100));
        record.ignore();
        assert!(!record.learns_of_failure());
        assert_eq!(record.take(), (0, 0));
    }

    #[test]
    fn a_ticket_is_for_one() {
        let record = Record::new();
        assert!(!record.claim());
        record.offer();
        assert!(record.claim());
        assert!(!record.claim());
    }
}
