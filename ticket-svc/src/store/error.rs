//! What can go wrong between the rules and the store.

use crate::domain::refusal::Refusal;

/// Why an operation of the store came to nothing. Nothing was written, but see [`StoreError::Busy`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// A rule said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Others kept the store for as long as this call could wait, or it is away. A retry may help, and finds out what came of
    /// this one if its connection ended in the middle of a commit.
    #[error("the store is busy")]
    Busy,
    /// Transactions that are not done yet have what this one wants. Made again, it finds out.
    #[error("others are about to take it")]
    Conflict,
    /// The system gave no random bytes for a key.
    #[error("no key could be made: the system gave no random bytes")]
    NoRandomness,
    /// The store holds something that this code never writes.
    #[error("the store holds {0}")]
    Corrupt(&'static str),
    /// The database failed.
    #[error("the store failed")]
    Failed(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if service_store::is_busy(&error) {
            Self::Busy
        } else {
            Self::Failed(error)
        }
    }
}

impl service_store::Conflict for StoreError {
    fn is_conflict(&self) -> bool {
        match self {
            Self::Conflict => true,
            Self::Failed(error) => service_store::is_conflict(error),
            Self::Refused(_) | Self::Busy | Self::NoRandomness | Self::Corrupt(_) => false,
        }
    }
}
