//! Claims on orders: which process may move an order on, and until when.
//!
//! A claim is a conditional write, and so is each move under it: on the order's version and on the claim's number. A process that
//! stood still while its claim lapsed finds its writes refused once another one has claimed the order, and what it asked of
//! the ticket service in the meantime is the same request with the same ids. While nobody has, it may go on: nothing was lost.

use std::time::Duration;

use uuid::Uuid;

use super::{Store, StoreError, rows};
use crate::domain::order::Order;

/// How long a claim holds without being renewed, unless it is told otherwise.
pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(5);

/// Who claims: a process, in one of its lives.
#[derive(Debug, Clone)]
pub(super) struct Claimant {
    /// Its name for people, and a word that no other life of it has: what an earlier one claimed is not this one's.
    pub(super) owner: String,
    pub(super) lease: Duration,
}

/// Not a final step. The very words of the partial index, or it would not be used.
macro_rules! unfinished {
    () => {
        "step NOT IN ('succeeded', 'failed', 'refunded')"
    };
}

impl Claimant {
    pub(super) fn new(name: &str, lease: Duration) -> Self {
        let owner = format!("{name}/{}", Uuid::new_v4());
        Self { owner, lease }
    }
}

impl Store {
    /// Claims from now on under that name and for so long each time.
    pub(crate) fn claiming_as(self, name: &str, lease: Duration) -> Self {
        let claimant = Claimant::new(name, lease).into();
        Self { claimant, ..self }
    }

    /// How long a claim holds.
    pub(crate) fn lease(&self) -> Duration {
        self.claimant.lease
    }

    /// Claims an unfinished order that nobody else has claimed, and answers it as it is under the claim. `None`: somebody has,
    /// or there is nothing left to do.
    pub(crate) async fn claim_order(&self, id: Uuid) -> Result<Option<Order>, StoreError> {
        self.whole(|| self.try_claim_order(id)).await
    }

    async fn try_claim_order(&self, id: Uuid) -> Result<Option<Order>, StoreError> {
        let mut write = self.begin().await?;
        let row = sqlx::query(concat!(
            "UPDATE orders SET claim = claim + 1, claim_owner = $1, claim_until = $2
             WHERE id = $3 AND ",
            unfinished!(),
            " AND (claim_until <= $4 OR claim_owner = $1) RETURNING *"
        ))
        .bind(&self.claimant.owner)
        .bind(write.now.after(self.claimant.lease).as_nanos())
        .bind(id.to_string())
        .bind(write.now.as_nanos())
        .fetch_optional(&mut *write.tx)
        .await?;
        let order = row.as_ref().map(rows::order).transpose()?;
        write.commit().await?;
        Ok(order)
    }

    /// At most `limit` unfinished orders that nobody has claimed now, the longest left alone first.
    pub(crate) async fn lapsed_orders(&self, limit: u32) -> Result<Vec<Uuid>, StoreError> {
        let found: Vec<String> = sqlx::query_scalar(concat!(
            "SELECT id FROM orders WHERE ",
            unfinished!(),
            " AND claim_until <= $1 ORDER BY claim_until, id LIMIT $2"
        ))
        .bind(self.now().as_nanos())
        .bind(i64::from(limit))
        .fetch_all(self.database.reader())
        .await?;
        found.iter().map(|id| rows::uuid(id)).collect()
    }

    /// Renews this process's claims on these orders. One by one: what it claimed without hearing so is nobody's to renew, and
    /// lapses.
    pub(crate) async fn renew_claims(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        self.whole(|| self.try_renew_claims(ids)).await
    }

    async fn try_renew_claims(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let until = write.now.after(self.claimant.lease).as_nanos();
        for id in ids {
            let renew = concat!(
                "UPDATE orders SET claim_until = $1 WHERE id = $2 AND claim_owner = $3 AND ",
                unfinished!()
            );
            sqlx::query(renew)
                .bind(until)
                .bind(id.to_string())
                .bind(&self.claimant.owner)
                .execute(&mut *write.tx)
                .await?;
        }
        Ok(write.commit().await?)
    }

    /// Gives up all claims of this process, so that another one goes on at once; how many.
    pub(crate) async fn give_up_claims(&self) -> Result<u64, StoreError> {
        self.whole(|| self.try_give_up_claims()).await
    }

    async fn try_give_up_claims(&self) -> Result<u64, StoreError> {
        let mut write = self.begin().await?;
        let given_up = sqlx::query(concat!(
            "UPDATE orders SET claim_owner = '', claim_until = 0 WHERE claim_owner = $1 AND ",
            unfinished!()
        ))
        .bind(&self.claimant.owner)
        .execute(&mut *write.tx)
        .await?;
        write.commit().await?;
        Ok(given_up.rows_affected())
    }

    /// Gives up the claim under which `order` was read; nobody takes it up before that time has passed.
    pub(crate) async fn give_up_claim(&self, order: &Order, rest: Duration) -> Result<(), StoreError> {
        self.whole(|| self.try_give_up_claim(order, rest)).await
    }

    async fn try_give_up_claim(&self, order: &Order, rest: Duration) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let until = if rest.is_zero() {
            0
        } else {
            write.now.after(rest).as_nanos()
        };
        sqlx::query("UPDATE orders SET claim_owner = '', claim_until = $1 WHERE id = $2 AND claim = $3")
            .bind(until)
            .bind(order.id.to_string())
            .bind(order.claim.number)
            .execute(&mut *write.tx)
            .await?;
        Ok(write.commit().await?)
    }
}
