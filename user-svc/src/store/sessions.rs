//! Sessions: the hash of a token, whose it is, until when.

use std::time::Duration;

use service_store::Timestamp;
use uuid::Uuid;

use super::{Store, StoreError};

impl Store {
    /// Opens a session of `lifetime` and forgets the user's sessions that have ended. Answers when it ends.
    pub(crate) async fn open_session(
        &self,
        user_id: Uuid,
        token_hash: [u8; 32],
        lifetime: Duration,
    ) -> Result<Timestamp, StoreError> {
        self.whole(|| self.try_open_session(user_id, token_hash, lifetime))
            .await
    }

    async fn try_open_session(
        &self,
        user_id: Uuid,
        token_hash: [u8; 32],
        lifetime: Duration,
    ) -> Result<Timestamp, StoreError> {
        let mut write = self.begin().await?;
        let expires_at = write.now.after(lifetime);
        sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND expires_at <= $2")
            .bind(user_id.to_string())
            .bind(write.now.as_nanos())
            .execute(&mut *write.tx)
            .await?;
        sqlx::query("INSERT INTO sessions (token_hash, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(token_hash.to_vec())
            .bind(user_id.to_string())
            .bind(write.now.as_nanos())
            .bind(expires_at.as_nanos())
            .execute(&mut *write.tx)
            .await?;
        write.commit().await?;
        Ok(expires_at)
    }
}
