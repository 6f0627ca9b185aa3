//! A real store under several processes at once. A process is a [`Database`] of its own here. What only a file does is tested
//! here, what both kinds do in `tests/both.rs`, what only a server does in `tests/server.rs`.

mod both;
mod group;
mod guarded;
mod server;

use std::sync::Arc;

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};
use tempfile::TempDir;

use super::*;
use crate::clock::SystemClock;

fn migrations(statement: &'static str) -> Migrator {
    let first = Migration::new(
        1,
        "numbers".into(),
        MigrationType::Simple,
        statement.into_sql_str(),
        false,
    );
    Migrator::with_migrations(vec![first])
}

async fn try_open(location: impl Into<Location>) -> Result<Database, OpenError> {
    let schema = Schema {
        sqlite: migrations("CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT"),
        postgres: migrations("CREATE TABLE numbers (n BIGINT PRIMARY KEY)"),
    };
    Database::open(location, &schema, Arc::new(SystemClock)).await
}

async fn open(folder: &TempDir) -> Database {
    let path = folder.path().join("numbers.db");
    try_open(path.as_path()).await.expect("the file opens")
}

async fn insert(database: &Database, number: i64) -> Result<(), sqlx::Error> {
    let mut write = database.begin(None).await?;
    sqlx::query("INSERT INTO numbers VALUES ($1)")
        .bind(number)
        .execute(&mut *write.tx)
        .await?;
    write.commit().await
}

async fn count(database: &Database) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM numbers")
        .fetch_one(database.reader())
        .await
        .expect("a count")
}

/// A crate's tables among a service's own: under their number, and as they are.
#[test]
fn a_schema_takes_up_another_ones_migrations_under_numbers_of_its_own() {
    let schema = |statement| Schema {
        sqlite: migrations(statement),
        postgres: migrations(statement),
    };
    let part = schema("CREATE TABLE theirs (n BIGINT)");
    let whole = schema("CREATE TABLE ours (n BIGINT)").with(&part, &[7]);
    for whole in [whole.sqlite, whole.postgres] {
        let read: Vec<_> = whole.iter().map(|one| (one.version, one.sql.as_str())).collect();
        assert_eq!(
            read,
            [
                (1, "CREATE TABLE ours (n BIGINT)"),
                (7, "CREATE TABLE theirs (n BIGINT)")
            ]
        );
        let theirs = part.sqlite.iter().next().expect("one");
        assert_eq!(whole.iter().last().expect("two").checksum, theirs.checksum);
    }
}

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

/// A start that meets a rush must not fail for it: opening waits, and longer than SQLite does by itself.
#[tokio::test]
async fn opening_waits_for_a_file_that_another_process_keeps() {
    let folder = folder();
    let lock = open(&folder).await.begin(None).await.expect("the lock");
    let mut opening = Box::pin(open(&folder));
    let early = tokio::time::timeout(3 * open::BUSY_TIMEOUT, &mut opening).await;
    assert!(early.is_err(), "it neither opened nor gave up");
    drop(lock);
    opening.await;
}

/// Another process keeps the file: the call gives up and says that a retry may help. How long that takes is a matter of
/// [`patience`], which is tested without a clock: a slow machine delays the answer too, and would fail a test of its time.
#[tokio::test]
async fn a_locked_file_is_busy_while_it_is_locked_and_free_again_after() {
    let folder = folder();
    let (database, other) = (open(&folder).await, open(&folder).await);
    let lock = other.begin(None).await.expect("the lock");
    let time_left = Some(Duration::from_millis(400));
    let error = database.begin(time_left).await.expect_err("the file is locked");
    assert!(is_busy(&error), "{error}");
    drop(lock);
    insert(&database, 1).await.expect("the lock is free");
}

/// Writes until the disk is full, which a limit on the file's pages plays.
async fn fill(write: &mut Write) -> sqlx::Error {
    // No file can be limited to less than it has.
    let limited = sqlx::query("PRAGMA max_page_count = 1").execute(&mut *write.tx).await;
    limited.expect("limited");
    for number in 10..100_000_i64 {
        let inserted = sqlx::query("INSERT INTO numbers VALUES ($1)")
            .bind(number)
            .execute(&mut *write.tx)
            .await;
        if let Err(error) = inserted {
            return error;
        }
    }
    panic!("100,000 numbers on a page")
}

async fn unlimited(database: &Database) {
    let mut write = database.begin(None).await.expect("a write begins");
    let unlimited = sqlx::query("PRAGMA max_page_count = 1000000").execute(&mut *write.tx);
    unlimited.await.expect("unlimited");
}

/// SQLite rolls back by itself when the disk is full. sqlx did not notice, the process's only writing connection went back to
/// the pool as if it were within a transaction, and every later write of the process failed until its restart: one moment
/// without space was an outage.
#[tokio::test]
async fn a_disk_that_was_full_for_a_moment_can_be_written_again() {
    let folder = folder();
    let database = open(&folder).await;
    let mut write = database.begin(None).await.expect("the lock");
    let error = fill(&mut write).await;
    let code = error.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some("13"), "SQLITE_FULL: {error}");
    drop(write);
    assert_eq!(count(&database).await, 0, "nothing of it was written");
    // There is space again.
    unlimited(&database).await;
    insert(&database, 1).await.expect("the process can write again");
    assert_eq!(count(&database).await, 1);
}

/// The same, noticed by the commit: there was nothing left to commit, and nothing to roll back after that.
#[tokio::test]
async fn a_commit_that_failed_is_not_the_last_write() {
    let folder = folder();
    let database = open(&folder).await;
    let mut write = database.begin(None).await.expect("the lock");
    // As SQLite does by itself, unseen by sqlx, when it cannot write.
    sqlx::query("ROLLBACK")
        .execute(&mut *write.tx)
        .await
        .expect("rolled back");
    write.commit().await.expect_err("nothing to commit");
    insert(&database, 1).await.expect("the process can write again");
    assert_eq!(count(&database).await, 1);
}

#[tokio::test]
async fn a_place_that_cannot_be_a_shared_file_is_refused() {
    for location in ["", ":memory:", "sqlite::memory:", "sqlite:x?mode=memory"] {
        let error = try_open(location).await.expect_err("not a file");
        assert!(matches!(error, OpenError::NoFile), "{location:?}: {error}");
    }
    for location in ["mysql://h/numbers", "etcd://h"] {
        let error = try_open(location).await.expect_err("not ours");
        assert!(matches!(error, OpenError::Scheme), "{location:?}: {error}");
    }
    let error = try_open("/nonexistent/folder/numbers.db")
        .await
        .expect_err("no such folder");
    assert!(matches!(error, OpenError::File { .. }), "{error}");
}

#[test]
fn the_wait_leaves_time_to_answer_and_has_an_end() {
    for (left, waits) in [
        (None, DEFAULT_PATIENCE),
        (Some(Duration::ZERO), Duration::ZERO),
        (Some(ANSWER_MARGIN), Duration::ZERO),
        (Some(Duration::from_millis(400)), Duration::from_millis(350)),
        (Some(Duration::from_secs(3600)), DEFAULT_PATIENCE),
    ] {
        assert_eq!(patience(left), waits, "{left:?}");
    }
}
