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
    /// Another driver moved the order on since it was read.
    #[error("the order was moved on by another process")]
    Overtaken,
    /// SQLite failed.
    #[error("the store failed")]
    Sqlite(#[source] sqlx::Error),
}

/// Primary result codes of SQLite: another connection has the lock.
const SQLITE_BUSY: i64 = 5;
const SQLITE_LOCKED: i64 = 6;

impl StoreError {
    /// Did SQLite fail only because another connection has the lock?
    pub(super) fn is_busy(error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::PoolTimedOut => true,
            sqlx::Error::Database(database) => database
                .code()
                .and_then(|code| code.parse::<i64>().ok())
                // The low byte of an extended code is the primary one.
                .is_some_and(|code| matches!(code & 0xff, SQLITE_BUSY | SQLITE_LOCKED)),
            _ => false,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if Self::is_busy(&error) {
            Self::Busy
        } else {
            Self::Sqlite(error)
        }
    }
}
