//! Open sessions. Those that have ended are not kept.

use std::time::Duration;

use service_store::Timestamp;
use uuid::Uuid;

use super::{Store, StoreError, rows, users};
use crate::domain::{
    account::User,
    refusal::Refusal,
    session::{Hashes, LONGEST, MOST_SESSIONS, RefreshToken, Session},
};

/// A session to be opened.
#[derive(Debug)]
pub(crate) struct NewSession {
    pub(crate) id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) hashes: Hashes,
    pub(crate) user_agent: String,
}

/// id, user_agent, created_at, refreshed_at, expires_at
type Row = (String, String, i64, i64, i64);

impl Store {
    /// Opens a session. The account's ended ones are forgotten, and the oldest make room. Answers when it was opened and when
    /// it ends; [`Refusal::SessionEnded`] when the account was deleted meanwhile.
    pub(crate) async fn open_session(
        &self,
        new: &NewSession,
        lifetime: Duration,
    ) -> Result<(Timestamp, Timestamp), StoreError> {
        self.whole(|| self.try_open_session(new, lifetime)).await
    }

    async fn try_open_session(
        &self,
        new: &NewSession,
        lifetime: Duration,
    ) -> Result<(Timestamp, Timestamp), StoreError> {
        let mut write = self.begin().await?;
        let (now, expires_at) = (write.now, write.now.after(lifetime.min(LONGEST)));
        let user_id = new.user_id.to_string();
        sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND expires_at <= $2")
            .bind(&user_id)
            .bind(now.as_nanos())
            .execute(&mut *write.tx)
            .await?;
        sqlx::query(
            "DELETE FROM sessions WHERE user_id = $1 AND id NOT IN
             (SELECT id FROM sessions WHERE user_id = $2 ORDER BY created_at DESC, id DESC LIMIT $3)",
        )
        .bind(&user_id)
        .bind(&user_id)
        .bind(i64::try_from(MOST_SESSIONS - 1).unwrap_or(i64::MAX))
        .execute(&mut *write.tx)
        .await?;
        let opened = sqlx::query(
            "INSERT INTO sessions (id, user_id, family_hash, secret_hash, user_agent, created_at, refreshed_at, expires_at)
             SELECT $1, id, $2, $3, $4, $5, $5, $6 FROM users WHERE id = $7 AND deleted_at IS NULL",
        )
        .bind(new.id.to_string())
        .bind(new.hashes.family.to_vec())
        .bind(new.hashes.secret.to_vec())
        .bind(&new.user_agent)
        .bind(now.as_nanos())
        .bind(expires_at.as_nanos())
        .bind(&user_id)
        .execute(&mut *write.tx)
        .await?;
        if opened.rows_affected() == 0 {
            return Err(Refusal::SessionEnded.into());
        }
        write.commit().await?;
        Ok((now, expires_at))
    }

    /// Takes `shown` for `next`, once: one conditional write. The session ends when what is shown was taken before.
    pub(crate) async fn refresh_session(
        &self,
        shown: &RefreshToken,
        next: &RefreshToken,
        lifetime: Duration,
    ) -> Result<(User, Timestamp, Timestamp), StoreError> {
        self.whole(|| self.try_refresh_session(shown, next, lifetime)).await
    }

    async fn try_refresh_session(
        &self,
        shown: &RefreshToken,
        next: &RefreshToken,
        lifetime: Duration,
    ) -> Result<(User, Timestamp, Timestamp), StoreError> {
        let mut write = self.begin().await?;
        let (now, id) = (write.now, shown.session.to_string());
        let row: Option<(String, Vec<u8>, i64)> =
            sqlx::query_as("SELECT user_id, family_hash, created_at FROM sessions WHERE id = $1 AND expires_at > $2")
                .bind(&id)
                .bind(now.as_nanos())
                .fetch_optional(&mut *write.tx)
                .await?;
        let hashes = shown.hashes();
        // Whoever made something up from a session's id, which is in every access token, is told no more than that.
        let Some((user_id, _, created_at)) = row.filter(|(_, family, _)| *family == hashes.family) else {
            return Err(Refusal::SessionEnded.into());
        };
        let expires_at = now.after(lifetime).min(rows::instant(created_at).after(LONGEST));
        let taken = sqlx::query(
            "UPDATE sessions SET secret_hash = $1, refreshed_at = $2, expires_at = $3 WHERE id = $4 AND secret_hash = $5",
        )
        .bind(next.hashes().secret.to_vec())
        .bind(now.as_nanos())
        .bind(expires_at.as_nanos())
        .bind(&id)
        .bind(hashes.secret.to_vec())
        .execute(&mut *write.tx)
        .await?;
        if taken.rows_affected() == 0 {
            sqlx::query("DELETE FROM sessions WHERE id = $1")
                .bind(&id)
                .execute(&mut *write.tx)
                .await?;
            write.commit().await?;
            return Err(Refusal::RefreshTokenReused.into());
        }
        let user = users::user(&mut write.tx, rows::uuid(&user_id)?).await?;
        write.commit().await?;
        Ok((user, now, expires_at))
    }

    /// Whether the session is open, and the account's.
    pub(crate) async fn session_is_open(&self, id: Uuid, user_id: Uuid) -> Result<bool, StoreError> {
        let now = self.database.now().as_nanos();
        let row: Option<i64> =
            sqlx::query_scalar("SELECT expires_at FROM sessions WHERE id = $1 AND user_id = $2 AND expires_at > $3")
                .bind(id.to_string())
                .bind(user_id.to_string())
                .bind(now)
                .fetch_optional(self.database.reader())
                .await?;
        Ok(row.is_some())
    }

    /// The account's open sessions, newest first.
    pub(crate) async fn sessions(&self, user_id: Uuid) -> Result<Vec<Session>, StoreError> {
        let now = self.database.now().as_nanos();
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, user_agent, created_at, refreshed_at, expires_at FROM sessions
             WHERE user_id = $1 AND expires_at > $2 ORDER BY created_at DESC, id DESC",
        )
        .bind(user_id.to_string())
        .bind(now)
        .fetch_all(self.database.reader())
        .await?;
        rows.into_iter().map(session).collect()
    }

    /// Ends these sessions of the account; with none named, all of them. Answers how many were open.
    pub(crate) async fn revoke_sessions(&self, user_id: Uuid, ids: &[Uuid]) -> Result<u64, StoreError> {
        self.whole(|| self.try_revoke_sessions(user_id, ids)).await
    }

    async fn try_revoke_sessions(&self, user_id: Uuid, ids: &[Uuid]) -> Result<u64, StoreError> {
        let mut write = self.begin().await?;
        let now = write.now.as_nanos();
        let mut ended = 0;
        if ids.is_empty() {
            ended = sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND expires_at > $2")
                .bind(user_id.to_string())
                .bind(now)
                .execute(&mut *write.tx)
                .await?
                .rows_affected();
        }
        for id in ids {
            ended += sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND id = $2 AND expires_at > $3")
                .bind(user_id.to_string())
                .bind(id.to_string())
                .bind(now)
                .execute(&mut *write.tx)
                .await?
                .rows_affected();
        }
        write.commit().await?;
        Ok(ended)
    }
}

fn session((id, user_agent, created_at, refreshed_at, expires_at): Row) -> Result<Session, StoreError> {
    Ok(Session {
        id: rows::uuid(&id)?,
        user_agent,
        created_at: rows::instant(created_at),
        refreshed_at: rows::instant(refreshed_at),
        expires_at: rows::instant(expires_at),
    })
}
