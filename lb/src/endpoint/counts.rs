//! What an endpoint has counted, read at one moment, for metrics. It decides nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use telemetry::rpc::code_name;
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

/// gRPC's status codes, from 0.
const CODES: usize = 17;

/// Why there was an attempt that was not the first of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The one before it provably reached no handler.
    Unprocessed,
    /// The one before it had failed.
    Retry,
    /// Those before it were late, or had failed in a way that a hedge makes up for.
    Hedge,
    /// The mode sends every call to several instances at once.
    Fork,
    /// The mode sends every call to all of them.
    Broadcast,
}

impl Why {
    /// In the order of the variants.
    pub(crate) const NAMES: [&str; 5] = ["unprocessed", "retry", "hedge", "fork", "broadcast"];
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
    arrived: [AtomicU64; Why::NAMES.len()],
    retried: [AtomicU64; RetryReason::COUNT],
    ejected: [AtomicU64; EJECTIONS.len()],
}

/// See the module's documentation. `served`, `failed` and `cancelled` are attempts that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) served: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    /// Attempts that were not the first of their calls, ended or not, in the order of [`Why::NAMES`].
    pub(crate) further: [u64; Why::NAMES.len()],
    /// Attempts that were followed by another one, in the order of [`RetryReason::names`].
    pub(crate) retried: [u64; RetryReason::COUNT],
    /// In the order of [`EJECTIONS`].
    pub(crate) ejected: [u64; EJECTIONS.len()],
}

impl RetryReason {
    pub(crate) const COUNT: usize = 2 + CODES;

    /// Of each, in the order of their places. Codes stand behind the others, in the order of their numbers.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        let codes = (0..CODES as i32).map(code_name);
        ["unsent", "refused"].into_iter().chain(codes)
    }

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
    pub(crate) fn arrives(&self, why: Why) {
        self.arrived[why as usize].fetch_add(1, Ordering::Relaxed);
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

    pub(super) fn arrived(&self) -> [u64; Why::NAMES.len()] {
        std::array::from_fn(|at| self.arrived[at].load(Ordering::Relaxed))
    }

    pub(super) fn retried(&self) -> [u64; RetryReason::COUNT] {
        std::array::from_fn(|at| self.retried[at].load(Ordering::Relaxed))
    }
}

impl Counts {
    /// Calls whose first attempt was here and has ended. While a further one is under way it is one too low.
    pub(crate) fn requests(&self) -> u64 {
        let further: u64 = self.further.iter().sum();
        (self.served + self.failed + self.cancelled).saturating_sub(further)
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
            further: std::array::from_fn(|at| by(self.further[at], other.further[at])),
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
            further: [0, further, 0, 0, 0],
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
            let at = RetryReason::names().position(|it| it == name);
            assert_eq!(further.retried()[at.expect("a name")], 1, "{name}");
        }
        assert_eq!(further.retried().iter().sum::<u64>(), 4);
        assert_eq!(RetryReason::names().count(), RetryReason::COUNT);
    }

    #[test]
    fn every_attempt_beyond_the_first_says_why() {
        let further = Further::default();
        for why in [Why::Unprocessed, Why::Retry, Why::Hedge, Why::Fork, Why::Broadcast] {
            further.arrives(why);
        }
        assert_eq!(further.arrived(), [1; 5]);
    }
}
