//! What an endpoint has counted, read at one moment, for metrics. It decides nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use tonic::Code;

use crate::EjectionReason;

/// Why an attempt was followed by another one: a closed set, since it labels metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryReason {
    /// The connection was closed before anything was sent.
    Unsent,
    /// The server refused the stream, so that no handler saw it.
    Refused,
    /// It failed with that status, and the call's mode repeats those.
    Code(Code),
}

/// Why instances are ejected, in the order of [`EjectionReason`]'s variants.
pub(crate) const EJECTIONS: [&str; 4] = [
    "consecutive_failures",
    "success_rate",
    "failure_percentage",
    "probe_failed",
];

/// What happens rarely: attempts beyond the first of a call, and ejections.
#[derive(Debug, Default)]
pub(crate) struct Further {
    arrived: AtomicU64,
    retried: [AtomicU64; RetryReason::NAMES.len()],
    ejected: [AtomicU64; EJECTIONS.len()],
}

/// See the module's documentation. `served`, `failed` and `cancelled` are attempts that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) served: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    /// Attempts that were not the first of their calls, ended or not.
    pub(crate) further: u64,
    /// Attempts that were followed by another one, in the order of [`RetryReason::NAMES`].
    pub(crate) retried: [u64; RetryReason::NAMES.len()],
    /// In the order of [`EJECTIONS`].
    pub(crate) ejected: [u64; EJECTIONS.len()],
}

impl RetryReason {
    /// Of each, in the order of their places. Codes stand behind the others, in the order of their numbers.
    pub(crate) const NAMES: [&str; 19] = [
        "unsent",
        "refused",
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];

    fn place(self) -> usize {
        match self {
            Self::Unsent => 0,
            Self::Refused => 1,
            Self::Code(code) => 2 + code as usize,
        }
    }
}

impl Further {
    /// An attempt comes here that is not the first of its call.
    pub(crate) fn arrives(&self) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    /// One that was here is followed by another one.
    pub(crate) fn is_retried(&self, reason: RetryReason) {
        self.retried[reason.place()].fetch_add(1, Ordering::Relaxed);
    }

    /// The instance is taken out of service.
    pub(crate) fn is_ejected(&self, why: EjectionReason) {
        self.ejected[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ejected(&self) -> [u64; EJECTIONS.len()] {
        std::array::from_fn(|at| self.ejected[at].load(Ordering::Relaxed))
    }

    pub(super) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    pub(super) fn retried(&self) -> [u64; RetryReason::NAMES.len()] {
        std::array::from_fn(|at| self.retried[at].load(Ordering::Relaxed))
    }
}

impl Counts {
    /// Calls whose first attempt was here and has ended. While a further one is under way it is one too low.
    pub(crate) fn requests(&self) -> u64 {
        (self.served + self.failed + self.cancelled).saturating_sub(self.further)
    }

    /// Those of both.
    pub(crate) fn plus(self, other: Self) -> Self {
        self.each(other, u64::wrapping_add)
    }

    /// What has come since `before`. An endpoint that was made anew has begun to count anew: then all of it.
    pub(crate) fn since(self, before: Self) -> Self {
        let ended = |counts: &Self| counts.served + counts.failed + counts.cancelled;
        if ended(&self) < ended(&before) {
            return self;
        }
        self.each(before, u64::saturating_sub)
    }

    fn each(self, other: Self, by: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            served: by(self.served, other.served),
            failed: by(self.failed, other.failed),
            cancelled: by(self.cancelled, other.cancelled),
            further: by(self.further, other.further),
            retried: std::array::from_fn(|at| by(self.retried[at], other.retried[at])),
            ejected: std::array::from_fn(|at| by(self.ejected[at], other.ejected[at])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(served: u64, failed: u64, further: u64) -> Counts {
        Counts {
            served,
            failed,
            further,
            ..Counts::default()
        }
    }

    #[test]
    fn what_is_new_is_told_once_and_a_new_life_is_all_new() {
        assert_eq!(counts(5, 2, 1).since(counts(3, 2, 1)), counts(2, 0, 0));
        assert_eq!(counts(1, 0, 0).since(counts(3, 2, 1)), counts(1, 0, 0));
        assert_eq!(counts(5, 2, 1).requests(), 6);
    }

    #[test]
    fn every_reason_counts_for_itself() {
        let further = Further::default();
        let last = RetryReason::Code(Code::Unauthenticated);
        let unavailable = RetryReason::Code(Code::Unavailable);
        for (reason, name) in [
            (RetryReason::Unsent, "unsent"),
            (RetryReason::Refused, "refused"),
            (unavailable, "UNAVAILABLE"),
            (last, "UNAUTHENTICATED"),
        ] {
            further.is_retried(reason);
            let at = RetryReason::NAMES.iter().position(|it| *it == name);
            assert_eq!(further.retried()[at.expect("a name")], 1, "{name}");
        }
        assert_eq!(further.retried().iter().sum::<u64>(), 4);
    }
}
