//! The one place where this service's errors become gRPC statuses.

use std::time::Duration;

use identity::{Refused, TokenError};
use service_host::status;
use service_store::Timestamp;
use tonic::{Code, Status};

use crate::{
    domain::refusal::{DateTime, Refusal},
    store::StoreError,
};

/// When to try a busy store again: writes take a few milliseconds, so the lock was lost to a rush, not to one writer.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// When to try again what needs keys that are not there: they are looked for once a second.
const RETRY_AFTER_KEYS: Duration = Duration::from_secs(1);

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => refusal.into(),
            StoreError::Busy | StoreError::Conflict => status::retryable(
                Code::Unavailable,
                "STORE_BUSY",
                "the store is busy; try again",
                RETRY_AFTER,
            ),
            StoreError::NoRandomness => {
                tracing::error!("the system gave no random bytes for a key");
                failed()
            }
            StoreError::Corrupt(what) => {
                tracing::error!(what, "the store holds something it should not");
                failed()
            }
            StoreError::Failed(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
                failed()
            }
        }
    }
}

/// What a caller is told whom the gate does not let through.
pub(crate) fn refused(refused: Refused, path: &str) -> Status {
    let unauthenticated = |reason, message: String| status::error(Code::Unauthenticated, reason, message);
    match refused {
        Refused::NoSuchMethod => status::unimplemented(path),
        Refused::NoToken => unauthenticated(
            "TOKEN_MISSING",
            "this needs a token: sign in at user-svc (UserService.SignIn), and show its session_token as `authorization: Bearer TOKEN`"
                .to_owned(),
        ),
        Refused::BadToken(error @ TokenError::Expired) => {
            unauthenticated("TOKEN_EXPIRED", format!("{error}; renew it (UserService.RefreshSession), or sign in again"))
        }
        Refused::BadToken(error) => unauthenticated("TOKEN_INVALID", format!("{error}; sign in again")),
        Refused::Denied(roles) => {
            let names: Vec<_> = roles.names().collect();
            let needs = match names.as_slice() {
                [] => "the token of a person".to_owned(),
                ["service"] => "the token of a service; buyers hold seats by UserService.BuyTicket".to_owned(),
                names => format!(
                    "the role {}; an operator can give it to the account, which then signs in again",
                    names.join(" or ")
                ),
            };
            status::error(Code::PermissionDenied, "ROLE_MISSING", format!("this needs {needs}"))
        }
        Refused::NoKeys => status::retryable(
            Code::Unavailable,
            "KEYS_MISSING",
            "tokens cannot be checked yet: the user service, which signs them, was not reached; try again",
            RETRY_AFTER_KEYS,
        ),
    }
}

/// What callers learn of an inner failure: nothing that helps to attack it. The log has the rest.
fn failed() -> Status {
    status::error(
        Code::Internal,
        "STORE_FAILED",
        "the store failed; the service's log says why",
    )
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let said = refusal.to_string();
        let (code, reason) = match refusal {
            Refusal::RequestIdReused(_) => (Code::AlreadyExists, "REQUEST_ID_REUSED"),
            Refusal::EventUnknown(_) => (Code::NotFound, "EVENT_UNKNOWN"),
            Refusal::SectionUnknown(_) => (Code::NotFound, "SECTION_UNKNOWN"),
            Refusal::SeatUnknown(_) => (Code::NotFound, "SEAT_UNKNOWN"),
            Refusal::SoldOut { .. } => (Code::FailedPrecondition, "SOLD_OUT"),
            Refusal::SeatTaken(_) => (Code::FailedPrecondition, "SEAT_TAKEN"),
            Refusal::HoldUnknown(_) => (Code::NotFound, "HOLD_UNKNOWN"),
            Refusal::HoldTokenWrong(_) => (Code::PermissionDenied, "HOLD_TOKEN_WRONG"),
            Refusal::HoldExpired(_) => (Code::FailedPrecondition, "HOLD_EXPIRED"),
            Refusal::HoldReleased(_) => (Code::FailedPrecondition, "HOLD_RELEASED"),
            Refusal::HoldConfirmed(_) => (Code::FailedPrecondition, "HOLD_CONFIRMED"),
            Refusal::HoldRefunded(_) => (Code::FailedPrecondition, "HOLD_REFUNDED"),
            Refusal::OrderUnknown(_) => (Code::NotFound, "ORDER_UNKNOWN"),
            Refusal::TicketUnknown(_) => (Code::NotFound, "TICKET_UNKNOWN"),
            Refusal::RefundClosed(at) => return out_of_time("REFUND_CLOSED", said, "refunds_until", at),
            Refusal::SaleNotOpen(at) => return out_of_time("SALE_NOT_OPEN", said, "sale_starts_at", at),
            Refusal::SaleClosed(at) => return out_of_time("SALE_CLOSED", said, "sale_ends_at", at),
            Refusal::BuyerCap { .. } => (Code::FailedPrecondition, "BUYER_CAP"),
            Refusal::TooManyHolds { wait, .. } => {
                return status::retryable(Code::ResourceExhausted, "TOO_MANY_HOLDS", said, wait);
            }
        };
        status::error(code, reason, said)
    }
}

/// For programs the instant stands in the metadata, as RFC 3339 writes it.
fn out_of_time(reason: &'static str, said: String, field: &'static str, at: Timestamp) -> Status {
    status::error_with(
        Code::FailedPrecondition,
        reason,
        said,
        [(field, DateTime(at).to_string())],
    )
}

/// This instance is about to end.
pub(crate) fn draining() -> Status {
    status::retryable(
        Code::Unavailable,
        "DRAINING",
        "this instance is shutting down; try again",
        RETRY_AFTER,
    )
}

/// There are as many watchers as there may be.
pub(crate) fn too_many_watchers() -> Status {
    status::retryable(
        Code::ResourceExhausted,
        "TOO_MANY_WATCHERS",
        "this instance has as many watchers as it may have; try another one",
        Duration::from_secs(5),
    )
}

/// There is no place at the store for this call.
pub(crate) fn come_again(wait: Duration) -> Status {
    status::retryable(
        Code::ResourceExhausted,
        "WAIT_IN_LINE",
        "more want seats than can be served; wait in line (WaitInLine), or come again",
        wait.max(RETRY_AFTER),
    )
}

/// There is no place in the line either.
pub(crate) fn line_full(wait: Duration) -> Status {
    status::retryable(
        Code::ResourceExhausted,
        "LINE_FULL",
        "the line is as long as it may be; come again",
        wait.max(RETRY_AFTER),
    )
}
