//! Dead letters: events that failed for good. Listed, and sent on their way again by an operator.

use service_store::Database;

use crate::{event::Recorded, table};

/// An event that failed for good, and what its last attempt failed of.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// The event.
    pub event: Recorded,
    /// What went wrong, as the sink said it.
    pub error: String,
    /// How many later events of its key wait behind it.
    pub holds_back: u64,
}

/// At most `limit` dead letters after the one with that place, the oldest first; each with its place.
///
/// # Errors
/// The database's.
pub async fn dead_letters(
    database: &Database,
    after: Option<i64>,
    limit: u32,
) -> Result<Vec<(i64, DeadLetter)>, sqlx::Error> {
    use sqlx::Row as _;
    let rows = sqlx::query(
        "SELECT seq, id, key, kind, body, trace_parent, created_at, attempts, error,
                (SELECT count(*) FROM outbox AS later
                  WHERE later.key = dead.key AND later.seq > dead.seq AND later.state <> 1) AS held_back
           FROM outbox AS dead WHERE state = 2 AND seq > $1 ORDER BY seq LIMIT $2",
    )
    .bind(after.unwrap_or(i64::MIN))
    .bind(i64::from(limit))
    .fetch_all(database.reader())
    .await?;
    rows.iter()
        .map(|row| {
            let event = table::recorded(row)?;
            let holds_back: i64 = row.try_get("held_back")?;
            let letter = DeadLetter {
                error: row.try_get("error")?,
                holds_back: u64::try_from(holds_back).unwrap_or_default(),
                event,
            };
            Ok((letter.event.seq, letter))
        })
        .collect()
}

/// Sends these dead letters on their way again, as if they had never been tried, or all of them without ids; how many.
/// What is none any more is passed over.
///
/// # Errors
/// The database's.
pub async fn replay(database: &Database, ids: Option<&[uuid::Uuid]>) -> Result<u64, sqlx::Error> {
    database.retried(None, || try_replay(database, ids)).await
}

async fn try_replay(database: &Database, ids: Option<&[uuid::Uuid]>) -> Result<u64, sqlx::Error> {
    let mut write = database.begin(None).await?;
    let now = write.now.as_nanos();
    let mut replayed = 0;
    match ids {
        None => {
            let all = sqlx::query("UPDATE outbox SET state = 0, attempts = 0, next_at = $1 WHERE state = 2").bind(now);
            replayed += all.execute(&mut *write.tx).await?.rows_affected();
        }
        Some(ids) => {
            // In one order, whoever else replays the same.
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            for id in ids {
                let one =
                    sqlx::query("UPDATE outbox SET state = 0, attempts = 0, next_at = $1 WHERE id = $2 AND state = 2");
                let one = one.bind(now).bind(id.to_string());
                replayed += one.execute(&mut *write.tx).await?.rows_affected();
            }
        }
    }
    write.commit().await?;
    Ok(replayed)
}
