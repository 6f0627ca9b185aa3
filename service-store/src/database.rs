//! Where a service keeps its records: a file that processes of one machine share, or a server that machines share. Who reads,
//! who writes, how long a write waits, and what it does when it meets another one.
//!
//! **On SQLite** writes go through one connection a process, under `BEGIN IMMEDIATE`: writers of a process queue fairly, only
//! processes contend for the file, and a transaction that has begun cannot fail with SQLITE_BUSY half-way. A deferred
//! transaction would read first and lose its snapshot at the first write. Those who wait at the same time share one commit
//! (`group`). Reads never wait for writers (WAL).
//!
//! **On PostgreSQL** writes run at once, at READ COMMITTED: each statement sees what was committed before it. So a change is a
//! conditional write, or decides on rows that it has locked ([`for_update`], always in one order), or on a word that it has
//! locked ([`Write::lock`]). A transaction that met another one all the same is undone by the server and made again
//! ([`Database::retried`]). SERIALIZABLE would need no such care, but under a rush for one event it undoes nearly everybody.
//!
//! Errors are sqlx's: what a caller learns of them is for the service to say. [`is_busy`] tells those that pass by themselves.

mod errors;
mod group;
mod location;
mod open;
mod time;

use std::{
    fmt,
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{Any, AnyPool, Transaction};
use telemetry::{
    KeyValue, semconv,
    work::{Kind, Work},
};
use tokio::time::Instant;

use self::{
    errors::kind_of,
    group::{Queue, Turn},
    time::Ruling,
};
pub use self::{
    errors::{Conflict, is_busy, is_conflict},
    location::{Dialect, Location, for_update},
    open::{OpenError, Schema},
};
use crate::time::Timestamp;

/// A connection to either kind of database.
pub type Connection = sqlx::AnyConnection;

/// How long a write waits for the file when the call has no deadline.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(5);

/// What is left of a deadline for the answer once the wait for the file has been given up.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// How often a transaction is made again before its error is told: one that meets itself (a unique violation of its own
/// making) must not run for as long as the call has time.
const MAX_ATTEMPTS: u32 = 50;

/// The store as one process has it open. Clones share its connections.
#[derive(Clone)]
pub struct Database {
    writer: Writer,
    reader: AnyPool,
    dialect: Dialect,
    time: Ruling,
}

/// How a write begins.
#[derive(Clone)]
enum Writer {
    /// When it is its turn at the file.
    File(Queue),
    /// At once, on a connection of its own.
    Server(AnyPool),
}

/// A write transaction, and the instant at which it began. Dropped, it rolls back.
#[derive(Debug)]
pub struct Write {
    /// Where to execute statements. [`Write::commit`] ends it.
    pub tx: Tx,
    /// On a file, read after the file's lock was got: an instant taken before may be seconds old, and would keep alive what
    /// has expired since. On a server, by the server's clock at the beginning: the same for all machines.
    pub now: Timestamp,
    /// Whose SQL it speaks.
    pub dialect: Dialect,
}

/// What the statements of a write are executed on: a [`Connection`].
#[derive(Debug)]
pub struct Tx(Kept);

#[derive(Debug)]
enum Kept {
    Turn(Turn),
    Own(Transaction<'static, Any>),
}

impl Deref for Tx {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match &self.0 {
            Kept::Turn(turn) => turn.connection(),
            Kept::Own(tx) => tx,
        }
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Connection {
        match &mut self.0 {
            Kept::Turn(turn) => turn.connection_mut(),
            Kept::Own(tx) => tx,
        }
    }
}

impl Database {
    /// Begins a write when it is this process's turn. `time_left` is what remains of the call's deadline, if it has one: the
    /// wait ends 50 ms before it, and after 5 s in any case.
    ///
    /// # Errors
    /// One that [`is_busy`] when others kept the file, or the connections, for all that time; otherwise the database's own.
    pub async fn begin(&self, time_left: Option<Duration>) -> Result<Write, sqlx::Error> {
        let give_up = Instant::now() + patience(time_left);
        let statement = match self.dialect {
            Dialect::Sqlite => "BEGIN IMMEDIATE",
            Dialect::Postgres => "BEGIN",
        };
        // Waiting for the file is what a slow write mostly does: it shows by itself.
        let waits = self.span(statement);
        loop {
            match tokio::time::timeout_at(give_up, self.try_begin()).await {
                Ok(Ok(write)) => return Ok(write),
                // Asked here too: what fails at once (nobody listens) never meets the timeout.
                Ok(Err(error)) if is_busy(&error) && Instant::now() < give_up => waits.event("busy", Vec::new),
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

    async fn try_begin(&self) -> Result<Write, sqlx::Error> {
        let mut tx = Tx(match &self.writer {
            Writer::File(queue) => Kept::Turn(queue.turn().await?),
            Writer::Server(pool) => Kept::Own(pool.begin().await?),
        });
        let now = self.time.ask(&mut tx).await?;
        Ok(Write {
            tx,
            now,
            dialect: self.dialect,
        })
    }

    /// Makes a whole transaction, from [`Database::begin`] to [`Write::commit`], and makes it again when it met another one
    /// ([`is_conflict`]), with growing pauses, until `time_left` is nearly over. On SQLite it is made once.
    ///
    /// # Errors
    /// What the transaction says; one that [`is_busy`] when it kept meeting others for all that time.
    pub async fn retried<T, E, F>(&self, time_left: Option<Duration>, transaction: impl Fn() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: Conflict + From<sqlx::Error>,
    {
        let give_up = Instant::now() + patience(time_left);
        for attempt in 1.. {
            let error = match transaction().await {
                Err(error) if error.is_conflict() => error,
                answer => return answer,
            };
            if attempt >= MAX_ATTEMPTS {
                return Err(error);
            }
            // The other one is done by now, so the first pause is short; many others need room.
            let most = 1_u64 << attempt.min(6);
            let pause = Duration::from_micros(rand::random_range(0..=most * 1_000));
            if Instant::now() + pause >= give_up {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        Err(sqlx::Error::PoolTimedOut.into())
    }

    /// Connections that cannot write.
    #[must_use]
    pub fn reader(&self) -> &AnyPool {
        &self.reader
    }

    /// Begins a read of several statements that all see one moment. Dropped, it ends.
    ///
    /// # Errors
    /// The database's.
    pub async fn snapshot(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        let statement = match self.dialect {
            // Its first read is the moment (WAL).
            Dialect::Sqlite => "BEGIN",
            Dialect::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        self.reader.begin_with(statement).await
    }

    /// Whose SQL it speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What the clock says that rules here: on a file the one that it was opened with, on a server the server's.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// Waits for running statements and closes the connections.
    pub async fn close(&self) {
        self.reader.close().await;
        match &self.writer {
            Writer::File(queue) => queue.close().await,
            Writer::Server(pool) => pool.close().await,
        }
    }

    fn span(&self, operation: &'static str) -> Work {
        span(self.dialect, operation)
    }
}

impl Write {
    /// From here to its end, no other transaction has `word`. For what no row stands for yet: of two that would make the same
    /// thing, or would each see that the other's is not there, the second one waits here and then sees it. Before the
    /// reads that it is to protect. On SQLite the whole file is locked already.
    ///
    /// # Errors
    /// The database's.
    pub async fn lock(&mut self, word: &str) -> Result<(), sqlx::Error> {
        if self.dialect == Dialect::Postgres {
            sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
                .bind(word)
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }

    /// Ends the transaction. After this the records outlive a loss of power. Also for one that wrote nothing because all was
    /// done already: what it found may be another one's that is not committed yet, and must not be told before.
    ///
    /// # Errors
    /// The database's. Nothing was written then, unless the connection ended while the answer was awaited: one that
    /// [`is_busy`].
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        let commits = span(self.dialect, "COMMIT");
        let result = match self.tx.0 {
            Kept::Turn(turn) => turn.commit().await,
            Kept::Own(tx) => tx.commit().await,
        };
        if let Err(error) = &result {
            commits.fail(kind_of(error));
        }
        result
    }
}

/// A span of the store by the conventions for databases; nothing where the call that asks is not recorded. No statement is in
/// it: those are in the code, and what they are given is people's.
fn span(dialect: Dialect, operation: &'static str) -> Work {
    Work::begin_here(Kind::Store, operation, || {
        vec![
            KeyValue::new(semconv::DB_SYSTEM_NAME, dialect.name()),
            KeyValue::new(semconv::DB_OPERATION_NAME, operation),
        ]
    })
}

fn patience(time_left: Option<Duration>) -> Duration {
    time_left.map_or(DEFAULT_PATIENCE, |left| {
        left.saturating_sub(ANSWER_MARGIN).min(DEFAULT_PATIENCE)
    })
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Database")
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
