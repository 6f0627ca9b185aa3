//! Stores for tests: a fresh one of either kind, gone when its test is. Not for production; behind the feature `testing`.
//!
//! [`on_both_stores!`](crate::on_both_stores) runs one suite against SQLite and PostgreSQL. PostgreSQL is the machine's own
//! (Debian's package, which `tools/setup.sh` installs): one server a test process, started when the first test asks for it,
//! with fsync on. Where there is none, its tests say so and pass.

mod server;

use std::{path::Path, process::Command};

use tempfile::TempDir;

pub use self::server::{Guard, Server};
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

    /// Copies it into an empty store of the same kind, while others go on with it: by the very commands that `docs/stores.md` gives
    /// for backup and restore.
    ///
    /// # Panics
    /// When a command is not installed (`tools/setup.sh` does it), or fails.
    pub fn copy_into(&self, empty: &Self) {
        match self.location.dialect() {
            Dialect::Sqlite => {
                let backup = format!(".backup '{}'", empty.url());
                run(Command::new("sqlite3").arg(self.url()).arg(backup));
            }
            Dialect::Postgres => {
                let server = Server::shared().expect("it runs");
                let folder = TempDir::new().expect("a temporary folder");
                let dump = folder.path().join("store.dump");
                let mut save = Command::new(server.programs().join("pg_dump"));
                run(save.args(["--format=custom", "--file"]).arg(&dump).arg(self.url()));
                let mut restore = Command::new(server.programs().join("pg_restore"));
                let restore = restore.args(["--exit-on-error", "--no-owner", "--dbname"]);
                run(restore.arg(empty.url()).arg(&dump));
            }
        }
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

fn run(command: &mut Command) {
    let done = command.output().expect("installed: see tools/setup.sh");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
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
