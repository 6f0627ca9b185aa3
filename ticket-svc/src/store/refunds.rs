//! Refunds: seats that were sold become free, exactly once for each order. Money is not moved here.

use service_store::Write;
use uuid::Uuid;

use super::{
    Store, StoreError,
    holds::{self, Look, StoredHold},
    rows, sales,
};
use crate::domain::{
    hold::{Ending, FencingToken, Refund, Ticket},
    refusal::Refusal,
};

impl Store {
    /// Revokes the tickets of an order and frees their seats, once. Answers the tickets.
    pub(crate) async fn refund(&self, order_id: Uuid, token: Option<FencingToken>) -> Result<Vec<Ticket>, StoreError> {
        self.whole(|| self.try_refund(order_id, token)).await
    }

    async fn try_refund(&self, order_id: Uuid, token: Option<FencingToken>) -> Result<Vec<Ticket>, StoreError> {
        let mut write = self.begin().await?;
        let holds = holds_of(&mut write, order_id).await?;
        let event = holds.first().ok_or(Refusal::OrderUnknown(order_id))?.event;
        let mut tickets = Vec::new();
        for hold in &holds {
            if hold.facts.refund(token, order_id)? == Refund::Revoke {
                revoke(&mut write, hold).await?;
            }
            tickets.extend(sales::tickets(&mut write.tx, hold).await?);
        }
        write.commit().await?;
        self.changed(event);
        Ok(tickets)
    }
}

/// The holds that became tickets of the order: one, unless its maker confirmed two of them for one order.
async fn holds_of(write: &mut Write, order_id: Uuid) -> Result<Vec<StoredHold>, StoreError> {
    let ids: Vec<String> = sqlx::query_scalar(
        "SELECT holds.id FROM holds WHERE token IN (SELECT hold FROM tickets WHERE order_id = $1) ORDER BY token",
    )
    .bind(order_id.to_string())
    .fetch_all(&mut *write.tx)
    .await?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let look = Look::ToDecide(write.dialect);
        let hold = holds::find(&mut write.tx, rows::uuid(&id)?, look).await?;
        found.push(hold.ok_or(StoreError::Corrupt("a ticket of no hold"))?);
    }
    Ok(found)
}

async fn revoke(write: &mut Write, hold: &StoredHold) -> Result<(), StoreError> {
    sqlx::query("UPDATE tickets SET revoked_at = $1 WHERE hold = $2 AND revoked_at IS NULL")
        .bind(write.now.as_nanos())
        .bind(hold.facts.token.0)
        .execute(&mut *write.tx)
        .await?;
    sales::end(write, hold, Ending::Refunded).await
}
