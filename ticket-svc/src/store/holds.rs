//! Holds: granted, confirmed and released, each in one transaction that looks, decides and writes.

use service_store::{Connection, Dialect, Money, Timestamp, for_update};
use uuid::Uuid;

use super::{
    Store, StoreError,
    rows::{self, EventKey},
    sales, take,
};
use crate::{
    domain::{
        event::Event,
        hold::{Confirmation, Ending, FencingToken, Hold, HoldFacts, HoldPhase, MAX_SEATS, NewHold, Release, Ticket},
        refusal::Refusal,
        seat::Place,
        stock::Seat,
    },
    events::{self, OfHold, Reason},
};

/// A hold as it is stored.
pub(super) struct StoredHold {
    pub(super) facts: HoldFacts,
    pub(super) event: i64,
    buyer: String,
    body_hash: Vec<u8>,
    expires_at: Timestamp,
}

impl StoredHold {
    /// As others are told of it.
    pub(super) fn named(&self, event_id: Uuid) -> OfHold {
        OfHold {
            id: self.facts.id,
            token: self.facts.token,
            event_id,
        }
    }
}

impl Store {
    /// Holds seats, all or none, once for each id.
    pub(crate) async fn hold(&self, new: &NewHold) -> Result<Hold, StoreError> {
        self.whole(|| self.try_hold(new)).await
    }

    async fn try_hold(&self, new: &NewHold) -> Result<Hold, StoreError> {
        let mut write = self.begin().await?;
        // Against a release of the same id that would find no hold while this one finds no release.
        write.lock(&word(new.id)).await?;
        if let Some(known) = find(&mut write.tx, new.id, Look::Only).await? {
            if !new.fingerprint().matches(&known.body_hash) {
                return Err(Refusal::RequestIdReused(new.id).into());
            }
            known.facts.repeat()?;
            let hold = granted(&mut write.tx, &known).await?;
            write.commit().await?;
            return Ok(hold);
        }
        if released_unheard(&mut write.tx, new.id).await? {
            return Err(Refusal::HoldReleased(new.id).into());
        }
        let stored = rows::event(&mut write.tx, EventKey::Id(new.event_id)).await?;
        let stored = stored.ok_or(Refusal::EventUnknown(new.event_id))?;
        stored.event.terms.window.check(write.now)?;
        let share = take::share(&mut write, stored.seq, new.buyer.as_str()).await?;
        share.check(stored.event.terms.cap, new.selection.seats(), write.now)?;
        let places = take::choose(&mut write, &stored, &new.selection).await?;
        let (token, expires_at) = take::grant(&mut write, &stored, new, &places).await?;
        let hold = described(&stored.event, new.id, token, new.buyer.as_str(), &places, expires_at)?;
        outbox::record(&mut write, events::held(&hold)).await?;
        write.commit().await?;
        self.changed(stored.seq);
        Ok(hold)
    }

    /// Sells the seats of a hold, once; `ids` name the tickets when they are new.
    pub(crate) async fn confirm(
        &self,
        hold_id: Uuid,
        token: FencingToken,
        order_id: Uuid,
        ids: [Uuid; MAX_SEATS],
    ) -> Result<Vec<Ticket>, StoreError> {
        self.whole(|| self.try_confirm(hold_id, token, order_id, ids)).await
    }

    async fn try_confirm(
        &self,
        hold_id: Uuid,
        token: FencingToken,
        order_id: Uuid,
        ids: [Uuid; MAX_SEATS],
    ) -> Result<Vec<Ticket>, StoreError> {
        let mut write = self.begin().await?;
        let Some(hold) = find(&mut write.tx, hold_id, Look::ToDecide(write.dialect)).await? else {
            let released = released_unheard(&mut write.tx, hold_id).await?;
            return Err(if released {
                Refusal::HoldReleased(hold_id)
            } else {
                Refusal::HoldUnknown(hold_id)
            }
            .into());
        };
        match hold.facts.confirm(token, order_id, write.now)? {
            Confirmation::Sell => {
                sales::sell(&mut write, &hold, order_id, ids).await?;
                let tickets = sales::tickets(&mut write.tx, &hold).await?;
                if let Some(first) = tickets.first() {
                    outbox::record(&mut write, events::sold(hold.named(first.event_id), &tickets)).await?;
                }
                write.commit().await?;
                self.changed(hold.event);
                Ok(tickets)
            }
            Confirmation::Repeat => {
                let tickets = sales::tickets(&mut write.tx, &hold).await?;
                write.commit().await?;
                Ok(tickets)
            }
            Confirmation::Lapse => {
                let event = event_of(&mut write.tx, &hold).await?;
                sales::give_back(&mut write, &hold, &event, Reason::Expired).await?;
                // Before the refusal is told: see the variant.
                write.commit().await?;
                self.changed(hold.event);
                Err(Refusal::HoldExpired(hold_id).into())
            }
        }
    }

    /// Gives the seats of a hold back. One that never was is remembered, so that it never will be.
    pub(crate) async fn release(&self, hold_id: Uuid, token: Option<FencingToken>) -> Result<(), StoreError> {
        self.whole(|| self.try_release(hold_id, token)).await
    }

    async fn try_release(&self, hold_id: Uuid, token: Option<FencingToken>) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        write.lock(&word(hold_id)).await?;
        match find(&mut write.tx, hold_id, Look::ToDecide(write.dialect)).await? {
            None => {
                sqlx::query(
                    "INSERT INTO empty_releases (hold_id, released_at) VALUES ($1, $2) ON CONFLICT (hold_id) DO NOTHING",
                )
                .bind(hold_id.to_string())
                .bind(write.now.as_nanos())
                .execute(&mut *write.tx)
                .await?;
            }
            Some(hold) => match hold.facts.release(token)? {
                Release::Repeat => {}
                Release::GiveBack => {
                    let event = event_of(&mut write.tx, &hold).await?;
                    sales::give_back(&mut write, &hold, &event, Reason::Released).await?;
                    write.commit().await?;
                    self.changed(hold.event);
                    return Ok(());
                }
            },
        }
        Ok(write.commit().await?)
    }
}

/// What is looked at a hold for.
#[derive(Clone, Copy)]
pub(super) enum Look {
    /// To tell of it.
    Only,
    /// To decide on it: it stays as it is until the transaction ends.
    ToDecide(Dialect),
}

/// What is locked for a hold that is not there yet.
fn word(hold: Uuid) -> String {
    format!("hold {hold}")
}

pub(super) async fn find(connection: &mut Connection, id: Uuid, look: Look) -> Result<Option<StoredHold>, StoreError> {
    type Row = (i64, i64, String, Vec<u8>, i64, i64, i64, Option<String>);
    let lock = match look {
        Look::Only => "",
        Look::ToDecide(dialect) => for_update(dialect),
    };
    // Our own words only.
    let select = sqlx::AssertSqlSafe(format!(
        "SELECT token, event, buyer, body_hash, phase, ending, expires_at, order_id FROM holds WHERE id = $1{lock}"
    ));
    let row: Option<Row> = sqlx::query_as(select)
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.map(
        |(token, event, buyer, body_hash, phase, ending, expires_at, order_id)| {
            let expires_at = Timestamp::from_nanos(expires_at);
            let phase = match (phase, ending, order_id) {
                (0, 0, None) => HoldPhase::Held { until: expires_at },
                (1, 0, Some(order)) => HoldPhase::Confirmed {
                    order_id: rows::uuid(&order)?,
                },
                (2, 0, None) => HoldPhase::Over(Ending::Released),
                (2, 1, None) => HoldPhase::Over(Ending::Lapsed),
                (2, 2, None) => HoldPhase::Over(Ending::Refunded),
                _ => return Err(StoreError::Corrupt("a hold phase that is none")),
            };
            let facts = HoldFacts {
                id,
                token: FencingToken(token),
                phase,
            };
            Ok(StoredHold {
                facts,
                event,
                buyer,
                body_hash,
                expires_at,
            })
        },
    )
    .transpose()
}

async fn released_unheard(connection: &mut Connection, id: Uuid) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT released_at FROM empty_releases WHERE hold_id = $1")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

/// The answer that a hold was given.
async fn granted(connection: &mut Connection, hold: &StoredHold) -> Result<Hold, StoreError> {
    let places = places(connection, hold).await?;
    let event = event_of(connection, hold).await?;
    described(
        &event,
        hold.facts.id,
        hold.facts.token,
        &hold.buyer,
        &places,
        hold.expires_at,
    )
}

async fn places(connection: &mut Connection, hold: &StoredHold) -> Result<Vec<Place>, StoreError> {
    let found: Vec<(i64, i64, i64)> = sqlx::query_as(
        "SELECT section, row_no, seat_no FROM hold_seats WHERE hold = $1 ORDER BY section, row_no, seat_no",
    )
    .bind(hold.facts.token.0)
    .fetch_all(connection)
    .await?;
    found.into_iter().map(rows::place).collect()
}

/// The seats that a hold was granted, as they are now.
pub(super) async fn seats(connection: &mut Connection, hold: &StoredHold) -> Result<Vec<(Place, Seat)>, StoreError> {
    type Row = (i64, i64, i64, i64, i64, Option<i64>, Option<i64>);
    let found: Vec<Row> = sqlx::query_as(
        "SELECT seats.section, seats.row_no, seats.seat_no, seats.version, state, seats.hold, held_until
           FROM hold_seats AS granted JOIN seats ON seats.event = $1 AND seats.section = granted.section
                AND seats.row_no = granted.row_no AND seats.seat_no = granted.seat_no
          WHERE granted.hold = $2 ORDER BY 1, 2, 3",
    )
    .bind(hold.event)
    .bind(hold.facts.token.0)
    .fetch_all(connection)
    .await?;
    found
        .into_iter()
        .map(|(section, row, number, version, state, by, until)| {
            let place = rows::place((section, row, number))?;
            Ok((place, rows::seat(version, state, by, until)?))
        })
        .collect()
}

pub(super) async fn event_of(connection: &mut Connection, hold: &StoredHold) -> Result<Event, StoreError> {
    let stored = rows::event(connection, EventKey::Seq(hold.event)).await?;
    Ok(stored.ok_or(StoreError::Corrupt("a hold of no event"))?.event)
}

fn described(
    event: &Event,
    id: Uuid,
    token: FencingToken,
    buyer: &str,
    places: &[Place],
    expires_at: Timestamp,
) -> Result<Hold, StoreError> {
    let mut total = Money::zero(event.plan.currency());
    let mut seats = Vec::with_capacity(places.len());
    for place in places {
        let (seat, price) = event
            .plan
            .describe(*place)
            .ok_or(StoreError::Corrupt("a seat of no section"))?;
        total = total
            .plus(price)
            .map_err(|_| StoreError::Corrupt("prices without a sum"))?;
        seats.push((seat, price));
    }
    Ok(Hold {
        id,
        token,
        event_id: event.id,
        buyer: buyer.to_owned(),
        seats,
        total,
        expires_at,
    })
}
