//! What only a server does: it goes away and comes back, has a clock of its own, and limits what a connection may do.

use super::*;
use crate::{
    clock::Clock,
    testing::{Server, TestStore},
};

async fn on_a_server() -> Option<(TestStore, Database)> {
    let store = TestStore::new(Dialect::Postgres)?;
    let database = try_open(store.location()).await.expect("the store opens");
    Some((store, database))
}

/// The connections of before are dead, and nobody has told the pool.
#[tokio::test]
async fn a_server_that_was_away_is_used_again_when_it_is_back() {
    let Some(server) = Server::start() else { return };
    let database = try_open(server.url()).await.expect("the store opens");
    insert(&database, 1).await.expect("inserted");
    assert_eq!(count(&database).await, 1);
    server.crash();
    let away = database.begin(Some(Duration::from_millis(300))).await;
    let error = away.expect_err("nobody is there");
    assert!(is_busy(&error), "a retry may help: {error}");
    server.up();
    insert(&database, 2).await.expect("it is back");
    assert_eq!(count(&database).await, 2, "and has what was committed");
}

/// A commit under way when the server ends may have been made; it is told as one that a retry finds out about.
#[tokio::test]
async fn a_transaction_that_loses_its_server_is_busy() {
    let Some(server) = Server::start() else { return };
    let database = try_open(server.url()).await.expect("the store opens");
    let mut write = database.begin(None).await.expect("begun");
    server.crash();
    let inserted = sqlx::query("INSERT INTO numbers VALUES (1)")
        .execute(&mut *write.tx)
        .await;
    let error = inserted.expect_err("the server is gone");
    assert!(is_busy(&error), "{error}");
}

#[tokio::test]
async fn a_server_that_starts_is_waited_for() {
    let Some(server) = Server::start() else { return };
    server.crash();
    let url = server.url();
    // A machine that does ten other things may take longer to start it than opening waits; then it says so.
    let opening = tokio::spawn(async move {
        for _ in 0..10 {
            match try_open(url.as_str()).await {
                Err(OpenError::Server { source, .. }) if is_busy(&source) => {}
                opened => return opened.map(drop),
            }
        }
        panic!("it did not start")
    });
    let starting = tokio::task::spawn_blocking(move || {
        server.up();
        server
    });
    // Dropped, it would end.
    let _server = starting.await.expect("it starts");
    opening.await.expect("no panic").expect("opened");
}

/// Three machines with three clocks would have three opinions on when a hold ends.
#[tokio::test]
async fn the_servers_clock_rules_and_a_clock_of_a_test_rules_it() {
    struct Stopped;
    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp::from_nanos(7)
        }
    }
    let Some((_store, database)) = on_a_server().await else {
        return;
    };
    let mut write = database.begin(None).await.expect("begun");
    let said: i64 = sqlx::query_scalar("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)")
        .fetch_one(&mut *write.tx)
        .await
        .expect("the time");
    assert!(write.now.as_nanos() <= said * 1_000 + 999, "never ahead of it");
    let stopped = Ruling::new(Arc::new(Stopped), Dialect::Postgres);
    assert_eq!(
        stopped.ask(&mut write.tx).await.expect("no question"),
        Timestamp::from_nanos(7)
    );
}

#[tokio::test]
async fn a_connection_has_limits_and_a_name() {
    let Some((_store, database)) = on_a_server().await else {
        return;
    };
    let mut write = database.begin(None).await.expect("begun");
    for (setting, expected) in [
        ("statement_timeout", "10s"),
        ("lock_timeout", "3s"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("application_name", "tessera"),
        ("transaction_isolation", "read committed"),
    ] {
        let value: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(setting)
            .fetch_one(&mut *write.tx)
            .await
            .expect("a setting");
        assert_eq!(value, expected, "{setting}");
    }
    // What comes of them is busy: the statement, and the lock.
    for statement in ["SET LOCAL statement_timeout = 1", "SELECT CAST(pg_sleep(1) AS TEXT)"] {
        let result = sqlx::query(statement).execute(&mut *write.tx).await;
        if let Err(error) = result {
            assert!(is_busy(&error), "{error}");
        }
    }
}

#[tokio::test]
async fn a_wait_for_anothers_row_ends_as_busy() {
    let Some((_store, database)) = on_a_server().await else {
        return;
    };
    insert(&database, 1).await.expect("inserted");
    let mut first = database.begin(None).await.expect("begun");
    let mine = "UPDATE numbers SET n = n WHERE n = 1";
    sqlx::query(mine).execute(&mut *first.tx).await.expect("locked");
    let mut second = database.begin(None).await.expect("writers run at once");
    sqlx::query("SET LOCAL lock_timeout = '50ms'")
        .execute(&mut *second.tx)
        .await
        .expect("set");
    let error = sqlx::query(mine).execute(&mut *second.tx).await.expect_err("locked");
    assert!(is_busy(&error) && !is_conflict(&error), "{error}");
}

/// The server undoes one of two that wait for each other; made again, it finds the way free.
#[tokio::test]
async fn two_that_wait_for_each_other_both_get_through() {
    async fn both(database: &Database, order: [i64; 2]) -> Result<(), sqlx::Error> {
        let mut write = database.begin(None).await?;
        for number in order {
            let mine = sqlx::query("UPDATE numbers SET n = n WHERE n = $1").bind(number);
            mine.execute(&mut *write.tx).await?;
            tokio::task::yield_now().await;
        }
        write.commit().await
    }
    let Some((_store, database)) = on_a_server().await else {
        return;
    };
    for number in [1, 2] {
        insert(&database, number).await.expect("inserted");
    }
    for _ in 0..20 {
        let (one, other) = tokio::join!(
            database.retried(None, || both(&database, [1, 2])),
            database.retried(None, || both(&database, [2, 1])),
        );
        one.and(other).expect("both, one after the other");
    }
}

#[tokio::test]
async fn who_may_not_connect_is_told_at_once_and_without_a_password() {
    let Some(server) = Server::shared() else { return };
    let nobody = server.url().replace("postgres@", "nobody:secret@");
    let error = try_open(nobody).await.expect_err("no such user");
    let OpenError::Server { name, source } = &error else {
        panic!("{error:?}")
    };
    assert!(!is_busy(source), "no retry helps: {source}");
    assert!(name.starts_with("postgres at /"), "{name}");
    assert!(!format!("{error:?} {error}").contains("secret"));
}
