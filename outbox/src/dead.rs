//! Dead letters: events that failed for good. Listed, sent on their way again or given up by an operator.

use service_store::{Conflict, Database};
use sqlx::{Row as _, any::AnyRow};
use uuid::Uuid;

use crate::{event::Recorded, table};

/// An event that failed for good, and what its last attempt failed of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeadLetter {
    /// The event.
    pub(crate) event: Recorded,
    /// What went wrong, as whoever did not take it said it.
    pub(crate) error: String,
    /// How many later events of its key wait behind it.
    pub(crate) holds_back: u64,
}

/// Why nothing became of a dead letter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeadLetterError {
    /// There is none with that id (any more).
    #[error("there is no dead letter {0}: it was never one, or it was replayed or dropped")]
    Unknown(Uuid),
    /// The database's.
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

impl Conflict for DeadLetterError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_conflict())
    }
}

/// Selects dead letters with what they hold back.
macro_rules! dead {
    ($rest:literal) => {
        concat!(
            "SELECT seq, id, key, kind, body, trace_parent, created_at, attempts, error,
                    (SELECT count(*) FROM outbox AS later
                      WHERE later.key = dead.key AND later.seq > dead.seq AND later.state <> 1) AS held_back
               FROM outbox AS dead WHERE state = 2 ",
            $rest
        )
    };
}

/// At most `limit` dead letters after the one with that place, the oldest first; each with its place.
pub(crate) async fn dead_letters(
    database: &Database,
    after: Option<i64>,
    limit: u32,
) -> Result<Vec<(i64, DeadLetter)>, sqlx::Error> {
    let rows = sqlx::query(dead!("AND seq > $1 ORDER BY seq LIMIT $2"))
        .bind(after.unwrap_or(i64::MIN))
        .bind(i64::from(limit))
        .fetch_all(database.reader())
        .await?;
    rows.iter()
        .map(|row| letter(row).map(|letter| (letter.event.seq, letter)))
        .collect()
}

/// The dead letter of that event.
pub(crate) async fn dead_letter(database: &Database, id: Uuid) -> Result<DeadLetter, DeadLetterError> {
    let row = sqlx::query(dead!("AND id = $1"))
        .bind(id.to_string())
        .fetch_optional(database.reader())
        .await?;
    Ok(letter(&row.ok_or(DeadLetterError::Unknown(id))?)?)
}

fn letter(row: &AnyRow) -> Result<DeadLetter, sqlx::Error> {
    let holds_back: i64 = row.try_get("held_back")?;
    Ok(DeadLetter {
        event: table::recorded(row)?,
        error: row.try_get("error")?,
        holds_back: u64::try_from(holds_back).unwrap_or_default(),
    })
}

/// Sends all dead letters on their way again, as if they had never been tried; how many.
pub(crate) async fn replay_all(database: &Database) -> Result<u64, sqlx::Error> {
    database.retried(None, || try_replay_all(database)).await
}

async fn try_replay_all(database: &Database) -> Result<u64, sqlx::Error> {
    let mut write = database.begin(None).await?;
    let replayed = sqlx::query("UPDATE outbox SET state = 0, attempts = 0, next_at = $1 WHERE state = 2")
        .bind(write.now.as_nanos())
        .execute(&mut *write.tx)
        .await?;
    write.commit().await?;
    Ok(replayed.rows_affected())
}

/// Sends these on their way again, or none of them; each id once.
pub(crate) async fn replay(database: &Database, ids: &[Uuid]) -> Result<(), DeadLetterError> {
    // In one order, whoever else replays the same.
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    database.retried(None, || try_replay(database, &ids)).await
}

async fn try_replay(database: &Database, ids: &[Uuid]) -> Result<(), DeadLetterError> {
    let mut write = database.begin(None).await?;
    for id in ids {
        let replayed =
            sqlx::query("UPDATE outbox SET state = 0, attempts = 0, next_at = $1 WHERE id = $2 AND state = 2")
                .bind(write.now.as_nanos())
                .bind(id.to_string())
                .execute(&mut *write.tx)
                .await?;
        if replayed.rows_affected() == 0 {
            return Err(DeadLetterError::Unknown(*id));
        }
    }
    Ok(write.commit().await?)
}

/// Gives one up: the later ones of its key go on without it. It counts as delivered, with `note` in place of what it failed of.
pub(crate) async fn drop_letter(database: &Database, id: Uuid, note: &str) -> Result<(), DeadLetterError> {
    database.retried(None, || try_drop(database, id, note)).await
}

async fn try_drop(database: &Database, id: Uuid, note: &str) -> Result<(), DeadLetterError> {
    let mut write = database.begin(None).await?;
    let dropped = sqlx::query("UPDATE outbox SET state = 1, delivered_at = $1, error = $2 WHERE id = $3 AND state = 2")
        .bind(write.now.as_nanos())
        .bind(note)
        .bind(id.to_string())
        .execute(&mut *write.tx)
        .await?;
    if dropped.rows_affected() == 0 {
        return Err(DeadLetterError::Unknown(id));
    }
    Ok(write.commit().await?)
}
