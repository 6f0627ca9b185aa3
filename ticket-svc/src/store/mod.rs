//! Events, seats and holds in a store that several processes share: an SQLite file, or a PostgreSQL database. Decides nothing
//! that `domain` can decide.
//!
//! Each write is one transaction. On SQLite it has the file alone. On PostgreSQL others run beside it, so:
//! 1. a seat changes by one conditional write on what it is (its state, or its version), and whoever changed fewer seats than
//!    it meant to gives up all of them;
//! 2. whoever decides on a hold has locked its row; on a hold that is not there, its id ([`Write::lock`]);
//! 3. the row of a hold is locked before seats, and seats front to back;
//! 4. no row is written by all buyers of an event.
//!
//! How transactions wait, meet, share a commit and are made again is `service-store`'s. Who answers well commits first, also
//! when nothing was left to do: what it found may be another one's that is not committed yet.

mod changes;
mod error;
mod events;
mod figures;
mod holds;
mod keys;
mod refunds;
mod rows;
mod sales;
mod search;
mod seats;
mod sweep;
mod take;
mod tickets;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use outbox::Bell;
use service_store::{Clock, Database, Location, OpenError, Schema, Timestamp, Write};
use telemetry::deadline::Deadline;

pub(crate) use self::{
    changes::Changes,
    error::StoreError,
    figures::{SectionSales, revenue},
    seats::SeatView,
    tickets::CheckedTicket,
};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let ours = Schema {
        sqlite: sqlx::migrate!("./migrations/sqlite"),
        postgres: sqlx::migrate!("./migrations/postgres"),
    };
    ours.with(&outbox::schema(), &[31])
});

/// The store of one process. Clones share its connections.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    database: Database,
    changes: Changes,
    /// Rung when an event was committed.
    bell: Bell,
}

impl Store {
    /// Opens `location`: a file, which is made if there is none, or a database of a server.
    pub(crate) async fn open(location: impl Into<Location>, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let database = Database::open(location, &SCHEMA, clock).await?;
        Ok(Self {
            database,
            changes: Changes::default(),
            bell: Bell::default(),
        })
    }

    /// What the clock says that rules here.
    pub(crate) fn now(&self) -> Timestamp {
        self.database.now()
    }

    /// What this process has changed, for those who watch.
    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The event's seats have changed, and what changed is committed, with what others are told of it.
    fn changed(&self, event: i64) {
        self.changes.tell(event);
        self.bell.ring();
    }

    /// For what has its own statements.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Rings when events were written.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
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
