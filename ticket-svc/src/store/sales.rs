//! The end of a hold: its seats are sold, or given back. Both change a seat as the hold was granted it, (seat, version), or not at all.

use service_store::{Connection, Write};
use uuid::Uuid;

use super::{
    StoreError,
    holds::{self, StoredHold},
    rows,
    take::places_listed,
};
use crate::{
    domain::{
        event::Event,
        hold::{Ending, MAX_SEATS, Ticket},
        refusal::Refusal,
        seat::Place,
        stock::Seat,
    },
    events::{self, Reason},
};

/// Sells the seats of a hold, all or none.
pub(super) async fn sell(
    write: &mut Write,
    hold: &StoredHold,
    order_id: Uuid,
    ids: [Uuid; MAX_SEATS],
) -> Result<(), StoreError> {
    let token = hold.facts.token.0;
    let too_late = || Refusal::HoldExpired(hold.facts.id);
    let mut places = Vec::new();
    for (place, seat) in holds::seats(&mut write.tx, hold).await? {
        // A seat that went to a later hold is not ours to sell, whatever the clock says. It never comes back to this token, so
        // the refusal is final without a record.
        match seat {
            Seat::Held(held) => held.sell(hold.facts.token).map_err(|_| too_late())?,
            Seat::Free(_) | Seat::Sold(_) => return Err(too_late().into()),
        };
        places.push(place);
    }
    let sold = sqlx::query(
        "UPDATE seats SET state = 2, held_until = NULL, version = seats.version + 1 FROM hold_seats AS granted
         WHERE granted.hold = $2 AND seats.event = $1 AND seats.section = granted.section
           AND seats.row_no = granted.row_no AND seats.seat_no = granted.seat_no
           AND seats.version = granted.version AND seats.hold = $2 AND seats.state = 1",
    )
    .bind(hold.event)
    .bind(token)
    .execute(&mut *write.tx)
    .await?;
    if sold.rows_affected() != places.len() as u64 {
        return Err(too_late().into());
    }
    let rows = places_listed(places.len(), 5, |[id, section, row, number]| {
        format!("({id}, $1, {section}, {row}, {number}, $2, $3, $4)")
    });
    // Our own words and numbers of parameters.
    let mut insert = sqlx::query(sqlx::AssertSqlSafe(format!(
        "INSERT INTO tickets (id, event, section, row_no, seat_no, hold, order_id, sold_at) VALUES {rows}"
    )))
    .bind(hold.event)
    .bind(token)
    .bind(order_id.to_string())
    .bind(write.now.as_nanos());
    for (place, id) in places.iter().zip(ids) {
        insert = insert
            .bind(id.to_string())
            .bind(i64::from(place.section))
            .bind(i64::from(place.row))
            .bind(i64::from(place.number));
    }
    insert.execute(&mut *write.tx).await?;
    sqlx::query("UPDATE holds SET phase = 1, order_id = $1 WHERE token = $2 AND phase = 0")
        .bind(order_id.to_string())
        .bind(token)
        .execute(&mut *write.tx)
        .await?;
    Ok(())
}

/// Ends a hold that was not confirmed, and tells of it.
pub(super) async fn give_back(
    write: &mut Write,
    hold: &StoredHold,
    event: &Event,
    reason: Reason,
) -> Result<(), StoreError> {
    let how = match reason {
        Reason::Released => Ending::Released,
        Reason::Expired => Ending::Lapsed,
    };
    let freed = end(write, hold, how).await?;
    let described = freed.into_iter().map(|place| {
        let described = event.plan.describe(place);
        described
            .map(|(seat, _)| seat)
            .ok_or(StoreError::Corrupt("a seat of no section"))
    });
    let freed = described.collect::<Result<Vec<_>, _>>()?;
    outbox::record(write, events::released(hold.named(event.id), &freed, reason)).await?;
    Ok(())
}

/// Ends a hold, and frees those of its seats that it still has: those that it has lost to a later one stay with that one. Answers
/// which it has freed.
///
/// The version that a hold was granted is a seat's while it is held, and one less than a seat's that it sold.
pub(super) async fn end(write: &mut Write, hold: &StoredHold, how: Ending) -> Result<Vec<Place>, StoreError> {
    let (ending, was) = match how {
        Ending::Released => (0, 0),
        Ending::Lapsed => (1, 0),
        Ending::Refunded => (2, 1),
    };
    let token = hold.facts.token;
    let ours = |seat: &Seat| match *seat {
        Seat::Held(held) => was == 0 && held.give_back(token).is_ok(),
        Seat::Sold(sold) => was == 1 && sold.refund(token).is_ok(),
        Seat::Free(_) => false,
    };
    let seats = holds::seats(&mut write.tx, hold).await?;
    let kept: Vec<Place> = seats
        .iter()
        .filter(|(_, seat)| ours(seat))
        .map(|(place, _)| *place)
        .collect();
    let freed = sqlx::query(
        "UPDATE seats SET state = 0, hold = NULL, held_until = NULL, version = seats.version + 1 FROM hold_seats AS granted
         WHERE granted.hold = $2 AND seats.event = $1 AND seats.section = granted.section
           AND seats.row_no = granted.row_no AND seats.seat_no = granted.seat_no
           AND seats.version = granted.version + $3 AND seats.hold = $2 AND seats.state = $3 + 1",
    )
    .bind(hold.event)
    .bind(token.0)
    .bind(was)
    .execute(&mut *write.tx)
    .await?;
    if freed.rows_affected() != kept.len() as u64 {
        // A later hold has taken one since it was read.
        return Err(StoreError::Conflict);
    }
    let ended = sqlx::query("UPDATE holds SET phase = 2, ending = $1, order_id = NULL WHERE token = $2 AND phase = $3")
        .bind(ending)
        .bind(token.0)
        .bind(was)
        .execute(&mut *write.tx)
        .await?;
    if ended.rows_affected() != 1 {
        return Err(StoreError::Corrupt("a hold that changed while it was locked"));
    }
    Ok(kept)
}

/// The tickets of a hold that was confirmed.
pub(super) async fn tickets(connection: &mut Connection, hold: &StoredHold) -> Result<Vec<Ticket>, StoreError> {
    let found: Vec<(String, i64, i64, i64, String)> = sqlx::query_as(
        "SELECT id, section, row_no, seat_no, order_id FROM tickets WHERE hold = $1 ORDER BY section, row_no, seat_no",
    )
    .bind(hold.facts.token.0)
    .fetch_all(&mut *connection)
    .await?;
    let event = holds::event_of(connection, hold).await?;
    found
        .into_iter()
        .map(|(id, section, row, number, order_id)| {
            let described = event.plan.describe(rows::place((section, row, number))?);
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
