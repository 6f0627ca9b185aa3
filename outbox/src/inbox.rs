//! The table `inbox`: which events a consumer has taken in.

use service_store::Write;
use uuid::Uuid;

/// Is this the first time that `consumer` takes this event in? Says so once: call it in the transaction of the effect, and have
/// none when it is not. `consumer` is a name of the code's.
///
/// # Errors
/// The database's.
pub async fn first_time(write: &mut Write, consumer: &'static str, event_id: Uuid) -> Result<bool, sqlx::Error> {
    let taken =
        sqlx::query("INSERT INTO inbox (consumer, event_id, taken_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(consumer)
            .bind(event_id.to_string())
            .bind(write.now.as_nanos())
            .execute(&mut *write.tx)
            .await?;
    Ok(taken.rows_affected() == 1)
}
