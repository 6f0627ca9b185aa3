//! A purchase as a state machine: the step that is recorded, what came of it, the next step. Performs nothing.
//!
//! ```text
//! Begin → Hold → Debit → Confirm → Succeeded
//!           │       │       └─ refused → Refund ─┐
//!           │       └─ too little money ──→ Release → Failed
//!           └─ refused, nothing held ───────────────→ Failed
//!
//! Succeeded → Revoke → Repay → Refunded      asked for by the buyer or an operator
//!     ↑          │
//!     └ refused ─┘
//! ```
//!
//! Each step is recorded before it is performed, and can be performed again with the same ids to the same effect. Hence a
//! crash, a lost answer and a retry are one case: perform the recorded step again.
//!
//! Four rules decide what an unknown outcome means:
//! 1. While nothing is paid, give up after some attempts and release: a hold that was got unheard would lapse by itself, but a
//!    release frees it now and makes the ticket service refuse the request if it still comes in late.
//! 2. Once it is paid, a confirmation is repeated for as long as it takes: it may have been carried out, so that refunding
//!    would give the seats away. Only the ticket service's own refusal leads to the refund.
//! 3. After the refund a release is a courtesy: the hold lapses by itself, so it is given up after some attempts.
//! 4. Once tickets are being revoked, that is repeated for as long as it takes: they may be void already, so that an order which
//!    went back to Succeeded would have none. Only the ticket service's own refusal leads back, and that one remembers it: a
//!    request that was late does not revoke them after all.

use uuid::Uuid;

use super::order::{Failing, Failure, Held, RefundRefused};

/// How often a call is attempted before it is given up, where it may be. With the back-off of `backoff` and a ticket service
/// that is down, the buyer knows after some five seconds.
pub(crate) const MAX_ATTEMPTS: u32 = 4;

/// What is to be done next, or how it ended. What is held is the order's, from [`Step::Debit`] on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Recorded; nothing has been asked of anyone.
    Begin,
    /// Ask the ticket service for seats.
    Hold,
    /// Take the money.
    Debit,
    /// Turn the hold into tickets.
    Confirm,
    /// Give the money back.
    Refund(Failing),
    /// Give the seats back.
    Release(Failing),
    /// The seats are sold to the buyer and paid for. Final, unless the money is asked back.
    Succeeded(Vec<Uuid>),
    /// Have the tickets revoked.
    Revoke(Vec<Uuid>),
    /// They are void: give the money back.
    Repay(Vec<Uuid>),
    /// The tickets are void and the money is back. Final.
    Refunded(Vec<Uuid>),
    /// Nothing was bought and nothing was paid. Final.
    Failed(Failing),
}

/// What came of asking for seats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HoldOutcome {
    /// They are held.
    Granted(Held),
    /// They are not, says the ticket service.
    Refused(Failing),
    /// The hold of this id is somebody else's. Nothing of it may be touched.
    NotOurs(Failing),
    /// The request provably came to nothing: it was not sent, or its receiver says that nothing was done.
    NotDone(Failing),
    /// It may or may not have been carried out.
    Unknown(Failing),
}

/// What came of a confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConfirmOutcome {
    /// The seats are sold.
    Confirmed(Vec<Uuid>),
    /// They are not, and under this hold never will be.
    Refused(Failing),
    /// It may or may not have been carried out.
    Unknown,
}

/// What came of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReleaseOutcome {
    /// The seats are free, or the hold is not one that could be released.
    Settled,
    /// It may or may not have been carried out.
    Unknown,
}

/// What came of having tickets revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RevokeOutcome {
    /// They are void, and the seats are free.
    Revoked,
    /// They are good, and by this request never will be anything else.
    Refused(RefundRefused),
    /// It may or may not have been carried out.
    Unknown,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Record this step, then perform it.
    Go(Step),
    /// Wait, then perform the present step again.
    Again {
        /// May this attempt have been carried out unheard?
        in_doubt: bool,
    },
}

/// What is known of the attempts at the present step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempts {
    /// In this run, from 1.
    pub(crate) count: u32,
    /// May an attempt before this one have been carried out unheard?
    pub(crate) in_doubt: bool,
}

impl Attempts {
    /// At a step that was just recorded.
    pub(crate) const FIRST: Self = Self {
        count: 1,
        in_doubt: false,
    };
    /// At a step that an earlier run recorded, and may have performed.
    pub(crate) const RESUMED: Self = Self {
        count: 1,
        in_doubt: true,
    };

    pub(crate) fn another(self, in_doubt: bool) -> Self {
        Self {
            count: self.count.saturating_add(1),
            in_doubt: self.in_doubt || in_doubt,
        }
    }

    fn exhausted(self) -> bool {
        self.count >= MAX_ATTEMPTS
    }
}

/// From [`Step::Hold`].
pub(crate) fn after_hold(outcome: HoldOutcome, attempts: Attempts) -> (Next, Option<Held>) {
    let next = match outcome {
        // Hold → Debit
        HoldOutcome::Granted(held) => return (Next::Go(Step::Debit), Some(held)),
        // Hold → Failed
        HoldOutcome::NotOurs(failing) => Next::Go(Step::Failed(failing)),
        HoldOutcome::NotDone(_) if !attempts.exhausted() => Next::Again { in_doubt: false },
        HoldOutcome::Unknown(_) if !attempts.exhausted() => Next::Again { in_doubt: true },
        // Hold → Release
        HoldOutcome::Unknown(failing) => Next::Go(Step::Release(failing)),
        // Hold → Release: an earlier attempt may still come in late and be granted.
        HoldOutcome::Refused(failing) | HoldOutcome::NotDone(failing) if attempts.in_doubt => {
            Next::Go(Step::Release(failing))
        }
        // Hold → Failed
        HoldOutcome::Refused(failing) | HoldOutcome::NotDone(failing) => Next::Go(Step::Failed(failing)),
    };
    (next, None)
}

/// From [`Step::Debit`]. Local, hence never unknown: it happened together with the record of this step, or not at all.
pub(crate) fn after_debit(outcome: Result<(), Failing>) -> Step {
    match outcome {
        // Debit → Confirm
        Ok(()) => Step::Confirm,
        // Debit → Release
        Err(failing) => Step::Release(failing),
    }
}

/// From [`Step::Confirm`].
pub(crate) fn after_confirm(outcome: ConfirmOutcome) -> Next {
    match outcome {
        // Confirm → Succeeded
        ConfirmOutcome::Confirmed(tickets) => Next::Go(Step::Succeeded(tickets)),
        // Confirm → Refund
        ConfirmOutcome::Refused(failing) => Next::Go(Step::Refund(failing)),
        // However often: see rule 2.
        ConfirmOutcome::Unknown => Next::Again { in_doubt: true },
    }
}

/// From [`Step::Release`].
pub(crate) fn after_release(failing: Failing, outcome: ReleaseOutcome, attempts: Attempts) -> Next {
    match outcome {
        ReleaseOutcome::Unknown if !attempts.exhausted() => Next::Again { in_doubt: true },
        // Release → Failed
        ReleaseOutcome::Settled | ReleaseOutcome::Unknown => Next::Go(Step::Failed(failing)),
    }
}

/// From [`Step::Succeeded`], when the money is asked back; from anywhere else there is nothing to give back, or it is under way.
pub(crate) fn refund_asked(step: &Step) -> Option<Step> {
    match step {
        // Succeeded → Revoke
        Step::Succeeded(tickets) => Some(Step::Revoke(tickets.clone())),
        _ => None,
    }
}

/// From [`Step::Revoke`].
pub(crate) fn after_revoke(tickets: Vec<Uuid>, outcome: RevokeOutcome) -> (Next, Option<RefundRefused>) {
    match outcome {
        // Revoke → Repay
        RevokeOutcome::Revoked => (Next::Go(Step::Repay(tickets)), None),
        // Revoke → Succeeded
        RevokeOutcome::Refused(why) => (Next::Go(Step::Succeeded(tickets)), Some(why)),
        // However often: see rule 4.
        RevokeOutcome::Unknown => (Next::Again { in_doubt: true }, None),
    }
}

/// From [`Step::Repay`]. Local: it happened together with the record of this step, or not at all.
pub(crate) fn after_repay(tickets: Vec<Uuid>) -> Step {
    // Repay → Refunded
    Step::Refunded(tickets)
}

impl Step {
    /// What it is called in the store and in the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Hold => "hold",
            Self::Debit => "debit",
            Self::Confirm => "confirm",
            Self::Refund(_) => "refund",
            Self::Release(_) => "release",
            Self::Succeeded(_) => "succeeded",
            Self::Revoke(_) => "revoke",
            Self::Repay(_) => "repay",
            Self::Refunded(_) => "refunded",
            Self::Failed(_) => "failed",
        }
    }

    /// Is there nothing left to do?
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Succeeded(_) | Self::Refunded(_) | Self::Failed(_))
    }
}

impl Failing {
    pub(crate) fn new(failure: Failure, detail: impl Into<String>) -> Self {
        Self {
            failure,
            detail: detail.into(),
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
