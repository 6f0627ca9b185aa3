//! Events that wait for the broker: given to the subscribers of a process by now, and no attempt of anybody's. They are due at no
//! time, so that a broker that is away for a day costs the store nothing; whoever reaches it again makes them due.

use service_store::Database;

/// When a parked event is due: never, as long as nobody says otherwise.
pub(crate) const PARKED: i64 = i64::MAX;

/// Makes at most `limit` parked events due, the earliest first; how many.
pub(crate) async fn unpark(database: &Database, limit: u32) -> Result<u64, sqlx::Error> {
    // A read, so that a store without any is not written to.
    let found: Option<i64> = sqlx::query_scalar("SELECT seq FROM outbox WHERE state = 0 AND next_at = $1 LIMIT 1")
        .bind(PARKED)
        .fetch_optional(database.reader())
        .await?;
    if found.is_none() {
        return Ok(0);
    }
    database.retried(None, || try_unpark(database, limit)).await
}

async fn try_unpark(database: &Database, limit: u32) -> Result<u64, sqlx::Error> {
    let mut write = database.begin(None).await?;
    let unparked = sqlx::query(
        "UPDATE outbox SET next_at = $1
         WHERE seq IN (SELECT seq FROM outbox WHERE state = 0 AND next_at = $2 ORDER BY seq LIMIT $3)
           AND state = 0 AND next_at = $2",
    )
    .bind(write.now.as_nanos())
    .bind(PARKED)
    .bind(i64::from(limit))
    .execute(&mut *write.tx)
    .await?;
    write.commit().await?;
    Ok(unparked.rows_affected())
}
