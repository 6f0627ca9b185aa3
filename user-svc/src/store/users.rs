//! Accounts.

use service_store::{Connection, Write, for_update};
use uuid::Uuid;

use super::{Store, StoreError, profile, rows};
use crate::domain::{
    account::{Email, NewUser, User},
    refusal::Refusal,
};

/// An account and the hash of its password.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) user: User,
    /// Argon2id in PHC form.
    pub(crate) password_hash: String,
}

/// id, email, display_name, currency, balance, created_at, password_hash, roles
type Row = (String, String, String, String, i64, i64, String, String);

/// What a wallet holds: what its last posting says. See `ledger`.
const BALANCE: &str = "coalesce((SELECT balance_after FROM postings
    WHERE account = 'wallet:' || users.id AND number IS NOT NULL ORDER BY number DESC LIMIT 1), 0)";

impl Store {
    /// Makes an account with an empty wallet; `id` is its id. The account that the request made before, if it did: whether
    /// that is the one asked for is for the caller to say, who knows the password.
    pub(crate) async fn create_user(&self, id: Uuid, new: &NewUser, password_hash: &str) -> Result<Known, StoreError> {
        self.whole(|| self.try_create_user(id, new, password_hash)).await
    }

    async fn try_create_user(&self, id: Uuid, new: &NewUser, password_hash: &str) -> Result<Known, StoreError> {
        let mut write = self.begin().await?;
        if let Some(known) = by_request(&mut write.tx, new.request_id).await? {
            write.commit().await?;
            return Ok(known);
        }
        let taken: Option<String> = sqlx::query_scalar("SELECT id FROM users WHERE email = $1")
            .bind(new.email.as_str())
            .fetch_optional(&mut *write.tx)
            .await?;
        if taken.is_some() {
            return Err(Refusal::EmailTaken.into());
        }
        sqlx::query(
            "INSERT INTO users (id, request_id, email, display_name, password_hash, currency, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id.to_string())
        .bind(new.request_id.to_string())
        .bind(new.email.as_str())
        .bind(new.display_name.as_str())
        .bind(password_hash)
        .bind(new.currency.as_str())
        .bind(write.now.as_nanos())
        .execute(&mut *write.tx)
        .await?;
        let known = by_request(&mut write.tx, new.request_id).await?;
        let known = known.ok_or(StoreError::Corrupt("a user that vanished"))?;
        write.commit().await?;
        Ok(known)
    }

    /// The account that a request made, if it did.
    pub(crate) async fn user_of_request(&self, request_id: Uuid) -> Result<Option<Known>, StoreError> {
        by_request(&mut *self.database.reader().acquire().await?, request_id).await
    }

    /// The account with this address, if there is one.
    pub(crate) async fn user_with_email(&self, email: &Email) -> Result<Option<Known>, StoreError> {
        let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT id, email, display_name, currency, {BALANCE}, created_at, password_hash, roles FROM users WHERE email = $1"
        )))
        .bind(email.as_str())
        .fetch_optional(self.database.reader())
        .await?;
        row.map(known).transpose()
    }

    /// One account that was not deleted.
    pub(crate) async fn user(&self, id: Uuid) -> Result<User, StoreError> {
        Ok(open(&mut *self.database.reader().acquire().await?, id).await?.user)
    }
}

/// One account that was not deleted.
pub(super) async fn open(connection: &mut Connection, id: Uuid) -> Result<Known, StoreError> {
    let known = by_id(connection, id).await?;
    if profile::is_deleted(&known.user) {
        return Err(Refusal::UserUnknown(id).into());
    }
    Ok(known)
}

/// One account that was not deleted, and is not while the transaction lasts.
pub(super) async fn open_locked(write: &mut Write, id: Uuid) -> Result<User, StoreError> {
    let user = locked_user(write, id).await?;
    if profile::is_deleted(&user) {
        return Err(Refusal::UserUnknown(id).into());
    }
    Ok(user)
}

/// One account, also when it was deleted: what it owes and is owed goes on.
pub(super) async fn user(connection: &mut Connection, id: Uuid) -> Result<User, StoreError> {
    Ok(by_id(connection, id).await?.user)
}

async fn by_id(connection: &mut Connection, id: Uuid) -> Result<Known, StoreError> {
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT id, email, display_name, currency, {BALANCE}, created_at, password_hash, roles FROM users WHERE id = $1"
    )))
    .bind(id.to_string())
    .fetch_optional(connection)
    .await?;
    known(row.ok_or(Refusal::UserUnknown(id))?)
}

/// One account, whose wallet stays as it is until the transaction ends.
pub(super) async fn locked_user(write: &mut Write, id: Uuid) -> Result<User, StoreError> {
    // Our own words only.
    let select = sqlx::AssertSqlSafe(format!(
        "SELECT id, email, display_name, currency, {BALANCE}, created_at, password_hash, roles FROM users WHERE id = $1{}",
        for_update(write.dialect)
    ));
    let row: Option<Row> = sqlx::query_as(select)
        .bind(id.to_string())
        .fetch_optional(&mut *write.tx)
        .await?;
    Ok(known(row.ok_or(Refusal::UserUnknown(id))?)?.user)
}

async fn by_request(connection: &mut Connection, request_id: Uuid) -> Result<Option<Known>, StoreError> {
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT id, email, display_name, currency, {BALANCE}, created_at, password_hash, roles FROM users WHERE request_id = $1"
        )))
    .bind(request_id.to_string())
    .fetch_optional(connection)
    .await?;
    row.map(known).transpose()
}

fn known(
    (id, email, display_name, currency, balance, created_at, password_hash, roles): Row,
) -> Result<Known, StoreError> {
    let user = User {
        id: rows::uuid(&id)?,
        email,
        display_name,
        balance: rows::money(&currency, balance)?,
        roles: rows::roles(&roles)?,
        created_at: rows::instant(created_at),
    };
    Ok(Known { user, password_hash })
}
