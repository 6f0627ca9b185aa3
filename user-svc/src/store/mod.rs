//! Accounts, the ledger and orders in one SQLite file. Decides nothing that `domain` can decide.
//!
//! Each write is one transaction that holds the file's lock from its first statement on. How that is done is
//! `service-store`'s.

mod error;
mod orders;
mod rows;
mod sessions;
mod users;
mod wallet;

use std::sync::Arc;

use service_store::{Clock, Database, OpenError, Write};
use sqlx::migrate::Migrator;
use telemetry::deadline::Deadline;

pub(crate) use self::{error::StoreError, orders::Recorded, users::Known};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The store of one process. Clones share its connections.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    database: Database,
}

impl Store {
    /// Opens `location`: a path, or an SQLite URL such as `sqlite:users.db`. The file is made if there is none.
    pub(crate) async fn open(location: &str, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let database = Database::open(location, &MIGRATIONS, clock).await?;
        Ok(Self { database })
    }

    /// Waits for the file until the call's deadline, then says [`StoreError::Busy`].
    async fn begin(&self) -> Result<Write, StoreError> {
        let time_left = Deadline::current().map(|deadline| deadline.remaining());
        Ok(self.database.begin(time_left).await?)
    }

    /// Waits for running statements and closes the file.
    pub(crate) async fn close(&self) {
        self.database.close().await;
    }
}

#[cfg(test)]
mod tests;
