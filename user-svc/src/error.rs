//! The one place where this service's errors become gRPC statuses.

use std::time::Duration;

use identity::{Refused, Roles, TokenError};
use service_host::status;
use tonic::{Code, Status};

use crate::{
    accounts::AccountError,
    domain::{refusal::Refusal, wallet::WalletError},
    passwords::PasswordError,
    purchases::BuyError,
    signing::SigningError,
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
            Refusal::NotRefundable { .. } => (Code::FailedPrecondition, "ORDER_NOT_REFUNDABLE"),
            Refusal::CredentialsWrong => (Code::Unauthenticated, "CREDENTIALS_WRONG"),
            Refusal::NotYours => (Code::PermissionDenied, "NOT_YOURS"),
            Refusal::NotYourOwn => (Code::PermissionDenied, "NOT_YOUR_OWN"),
            Refusal::SessionEnded => (Code::Unauthenticated, "SESSION_ENDED"),
            Refusal::RefreshTokenReused => (Code::Unauthenticated, "REFRESH_TOKEN_REUSED"),
            Refusal::OrdersUnfinished => (Code::FailedPrecondition, "ORDERS_UNFINISHED"),
            Refusal::WalletNotEmpty => (Code::FailedPrecondition, "WALLET_NOT_EMPTY"),
            Refusal::Wallet(WalletError::Currency { .. }) => (Code::FailedPrecondition, "CURRENCY_MISMATCH"),
            Refusal::Wallet(WalletError::Full) => (Code::FailedPrecondition, "WALLET_FULL"),
            Refusal::Wallet(WalletError::Insufficient { .. }) => (Code::FailedPrecondition, "INSUFFICIENT_FUNDS"),
        };
        status::error(code, reason, refusal.to_string())
    }
}

impl From<AccountError> for Status {
    fn from(error: AccountError) -> Self {
        let message = error.to_string();
        match error {
            AccountError::Store(error) => error.into(),
            AccountError::Password(PasswordError::Overloaded) => status::retryable(
                Code::ResourceExhausted,
                "PASSWORD_QUEUE_FULL",
                "too many passwords are being checked; try again",
                RETRY_AFTER_QUEUE,
            ),
            AccountError::TooManyAttempts(wait) => {
                status::retryable(Code::ResourceExhausted, "TOO_MANY_ATTEMPTS", message, wait)
            }
            AccountError::TooManySignUps(wait) => {
                status::retryable(Code::ResourceExhausted, "TOO_MANY_SIGN_UPS", message, wait)
            }
            AccountError::Signing(error) => error.into(),
            AccountError::Password(error @ PasswordError::Failed(_)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a password was not checked");
                status::error(Code::Internal, "PASSWORD_FAILED", "the password could not be checked")
            }
        }
    }
}

impl From<SigningError> for Status {
    fn from(error: SigningError) -> Self {
        match error {
            SigningError::Store(error) => error.into(),
            SigningError::Key(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no token can be signed");
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
            "this needs the token of an account: sign in (UserService.SignIn), and show its session_token as `authorization: Bearer TOKEN`".to_owned(),
        ),
        Refused::BadToken(error @ TokenError::Expired) => {
            unauthenticated("TOKEN_EXPIRED", format!("{error}; renew it (UserService.RefreshSession), or sign in again"))
        }
        Refused::BadToken(error) => unauthenticated("TOKEN_INVALID", format!("{error}; sign in again")),
        Refused::Denied(roles) if roles == Roles::NONE => status::error(
            Code::PermissionDenied,
            "ROLE_MISSING",
            "this is for people, and the token is a service's",
        ),
        Refused::Denied(roles) => {
            let names: Vec<_> = roles.names().collect();
            status::error(
                Code::PermissionDenied,
                "ROLE_MISSING",
                format!("this needs the role {}; an operator can give it to the account, which then signs in again", names.join(" or ")),
            )
        }
        Refused::NoKeys => status::retryable(
            Code::Unavailable,
            "KEYS_MISSING",
            "tokens cannot be checked yet; try again",
            RETRY_AFTER,
        ),
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
