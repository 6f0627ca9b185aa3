//! Opens a store, brings its schema up to date and sets the limits of the pools.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sqlx::{
    AnyPool, Connection as _,
    any::{AnyConnectOptions, AnyPoolOptions},
    migrate::{MigrateError, Migration, Migrator},
};
use tokio::time::Instant;

use super::{
    Connection, DEFAULT_PATIENCE, Database, Writer,
    group::Queue,
    is_busy,
    location::{Location, Place},
    time::Ruling,
};
use crate::clock::Clock;

/// How long SQLite itself waits for the lock, each time it is asked. Short: the waiting that matters is
/// [`Database::begin`]'s, which knows the deadline.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

/// How long opening waits for other processes that open the same new file, or for a server that starts.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);

/// Readers of one process on a file. SQLite reads are short and run on a thread each; more than the cores only adds switching.
const READERS: u32 = 4;

/// A connection to a server that was used so recently is not tried before it is used again. It costs a way to the server and
/// back, and whoever meets one that has ended since is told to come again.
const FRESH: Duration = Duration::from_secs(1);

/// What PostgreSQL calls our connections, if their URL does not say. The limits: a statement that runs longer than any of
/// ours should; a wait for others' locks, which is shorter than callers wait; a transaction whose process has stopped in the
/// middle of it and keeps the rows from everybody.
const SESSION: &str = "SELECT
    set_config('application_name', coalesce(nullif(current_setting('application_name'), ''), 'tessera'), false),
    set_config('statement_timeout', '10s', false),
    set_config('lock_timeout', '3s', false),
    set_config('idle_in_transaction_session_timeout', '5s', false),
    set_config('default_transaction_isolation', 'read committed', false)";

/// Bringing a schema up to date may take longer than a statement of a call, and waits for other processes that do the same.
const MIGRATING: &str = "SELECT set_config('statement_timeout', '5min', false), set_config('lock_timeout', '0', false)";

/// The schema of a service, in both dialects: equal numbers and names, so that stores of one age are alike.
#[derive(Debug)]
pub struct Schema {
    /// For a file.
    pub sqlite: Migrator,
    /// For a server.
    pub postgres: Migrator,
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The location is a URL of something else.
    #[error("the store is neither a path nor a URL that begins with sqlite: or postgres://")]
    Scheme,
    /// The location cannot be read. It is not repeated: it may hold a password.
    #[error("the store's URL cannot be read")]
    Location {
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
    /// The URL's `max_connections` makes no sense.
    #[error("max_connections in the store's URL must be 2 to 1000")]
    Connections,
    /// The URL says something that neither we nor sqlx know: it would be passed over. Its value is not repeated, it may be a password.
    #[error(
        "the store's URL has a parameter that nobody knows{}; there are max_connections, sslmode, sslrootcert, sslcert, sslkey, host, hostaddr, port, dbname, user, password, application_name, options and statement-cache-capacity",
        name.as_ref().map(|name| format!(" ({name:?})")).unwrap_or_default()
    )]
    Parameter {
        /// Its name; not where it has no value, since what was meant to be one may stand there.
        name: Option<String>,
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
    /// The server cannot be reached, or lets us not in.
    #[error("cannot open the database {name}; does the server run, and may this user connect?")]
    Server {
        /// The database and where it is.
        name: String,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
    /// The schema is newer than this binary, or half changed.
    #[error("cannot bring the schema of {store} up to date")]
    Schema {
        /// The file, or the database and where it is.
        store: String,
        /// Why not.
        #[source]
        source: MigrateError,
    },
}

impl Schema {
    /// With the tables of another crate: its migrations, in order, become these numbers among ours. A number that a store
    /// has seen never changes again, nor does what is behind it.
    ///
    /// # Panics
    /// Without exactly one number for each migration, of its own: such a schema was never opened.
    #[must_use]
    pub fn with(self, part: &Self, numbers: &[i64]) -> Self {
        Self {
            sqlite: joined(&self.sqlite, &part.sqlite, numbers),
            postgres: joined(&self.postgres, &part.postgres, numbers),
        }
    }
}

fn joined(ours: &Migrator, part: &Migrator, numbers: &[i64]) -> Migrator {
    assert_eq!(
        part.iter().count(),
        numbers.len(),
        "a number for each migration of the part"
    );
    // The checksum is of the statements alone: under its number it is what a store that has it remembers.
    let theirs = part.iter().zip(numbers).map(|(migration, &version)| Migration {
        version,
        ..migration.clone()
    });
    let all = Migrator::with_migrations(ours.iter().cloned().chain(theirs).collect());
    assert!(
        all.migrations.is_sorted_by(|one, next| one.version < next.version),
        "no number twice"
    );
    all
}

impl Database {
    /// Opens `location` and brings its schema up to date. A file is made if there is none; a database is not. Waits up to
    /// 10 s for other processes that do the same, or for a server that starts.
    ///
    /// # Errors
    /// [`OpenError`], with the file or the database in its message and no password.
    pub async fn open(
        location: impl Into<Location>,
        schema: &Schema,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        let location = location.into();
        let place = location.place()?;
        let dialect = location.dialect();
        let time = Ruling::new(clock, dialect);
        let give_up = Instant::now() + OPEN_PATIENCE;
        loop {
            match prepare(&place, schema, &time).await {
                Ok(()) => break,
                // Switching a new file to WAL needs it alone and does not wait by itself, and three processes may start at once.
                Err(error) if error.passes() && Instant::now() < give_up => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(rand::random_range(5..=50))).await;
        }
        let (writer, reader) = match place {
            Place::File { options, .. } => (
                Writer::File(Queue::new(file_pool(1, "OFF", options.clone()))),
                file_pool(READERS, "ON", options),
            ),
            Place::Server {
                options, connections, ..
            } => {
                // Two pools, so that nobody who only reads can write, nor waits behind those who write.
                let readers = (connections * 2 / 5).max(1);
                (
                    Writer::Server(server_pool(connections - readers, "off", options.clone())),
                    server_pool(readers, "on", options),
                )
            }
        };
        Ok(Self {
            writer,
            reader,
            dialect,
            time,
        })
    }
}

impl OpenError {
    /// Is the store only busy, or not there yet?
    fn passes(&self) -> bool {
        match self {
            Self::File { source, .. } | Self::Server { source, .. } => is_busy(source),
            Self::Schema {
                source: MigrateError::Execute(source),
                ..
            } => is_busy(source),
            _ => false,
        }
    }
}

/// Opens it once, by a connection of its own: what is wrong with a store is told by name then, while a pool tries again until
/// it says that it took too long.
async fn prepare(place: &Place, schema: &Schema, time: &Ruling) -> Result<(), OpenError> {
    match place {
        Place::File { path, options } => {
            let file = |source| OpenError::File {
                path: path.clone(),
                source,
            };
            let mut connection = connect(options).await.map_err(file)?;
            file_session(&mut connection, "OFF").await.map_err(file)?;
            // Kept in the file. Readers do not wait for writers then, nor writers for them.
            let wal = sqlx::query("PRAGMA journal_mode = WAL").execute(&mut connection).await;
            wal.map_err(file)?;
            // sqlx takes no lock of its own on SQLite; under the write lock its steps become savepoints, so that processes
            // which start at once migrate one after another and the later ones find it done.
            let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.map_err(file)?;
            migrate(&schema.sqlite, &mut tx, path.display().to_string()).await?;
            tx.commit().await.map_err(file)?;
            connection.close().await.map_err(file)
        }
        Place::Server { name, options, .. } => {
            let server = |source| OpenError::Server {
                name: name.clone(),
                source,
            };
            let mut connection = connect(options).await.map_err(server)?;
            sqlx::query(SESSION).execute(&mut connection).await.map_err(server)?;
            sqlx::query(MIGRATING).execute(&mut connection).await.map_err(server)?;
            // Here sqlx takes a lock of its own (an advisory one) until it is done.
            migrate(&schema.postgres, &mut connection, name.clone()).await?;
            time.ask(&mut connection).await.map_err(server)?;
            connection.close().await.map_err(server)
        }
    }
}

async fn connect(options: &AnyConnectOptions) -> Result<Connection, sqlx::Error> {
    use sqlx::ConnectOptions as _;
    options.connect().await
}

async fn migrate(migrations: &Migrator, connection: &mut Connection, store: String) -> Result<(), OpenError> {
    migrations
        .run_direct(None, connection, false)
        .await
        .map_err(|source| OpenError::Schema { store, source })
}

/// What each connection to a file keeps to.
async fn file_session(connection: &mut Connection, query_only: &'static str) -> Result<(), sqlx::Error> {
    let millis = BUSY_TIMEOUT.as_millis();
    // Acknowledged means durable: NORMAL would lose the last commits with the machine's power.
    let session = sqlx::AssertSqlSafe(format!(
        "PRAGMA busy_timeout = {millis}; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA query_only = {query_only}"
    ));
    sqlx::raw_sql(session).execute(connection).await.map(drop)
}

fn file_pool(size: u32, query_only: &'static str, options: AnyConnectOptions) -> AnyPool {
    AnyPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(DEFAULT_PATIENCE)
        // A local file: connections do not go stale.
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(move |connection, _| Box::pin(file_session(connection, query_only)))
        // SQLite ends a transaction by itself when the disk is full or fails (see "Response To Errors Within A Transaction" in
        // its manual of transactions). sqlx then finds nothing to roll back, and counts the connection as within a transaction
        // for ever: it could not begin another one. By now its rollback has been tried, so whoever still has one is closed.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .connect_lazy_with(options)
}

fn server_pool(size: u32, read_only: &'static str, options: AnyConnectOptions) -> AnyPool {
    AnyPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(DEFAULT_PATIENCE)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                sqlx::query(SESSION).execute(&mut *connection).await?;
                sqlx::query("SELECT set_config('default_transaction_read_only', $1, false)")
                    .bind(read_only)
                    .execute(connection)
                    .await
                    .map(drop)
            })
        })
        .before_acquire(|connection, since| {
            Box::pin(async move {
                if connection.is_in_transaction() {
                    return Ok(false);
                }
                if since.idle_for < FRESH {
                    return Ok(true);
                }
                // One that has ended is replaced by another one, without a word.
                Ok(connection.ping().await.is_ok())
            })
        })
        .connect_lazy_with(options)
}
