//! What becomes of an account after it was made: changes, roles, its end.

use identity::Roles;
use service_store::Write;
use uuid::Uuid;

use super::{Store, StoreError, users};
use crate::domain::{
    account::{DisplayName, Email, User},
    refusal::Refusal,
};

/// What the address of a deleted account begins with. It has no '@', so nobody signs in with it or signs up as it.
const DELETED: &str = "deleted:";

/// Whether it was deleted.
pub(super) fn is_deleted(user: &User) -> bool {
    user.email.starts_with(DELETED)
}

/// What is to be written of a change. What is `None` stays.
#[derive(Debug)]
pub(crate) struct NewProfile<'a> {
    pub(crate) display_name: Option<&'a DisplayName>,
    pub(crate) email: Option<&'a Email>,
    /// Argon2id in PHC form.
    pub(crate) password_hash: Option<&'a str>,
    /// With a new password: the session that stays open.
    pub(crate) keep: Option<Uuid>,
}

impl Store {
    /// Changes an account. A new password ends its sessions, except the one that is kept. `seen` is the hash of the password
    /// that was checked, if one was: when it is another one by now, the change was decided on a password that is no longer good.
    pub(crate) async fn change_user(
        &self,
        id: Uuid,
        new: &NewProfile<'_>,
        seen: Option<&str>,
    ) -> Result<User, StoreError> {
        self.whole(|| self.try_change_user(id, new, seen)).await
    }

    async fn try_change_user(&self, id: Uuid, new: &NewProfile<'_>, seen: Option<&str>) -> Result<User, StoreError> {
        let mut write = self.begin().await?;
        if let Some(email) = new.email {
            let taken: Option<String> = sqlx::query_scalar("SELECT id FROM users WHERE email = $1 AND id <> $2")
                .bind(email.as_str())
                .bind(id.to_string())
                .fetch_optional(&mut *write.tx)
                .await?;
            if taken.is_some() {
                return Err(Refusal::EmailTaken.into());
            }
        }
        let changed = sqlx::query(
            "UPDATE users SET display_name = COALESCE($1, display_name), email = COALESCE($2, email),
             password_hash = COALESCE($3, password_hash) WHERE id = $4 AND deleted_at IS NULL
             AND password_hash = COALESCE($5, password_hash)",
        )
        .bind(new.display_name.map(DisplayName::as_str))
        .bind(new.email.map(Email::as_str))
        .bind(new.password_hash)
        .bind(id.to_string())
        .bind(seen)
        .execute(&mut *write.tx)
        .await?;
        if changed.rows_affected() == 0 {
            return Err(seen
                .map_or(Refusal::UserUnknown(id), |_| Refusal::CredentialsWrong)
                .into());
        }
        if new.password_hash.is_some() {
            end_sessions(&mut write, id, new.keep).await?;
        }
        let user = users::user(&mut write.tx, id).await?;
        write.commit().await?;
        Ok(user)
    }

    /// Sets what an account is. Taking something away ends its sessions: their tokens say what it was.
    pub(crate) async fn set_roles(&self, id: Uuid, roles: Roles) -> Result<User, StoreError> {
        self.whole(|| self.try_set_roles(id, roles)).await
    }

    async fn try_set_roles(&self, id: Uuid, roles: Roles) -> Result<User, StoreError> {
        let mut write = self.begin().await?;
        let before = users::open_locked(&mut write, id).await?;
        let changed = sqlx::query("UPDATE users SET roles = $1 WHERE id = $2 AND deleted_at IS NULL")
            .bind(roles.to_string())
            .bind(id.to_string())
            .execute(&mut *write.tx)
            .await?;
        if changed.rows_affected() == 0 {
            return Err(Refusal::UserUnknown(id).into());
        }
        if !roles.has_all(before.roles) {
            end_sessions(&mut write, id, None).await?;
        }
        write.commit().await?;
        Ok(User { roles, ..before })
    }

    /// Deletes an account: what is personal goes, what was bought and paid stays under its id. Not while a purchase is under
    /// way, nor with money that was not given up.
    pub(crate) async fn delete_user(&self, id: Uuid, forfeits: bool, seen: Option<&str>) -> Result<(), StoreError> {
        self.whole(|| self.try_delete_user(id, forfeits, seen)).await
    }

    async fn try_delete_user(&self, id: Uuid, forfeits: bool, seen: Option<&str>) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        // The account's row first: purchases that begin at the same moment wait here, or we for them.
        let deleted = sqlx::query(
            "UPDATE users SET email = $1, display_name = '-', password_hash = '', roles = '', deleted_at = $2
             WHERE id = $3 AND deleted_at IS NULL AND password_hash = COALESCE($4, password_hash)",
        )
        .bind(format!("{DELETED}{id}"))
        .bind(write.now.as_nanos())
        .bind(id.to_string())
        .bind(seen)
        .execute(&mut *write.tx)
        .await?;
        if deleted.rows_affected() == 0 {
            return Err(seen
                .map_or(Refusal::UserUnknown(id), |_| Refusal::CredentialsWrong)
                .into());
        }
        let unfinished: Option<String> = sqlx::query_scalar(
            "SELECT id FROM orders WHERE user_id = $1 AND step NOT IN ('succeeded', 'failed', 'refunded') LIMIT 1",
        )
        .bind(id.to_string())
        .fetch_optional(&mut *write.tx)
        .await?;
        if unfinished.is_some() {
            return Err(Refusal::OrdersUnfinished.into());
        }
        if !forfeits && users::user(&mut write.tx, id).await?.balance.minor() > 0 {
            return Err(Refusal::WalletNotEmpty.into());
        }
        end_sessions(&mut write, id, None).await?;
        write.commit().await?;
        Ok(())
    }
}

async fn end_sessions(write: &mut Write, user_id: Uuid, except: Option<Uuid>) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND id <> $2")
        .bind(user_id.to_string())
        .bind(except.map(|id| id.to_string()).unwrap_or_default())
        .execute(&mut *write.tx)
        .await?;
    Ok(())
}
