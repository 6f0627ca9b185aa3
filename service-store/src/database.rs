//! One SQLite file that several processes may share: who reads, who writes, and how long a write waits.
//!
//! Writes go through one connection a process, each in `BEGIN IMMEDIATE`: writers of a process queue fairly in the pool, only
//! processes contend for the file, and a transaction that has begun cannot fail with SQLITE_BUSY half-way. A deferred
//! transaction would read first and lose its snapshot at the first write. Reads never wait for writers (WAL).
//!
//! Errors are sqlx's: what a caller learns of them is for the service to say. [`is_busy`] tells those that pass by themselves.

mod open;

use std::{fmt, sync::Arc, time::Duration};

use sqlx::{Sqlite, SqlitePool, Transaction};
use telemetry::{
    KeyValue, semconv,
    work::{Kind, Work},
};
use tokio::time::Instant;

pub use self::open::OpenError;
use crate::{clock::Clock, time::Timestamp};

/// How long a write waits for the file when the call has no deadline.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(5);

/// What is left of a deadline for the answer once the wait for the file has been given up.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// The file as one process has it open. Clones share its connections.
#[derive(Clone)]
pub struct Database {
    writer: SqlitePool,
    reader: SqlitePool,
    clock: Arc<dyn Clock>,
}

/// A write transaction that holds the file's write lock, and the instant at which it got it. Dropped, it rolls back.
#[derive(Debug)]
pub struct Write {
    /// Where to execute statements. [`Write::commit`] ends it.
    pub tx: Transaction<'static, Sqlite>,
    /// Read after the lock was got. An instant taken before may be seconds old, and would keep alive what has expired since.
    pub now: Timestamp,
}

impl Database {
    /// Begins a write when it is this process's turn. `time_left` is what remains of the call's deadline, if it has one: the
    /// wait ends 50 ms before it, and after 5 s in any case.
    ///
    /// # Errors
    /// One that [`is_busy`] when others kept the file for all that time; otherwise SQLite's own.
    pub async fn begin(&self, time_left: Option<Duration>) -> Result<Write, sqlx::Error> {
        let give_up = Instant::now() + patience(time_left);
        // Waiting for the file is what a slow write mostly does: it shows by itself.
        let waits = span("BEGIN IMMEDIATE");
        loop {
            match tokio::time::timeout_at(give_up, self.writer.begin_with("BEGIN IMMEDIATE")).await {
                Ok(Ok(tx)) => return Ok(Write { tx, now: self.now() }),
                Ok(Err(error)) if is_busy(&error) => waits.event("busy", Vec::new),
                Ok(Err(error)) => {
                    waits.fail(kind_of(&error));
                    return Err(error);
                }
                Err(_) => {
                    waits.fail("timeout");
                    return Err(sqlx::Error::PoolTimedOut);
                }
            }
            // SQLite has waited already (see `open`); the jitter only keeps processes from marching in step.
            tokio::time::sleep(Duration::from_millis(rand::random_range(1..=10))).await;
        }
    }

    /// Connections that cannot write.
    #[must_use]
    pub fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    /// What the clock says that it was opened with.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Waits for running statements and closes the file.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

impl Write {
    /// Ends the transaction. After this the records outlive a loss of power.
    ///
    /// # Errors
    /// SQLite's. Nothing was written then.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        let commits = span("COMMIT");
        let result = self.tx.commit().await;
        if let Err(error) = &result {
            commits.fail(kind_of(error));
        }
        result
    }
}

/// A span of the store by the conventions for databases; nothing where the call that asks is not recorded. No statement is in
/// it: those are in the code, and what they are given is people's.
fn span(operation: &'static str) -> Work {
    Work::begin_here(Kind::Store, operation, || {
        vec![
            KeyValue::new(semconv::DB_SYSTEM_NAME, "sqlite"),
            KeyValue::new(semconv::DB_OPERATION_NAME, operation),
        ]
    })
}

/// What an error is called in spans: a code of SQLite, or the name of what else there is. Never its text.
fn kind_of(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => database
            .code()
            .map_or_else(|| "sqlite".into(), |code| format!("sqlite {code}")),
        sqlx::Error::PoolTimedOut => "timeout".into(),
        _ => "_OTHER".into(),
    }
}

/// Did SQLite fail only because another connection has the lock? Then a retry may help.
#[must_use]
pub fn is_busy(error: &sqlx::Error) -> bool {
    // Primary result codes of SQLite.
    const SQLITE_BUSY: i64 = 5;
    const SQLITE_LOCKED: i64 = 6;
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

fn patience(time_left: Option<Duration>) -> Duration {
    time_left.map_or(DEFAULT_PATIENCE, |left| {
        left.saturating_sub(ANSWER_MARGIN).min(DEFAULT_PATIENCE)
    })
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Database").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
