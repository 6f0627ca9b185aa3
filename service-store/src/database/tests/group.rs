//! Writes that share a commit: nobody is answered before it, who gives up takes nobody along, and a failure is everybody's.

use std::collections::BTreeSet;

use tokio::task::JoinHandle;

use super::*;

/// A write that waits for its turn, begun once `before` commits: it is in the queue by then.
async fn in_line(database: &Database) -> JoinHandle<Write> {
    let Writer::File(queue) = &database.writer else {
        panic!("a file")
    };
    let waiting = queue.waiting();
    let waits = database.clone();
    let turn = tokio::spawn(async move { waits.begin(None).await.expect("its turn") });
    while queue.waiting() == waiting {
        tokio::task::yield_now().await;
    }
    turn
}

async fn put(write: &mut Write, number: i64) {
    let inserted = sqlx::query("INSERT INTO numbers VALUES ($1)")
        .bind(number)
        .execute(&mut *write.tx);
    inserted.await.expect("inserted");
}

/// The first has written and commits while the second waits: the turn is the second one's.
async fn two(database: &Database) -> (JoinHandle<Result<(), sqlx::Error>>, Write) {
    let mut first = database.begin(None).await.expect("begun");
    put(&mut first, 1).await;
    let second = in_line(database).await;
    let first = tokio::spawn(first.commit());
    let mut second = second.await.expect("no panic");
    put(&mut second, 2).await;
    (first, second)
}

#[tokio::test]
async fn who_commits_while_others_wait_is_answered_with_them() {
    let folder = folder();
    let database = open(&folder).await;
    let (first, second) = two(&database).await;
    assert_eq!(
        count(&database).await,
        0,
        "nothing is committed while the second one writes"
    );
    assert!(!first.is_finished(), "nobody is answered before the commit");
    second.commit().await.expect("committed");
    first.await.expect("no panic").expect("committed");
    assert_eq!(count(&database).await, 2);
}

/// What the second one found was the first one's work, which was not committed: had it been told so at once, a failed commit would have
/// taken back what somebody already knew.
#[tokio::test]
async fn who_finds_everything_done_waits_for_the_commit_of_who_did_it() {
    let folder = folder();
    let database = open(&folder).await;
    let mut first = database.begin(None).await.expect("begun");
    put(&mut first, 1).await;
    let second = in_line(&database).await;
    let third = in_line(&database).await;
    let first = tokio::spawn(first.commit());
    let mut second = second.await.expect("no panic");
    let found: i64 = sqlx::query_scalar("SELECT count(*) FROM numbers")
        .fetch_one(&mut *second.tx)
        .await
        .expect("a count");
    assert_eq!(found, 1);
    let second = tokio::spawn(second.commit());
    let third = third.await.expect("no panic");
    assert!(!second.is_finished());
    drop(third);
    second.await.expect("no panic").expect("committed");
    first.await.expect("no panic").expect("committed");
    assert_eq!(count(&database).await, 1);
}

#[tokio::test]
async fn who_gives_up_takes_nobody_along() {
    let folder = folder();
    let database = open(&folder).await;
    let (first, second) = two(&database).await;
    drop(second);
    first.await.expect("no panic").expect("committed");
    assert_eq!(count(&database).await, 1);
    insert(&database, 2).await.expect("its number is free");
}

/// SQLite undoes the whole transaction when the disk is full: what the first one had written is gone with the rest.
#[tokio::test]
async fn a_failure_that_undoes_all_is_told_to_all() {
    for commits in [false, true] {
        let folder = folder();
        let database = open(&folder).await;
        let (first, mut second) = two(&database).await;
        let error = fill(&mut second).await;
        let code = error.as_database_error().and_then(|error| error.code());
        assert_eq!(code.as_deref(), Some("13"), "SQLITE_FULL: {error}");
        if commits {
            second.commit().await.expect_err("nothing is left to commit");
        } else {
            drop(second);
        }
        let error = first.await.expect("no panic").expect_err("undone");
        assert!(!is_busy(&error), "it is no matter of waiting: {error}");
        assert_eq!(count(&database).await, 0);
        unlimited(&database).await;
        insert(&database, 3).await.expect("the process can write again");
        assert_eq!(count(&database).await, 1);
    }
}

/// A caller that hangs up in the middle of its commit must not leave the file locked, nor others without their answer.
#[tokio::test]
async fn a_commit_that_nobody_waits_for_any_more_is_made() {
    let folder = folder();
    let database = open(&folder).await;
    let mut first = database.begin(None).await.expect("begun");
    put(&mut first, 1).await;
    let second = in_line(&database).await;
    let mut commit = Box::pin(first.commit());
    assert!(futures_now(&mut commit).await.is_none(), "it waits for the second one");
    drop(commit);
    drop(second.await.expect("no panic"));
    insert(&database, 3).await.expect("nobody keeps the file");
    assert_eq!(count(&database).await, 2);
    database.close().await;
}

/// The answer, if it is there at once.
async fn futures_now<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    tokio::select! {
        biased;
        answer = future => Some(answer),
        () = tokio::task::yield_now() => None,
    }
}

/// Two processes of a hundred writers each, every third of whom gives up: exactly those numbers are there that were answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_answered_is_there_and_nothing_else() {
    let folder = folder();
    let processes = [open(&folder).await, open(&folder).await];
    let mut all = tokio::task::JoinSet::new();
    for number in 0..200_i64 {
        let database = processes[number as usize % 2].clone();
        all.spawn(async move {
            let mut write = database.begin(Some(Duration::from_secs(60))).await.expect("its turn");
            put(&mut write, number).await;
            if number % 3 == 0 {
                return None;
            }
            write.commit().await.expect("committed");
            let found: Option<i64> = sqlx::query_scalar("SELECT n FROM numbers WHERE n = $1")
                .bind(number)
                .fetch_optional(database.reader())
                .await
                .expect("read");
            assert_eq!(found, Some(number), "it was answered before readers see it");
            Some(number)
        });
    }
    let answered: BTreeSet<i64> = all.join_all().await.into_iter().flatten().collect();
    let there: Vec<i64> = sqlx::query_scalar("SELECT n FROM numbers ORDER BY n")
        .fetch_all(processes[0].reader())
        .await
        .expect("read");
    assert_eq!(there, answered.into_iter().collect::<Vec<_>>());
}
