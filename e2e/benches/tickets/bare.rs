//! The limit: the three statements of a purchase and nothing else, straight to a database of the same kind.

use std::{
    str::FromStr as _,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use service_store::{Dialect, testing::TestStore};
use sqlx::{
    AnyPool,
    any::{AnyConnectOptions, AnyPoolOptions},
};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    report::Figures,
    rush::{BUYERS, TIME},
};

/// As many as the market's people.
const WALLETS: i64 = 256;
/// Seats that a round adds: more than can be sold in its time.
const SEATS: i64 = 100_000;

/// Seats and wallets in two tables.
pub(crate) struct Bare {
    pool: AnyPool,
    /// The next seat to be sold, counted over all rounds.
    next: Arc<AtomicI64>,
    dialect: Dialect,
}

impl Bare {
    pub(crate) async fn open(store: &TestStore) -> Self {
        sqlx::any::install_default_drivers();
        let dialect = store.location().dialect();
        let url = match dialect {
            Dialect::Sqlite => format!("sqlite://{}?mode=rwc", store.url()),
            Dialect::Postgres => store.url(),
        };
        // SQLite writes one after the other in any case; on a server as many at once as there are buyers.
        let connections = match dialect {
            Dialect::Sqlite => 1,
            Dialect::Postgres => u32::try_from(BUYERS).unwrap_or(u32::MAX),
        };
        let pool = AnyPoolOptions::new()
            .max_connections(connections)
            .test_before_acquire(false)
            .connect_with(AnyConnectOptions::from_str(&url).expect("a URL"))
            .await
            .expect("a database");
        if dialect == Dialect::Sqlite {
            // As durable as ours: a commit outlives a loss of power.
            run(&pool, "PRAGMA journal_mode = WAL").await;
            run(&pool, "PRAGMA synchronous = FULL").await;
        }
        run(
            &pool,
            "CREATE TABLE seats (id BIGINT PRIMARY KEY, state BIGINT NOT NULL, hold BIGINT, version BIGINT NOT NULL)",
        )
        .await;
        run(
            &pool,
            "CREATE TABLE wallets (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)",
        )
        .await;
        run(
            &pool,
            &format!("{} SELECT n, 1000000000 FROM numbers", numbers("wallets", 0, WALLETS)),
        )
        .await;
        Self {
            pool,
            next: Arc::default(),
            dialect,
        }
    }

    /// One turn.
    pub(crate) async fn round(&self) -> Figures {
        let first = self.next.load(Ordering::Relaxed);
        self.add_seats(first).await;
        let begun = Instant::now();
        let mut all = JoinSet::new();
        for _ in 0..BUYERS {
            let (pool, next) = (self.pool.clone(), self.next.clone());
            all.spawn(async move {
                let mut answers = Vec::new();
                while begun.elapsed() < TIME {
                    let seat = next.fetch_add(1, Ordering::Relaxed);
                    assert!(seat < first + SEATS, "too few seats for so fast a machine");
                    let asked = Instant::now();
                    purchase(&pool, seat).await;
                    answers.push(asked.elapsed());
                }
                answers
            });
        }
        let answers = all.join_all().await.concat();
        Figures::of(answers, begun.elapsed())
    }

    /// What the last round left is taken away: the table is as large in each.
    async fn add_seats(&self, first: i64) {
        run(&self.pool, "DELETE FROM seats").await;
        let insert = numbers("seats", first, first + SEATS);
        run(&self.pool, &format!("{insert} SELECT n, 0, NULL, 1 FROM numbers")).await;
        if self.dialect == Dialect::Postgres {
            run(&self.pool, "VACUUM seats").await;
        }
    }
}

async fn purchase(pool: &AnyPool, seat: i64) {
    let statements = [
        "UPDATE seats SET state = 1, hold = $1, version = version + 1 WHERE id = $1 AND state = 0",
        "UPDATE wallets SET balance = balance - 2500 WHERE id = $1 % 256 AND balance >= 2500",
        "UPDATE seats SET state = 2, version = version + 1 WHERE id = $1 AND state = 1 AND hold = $1",
    ];
    for statement in statements {
        let done = sqlx::query(statement).bind(seat).execute(pool).await.expect("executed");
        assert_eq!(done.rows_affected(), 1, "{statement}");
    }
}

/// The beginning of an insert of the numbers from `first` to `end`.
fn numbers(table: &str, first: i64, end: i64) -> String {
    format!(
        "INSERT INTO {table} WITH RECURSIVE numbers (n) AS (SELECT CAST({first} AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n < {})",
        end - 1
    )
}

async fn run(pool: &AnyPool, statement: &str) {
    let done = sqlx::query(sqlx::AssertSqlSafe(statement.to_owned()))
        .execute(pool)
        .await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}
