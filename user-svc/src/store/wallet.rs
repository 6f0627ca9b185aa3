//! Wallets: what is added to them, taken and given back, once for each request or order.

use service_store::{Money, Write};
use uuid::Uuid;

use super::{Store, StoreError, ledger, rows, users};
use crate::domain::{
    ledger::{Kind, Transfer},
    order::Order,
    refusal::Refusal,
    wallet::{self, TopUp},
};

/// A wallet that stays as it is until the transaction ends.
struct Locked {
    holds: Money,
    /// The number of its last posting.
    number: i64,
}

impl Store {
    /// Adds money, once for each `request_id`. Answers what the wallet held right after.
    pub(crate) async fn top_up(&self, request_id: Uuid, user_id: Uuid, top_up: TopUp) -> Result<Money, StoreError> {
        self.whole(|| self.try_top_up(request_id, user_id, top_up)).await
    }

    async fn try_top_up(&self, request_id: Uuid, user_id: Uuid, top_up: TopUp) -> Result<Money, StoreError> {
        let mut write = self.begin().await?;
        let wallet = lock(&mut write, user_id).await?;
        if let Some(made) = ledger::made(&mut write.tx, Kind::TopUp, request_id).await? {
            let same = made.user_id == user_id
                && made.amount == top_up.amount().minor()
                && wallet.holds.currency() == top_up.amount().currency();
            if !same {
                return Err(Refusal::RequestIdReused(request_id).into());
            }
            write.commit().await?;
            return rows::money(wallet.holds.currency().as_str(), made.balance_after);
        }
        let after = wallet::after_top_up(wallet.holds, top_up).map_err(Refusal::from)?;
        let transfer = Transfer::top_up(request_id, user_id, top_up.amount());
        ledger::book(&mut write, &transfer, wallet.number + 1, after).await?;
        write.commit().await?;
        Ok(after)
    }
}

/// Takes `price` from the buyer's wallet, once for each order.
pub(super) async fn debit(write: &mut Write, order: &Order, price: Money) -> Result<(), StoreError> {
    let wallet = lock(write, order.user_id).await?;
    if ledger::made(&mut write.tx, Kind::Debit, order.id).await?.is_some() {
        return Ok(());
    }
    let after = wallet::after_debit(wallet.holds, price).map_err(Refusal::from)?;
    let transfer = Transfer::debit(order.id, order.user_id, order.event_id, price);
    ledger::book(write, &transfer, wallet.number + 1, after).await
}

/// Gives back what the order's debit took, if there was one, once.
pub(super) async fn refund(write: &mut Write, order: &Order) -> Result<(), StoreError> {
    let wallet = lock(write, order.user_id).await?;
    let Some(paid) = paid_and_kept(write, &wallet, order).await? else {
        return Ok(());
    };
    let after = wallet::after_refund(wallet.holds, paid).map_err(Refusal::from)?;
    let transfer = Transfer::refund(order.id, order.user_id, order.event_id, paid);
    ledger::book(write, &transfer, wallet.number + 1, after).await
}

/// Gives back what was paid for tickets that are void now, once.
pub(super) async fn give_back(write: &mut Write, order: &Order) -> Result<(), StoreError> {
    let wallet = lock(write, order.user_id).await?;
    let Some(paid) = paid_and_kept(write, &wallet, order).await? else {
        return Ok(());
    };
    let after = wallet::after_refund(wallet.holds, paid).map_err(Refusal::from)?;
    let transfer = Transfer::give_back(order.id, order.user_id, order.event_id, paid);
    ledger::book(write, &transfer, wallet.number + 1, after).await
}

/// What the ledger, not the order, says was taken, unless it went back in either way.
async fn paid_and_kept(write: &mut Write, wallet: &Locked, order: &Order) -> Result<Option<Money>, StoreError> {
    let Some(debit) = ledger::made(&mut write.tx, Kind::Debit, order.id).await? else {
        return Ok(None);
    };
    for back in [Kind::Refund, Kind::Return] {
        if ledger::made(&mut write.tx, back, order.id).await?.is_some() {
            return Ok(None);
        }
    }
    rows::money(wallet.holds.currency().as_str(), debit.amount.saturating_neg()).map(Some)
}

async fn lock(write: &mut Write, user_id: Uuid) -> Result<Locked, StoreError> {
    let user = users::locked_user(write, user_id).await?;
    let (number, holds) = ledger::last(&mut write.tx, user_id).await?;
    Ok(Locked {
        holds: rows::money(user.balance.currency().as_str(), holds)?,
        number,
    })
}
