//! The ledger and the balances that it adds up to. Each entry and its balance are one write.

use service_store::{Connection, Money, Write};
use uuid::Uuid;

use super::{Store, StoreError, rows, users};
use crate::domain::{
    order::Order,
    refusal::Refusal,
    wallet::{self, TopUp},
};

/// What an entry is. With its reference it is unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    TopUp,
    Debit,
    Refund,
}

/// An entry that was made before.
struct Entry {
    user_id: Uuid,
    amount: i64,
    balance_after: i64,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::TopUp => "topup",
            Self::Debit => "debit",
            Self::Refund => "refund",
        }
    }
}

impl Store {
    /// Adds money, once for each `request_id`. Answers what the wallet held right after.
    pub(crate) async fn top_up(&self, request_id: Uuid, user_id: Uuid, top_up: TopUp) -> Result<Money, StoreError> {
        self.whole(|| self.try_top_up(request_id, user_id, top_up)).await
    }

    async fn try_top_up(&self, request_id: Uuid, user_id: Uuid, top_up: TopUp) -> Result<Money, StoreError> {
        let mut write = self.begin().await?;
        let before = users::locked_user(&mut write, user_id).await?.balance;
        if let Some(entry) = find(&mut write.tx, Kind::TopUp, request_id).await? {
            let same = entry.user_id == user_id
                && entry.amount == top_up.amount().minor()
                && before.currency() == top_up.amount().currency();
            if !same {
                return Err(Refusal::RequestIdReused(request_id).into());
            }
            return rows::money(before.currency().as_str(), entry.balance_after);
        }
        let after = wallet::after_top_up(before, top_up).map_err(Refusal::from)?;
        enter(&mut write, user_id, Kind::TopUp, request_id, before, after).await?;
        write.commit().await?;
        Ok(after)
    }
}

/// Takes `price` from the buyer's wallet, once for each order.
pub(super) async fn debit(write: &mut Write, order: &Order, price: Money) -> Result<(), StoreError> {
    if find(&mut write.tx, Kind::Debit, order.id).await?.is_some() {
        return Ok(());
    }
    let before = users::locked_user(write, order.user_id).await?.balance;
    let after = wallet::after_debit(before, price).map_err(Refusal::from)?;
    enter(write, order.user_id, Kind::Debit, order.id, before, after).await
}

/// Gives back what the order's debit took, if there was one, once.
pub(super) async fn refund(write: &mut Write, order: &Order) -> Result<(), StoreError> {
    let Some(debit) = find(&mut write.tx, Kind::Debit, order.id).await? else {
        return Ok(());
    };
    if find(&mut write.tx, Kind::Refund, order.id).await?.is_some() {
        return Ok(());
    }
    let before = users::locked_user(write, order.user_id).await?.balance;
    // What the ledger says was taken, not what the order says it cost.
    let paid = rows::money(before.currency().as_str(), debit.amount.saturating_neg())?;
    let after = wallet::after_refund(before, paid).map_err(Refusal::from)?;
    enter(write, order.user_id, Kind::Refund, order.id, before, after).await
}

async fn find(connection: &mut Connection, kind: Kind, reference: Uuid) -> Result<Option<Entry>, StoreError> {
    let row: Option<(String, i64, i64)> =
        sqlx::query_as("SELECT user_id, amount, balance_after FROM ledger WHERE kind = $1 AND reference = $2")
            .bind(kind.as_str())
            .bind(reference.to_string())
            .fetch_optional(connection)
            .await?;
    row.map(|(user_id, amount, balance_after)| {
        Ok(Entry {
            user_id: rows::uuid(&user_id)?,
            amount,
            balance_after,
        })
    })
    .transpose()
}

async fn enter(
    write: &mut Write,
    user_id: Uuid,
    kind: Kind,
    reference: Uuid,
    before: Money,
    after: Money,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO ledger (user_id, kind, reference, amount, balance_after, at) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(user_id.to_string())
    .bind(kind.as_str())
    .bind(reference.to_string())
    .bind(after.minor() - before.minor())
    .bind(after.minor())
    .bind(write.now.as_nanos())
    .execute(&mut *write.tx)
    .await?;
    // Conditional although the row is locked: were it ever not, the entry would fail and not a balance be overwritten.
    let updated = sqlx::query("UPDATE users SET balance = $1 WHERE id = $2 AND balance = $3")
        .bind(after.minor())
        .bind(user_id.to_string())
        .bind(before.minor())
        .execute(&mut *write.tx)
        .await?;
    if updated.rows_affected() != 1 {
        return Err(StoreError::Corrupt("a balance that changed under the lock"));
    }
    Ok(())
}
