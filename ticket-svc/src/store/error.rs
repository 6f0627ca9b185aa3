//! What can go wrong between the rules and the file.

use crate::domain::refusal::Refusal;

/// Why an operation of the store came to nothing. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// A rule said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Other processes kept the file locked for as long as this call could wait. A retry may help.
    #[error("the store is busy")]
    Busy,
    /// The file holds something that this code never writes.
    #[error("the store holds {0}")]
    Corrupt(&'static str),
    /// SQLite failed.
    #[error("the store failed")]
    Sqlite(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if service_store::is_busy(&error) {
            Self::Busy
        } else {
            Self::Sqlite(error)
        }
    }
}
