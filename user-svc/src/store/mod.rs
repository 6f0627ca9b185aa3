//! Accounts, the ledger and orders in an SQLite file or a PostgreSQL database. Decides nothing that `domain` can decide.
//!
//! Each write is one transaction. On SQLite it has the file alone. On PostgreSQL others run beside it, so an order moves on by a
//! conditional write on its version, a wallet changes under its row's lock, and what there may be once is a unique index.
//! A user's row is locked before an order's. How transactions wait, meet, share a commit and are made again is `service-store`'s: who
//! answers well commits first, also when nothing was left to do.

mod audit;
mod claims;
mod error;
mod keys;
mod ledger;
mod mails;
mod orders;
mod profile;
mod refunds;
mod rows;
mod sessions;
mod users;
mod wallet;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use outbox::Bell;
use service_store::{Clock, Database, Location, OpenError, Schema, Timestamp, Write};
use telemetry::deadline::Deadline;

use self::claims::{Claimant, DEFAULT_LEASE};
pub(crate) use self::{error::StoreError, orders::Recorded, profile::NewProfile, sessions::NewSession, users::Known};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let ours = Schema {
        sqlite: sqlx::migrate!("./migrations/sqlite"),
        postgres: sqlx::migrate!("./migrations/postgres"),
    };
    ours.with(&outbox::schema(), &[11])
});

/// The store of one process. Clones share its connections.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    database: Database,
    /// As whom it claims orders.
    claimant: Arc<Claimant>,
    /// Rung when an event was committed.
    bell: Bell,
}

impl Store {
    /// Opens `location`: a file, which is made if there is none, or a database of a server.
    pub(crate) async fn open(location: impl Into<Location>, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let database = Database::open(location, &SCHEMA, clock).await?;
        let claimant = Claimant::new("", DEFAULT_LEASE).into();
        let bell = Bell::default();
        Ok(Self {
            database,
            claimant,
            bell,
        })
    }

    /// Makes a whole transaction, and makes it again when it met another one, until the call's deadline; says
    /// [`StoreError::Busy`] then. Every write of this store is one of these.
    async fn whole<T, F>(&self, transaction: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.database.retried(time_left(), transaction).await
    }

    /// Waits for its turn until the call's deadline, then says [`StoreError::Busy`].
    async fn begin(&self) -> Result<Write, StoreError> {
        Ok(self.database.begin(time_left()).await?)
    }

    /// For what has its own statements.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Rings when events were written.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// By the clock that records are written by.
    pub(crate) fn now(&self) -> Timestamp {
        self.database.now()
    }

    /// Waits for running statements and closes the connections.
    pub(crate) async fn close(&self) {
        self.database.close().await;
    }
}

/// What remains of the call's deadline, if it has one.
fn time_left() -> Option<Duration> {
    Deadline::current().map(|deadline| deadline.remaining())
}

#[cfg(test)]
mod tests;
