//! Orders: recorded, moved on step by step, found.

use service_store::{Connection, TimeCursor, Write};
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{Store, StoreError, rows, users, wallet};
use crate::{
    domain::{
        order::{Failing, Failure, Held, NewOrder, Order, Selection, Trace},
        refusal::Refusal,
        saga::{self, Step},
    },
    events,
};

/// An order as BuyTicket and RefundOrder find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It is new.
    New(Order),
    /// The same request recorded it before.
    Before(Order),
}

impl Recorded {
    /// The order, whether it is new or not.
    pub(crate) fn into_order(self) -> Order {
        match self {
            Self::New(order) | Self::Before(order) => order,
        }
    }
}

impl Store {
    /// Records an order, once for each id. A new one is claimed by this process.
    pub(crate) async fn record_order(&self, new: &NewOrder, trace: &Trace) -> Result<Recorded, StoreError> {
        self.whole(|| self.try_record_order(new, trace, &Step::Begin)).await
    }

    /// Records an order that has failed before anything was asked for it, once for each id.
    pub(crate) async fn record_failed(
        &self,
        new: &NewOrder,
        trace: &Trace,
        why: Failing,
    ) -> Result<Recorded, StoreError> {
        let step = Step::Failed(why);
        self.whole(|| self.try_record_order(new, trace, &step)).await
    }

    async fn try_record_order(&self, new: &NewOrder, trace: &Trace, step: &Step) -> Result<Recorded, StoreError> {
        let mut write = self.begin().await?;
        if let Some(order) = same_order(&mut write.tx, new).await? {
            write.commit().await?;
            return Ok(Recorded::Before(order));
        }
        users::open_locked(&mut write, new.user_id).await?;
        let (chosen, quantity, section) = match &new.selection {
            Selection::Seats(seats) => (Some(rows::seats_joined(seats.as_slice())), None, None),
            Selection::BestAvailable { quantity, section } => {
                (None, Some(i64::from(quantity.get())), section.as_deref())
            }
        };
        let columns = rows::step_columns(step);
        let (owner, until) = self.claim_at(step, &write);
        let row = sqlx::query(
            "INSERT INTO orders (id, user_id, event_id, body_hash, chosen_seats, quantity, section, step, version,
                                 ticket_instance, trace_id, trace_parent, created_at, updated_at,
                                 claim, claim_owner, claim_until, failure, detail)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $13, 1, '', $8, $9, $10, $10, 1, $11, $12, $14, $15) RETURNING *",
        )
        .bind(new.id.to_string())
        .bind(new.user_id.to_string())
        .bind(new.event_id.to_string())
        .bind(new.fingerprint().to_vec())
        .bind(chosen)
        .bind(quantity)
        .bind(section)
        .bind(&trace.id)
        .bind(&trace.parent)
        .bind(write.now.as_nanos())
        .bind(owner)
        .bind(until)
        .bind(columns.name)
        .bind(columns.failure)
        .bind(columns.detail)
        .fetch_one(&mut *write.tx)
        .await?;
        let order = rows::order(&row)?;
        if let Some(event) = events::of(&Step::Begin, &order) {
            outbox::record(&mut write, event).await?;
        }
        self.commit_move(write, &order).await?;
        Ok(Recorded::New(order))
    }

    /// The order that the same request recorded before, if it did.
    pub(crate) async fn recorded_order(&self, new: &NewOrder) -> Result<Option<Order>, StoreError> {
        same_order(&mut *self.database.reader().acquire().await?, new).await
    }

    /// One order.
    pub(crate) async fn order(&self, id: Uuid) -> Result<Order, StoreError> {
        let row = find(&mut *self.database.reader().acquire().await?, id).await?;
        rows::order(&row.ok_or(Refusal::OrderUnknown(id))?)
    }

    /// At most `limit` orders of a user before `cursor`, newest first.
    pub(crate) async fn orders(
        &self,
        user_id: Uuid,
        cursor: Option<TimeCursor>,
        limit: u32,
    ) -> Result<Vec<Order>, StoreError> {
        let mut reader = self.database.reader().acquire().await?;
        users::user(&mut reader, user_id).await?;
        let (created_at, id) = cursor.map_or((i64::MAX, String::new()), |cursor| {
            (cursor.at.as_nanos(), cursor.id.to_string())
        });
        let found = sqlx::query(
            "SELECT * FROM orders WHERE user_id = $1 AND (created_at, id) < ($2, $3)
             ORDER BY created_at DESC, id DESC LIMIT $4",
        )
        .bind(user_id.to_string())
        .bind(created_at)
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(&mut *reader)
        .await?;
        found.iter().map(rows::order).collect()
    }

    /// Records the next step, and what was held if that is news. [`StoreError::Overtaken`] when someone else did first, or has claimed it.
    pub(crate) async fn advance(&self, order: &Order, step: Step, held: Option<Held>) -> Result<Order, StoreError> {
        self.whole(|| self.try_advance(order, &step, held.as_ref())).await
    }

    async fn try_advance(&self, order: &Order, step: &Step, held: Option<&Held>) -> Result<Order, StoreError> {
        let mut write = self.begin().await?;
        let moved = self.moved(&mut write, order, step, held).await?;
        self.commit_move(write, &moved).await?;
        Ok(moved)
    }

    /// Takes the money and records what comes next, in one transaction: there is no moment between the two.
    pub(crate) async fn debit(&self, order: &Order) -> Result<Order, StoreError> {
        self.whole(|| self.try_debit(order)).await
    }

    async fn try_debit(&self, order: &Order) -> Result<Order, StoreError> {
        let held = order
            .held
            .as_ref()
            .ok_or(StoreError::Corrupt("a debit without a hold"))?;
        let mut write = self.begin().await?;
        let outcome = match wallet::debit(&mut write, order, held.total).await {
            Ok(()) => Ok(()),
            Err(StoreError::Refused(refusal @ Refusal::Wallet(_))) => {
                Err(Failing::new(Failure::InsufficientFunds, refusal.to_string()))
            }
            Err(error) => return Err(error),
        };
        let moved = self.moved(&mut write, order, &saga::after_debit(outcome), None).await?;
        self.commit_move(write, &moved).await?;
        Ok(moved)
    }

    /// Gives the money back and records the release as next, in one transaction.
    pub(crate) async fn refund(&self, order: &Order, why: Failing) -> Result<Order, StoreError> {
        let next = Step::Release(why);
        self.whole(|| self.try_refund(order, &next)).await
    }

    async fn try_refund(&self, order: &Order, next: &Step) -> Result<Order, StoreError> {
        let mut write = self.begin().await?;
        wallet::refund(&mut write, order).await?;
        let moved = self.moved(&mut write, order, next, None).await?;
        self.commit_move(write, &moved).await?;
        Ok(moved)
    }

    pub(super) async fn commit_move(&self, write: Write, moved: &Order) -> Result<(), StoreError> {
        write.commit().await?;
        if moved.step.is_final() {
            self.bell.ring();
        }
        Ok(())
    }

    /// Each move is conditional on what was read and on the claim it was read under, and is a renewal of that claim.
    pub(super) async fn moved(
        &self,
        write: &mut Write,
        order: &Order,
        step: &Step,
        held: Option<&Held>,
    ) -> Result<Order, StoreError> {
        let held = held.or(order.held.as_ref());
        let refused = order.refund.as_ref().and_then(|refund| refund.refused.as_ref());
        let columns = rows::step_columns(step);
        let (owner, until) = self.claim_at(step, write);
        let row = sqlx::query(
            "UPDATE orders SET step = $1, failure = $2, detail = $3, tickets = $4, hold_token = $5, held_seats = $6,
                    total = $7, total_currency = $8, ticket_instance = $9, updated_at = $10, version = version + 1,
                    claim_owner = $11, claim_until = $12, refund_refusal = $13, refund_detail = $14
             WHERE id = $15 AND version = $16 AND claim = $17 RETURNING *",
        )
        .bind(columns.name)
        .bind(columns.failure)
        .bind(columns.detail)
        .bind(columns.tickets)
        .bind(held.map(|held| held.token))
        .bind(held.map(|held| rows::seats_joined(&held.seats)))
        .bind(held.map(|held| held.total.minor()))
        .bind(held.map(|held| held.total.currency().as_str().to_owned()))
        .bind(&order.ticket_instance)
        .bind(write.now.as_nanos())
        .bind(owner)
        .bind(until)
        .bind(refused.map(|refused| refused.why.name()))
        .bind(refused.map(|refused| refused.detail.as_str()))
        .bind(order.id.to_string())
        .bind(order.version)
        .bind(order.claim.number)
        .fetch_optional(&mut *write.tx)
        .await?;
        let moved = rows::order(&row.ok_or(StoreError::Overtaken)?)?;
        if let Some(event) = events::of(&order.step, &moved) {
            outbox::record(write, event).await?;
        }
        Ok(moved)
    }

    /// Who may move an order on that is at `step`, and until when nobody else may.
    fn claim_at(&self, step: &Step, write: &Write) -> (&str, i64) {
        if step.is_final() {
            return ("", 0);
        }
        let until = write.now.after(self.claimant.lease);
        (self.claimant.owner.as_str(), until.as_nanos())
    }
}

pub(super) async fn find(connection: &mut Connection, id: Uuid) -> Result<Option<AnyRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM orders WHERE id = $1").bind(id.to_string());
    Ok(row.fetch_optional(connection).await?)
}

async fn same_order(connection: &mut Connection, new: &NewOrder) -> Result<Option<Order>, StoreError> {
    use sqlx::Row as _;
    let Some(row) = find(connection, new.id).await? else {
        return Ok(None);
    };
    if !new.fingerprint().matches(row.try_get("body_hash")?) {
        return Err(Refusal::RequestIdReused(new.id).into());
    }
    rows::order(&row).map(Some)
}
