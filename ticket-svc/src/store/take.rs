//! The beginning of a hold: which seats it means, and taking them.
//!
//! On PostgreSQL many do this at once, and all of them would choose the same best seats. So what was chosen is locked, and what
//! others have locked is passed over (SKIP LOCKED): as if they had it already, which they are about to. Two thousand
//! buyers of one event take two thousand different seats side by side that way. Only when what is left is too little because of what
//! others have locked, their end has to be waited for: the transaction is made again ([`StoreError::Conflict`]), for they may
//! come to nothing. Chosen seats are waited for, since no others will do.

use std::collections::BTreeSet;

use service_store::{Dialect, Timestamp, Write, for_update};

use super::{
    StoreError,
    rows::{self, StoredEvent},
};
use crate::domain::{
    hold::{FencingToken, NewHold, Selection},
    pick,
    refusal::Refusal,
    sale::BuyersShare,
    seat::Place,
};

/// What a seat is that can be taken at $2.
const FREE: &str = "(state = 0 OR (state = 1 AND held_until <= $2))";

/// What the buyer has of the event. The word is locked first, so that of two holds of one buyer the second one counts the first.
pub(super) async fn share(write: &mut Write, event: i64, buyer: &str) -> Result<BuyersShare, StoreError> {
    write.lock(&format!("buyer {buyer} of event {event}")).await?;
    let (live_holds, seats, next_lapse): (i64, i64, Option<i64>) = sqlx::query_as(
        "SELECT count(CASE WHEN phase = 0 THEN 1 END), CAST(coalesce(sum(seats), 0) AS BIGINT),
                min(CASE WHEN phase = 0 THEN expires_at END)
           FROM holds WHERE event = $1 AND buyer = $2 AND (phase = 1 OR (phase = 0 AND expires_at > $3))",
    )
    .bind(event)
    .bind(buyer)
    .bind(write.now.as_nanos())
    .fetch_one(&mut *write.tx)
    .await?;
    Ok(BuyersShare {
        live_holds: rows::small(live_holds)?,
        seats: rows::small(seats)?,
        next_lapse: next_lapse.map(Timestamp::from_nanos),
    })
}

/// Places that the selection means, front to back. On PostgreSQL they are free and locked; on SQLite, chosen ones may be taken.
pub(super) async fn choose(
    write: &mut Write,
    stored: &StoredEvent,
    selection: &Selection,
) -> Result<Vec<Place>, StoreError> {
    match selection {
        Selection::Seats(seats) => {
            let place = |seat| {
                stored
                    .event
                    .plan
                    .place(seat)
                    .ok_or_else(|| Refusal::SeatUnknown(seat.clone()))
            };
            let mut places = seats.as_slice().iter().map(place).collect::<Result<Vec<_>, _>>()?;
            places.sort_unstable();
            let locked = lock(write, stored.seq, &places, for_update(write.dialect)).await?;
            all_of(&places, &locked, stored)?;
            Ok(places)
        }
        Selection::BestAvailable { quantity, section } => {
            let section = match section {
                None => None,
                Some(name) => Some(
                    stored
                        .event
                        .plan
                        .position(name)
                        .ok_or_else(|| Refusal::SectionUnknown(name.as_str().to_owned()))?,
                ),
            };
            best_available(write, stored.seq, section, quantity.get()).await
        }
    }
}

async fn best_available(
    write: &mut Write,
    event: i64,
    section: Option<u32>,
    quantity: u32,
) -> Result<Vec<Place>, StoreError> {
    let mut free = free_places(write, event, section).await?;
    let seen = free.len();
    loop {
        let left = free.len();
        let Some(picked) = pick::best(free.clone(), quantity as usize) else {
            return Err(if left < seen {
                StoreError::Conflict
            } else {
                Refusal::SoldOut {
                    wanted: quantity,
                    free: u32::try_from(seen).unwrap_or(u32::MAX),
                }
                .into()
            });
        };
        let locked = lock(write, event, &picked, " FOR NO KEY UPDATE SKIP LOCKED").await?;
        if locked.len() == picked.len() {
            return Ok(picked);
        }
        free.retain(|place| locked.contains(place) || !picked.contains(place));
    }
}

/// The free places of an event, or of one section. A row of the answer is a row of seats: fetching 20,000 rows one by one
/// would hold the write lock some ten times as long.
async fn free_places(write: &mut Write, event: i64, section: Option<u32>) -> Result<Vec<Place>, StoreError> {
    let select = format!(
        "SELECT section, row_no, string_agg(CAST(seat_no AS TEXT), ',') FROM seats
         WHERE event = $1 AND {FREE} AND ($3 IS NULL OR section = $3) GROUP BY section, row_no"
    );
    let rows: Vec<(i64, i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(select))
        .bind(event)
        .bind(write.now.as_nanos())
        .bind(section.map(i64::from))
        .fetch_all(&mut *write.tx)
        .await?;
    let mut free = Vec::new();
    for (section, row, numbers) in rows {
        for number in numbers.split(',') {
            let number = number
                .parse()
                .map_err(|_| StoreError::Corrupt("a seat number that is none"))?;
            free.push(rows::place((section, row, number))?);
        }
    }
    Ok(free)
}

/// Locks those of the places that are free, front to back, and answers which. On SQLite the whole file is locked, and the
/// conditional write that follows tells who is free.
async fn lock(write: &mut Write, event: i64, places: &[Place], how: &str) -> Result<BTreeSet<Place>, StoreError> {
    if write.dialect == Dialect::Sqlite {
        return Ok(places.iter().copied().collect());
    }
    let listed = listed(places.len(), 3);
    // Our own words and numbers of parameters; as many shapes as a hold may have seats.
    let mut select = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT section, row_no, seat_no FROM seats
         WHERE event = $1 AND {FREE} AND (section, row_no, seat_no) IN ({listed})
         ORDER BY section, row_no, seat_no{how}"
    )))
    .bind(event)
    .bind(write.now.as_nanos());
    for place in places {
        select = select
            .bind(i64::from(place.section))
            .bind(i64::from(place.row))
            .bind(i64::from(place.number));
    }
    let locked: Vec<(i64, i64, i64)> = select.fetch_all(&mut *write.tx).await?;
    locked.into_iter().map(rows::place).collect()
}

/// Makes the hold and takes its seats, all or none. Answers its token and its end.
pub(super) async fn grant(
    write: &mut Write,
    stored: &StoredEvent,
    new: &NewHold,
    places: &[Place],
) -> Result<(FencingToken, Timestamp), StoreError> {
    let expires_at = write.now.after(new.ttl.get());
    let token: i64 = sqlx::query_scalar(
        "INSERT INTO holds (id, event, buyer, body_hash, expires_at, created_at, seats) VALUES ($1, $2, $3, $4, $5, $6, $7)
         RETURNING token",
    )
    .bind(new.id.to_string())
    .bind(stored.seq)
    .bind(new.buyer.as_str())
    .bind(new.fingerprint().to_vec())
    .bind(expires_at.as_nanos())
    .bind(write.now.as_nanos())
    .bind(i64::from(new.selection.seats()))
    .fetch_one(&mut *write.tx)
    .await?;
    let listed = listed(places.len(), 5);
    let mut update = sqlx::query(sqlx::AssertSqlSafe(format!(
        "UPDATE seats SET state = 1, hold = $3, held_until = $4, version = version + 1
         WHERE event = $1 AND {FREE} AND (section, row_no, seat_no) IN ({listed})"
    )))
    .bind(stored.seq)
    .bind(write.now.as_nanos())
    .bind(token)
    .bind(expires_at.as_nanos());
    for place in places {
        update = update
            .bind(i64::from(place.section))
            .bind(i64::from(place.row))
            .bind(i64::from(place.number));
    }
    let taken = update.execute(&mut *write.tx).await?;
    let granted = remember(write, stored.seq, token, places).await?;
    if taken.rows_affected() != places.len() as u64 {
        all_of(places, &granted, stored)?;
        return Err(StoreError::Corrupt("a seat that was taken and is not"));
    }
    Ok((FencingToken(token), expires_at))
}

/// Writes down which version of each seat the hold has. Answers which seats those are.
async fn remember(write: &mut Write, event: i64, token: i64, places: &[Place]) -> Result<BTreeSet<Place>, StoreError> {
    let listed = listed(places.len(), 3);
    let mut insert = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "INSERT INTO hold_seats (hold, section, row_no, seat_no, version)
         SELECT hold, section, row_no, seat_no, version FROM seats
         WHERE event = $1 AND hold = $2 AND (section, row_no, seat_no) IN ({listed})
         RETURNING section, row_no, seat_no"
    )))
    .bind(event)
    .bind(token);
    for place in places {
        insert = insert
            .bind(i64::from(place.section))
            .bind(i64::from(place.row))
            .bind(i64::from(place.number));
    }
    let granted: Vec<(i64, i64, i64)> = insert.fetch_all(&mut *write.tx).await?;
    granted.into_iter().map(rows::place).collect()
}

/// Refuses the first of the places that is not among those that were had.
fn all_of(places: &[Place], had: &BTreeSet<Place>, stored: &StoredEvent) -> Result<(), StoreError> {
    let Some(missing) = places.iter().find(|place| !had.contains(place)) else {
        return Ok(());
    };
    let described = stored.event.plan.describe(*missing);
    let (seat, _) = described.ok_or(StoreError::Corrupt("a seat of no section"))?;
    Err(Refusal::SeatTaken(seat).into())
}

/// So many places as a list of values, from parameter `first` on: `VALUES ($5, $6, $7), ($8, $9, $10)`.
fn listed(count: usize, first: usize) -> String {
    let rows = places_listed(count, first, |[section, row, number]| {
        format!("({section}, {row}, {number})")
    });
    format!("VALUES {rows}")
}

/// So many rows of a list of values, each with the next `N` parameters from `first` on.
pub(super) fn places_listed<const N: usize>(count: usize, first: usize, row: impl Fn([String; N]) -> String) -> String {
    let rows = (0..count).map(|index| row(std::array::from_fn(|offset| format!("${}", first + index * N + offset))));
    rows.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_parameters() {
        assert_eq!(listed(2, 5), "VALUES ($5, $6, $7), ($8, $9, $10)");
    }
}
