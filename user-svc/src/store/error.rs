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
    /// The store holds something that this code never writes.
    #[error("the store holds {0}")]
    Corrupt(&'static str),
    /// Another driver moved the order on since it was read.
    #[error("the order was moved on by another process")]
    Overtaken,
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
        matches!(self, Self::Failed(error) if service_store::is_conflict(error))
    }
}
