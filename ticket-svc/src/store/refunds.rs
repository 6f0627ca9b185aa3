//! Refunds: seats that were sold become free, exactly once for each order. Money is not moved here.
//!
//! A refusal by the event's terms is recorded before it is told: the same request, come late, must not be granted once the
//! terms are others, since who asked has gone on without it.

use service_store::{Timestamp, Write};
use uuid::Uuid;

use super::{
    Store, StoreError,
    holds::{self, Look, StoredHold},
    rows, sales,
};
use crate::{
    domain::{
        hold::{Ending, Refund, Ticket},
        refund::NewRefund,
        refusal::Refusal,
    },
    events,
};

impl Store {
    /// Revokes the tickets of an order and frees their seats, once. Answers the tickets.
    pub(crate) async fn refund(&self, new: &NewRefund) -> Result<Vec<Ticket>, StoreError> {
        self.whole(|| self.try_refund(new)).await
    }

    async fn try_refund(&self, new: &NewRefund) -> Result<Vec<Ticket>, StoreError> {
        let mut write = self.begin().await?;
        let order_id = new.order_id;
        let holds = holds_of(&mut write, order_id).await?;
        let first = holds.first().ok_or(Refusal::OrderUnknown(order_id))?;
        let event = first.event;
        let decided: Result<Vec<Refund>, Refusal> = holds
            .iter()
            .map(|hold| hold.facts.refund(new.token, order_id))
            .collect();
        let decided = decided?;
        // What was revoked before is answered again, whatever the terms are by now.
        if decided.contains(&Refund::Revoke) {
            if let Some(until) = refused_before(&mut write, new).await? {
                // Whoever is told so relies on it: see above.
                write.commit().await?;
                return Err(Refusal::RefundClosed(until).into());
            }
            let checked = holds::event_of(&mut write.tx, first)
                .await?
                .check_refund(new.by, write.now);
            if let Err(refusal) = checked {
                remember(&mut write, new, &refusal).await?;
                write.commit().await?;
                return Err(refusal.into());
            }
        }
        let mut tickets = Vec::new();
        for (hold, decided) in holds.iter().zip(decided) {
            let is_new = decided == Refund::Revoke;
            if is_new {
                revoke(&mut write, hold).await?;
            }
            let of_hold = sales::tickets(&mut write.tx, hold).await?;
            if let Some(first) = of_hold.first().filter(|_| is_new) {
                outbox::record(&mut write, events::refunded(hold.named(first.event_id), &of_hold)).await?;
            }
            tickets.extend(of_hold);
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

/// Until when this very request could have been granted, if it was refused.
async fn refused_before(write: &mut Write, new: &NewRefund) -> Result<Option<Timestamp>, StoreError> {
    let Some(id) = new.id else { return Ok(None) };
    let until: Option<i64> = sqlx::query_scalar("SELECT until FROM refused_refunds WHERE request_id = $1")
        .bind(id.to_string())
        .fetch_optional(&mut *write.tx)
        .await?;
    Ok(until.map(Timestamp::from_nanos))
}

async fn remember(write: &mut Write, new: &NewRefund, refusal: &Refusal) -> Result<(), StoreError> {
    if let (Some(id), Refusal::RefundClosed(until)) = (new.id, refusal) {
        sqlx::query("INSERT INTO refused_refunds (request_id, until, refused_at) VALUES ($1, $2, $3)")
            .bind(id.to_string())
            .bind(until.as_nanos())
            .bind(write.now.as_nanos())
            .execute(&mut *write.tx)
            .await?;
    }
    Ok(())
}

async fn revoke(write: &mut Write, hold: &StoredHold) -> Result<(), StoreError> {
    sqlx::query("UPDATE tickets SET revoked_at = $1 WHERE hold = $2 AND revoked_at IS NULL")
        .bind(write.now.as_nanos())
        .bind(hold.facts.token.0)
        .execute(&mut *write.tx)
        .await?;
    sales::end(write, hold, Ending::Refunded).await.map(drop)
}
