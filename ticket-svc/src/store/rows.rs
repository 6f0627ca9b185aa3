//! Columns back into domain values. What does not fit was not written by us and is reported as corrupt, never guessed.

use service_store::{Connection, Currency, Invalid, Timestamp};
use uuid::Uuid;

use super::StoreError;
use crate::domain::{
    event::{Event, SeatingPlan, Section},
    price::Price,
    seat::{Occupancy, Place, SectionName},
};

/// An event with its key in the store.
pub(super) struct StoredEvent {
    pub(super) seq: i64,
    pub(super) event: Event,
}

/// seq, id, title, venue, starts_at, currency
pub(super) type EventRow = (i64, String, String, String, i64, String);

/// Which column finds an event.
pub(super) enum EventKey {
    Id(Uuid),
    Seq(i64),
}

pub(super) async fn event(connection: &mut Connection, key: EventKey) -> Result<Option<StoredEvent>, StoreError> {
    let query = match key {
        EventKey::Id(id) => {
            sqlx::query_as::<_, EventRow>("SELECT seq, id, title, venue, starts_at, currency FROM events WHERE id = $1")
                .bind(id.to_string())
        }
        EventKey::Seq(seq) => sqlx::query_as::<_, EventRow>(
            "SELECT seq, id, title, venue, starts_at, currency FROM events WHERE seq = $1",
        )
        .bind(seq),
    };
    match query.fetch_optional(&mut *connection).await? {
        Some(row) => with_plan(connection, row).await.map(Some),
        None => Ok(None),
    }
}

/// Adds the sections to an event's row.
pub(super) async fn with_plan(connection: &mut Connection, row: EventRow) -> Result<StoredEvent, StoreError> {
    let (seq, id, title, venue, starts_at, currency) = row;
    let currency = Currency::try_new(&currency).map_err(|_| StoreError::Corrupt("a currency that is none"))?;
    let sections: Vec<(String, i64, i64, i64)> =
        sqlx::query_as("SELECT name, row_count, seats_per_row, price FROM sections WHERE event = $1 ORDER BY position")
            .bind(seq)
            .fetch_all(&mut *connection)
            .await?;
    let sections = sections
        .into_iter()
        .map(|(name, rows, seats_per_row, price)| {
            let price = Price::try_new(currency, price)?;
            let out_of_range = |_| Invalid("out of range");
            let rows = u32::try_from(rows).map_err(out_of_range)?;
            let seats_per_row = u32::try_from(seats_per_row).map_err(out_of_range)?;
            Section::try_new(SectionName::try_new(&name)?, rows, seats_per_row, price)
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| StoreError::Corrupt("a section outside its limits"))?;
    let plan = SeatingPlan::try_new(sections).map_err(|_| StoreError::Corrupt("a seating plan outside its limits"))?;
    let event = Event {
        id: uuid(&id)?,
        title,
        venue,
        starts_at: Timestamp::from_nanos(starts_at),
        plan,
    };
    Ok(StoredEvent { seq, event })
}

pub(super) fn uuid(text: &str) -> Result<Uuid, StoreError> {
    Uuid::try_parse(text).map_err(|_| StoreError::Corrupt("an id that is no UUID"))
}

pub(super) fn occupancy(state: i64, held_until: Option<i64>) -> Result<Occupancy, StoreError> {
    match (state, held_until) {
        (0, None) => Ok(Occupancy::Free),
        (1, Some(end)) => Ok(Occupancy::HeldUntil(Timestamp::from_nanos(end))),
        (2, None) => Ok(Occupancy::Sold),
        _ => Err(StoreError::Corrupt("a seat state that is none")),
    }
}

pub(super) fn place((section, row, number): (i64, i64, i64)) -> Result<Place, StoreError> {
    Ok(Place {
        section: small(section)?,
        row: small(row)?,
        number: small(number)?,
    })
}

/// A number that was a `u32` when it was written.
pub(super) fn small(number: i64) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| StoreError::Corrupt("a number out of range"))
}
