//! Stores for tests: a fresh one of either kind, gone when its test is. Not for production; behind the feature `testing`.
//!
//! [`on_both_stores!`](crate::on_both_stores) runs one suite against SQLite and PostgreSQL. PostgreSQL is the machine's own
//! (Debian's package, which `tools/setup.sh` installs): one server a test process, started when the first test asks for it,
//! with fsync on. Where there is none, its tests say so and pass.

mod server;

use std::path::Path;

use tempfile::TempDir;

pub use self::server::Server;
use crate::{Dialect, Location};

/// An empty store of one test.
#[derive(Debug)]
pub struct TestStore {
    location: Location,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    File(TempDir),
    Database(server::TestDatabase),
}

impl TestStore {
    /// A new one. `None` when it cannot be had here; that is said on stderr then.
    ///
    /// # Panics
    /// When there is a PostgreSQL and it does not start.
    #[must_use]
    pub fn new(dialect: Dialect) -> Option<Self> {
        match dialect {
            Dialect::Sqlite => {
                let folder = TempDir::new().expect("a temporary folder");
                let location = Location::from(folder.path().join("store.db").as_path());
                let kept = Kept::File(folder);
                Some(Self { location, kept })
            }
            Dialect::Postgres => Some(Self::on(Server::shared()?)),
        }
    }

    /// A new database on a server of the test's own, which it may stop.
    #[must_use]
    pub fn on(server: &Server) -> Self {
        let database = server.database();
        let location = database.location();
        let kept = Kept::Database(database);
        Self { location, kept }
    }

    /// Where it is. Every process of a test opens this.
    #[must_use]
    pub fn location(&self) -> Location {
        self.location.clone()
    }

    /// The same as text, for those who take it as a flag.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.kept {
            Kept::File(folder) => folder.path().join("store.db").display().to_string(),
            Kept::Database(database) => database.url().to_owned(),
        }
    }

    /// The folder of the file, where it is one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.kept {
            Kept::File(folder) => Some(folder.path()),
            Kept::Database(_) => None,
        }
    }
}

/// Runs each of the named functions once on SQLite and once on PostgreSQL, as `sqlite::NAME` and `postgres::NAME`. Each takes
/// an empty [`TestStore`]. One that is not named is dead code, which the compiler says.
///
/// ```text
/// async fn a_wallet_is_never_overdrawn(store: TestStore) { … }
///
/// service_store::on_both_stores![a_wallet_is_never_overdrawn];
/// ```
#[macro_export]
macro_rules! on_both_stores {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                if let Some(store) = $crate::testing::TestStore::new($crate::Dialect::Sqlite) {
                    super::$name(store).await;
                }
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                if let Some(store) = $crate::testing::TestStore::new($crate::Dialect::Postgres) {
                    super::$name(store).await;
                }
            })*
        }
    };
}
