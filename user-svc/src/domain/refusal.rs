//! Everything that the rules can say no with. Not failures of the store or the wire; a failed order is no refusal either.

use uuid::Uuid;

use super::{order::OrderState, wallet::WalletError};

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
    /// Only what was sold is refunded, and once.
    #[error("order {id} is {}; only an order that has succeeded can be refunded, once", state.name())]
    NotRefundable {
        /// The order.
        id: Uuid,
        /// How far it is.
        state: OrderState,
    },
    /// Unknown account or wrong password; which of the two is nobody's business.
    #[error("the e-mail address or the password is wrong")]
    CredentialsWrong,
    /// It belongs to another account.
    #[error("this belongs to another account; call with a token of that one")]
    NotYours,
    /// Operators change others, so that there is always one left.
    #[error("an operator cannot change their own roles; ask another operator")]
    NotYourOwn,
    /// The session is not open (any more).
    #[error("the session has ended; sign in again")]
    SessionEnded,
    /// A refresh token that was used up before was shown: somebody has a copy.
    #[error(
        "this refresh token was used before, so somebody may have a copy of it: the session has been ended; sign in again"
    )]
    RefreshTokenReused,
    /// An account with unfinished purchases or refunds cannot be deleted.
    #[error("a purchase or a refund of this account is under way; delete it when it has ended (ListOrders tells)")]
    OrdersUnfinished,
    /// An account with money cannot be deleted by accident.
    #[error("there is money left in the wallet; spend it, or give it up by setting forfeit_balance")]
    WalletNotEmpty,
    /// The wallet does not take the amount.
    #[error(transparent)]
    Wallet(#[from] WalletError),
}
