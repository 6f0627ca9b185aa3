//! Refunds of orders that have succeeded: asked for once for each request, and the money given back once for each order.

use service_store::Connection;
use uuid::Uuid;

use super::{
    Store, StoreError,
    orders::{self, Recorded},
    rows, users, wallet,
};
use crate::domain::{
    order::{NewRefund, Order},
    refusal::Refusal,
    saga::{self, Step},
};

impl Store {
    /// Records that the money of an order is asked back, once for each id. A new refund is claimed by this process; `parent` is
    /// the `traceparent` under which it goes on.
    pub(crate) async fn begin_refund(&self, new: &NewRefund, parent: &str) -> Result<Recorded, StoreError> {
        self.whole(|| self.try_begin_refund(new, parent)).await
    }

    async fn try_begin_refund(&self, new: &NewRefund, parent: &str) -> Result<Recorded, StoreError> {
        let mut write = self.begin().await?;
        let user_id = stored(&mut write.tx, new.order_id).await?.user_id;
        // The account's row before the order's; under its lock neither the order's refund nor the account's end can begin.
        users::open_locked(&mut write, user_id).await?;
        if let Some(order) = asked_before(&mut write.tx, new).await? {
            write.commit().await?;
            return Ok(Recorded::Before(order));
        }
        let order = stored(&mut write.tx, new.order_id).await?;
        let Some(step) = saga::refund_asked(&order.step) else {
            let (id, state) = (order.id, order.state());
            return Err(Refusal::NotRefundable { id, state }.into());
        };
        let is_new = sqlx::query(
            "INSERT INTO refund_requests (id, order_id, asked_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING",
        )
        .bind(new.id.to_string())
        .bind(new.order_id.to_string())
        .bind(write.now.as_nanos())
        .execute(&mut *write.tx)
        .await?;
        if is_new.rows_affected() == 0 {
            // For an order of another account, a moment ago.
            return Err(Refusal::RequestIdReused(new.id).into());
        }
        let row = sqlx::query(
            "UPDATE orders SET step = $1, version = version + 1, updated_at = $2, claim = claim + 1, claim_owner = $3,
                    claim_until = $4, refund_request = $5, refund_by = $6, refund_refusal = NULL, refund_detail = NULL,
                    trace_parent = $7
             WHERE id = $8 AND version = $9 RETURNING *",
        )
        .bind(step.name())
        .bind(write.now.as_nanos())
        .bind(&self.claimant.owner)
        .bind(write.now.after(self.claimant.lease).as_nanos())
        .bind(new.id.to_string())
        .bind(new.by.name())
        .bind(parent)
        .bind(order.id.to_string())
        .bind(order.version)
        .fetch_optional(&mut *write.tx)
        .await?;
        let begun = rows::order(&row.ok_or(StoreError::Overtaken)?)?;
        write.commit().await?;
        Ok(Recorded::New(begun))
    }

    /// The order, if the same request asked for its money back before.
    pub(crate) async fn asked_refund(&self, new: &NewRefund) -> Result<Option<Order>, StoreError> {
        asked_before(&mut *self.database.reader().acquire().await?, new).await
    }

    /// Gives the money back and records that all is done, in one transaction: there is no moment between the two.
    pub(crate) async fn repay(&self, order: &Order) -> Result<Order, StoreError> {
        self.whole(|| self.try_repay(order)).await
    }

    async fn try_repay(&self, order: &Order) -> Result<Order, StoreError> {
        let Step::Repay(tickets) = &order.step else {
            return Err(StoreError::Corrupt("money to be given back for tickets that are good"));
        };
        let mut write = self.begin().await?;
        wallet::give_back(&mut write, order).await?;
        let next = saga::after_repay(tickets.clone());
        let moved = self.moved(&mut write, order, &next, None).await?;
        self.commit_move(write, &moved).await?;
        Ok(moved)
    }
}

async fn stored(connection: &mut Connection, id: Uuid) -> Result<Order, StoreError> {
    let row = orders::find(connection, id).await?;
    rows::order(&row.ok_or(Refusal::OrderUnknown(id))?)
}

async fn asked_before(connection: &mut Connection, new: &NewRefund) -> Result<Option<Order>, StoreError> {
    let of: Option<String> = sqlx::query_scalar("SELECT order_id FROM refund_requests WHERE id = $1")
        .bind(new.id.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    match of {
        None => Ok(None),
        Some(order_id) if order_id == new.order_id.to_string() => stored(connection, new.order_id).await.map(Some),
        Some(_) => Err(Refusal::RequestIdReused(new.id).into()),
    }
}
