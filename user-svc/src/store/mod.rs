//! Accounts, the ledger and orders in one SQLite file. Decides nothing that `domain` can decide.
//!
//! Writes go through one connection, each in `BEGIN IMMEDIATE`: they queue fairly in the pool, and a transaction that has
//! begun cannot fail with SQLITE_BUSY half-way. Reads never wait for writers (WAL).

mod error;
mod open;
mod orders;
mod rows;
mod sessions;
mod users;
mod wallet;

use std::{fmt, sync::Arc, time::Duration};

use sqlx::{Sqlite, SqlitePool, Transaction};
use tokio::time::Instant;

pub use self::open::OpenError;
pub(crate) use self::{error::StoreError, orders::OrderCursor, orders::Recorded, users::Known};
use crate::{clock::Clock, domain::time::Timestamp};

/// How long a write waits for the file when the call has no deadline.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(5);

/// What is left of a deadline for the answer once the wait for the file has been given up.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// The store of one process. Clones share its connections.
#[derive(Clone)]
pub(crate) struct Store {
    writer: SqlitePool,
    reader: SqlitePool,
    clock: Arc<dyn Clock>,
}

/// A write transaction that holds the file's write lock, and the instant at which it got it. Dropped, it rolls back.
struct Write {
    tx: Transaction<'static, Sqlite>,
    now: Timestamp,
}

impl Store {
    /// Waits for the file until the call's deadline, then says [`StoreError::Busy`].
    async fn begin(&self) -> Result<Write, StoreError> {
        let give_up = Instant::now() + patience();
        loop {
            let begun = tokio::time::timeout_at(give_up, self.writer.begin_with("BEGIN IMMEDIATE")).await;
            match begun.map(|result| result.map_err(StoreError::from)) {
                Ok(Ok(tx)) => {
                    return Ok(Write {
                        tx,
                        now: self.clock.now(),
                    });
                }
                Ok(Err(StoreError::Busy)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(StoreError::Busy),
            }
            // SQLite has waited already (see `open`); the jitter only keeps processes from marching in step.
            tokio::time::sleep(Duration::from_millis(rand::random_range(1..=10))).await;
        }
    }

    /// Waits for running statements and closes the file.
    pub(crate) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

impl Write {
    async fn commit(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }
}

fn patience() -> Duration {
    telemetry::deadline::Deadline::current().map_or(DEFAULT_PATIENCE, |deadline| {
        deadline.remaining().saturating_sub(ANSWER_MARGIN).min(DEFAULT_PATIENCE)
    })
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
