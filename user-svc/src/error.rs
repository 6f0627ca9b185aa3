//! The one place where this service's errors become gRPC statuses.

use std::time::Duration;

use service_host::status;
use tonic::{Code, Status};

use crate::{
    accounts::AccountError,
    domain::{refusal::Refusal, wallet::WalletError},
    passwords::PasswordError,
    purchases::BuyError,
    store::StoreError,
};

/// When to try again what was refused for a moment's load.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// When to try again what many others wait for too.
const RETRY_AFTER_QUEUE: Duration = Duration::from_secs(1);

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => refusal.into(),
            StoreError::Busy | StoreError::Overtaken => status::retryable(
                Code::Unavailable,
                "STORE_BUSY",
                "the store is busy; try again",
                RETRY_AFTER,
            ),
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

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, reason) = match &refusal {
            Refusal::RequestIdReused(_) => (Code::AlreadyExists, "REQUEST_ID_REUSED"),
            Refusal::EmailTaken => (Code::AlreadyExists, "EMAIL_TAKEN"),
            Refusal::UserUnknown(_) => (Code::NotFound, "USER_UNKNOWN"),
            Refusal::OrderUnknown(_) => (Code::NotFound, "ORDER_UNKNOWN"),
            Refusal::CredentialsWrong => (Code::Unauthenticated, "CREDENTIALS_WRONG"),
            Refusal::Wallet(WalletError::Currency { .. }) => (Code::FailedPrecondition, "CURRENCY_MISMATCH"),
            Refusal::Wallet(WalletError::Full) => (Code::FailedPrecondition, "WALLET_FULL"),
            Refusal::Wallet(WalletError::Insufficient { .. }) => (Code::FailedPrecondition, "INSUFFICIENT_FUNDS"),
        };
        status::error(code, reason, refusal.to_string())
    }
}

impl From<AccountError> for Status {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Store(error) => error.into(),
            AccountError::Password(PasswordError::Overloaded) => status::retryable(
                Code::ResourceExhausted,
                "PASSWORD_QUEUE_FULL",
                "too many passwords are being checked; try again",
                RETRY_AFTER_QUEUE,
            ),
            AccountError::Password(error @ PasswordError::Failed(_)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a password was not checked");
                status::error(Code::Internal, "PASSWORD_FAILED", "the password could not be checked")
            }
        }
    }
}

impl From<BuyError> for Status {
    fn from(error: BuyError) -> Self {
        match error {
            BuyError::Store(error) => error.into(),
            BuyError::Full => status::retryable(
                Code::ResourceExhausted,
                "PURCHASES_FULL",
                "too many purchases are under way; try again with the same request_id",
                RETRY_AFTER_QUEUE,
            ),
            BuyError::Closing => draining(),
        }
    }
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

/// What callers learn of an inner failure: nothing that helps to attack it. The log has the rest.
fn failed() -> Status {
    status::error(
        Code::Internal,
        "STORE_FAILED",
        "the store failed; the service's log says why",
    )
}
