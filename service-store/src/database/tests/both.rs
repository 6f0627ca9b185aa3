//! What a store promises, of whichever kind it is.

use tokio::task::JoinSet;

use super::*;
use crate::testing::TestStore;

async fn open_at(store: &TestStore) -> Database {
    try_open(store.location()).await.expect("the store opens")
}

/// Adds one to what `n` counts, as a read and a write that depends on it: 0 rows when another one was first.
async fn add_one(database: &Database) -> Result<(), sqlx::Error> {
    let mut write = database.begin(None).await?;
    let count: i64 = sqlx::query_scalar("SELECT max(n) FROM numbers")
        .fetch_one(&mut *write.tx)
        .await?;
    // Unique, so that of two who read the same number one fails.
    let added = sqlx::query("INSERT INTO numbers VALUES ($1)").bind(count + 1);
    added.execute(&mut *write.tx).await?;
    write.commit().await
}

/// On SQLite: sqlx takes no migration lock, and switching a new file to WAL does not wait, so that three processes that
/// start on a new file at the same instant failed with "database is locked" or "table already exists".
async fn three_processes_open_a_new_store_at_once(store: TestStore) {
    let mut processes = JoinSet::new();
    for number in 0..3 {
        let location = store.location();
        processes.spawn(async move {
            let database = try_open(location).await.expect("the store opens");
            insert(&database, number).await.expect("inserted");
        });
    }
    processes.join_all().await;
    assert_eq!(count(&open_at(&store).await).await, 3);
}

async fn what_is_not_committed_was_never_there(store: TestStore) {
    let database = open_at(&store).await;
    let mut write = database.begin(None).await.expect("begun");
    sqlx::query("INSERT INTO numbers VALUES (1)")
        .execute(&mut *write.tx)
        .await
        .expect("inserted");
    assert_eq!(count(&database).await, 0, "readers see what is committed");
    drop(write);
    insert(&database, 1).await.expect("no such number yet");
    assert_eq!(count(&database).await, 1);
}

async fn readers_cannot_write(store: TestStore) {
    let database = open_at(&store).await;
    let written = sqlx::query("INSERT INTO numbers VALUES (1)")
        .execute(database.reader())
        .await;
    let error = written.expect_err("readers only read");
    assert!(!is_busy(&error) && !is_conflict(&error), "no retry helps: {error}");
}

/// Two processes of four tasks each, all of them wanting the next number: whoever meets another one is made again, and
/// nobody hears of it.
async fn transactions_that_meet_are_made_again_until_each_has_its_turn(store: TestStore) {
    let processes = [open_at(&store).await, open_at(&store).await];
    insert(&processes[0], 0).await.expect("the first number");
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let database = processes[task % 2].clone();
        tasks.spawn(async move {
            for _ in 0..5 {
                let left = Some(Duration::from_secs(30));
                let added = database.retried(left, || add_one(&database)).await;
                added.expect("in time");
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(count(&processes[0]).await, 41);
}

/// A word that is locked is locked for one, and free again at the end of the transaction.
async fn a_locked_word_has_one_owner_until_the_end(store: TestStore) {
    let processes = [open_at(&store).await, open_at(&store).await];
    let mut tasks = JoinSet::new();
    for task in 0..6 {
        let database = processes[task % 2].clone();
        tasks.spawn(async move {
            let mut write = database.begin(None).await.expect("begun");
            write.lock("numbers").await.expect("locked");
            let next: i64 = sqlx::query_scalar("SELECT count(*) FROM numbers")
                .fetch_one(&mut *write.tx)
                .await
                .expect("a count");
            let added = sqlx::query("INSERT INTO numbers VALUES ($1)")
                .bind(next)
                .execute(&mut *write.tx)
                .await;
            added.expect("nobody else counted the same");
            write.commit().await.expect("committed");
        });
    }
    tasks.join_all().await;
    assert_eq!(count(&processes[0]).await, 6);
}

/// An error that repeats itself is told after some attempts, and not when the time is over.
async fn a_transaction_that_meets_itself_is_not_made_for_ever(store: TestStore) {
    let database = open_at(&store).await;
    insert(&database, 1).await.expect("new");
    let error = database
        .retried(None, || insert(&database, 1))
        .await
        .expect_err("there is one");
    assert!(
        error
            .as_database_error()
            .is_some_and(|error| error.is_unique_violation()),
        "{error}"
    );
}

async fn all_kinds_of_values_come_back_as_they_went(store: TestStore) {
    let database = open_at(&store).await;
    type Row = (i64, String, Vec<u8>, Option<i64>, Option<String>, Option<Vec<u8>>);
    let row: Row = sqlx::query_as("SELECT CAST($1 AS BIGINT), $2, $3, CAST($4 AS BIGINT), $5, $6")
        .bind(i64::MIN)
        .bind("\u{202e}ä\u{1f3ab}")
        .bind(vec![0_u8, 255])
        .bind(None::<i64>)
        .bind(None::<String>)
        .bind(None::<Vec<u8>>)
        .fetch_one(database.reader())
        .await
        .expect("a row");
    assert_eq!(
        row,
        (i64::MIN, "\u{202e}ä\u{1f3ab}".into(), vec![0, 255], None, None, None)
    );
}

crate::on_both_stores![
    three_processes_open_a_new_store_at_once,
    what_is_not_committed_was_never_there,
    readers_cannot_write,
    transactions_that_meet_are_made_again_until_each_has_its_turn,
    a_locked_word_has_one_owner_until_the_end,
    a_transaction_that_meets_itself_is_not_made_for_ever,
    all_kinds_of_values_come_back_as_they_went,
];
