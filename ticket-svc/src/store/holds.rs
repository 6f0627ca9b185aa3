//! Holds: granted, confirmed and released, each in one transaction that looks, decides and writes.

use service_store::{Money, Timestamp, Write};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{
    Store, StoreError,
    rows::{self, EventKey, StoredEvent},
};
use crate::domain::{
    event::Event,
    hold::{Confirmation, FencingToken, Hold, HoldFacts, HoldPhase, MAX_SEATS, NewHold, Release, Selection, Ticket},
    pick,
    refusal::Refusal,
    seat::Place,
};

/// A hold as it is stored.
struct StoredHold {
    facts: HoldFacts,
    event: i64,
    buyer: String,
    body_hash: Vec<u8>,
    expires_at: Timestamp,
}

impl Store {
    /// Holds seats, all or none, once for each id.
    pub(crate) async fn hold(&self, new: &NewHold) -> Result<Hold, StoreError> {
        let mut write = self.begin().await?;
        if let Some(known) = find(&mut write.tx, new.id).await? {
            if !new.fingerprint().matches(&known.body_hash) {
                return Err(Refusal::RequestIdReused(new.id).into());
            }
            known.facts.repeat()?;
            return granted(&mut write.tx, &known).await;
        }
        if released_unheard(&mut write.tx, new.id).await? {
            return Err(Refusal::HoldReleased(new.id).into());
        }
        let stored = rows::event(&mut write.tx, EventKey::Id(new.event_id)).await?;
        let stored = stored.ok_or(Refusal::EventUnknown(new.event_id))?;
        let places = choose(&mut write, &stored, &new.selection).await?;
        let hold = grant(&mut write, &stored, new, &places).await?;
        write.commit().await?;
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
        let mut write = self.begin().await?;
        let Some(hold) = find(&mut write.tx, hold_id).await? else {
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
                sell(&mut write, &hold, order_id, ids).await?;
                let tickets = tickets(&mut write.tx, &hold).await?;
                write.commit().await?;
                Ok(tickets)
            }
            Confirmation::Repeat => tickets(&mut write.tx, &hold).await,
            Confirmation::Lapse => {
                give_back(&mut write, token).await?;
                // Before the refusal is told: see the variant.
                write.commit().await?;
                Err(Refusal::HoldExpired(hold_id).into())
            }
        }
    }

    /// Gives the seats of a hold back. One that never was is remembered, so that it never will be.
    pub(crate) async fn release(&self, hold_id: Uuid, token: Option<FencingToken>) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        match find(&mut write.tx, hold_id).await? {
            None => {
                sqlx::query("INSERT OR IGNORE INTO empty_releases (hold_id, released_at) VALUES (?, ?)")
                    .bind(hold_id.to_string())
                    .bind(write.now.as_nanos())
                    .execute(&mut *write.tx)
                    .await?;
            }
            Some(hold) => match hold.facts.release(token)? {
                Release::Repeat => return Ok(()),
                Release::GiveBack => give_back(&mut write, hold.facts.token).await?,
            },
        }
        Ok(write.commit().await?)
    }
}

async fn find(connection: &mut SqliteConnection, id: Uuid) -> Result<Option<StoredHold>, StoreError> {
    type Row = (i64, i64, String, Vec<u8>, i64, i64, Option<String>);
    let row: Option<Row> =
        sqlx::query_as("SELECT token, event, buyer, body_hash, phase, expires_at, order_id FROM holds WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(connection)
            .await?;
    row.map(|(token, event, buyer, body_hash, phase, expires_at, order_id)| {
        let expires_at = Timestamp::from_nanos(expires_at);
        let phase = match (phase, order_id) {
            (0, None) => HoldPhase::Held { until: expires_at },
            (1, Some(order)) => HoldPhase::Confirmed {
                order_id: rows::uuid(&order)?,
            },
            (2, None) => HoldPhase::Released,
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
    })
    .transpose()
}

async fn released_unheard(connection: &mut SqliteConnection, id: Uuid) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT released_at FROM empty_releases WHERE hold_id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

/// Which places the selection means. Whether chosen ones are free is for the conditional write to say.
async fn choose(write: &mut Write, stored: &StoredEvent, selection: &Selection) -> Result<Vec<Place>, StoreError> {
    let plan = &stored.event.plan;
    match selection {
        Selection::Seats(seats) => seats
            .as_slice()
            .iter()
            .map(|seat| {
                plan.place(seat)
                    .ok_or_else(|| Refusal::SeatUnknown(seat.clone()).into())
            })
            .collect(),
        Selection::BestAvailable { quantity, section } => {
            let section = match section {
                None => None,
                Some(name) => Some(
                    plan.position(name)
                        .ok_or_else(|| Refusal::SectionUnknown(name.as_str().to_owned()))?,
                ),
            };
            let free = free_places(write, stored.seq, section).await?;
            let sold_out = Refusal::SoldOut {
                wanted: quantity.get(),
                free: u32::try_from(free.len()).unwrap_or(u32::MAX),
            };
            Ok(pick::best(free, quantity.get() as usize).ok_or(sold_out)?)
        }
    }
}

/// The free places of an event, or of one section. A row of the answer is a row of seats: fetching 20,000 rows one by one
/// would hold the write lock some ten times as long.
async fn free_places(write: &mut Write, event: i64, section: Option<u32>) -> Result<Vec<Place>, StoreError> {
    let rows: Vec<(u32, u32, String)> = sqlx::query_as(
        "SELECT section, row_no, group_concat(seat_no) FROM seats
         WHERE event = ?1 AND (?2 IS NULL OR section = ?2) AND (state = 0 OR (state = 1 AND held_until <= ?3))
         GROUP BY section, row_no",
    )
    .bind(event)
    .bind(section)
    .bind(write.now.as_nanos())
    .fetch_all(&mut *write.tx)
    .await?;
    let mut free = Vec::new();
    for (section, row, numbers) in rows {
        for number in numbers.split(',') {
            let number = number
                .parse()
                .map_err(|_| StoreError::Corrupt("a seat number that is none"))?;
            free.push(Place { section, row, number });
        }
    }
    Ok(free)
}

async fn grant(write: &mut Write, stored: &StoredEvent, new: &NewHold, places: &[Place]) -> Result<Hold, StoreError> {
    let expires_at = write.now.after(new.ttl.get());
    let token: i64 = sqlx::query_scalar(
        "INSERT INTO holds (id, event, buyer, body_hash, expires_at, created_at) VALUES (?, ?, ?, ?, ?, ?) RETURNING token",
    )
    .bind(new.id.to_string())
    .bind(stored.seq)
    .bind(new.buyer.as_str())
    .bind(new.fingerprint().to_vec())
    .bind(expires_at.as_nanos())
    .bind(write.now.as_nanos())
    .fetch_one(&mut *write.tx)
    .await?;
    for place in places {
        take(write, stored, *place, token, expires_at).await?;
    }
    let token = FencingToken(token);
    described(&stored.event, new.id, token, new.buyer.as_str(), places, expires_at)
}

/// Takes one seat if it is free at this moment; the write is the check.
async fn take(
    write: &mut Write,
    stored: &StoredEvent,
    place: Place,
    token: i64,
    until: Timestamp,
) -> Result<(), StoreError> {
    let taken = sqlx::query(
        "UPDATE seats SET state = 1, hold = ?1, held_until = ?2
         WHERE event = ?3 AND section = ?4 AND row_no = ?5 AND seat_no = ?6
           AND (state = 0 OR (state = 1 AND held_until <= ?7))",
    )
    .bind(token)
    .bind(until.as_nanos())
    .bind(stored.seq)
    .bind(place.section)
    .bind(place.row)
    .bind(place.number)
    .bind(write.now.as_nanos())
    .execute(&mut *write.tx)
    .await?;
    if taken.rows_affected() != 1 {
        let (seat, _) = stored
            .event
            .plan
            .describe(place)
            .ok_or(StoreError::Corrupt("a seat of no section"))?;
        return Err(Refusal::SeatTaken(seat).into());
    }
    sqlx::query("INSERT INTO hold_seats (hold, section, row_no, seat_no) VALUES (?, ?, ?, ?)")
        .bind(token)
        .bind(place.section)
        .bind(place.row)
        .bind(place.number)
        .execute(&mut *write.tx)
        .await?;
    Ok(())
}

async fn sell(write: &mut Write, hold: &StoredHold, order_id: Uuid, ids: [Uuid; MAX_SEATS]) -> Result<(), StoreError> {
    let places = places(&mut write.tx, hold).await?;
    let token = hold.facts.token.0;
    // Conditional on the token: a seat that went to a later hold is not ours to sell, whatever the clock says. It never comes
    // back to this token, so the refusal is final without a record.
    let sold = sqlx::query(
        "UPDATE seats SET state = 2, held_until = NULL WHERE (event, section, row_no, seat_no) IN
           (SELECT ?1, section, row_no, seat_no FROM hold_seats WHERE hold = ?2) AND hold = ?2 AND state = 1",
    )
    .bind(hold.event)
    .bind(token)
    .execute(&mut *write.tx)
    .await?;
    if sold.rows_affected() != places.len() as u64 {
        return Err(Refusal::HoldExpired(hold.facts.id).into());
    }
    for (place, id) in places.iter().zip(ids) {
        sqlx::query(
            "INSERT INTO tickets (id, event, section, row_no, seat_no, hold, order_id, sold_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id.to_string())
        .bind(hold.event)
        .bind(place.section)
        .bind(place.row)
        .bind(place.number)
        .bind(token)
        .bind(order_id.to_string())
        .bind(write.now.as_nanos())
        .execute(&mut *write.tx)
        .await?;
    }
    sqlx::query("UPDATE holds SET phase = 1, order_id = ? WHERE token = ?")
        .bind(order_id.to_string())
        .bind(token)
        .execute(&mut *write.tx)
        .await?;
    Ok(())
}

async fn give_back(write: &mut Write, token: FencingToken) -> Result<(), StoreError> {
    // By token: seats that an expired hold has lost to a later one stay with that one.
    sqlx::query(
        "UPDATE seats SET state = 0, hold = NULL, held_until = NULL WHERE (event, section, row_no, seat_no) IN
           (SELECT holds.event, hold_seats.section, hold_seats.row_no, hold_seats.seat_no
              FROM hold_seats JOIN holds ON holds.token = hold_seats.hold WHERE hold_seats.hold = ?1)
           AND hold = ?1 AND state = 1",
    )
    .bind(token.0)
    .execute(&mut *write.tx)
    .await?;
    sqlx::query("UPDATE holds SET phase = 2 WHERE token = ?")
        .bind(token.0)
        .execute(&mut *write.tx)
        .await?;
    Ok(())
}

/// The answer that a hold was given.
async fn granted(connection: &mut SqliteConnection, hold: &StoredHold) -> Result<Hold, StoreError> {
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

async fn places(connection: &mut SqliteConnection, hold: &StoredHold) -> Result<Vec<Place>, StoreError> {
    let found: Vec<(u32, u32, u32)> = sqlx::query_as(
        "SELECT section, row_no, seat_no FROM hold_seats WHERE hold = ? ORDER BY section, row_no, seat_no",
    )
    .bind(hold.facts.token.0)
    .fetch_all(connection)
    .await?;
    Ok(found.into_iter().map(rows::place).collect())
}

async fn tickets(connection: &mut SqliteConnection, hold: &StoredHold) -> Result<Vec<Ticket>, StoreError> {
    let found: Vec<(String, u32, u32, u32, String)> = sqlx::query_as(
        "SELECT id, section, row_no, seat_no, order_id FROM tickets WHERE hold = ? ORDER BY section, row_no, seat_no",
    )
    .bind(hold.facts.token.0)
    .fetch_all(&mut *connection)
    .await?;
    let event = event_of(connection, hold).await?;
    found
        .into_iter()
        .map(|(id, section, row, number, order_id)| {
            let described = event.plan.describe(rows::place((section, row, number)));
            let (seat, price) = described.ok_or(StoreError::Corrupt("a ticket for no seat"))?;
            Ok(Ticket {
                id: rows::uuid(&id)?,
                event_id: event.id,
                seat,
                order_id: rows::uuid(&order_id)?,
                price,
            })
        })
        .collect()
}

async fn event_of(connection: &mut SqliteConnection, hold: &StoredHold) -> Result<Event, StoreError> {
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
