//! The end of a hold: its seats are sold, or given back. Both change a seat as the hold was granted it, (seat, version), or not at all.

use service_store::{Connection, Write};
use uuid::Uuid;

use super::{
    StoreError,
    holds::{self, StoredHold},
    rows,
    take::places_listed,
};
use crate::domain::{
    hold::{MAX_SEATS, Ticket},
    refusal::Refusal,
};

/// Sells the seats of a hold, all or none.
pub(super) async fn sell(
    write: &mut Write,
    hold: &StoredHold,
    order_id: Uuid,
    ids: [Uuid; MAX_SEATS],
) -> Result<(), StoreError> {
    let places = holds::places(&mut write.tx, hold).await?;
    let token = hold.facts.token.0;
    // A seat that went to a later hold is not ours to sell, whatever the clock says. It never comes back to this token, so the
    // refusal is final without a record.
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
        return Err(Refusal::HoldExpired(hold.facts.id).into());
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

/// Frees the seats that a hold still has. Those that it has lost to a later one stay with that one.
pub(super) async fn give_back(write: &mut Write, hold: &StoredHold) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE seats SET state = 0, hold = NULL, held_until = NULL, version = seats.version + 1 FROM hold_seats AS granted
         WHERE granted.hold = $2 AND seats.event = $1 AND seats.section = granted.section
           AND seats.row_no = granted.row_no AND seats.seat_no = granted.seat_no
           AND seats.version = granted.version AND seats.hold = $2 AND seats.state = 1",
    )
    .bind(hold.event)
    .bind(hold.facts.token.0)
    .execute(&mut *write.tx)
    .await?;
    sqlx::query("UPDATE holds SET phase = 2 WHERE token = $1 AND phase = 0")
        .bind(hold.facts.token.0)
        .execute(&mut *write.tx)
        .await?;
    Ok(())
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
