//! Columns back into domain values. What does not fit was not written by us and is reported as corrupt, never guessed.

use service_store::{Connection, Currency, Invalid, Text, Timestamp};
use uuid::Uuid;

use super::StoreError;
use crate::domain::{
    event::{Event, Terms},
    hold::FencingToken,
    plan::{Layout, SeatingPlan, Section},
    price::Price,
    sale::{BuyerCap, SaleWindow},
    search::Words,
    seat::{Place, SectionName},
    stock::{Free, Seat, Sold, Version},
    venue::{TimeZone, Title, Venue},
};

const OUTSIDE: StoreError = StoreError::Corrupt("a venue outside its limits");

/// An event with its key in the store.
pub(super) struct StoredEvent {
    pub(super) seq: i64,
    pub(super) event: Event,
}

/// An event's own columns and its venue's, as [`EVENTS`] selects them.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct EventRow {
    seq: i64,
    id: String,
    title: String,
    starts_at: i64,
    currency: String,
    organiser: String,
    sale_starts_at: Option<i64>,
    sale_ends_at: Option<i64>,
    max_per_buyer: i64,
    venue_id: String,
    name: String,
    city: String,
    address: String,
    time_zone: String,
}

impl EventRow {
    /// What a search looks at: the words of its title and of its place, when it begins, its id.
    pub(super) fn searched(&self) -> Result<(Words, Words, Timestamp, Uuid), StoreError> {
        let venue = venue(self).ok_or(OUTSIDE)?;
        let starts_at = Timestamp::from_nanos(self.starts_at);
        Ok((Words::of(&self.title), venue.words(), starts_at, uuid(&self.id)?))
    }
}

/// Selects [`EventRow`]s.
macro_rules! events {
    ($rest:literal) => {
        concat!(
            "SELECT events.seq, events.id, title, starts_at, currency, organiser, sale_starts_at, sale_ends_at, max_per_buyer,
                    venues.id AS venue_id, name, city, address, time_zone
               FROM events JOIN venues ON venues.seq = venue_seq ",
            $rest
        )
    };
}
pub(super) use events;

/// Which column finds an event.
pub(super) enum EventKey {
    Id(Uuid),
    Seq(i64),
}

pub(super) async fn event(connection: &mut Connection, key: EventKey) -> Result<Option<StoredEvent>, StoreError> {
    let query = match key {
        EventKey::Id(id) => sqlx::query_as::<_, EventRow>(events!("WHERE events.id = $1")).bind(id.to_string()),
        EventKey::Seq(seq) => sqlx::query_as::<_, EventRow>(events!("WHERE events.seq = $1")).bind(seq),
    };
    match query.fetch_optional(&mut *connection).await? {
        Some(row) => with_plan(connection, row).await.map(Some),
        None => Ok(None),
    }
}

/// Adds the sections to an event's row.
pub(super) async fn with_plan(connection: &mut Connection, row: EventRow) -> Result<StoredEvent, StoreError> {
    let currency = Currency::try_new(&row.currency).map_err(|_| StoreError::Corrupt("a currency that is none"))?;
    let sections: Vec<(String, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT name, row_count, seats_per_row, capacity, price FROM sections WHERE event = $1 ORDER BY position",
    )
    .bind(row.seq)
    .fetch_all(&mut *connection)
    .await?;
    let sections = sections
        .into_iter()
        .map(|(name, rows, seats_per_row, capacity, price)| {
            let number = |number: i64| u32::try_from(number).map_err(|_| Invalid("must be a small number"));
            Ok(Section {
                name: SectionName::try_new(&name)?,
                layout: Layout::try_new(number(rows)?, number(seats_per_row)?, number(capacity)?)?,
                price: Price::try_new(currency, price)?,
            })
        })
        .collect::<Result<Vec<_>, Invalid>>()
        .map_err(|_| StoreError::Corrupt("a section outside its limits"))?;
    let plan = SeatingPlan::try_new(sections).map_err(|_| StoreError::Corrupt("a seating plan outside its limits"))?;
    let (seq, id, venue_id) = (row.seq, uuid(&row.id)?, uuid(&row.venue_id)?);
    let terms = terms(&row).ok_or(StoreError::Corrupt("terms of sale outside their limits"))?;
    let event = Event {
        id,
        venue_id,
        venue: venue(&row).ok_or(OUTSIDE)?,
        title: row.title,
        starts_at: Timestamp::from_nanos(row.starts_at),
        plan,
        terms,
    };
    Ok(StoredEvent { seq, event })
}

fn venue(row: &EventRow) -> Option<Venue> {
    Some(Venue {
        name: Title::try_new(&row.name).ok()?,
        city: given(&row.city, Text::try_new)?,
        address: given(&row.address, Text::try_new)?,
        time_zone: given(&row.time_zone, TimeZone::try_new)?,
    })
}

fn terms(row: &EventRow) -> Option<Terms> {
    let instant = |instant: Option<i64>| instant.map(Timestamp::from_nanos);
    let cap = match u32::try_from(row.max_per_buyer).ok()? {
        0 => None,
        seats => Some(BuyerCap::try_new(seats).ok()?),
    };
    Some(Terms {
        organiser: given(&row.organiser, Text::try_new)?,
        window: SaleWindow::try_new(instant(row.sale_starts_at), instant(row.sale_ends_at)).ok()?,
        cap,
    })
}

/// Empty is not given.
fn given<T, E>(text: &str, take: impl FnOnce(&str) -> Result<T, E>) -> Option<Option<T>> {
    match text {
        "" => Some(None),
        text => take(text).ok().map(Some),
    }
}

pub(super) fn uuid(text: &str) -> Result<Uuid, StoreError> {
    Uuid::try_parse(text).map_err(|_| StoreError::Corrupt("an id that is no UUID"))
}

/// A seat as it was written.
pub(super) fn seat(version: i64, state: i64, hold: Option<i64>, held_until: Option<i64>) -> Result<Seat, StoreError> {
    let free = Free {
        version: Version(version),
    };
    match (state, hold, held_until) {
        (0, None, None) => Ok(Seat::Free(free)),
        (1, Some(hold), Some(end)) => Ok(Seat::Held(free.hold(FencingToken(hold), Timestamp::from_nanos(end)))),
        (2, Some(hold), None) => Ok(Seat::Sold(Sold {
            version: free.version,
            by: FencingToken(hold),
        })),
        _ => Err(StoreError::Corrupt("a seat state that is none")),
    }
}

/// A number that was a `u32` when it was written.
pub(super) fn small(number: i64) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| StoreError::Corrupt("a number out of range"))
}

pub(super) fn place((section, row, number): (i64, i64, i64)) -> Result<Place, StoreError> {
    Ok(Place {
        section: small(section)?,
        row: small(row)?,
        number: small(number)?,
    })
}
