//! Opens the file, brings its schema up to date and sets the limits of the pools.

use std::{path::PathBuf, str::FromStr as _, sync::Arc, time::Duration};

use sqlx::{
    Connection as _, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::Instant;

use super::{Database, is_busy};
use crate::clock::Clock;

/// How long SQLite itself waits for the lock, each time it is asked. Short: the waiting that matters is
/// [`Database::begin`]'s, which knows the deadline.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

/// How long opening waits for other processes that open the same new file.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);

/// Readers of one process. SQLite reads are short and run on a thread each; more than the cores only adds switching.
const READERS: u32 = 4;

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The location is not a path or an SQLite URL.
    #[error("{location:?} is not a path or an sqlite: URL")]
    Location {
        /// As configured.
        location: String,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
    /// The location is empty or memory: records outlive the process, and processes may share them.
    #[error("the store must be a file: give its path, or an sqlite: URL")]
    NoFile,
    /// The file cannot be opened or written.
    #[error("cannot open the store {}; is its directory writable?", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
    /// The schema is newer than this binary, or half changed.
    #[error("cannot bring the schema of {} up to date", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: MigrateError,
    },
}

impl Database {
    /// Opens `location`, a path or an SQLite URL such as `sqlite:tickets.db`, and brings its schema up to date. The file is
    /// made if there is none. Waits up to 10 s for other processes that do the same.
    ///
    /// # Errors
    /// [`OpenError`], with the location or the file in its message.
    pub async fn open(location: &str, migrations: &Migrator, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let options = options(location)?;
        let path = options.get_filename().to_path_buf();
        let writer = pool(1, options.clone());
        let reader = pool(READERS, options.pragma("query_only", "ON"));
        let database = Self { writer, reader, clock };
        let give_up = Instant::now() + OPEN_PATIENCE;
        loop {
            match database.migrate(migrations, &path).await {
                Ok(()) => return Ok(database),
                // Switching a new file to WAL needs it alone and does not wait by itself, and three processes may start at once.
                Err(OpenError::File { source, .. }) if is_busy(&source) => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= give_up {
                return Err(OpenError::File {
                    path,
                    source: sqlx::Error::PoolTimedOut,
                });
            }
            tokio::time::sleep(Duration::from_millis(rand::random_range(5..=50))).await;
        }
    }

    async fn migrate(&self, migrations: &Migrator, path: &std::path::Path) -> Result<(), OpenError> {
        let file = |source| OpenError::File {
            path: path.to_path_buf(),
            source,
        };
        // sqlx takes no lock of its own on SQLite; under the write lock its steps become savepoints, so that processes
        // which start at once migrate one after another and the later ones find it done.
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(file)?;
        migrations
            .run_direct(None, &mut *tx, false)
            .await
            .map_err(|source| OpenError::Schema {
                path: path.to_path_buf(),
                source,
            })?;
        tx.commit().await.map_err(file)
    }
}

fn options(location: &str) -> Result<SqliteConnectOptions, OpenError> {
    if location.is_empty() || location.contains(":memory:") || location.contains("mode=memory") {
        return Err(OpenError::NoFile);
    }
    let options = if location.starts_with("sqlite:") {
        SqliteConnectOptions::from_str(location).map_err(|source| OpenError::Location {
            location: location.to_owned(),
            source,
        })?
    } else {
        SqliteConnectOptions::new().filename(location)
    };
    Ok(options
        .create_if_missing(true)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        // Acknowledged means durable: NORMAL would lose the last commits with the machine's power.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT))
}

fn pool(size: u32, options: SqliteConnectOptions) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(size)
        .acquire_timeout(super::DEFAULT_PATIENCE)
        // A local file: connections do not go stale.
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        // SQLite ends a transaction by itself when the disk is full or fails (see "Response To Errors Within A Transaction" in
        // its manual of transactions). sqlx then finds nothing to roll back, and counts the connection as within a transaction
        // for ever: it could not begin another one. By now its rollback has been tried, so whoever still has one is closed.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .connect_lazy_with(options)
}
