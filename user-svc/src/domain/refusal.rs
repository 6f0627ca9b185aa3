//! Everything that the rules can say no with. Not failures of the store or the wire; a failed order is no refusal either.

use uuid::Uuid;

use super::wallet::WalletError;

/// A rule said no. Asking again changes nothing unless the world does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The request id was used before, for something else.
    #[error("request_id {0} was used before with another body; use a new one")]
    RequestIdReused(Uuid),
    /// Another account has the address.
    #[error("there is an account with this e-mail address; sign in, or use another address")]
    EmailTaken,
    /// There is no such account.
    #[error("there is no user {0}")]
    UserUnknown(Uuid),
    /// There is no such order.
    #[error("there is no order {0}")]
    OrderUnknown(Uuid),
    /// Unknown account or wrong password; which of the two is nobody's business.
    #[error("the e-mail address or the password is wrong")]
    CredentialsWrong,
    /// The wallet does not take the amount.
    #[error(transparent)]
    Wallet(#[from] WalletError),
}
