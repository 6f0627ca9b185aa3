//! The table `outbox`: written to, claimed from, noted in. Each change of a claimed event is conditional on the claim.

use std::time::Duration;

use serde_json::Value;
use service_store::{Database, Timestamp, Write};
use sqlx::{Row as _, any::AnyRow};
use telemetry::{Context, TraceParent};
use uuid::Uuid;

use crate::{
    event::{Event, Recorded},
    parked::PARKED,
};

/// Writes an event, to be delivered when this transaction is committed. Call it after the row that `event.key` names was
/// written: that lock is what puts the events of a key in order.
///
/// # Errors
/// The database's.
pub async fn record(write: &mut Write, event: Event) -> Result<(), sqlx::Error> {
    let trace = Context::map_current(TraceParent::of).map(|trace| trace.to_string());
    let mut body = event.body;
    if let Value::Object(fields) = &mut body {
        fields.insert("schema".to_owned(), event.schema.into());
    }
    sqlx::query(
        "INSERT INTO outbox (id, key, kind, body, trace_parent, created_at, next_at) VALUES ($1, $2, $3, $4, $5, $6, $6)",
    )
    .bind(Uuid::now_v7().to_string())
    .bind(event.key)
    .bind(event.kind)
    .bind(body.to_string())
    .bind(trace.unwrap_or_default())
    .bind(write.now.as_nanos())
    .execute(&mut *write.tx)
    .await?;
    Ok(())
}

/// Events that one process delivers now.
#[derive(Debug)]
pub(crate) struct Batch {
    claim: String,
    pub(crate) events: Vec<Recorded>,
}

/// What is said of an event that was not delivered.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) seq: i64,
    pub(crate) error: String,
    pub(crate) then: Then,
}

/// What becomes of an event that was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It is tried again so much later.
    Again(Duration),
    /// It is a dead letter.
    Dead,
    /// It waits until the broker is back, and this was no attempt.
    Park,
}

/// What waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) pending: i64,
    pub(crate) oldest: Option<Timestamp>,
    pub(crate) dead: i64,
}

/// Is anything due? A read, so that an idle store is not written to.
pub(crate) async fn any_due(database: &Database) -> Result<bool, sqlx::Error> {
    let found: Option<i64> = sqlx::query_scalar("SELECT seq FROM outbox WHERE state = 0 AND next_at <= $1 LIMIT 1")
        .bind(database.now().as_nanos())
        .fetch_optional(database.reader())
        .await?;
    Ok(found.is_some())
}

/// Claims at most `limit` due events, each the first undelivered one of its key, for `lease`.
pub(crate) async fn claim(database: &Database, limit: u32, lease: Duration) -> Result<Batch, sqlx::Error> {
    let claim = Uuid::new_v4().to_string();
    let claimed: Vec<AnyRow> = database
        .retried(None, || try_claim(database, &claim, limit, lease))
        .await?;
    let mut events = claimed.iter().map(recorded).collect::<Result<Vec<_>, _>>()?;
    // RETURNING promises no order.
    events.sort_unstable_by_key(|event| event.seq);
    Ok(Batch { claim, events })
}

async fn try_claim(database: &Database, claim: &str, limit: u32, lease: Duration) -> Result<Vec<AnyRow>, sqlx::Error> {
    let mut write = database.begin(None).await?;
    // The last two conditions once more outside: on PostgreSQL another process may have claimed between the look and the
    // write, and only what is outside is asked again then.
    let claimed = sqlx::query(
        "UPDATE outbox SET claim = $1, next_at = $2, attempts = attempts + 1
         WHERE seq IN (SELECT due.seq FROM outbox AS due
                        WHERE due.state = 0 AND due.next_at <= $3
                          AND NOT EXISTS (SELECT 1 FROM outbox AS earlier
                                           WHERE earlier.key = due.key AND earlier.seq < due.seq AND earlier.state <> 1)
                        ORDER BY due.seq LIMIT $4)
           AND state = 0 AND next_at <= $3
         RETURNING seq, id, key, kind, body, trace_parent, created_at, attempts",
    )
    .bind(claim)
    .bind(write.now.after(lease).as_nanos())
    .bind(write.now.as_nanos())
    .bind(i64::from(limit))
    .fetch_all(&mut *write.tx)
    .await?;
    write.commit().await?;
    Ok(claimed)
}

/// Notes what came of a batch. What another process has claimed since is left to it.
pub(crate) async fn settle(database: &Database, batch: &Batch, failures: &[Failure]) -> Result<(), sqlx::Error> {
    database.retried(None, || try_settle(database, batch, failures)).await
}

async fn try_settle(database: &Database, batch: &Batch, failures: &[Failure]) -> Result<(), sqlx::Error> {
    let mut write = database.begin(None).await?;
    // While a broker is away that is all of a batch, or nearly: one statement then.
    let (parked, failed): (Vec<_>, Vec<_>) = failures.iter().partition(|failure| failure.then == Then::Park);
    let rest_is_parked = failures.len() == batch.events.len() && !parked.is_empty();
    // One by one first: what is left of the claim then was delivered, or is parked.
    let one_by_one = failed
        .into_iter()
        .chain(parked.iter().copied().filter(|_| !rest_is_parked));
    for failure in one_by_one {
        let (state, next_at, attempts) = match failure.then {
            Then::Again(pause) => (0_i64, write.now.after(pause).as_nanos(), 0_i64),
            Then::Dead => (2, write.now.as_nanos(), 0),
            Then::Park => (0, PARKED, 1),
        };
        sqlx::query(
            "UPDATE outbox SET state = $1, next_at = $2, attempts = attempts - $3, error = $4, claim = ''
             WHERE seq = $5 AND claim = $6 AND state = 0",
        )
        .bind(state)
        .bind(next_at)
        .bind(attempts)
        .bind(&failure.error)
        .bind(failure.seq)
        .bind(&batch.claim)
        .execute(&mut *write.tx)
        .await?;
    }
    // The range lets it use the primary key; the claim alone has no index, which each event would pay for.
    let (first, last) = (batch.events[0].seq, batch.events[batch.events.len() - 1].seq);
    if let Some(failure) = parked.first().filter(|_| rest_is_parked) {
        sqlx::query(
            "UPDATE outbox SET next_at = $1, attempts = attempts - 1, error = $2, claim = ''
             WHERE seq BETWEEN $3 AND $4 AND claim = $5 AND state = 0",
        )
        .bind(PARKED)
        .bind(&failure.error)
        .bind(first)
        .bind(last)
        .bind(&batch.claim)
        .execute(&mut *write.tx)
        .await?;
    } else if failures.len() < batch.events.len() {
        sqlx::query(
            "UPDATE outbox SET state = 1, delivered_at = $1, error = ''
             WHERE seq BETWEEN $2 AND $3 AND claim = $4 AND state = 0",
        )
        .bind(write.now.as_nanos())
        .bind(first)
        .bind(last)
        .bind(&batch.claim)
        .execute(&mut *write.tx)
        .await?;
    }
    write.commit().await
}

/// Removes at most `limit` delivered events that are older than `age`; how many.
pub(crate) async fn prune(database: &Database, age: Duration, limit: u32) -> Result<u64, sqlx::Error> {
    database.retried(None, || try_prune(database, age, limit)).await
}

async fn try_prune(database: &Database, age: Duration, limit: u32) -> Result<u64, sqlx::Error> {
    let mut write = database.begin(None).await?;
    let nanos = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
    let before = write.now.as_nanos().saturating_sub(nanos);
    let removed = sqlx::query(
        "DELETE FROM outbox WHERE seq IN
           (SELECT seq FROM outbox WHERE state = 1 AND delivered_at < $1 ORDER BY delivered_at LIMIT $2)",
    )
    .bind(before)
    .bind(i64::from(limit))
    .execute(&mut *write.tx)
    .await?;
    // Twice as long: what was delivered last may be delivered once more.
    sqlx::query(
        "DELETE FROM inbox WHERE (consumer, event_id) IN
           (SELECT consumer, event_id FROM inbox WHERE taken_at < $1 ORDER BY taken_at LIMIT $2)",
    )
    .bind(before.saturating_sub(nanos))
    .bind(i64::from(limit))
    .execute(&mut *write.tx)
    .await?;
    write.commit().await?;
    Ok(removed.rows_affected())
}

pub(crate) async fn waiting(database: &Database) -> Result<Waiting, sqlx::Error> {
    let (pending, oldest): (i64, Option<i64>) =
        sqlx::query_as("SELECT count(*), min(created_at) FROM outbox WHERE state = 0")
            .fetch_one(database.reader())
            .await?;
    let dead: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox WHERE state = 2")
        .fetch_one(database.reader())
        .await?;
    let oldest = oldest.map(Timestamp::from_nanos);
    Ok(Waiting { pending, oldest, dead })
}

pub(crate) fn recorded(row: &AnyRow) -> Result<Recorded, sqlx::Error> {
    let (id, body): (String, String) = (row.try_get("id")?, row.try_get("body")?);
    let decode = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
    Ok(Recorded {
        seq: row.try_get("seq")?,
        id: id.parse().map_err(|error: uuid::Error| decode(error.into()))?,
        key: row.try_get("key")?,
        kind: row.try_get("kind")?,
        body: serde_json::from_str(&body).map_err(|error| decode(error.into()))?,
        trace: row.try_get::<String, _>("trace_parent")?.parse().ok(),
        created_at: Timestamp::from_nanos(row.try_get("created_at")?),
        attempts: row.try_get("attempts")?,
    })
}
