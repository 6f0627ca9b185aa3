//! Events: made with their seats, found, listed and counted.

use service_store::{Connection, TimeCursor, Timestamp, Write};
use uuid::Uuid;

use super::{
    Store, StoreError,
    rows::{self, EventKey, EventRow, StoredEvent, events},
    search,
};
use crate::domain::{
    event::{Counts, Event, NewEvent, OrganiserId},
    plan::Section,
    refusal::Refusal,
    sale::BuyerCap,
    search::Words,
    venue::Venue,
};

/// An event and how many of its seats are in which state.
pub(crate) type Counted = (Event, Counts);

impl Store {
    /// Makes an event and its seats, once for each `request_id`; `id` is taken when it is new.
    pub(crate) async fn create_event(&self, request_id: Uuid, id: Uuid, new: &NewEvent) -> Result<Counted, StoreError> {
        self.whole(|| self.try_create_event(request_id, id, new)).await
    }

    async fn try_create_event(&self, request_id: Uuid, id: Uuid, new: &NewEvent) -> Result<Counted, StoreError> {
        let mut write = self.begin().await?;
        let known: Option<(i64, Vec<u8>)> = sqlx::query_as("SELECT seq, body_hash FROM events WHERE request_id = $1")
            .bind(request_id.to_string())
            .fetch_optional(&mut *write.tx)
            .await?;
        let seq = match known {
            Some((_, hash)) if !new.fingerprint().matches(&hash) => {
                return Err(Refusal::RequestIdReused(request_id).into());
            }
            Some((seq, _)) => seq,
            None => insert(&mut write, request_id, id, new).await?,
        };
        let now = write.now;
        let stored = rows::event(&mut write.tx, EventKey::Seq(seq)).await?;
        let stored = stored.ok_or(StoreError::Corrupt("an event that vanished"))?;
        let counted = count(&mut write.tx, stored, now).await?;
        write.commit().await?;
        Ok(counted)
    }

    /// Makes all of `programme` (request id, event) if there is no event at all, in one transaction: of several processes
    /// that start at once one sows, and a crash leaves all or nothing. Answers whether it did.
    pub(crate) async fn sow(&self, programme: &[(Uuid, NewEvent)]) -> Result<bool, StoreError> {
        self.whole(|| self.try_sow(programme)).await
    }

    async fn try_sow(&self, programme: &[(Uuid, NewEvent)]) -> Result<bool, StoreError> {
        let mut write = self.begin().await?;
        // That there is none is no row that could be locked.
        write.lock("the first programme").await?;
        let any: Option<i64> = sqlx::query_scalar("SELECT seq FROM events LIMIT 1")
            .fetch_optional(&mut *write.tx)
            .await?;
        if any.is_some() {
            write.commit().await?;
            return Ok(false);
        }
        for (request_id, event) in programme {
            insert(&mut write, *request_id, *request_id, event).await?;
        }
        write.commit().await?;
        Ok(true)
    }

    /// One event.
    pub(crate) async fn event(&self, id: Uuid) -> Result<Counted, StoreError> {
        let mut reader = self.database.reader().acquire().await?;
        let stored = rows::event(&mut reader, EventKey::Id(id)).await?;
        let stored = stored.ok_or(Refusal::EventUnknown(id))?;
        count(&mut reader, stored, self.database.now()).await
    }

    /// One event, with its key in the store.
    pub(crate) async fn event_and_key(&self, id: Uuid) -> Result<(i64, Event), StoreError> {
        let mut reader = self.database.reader().acquire().await?;
        let stored = rows::event(&mut reader, EventKey::Id(id)).await?;
        let stored = stored.ok_or(Refusal::EventUnknown(id))?;
        Ok((stored.seq, stored.event))
    }

    /// At most `limit` events after `cursor`, by start time and id.
    pub(crate) async fn events(&self, cursor: Option<TimeCursor>, limit: u32) -> Result<Vec<Counted>, StoreError> {
        let mut reader = self.database.reader().acquire().await?;
        let (starts_at, id) = cursor.map_or((i64::MIN, String::new()), |cursor| {
            (cursor.at.as_nanos(), cursor.id.to_string())
        });
        let found: Vec<EventRow> = sqlx::query_as(events!(
            "WHERE (starts_at, events.id) > ($1, $2) ORDER BY starts_at, events.id LIMIT $3"
        ))
        .bind(starts_at)
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(&mut *reader)
        .await?;
        let now = self.database.now();
        let mut events = Vec::with_capacity(found.len());
        for row in found {
            let stored = rows::with_plan(&mut reader, row).await?;
            events.push(count(&mut reader, stored, now).await?);
        }
        Ok(events)
    }
}

async fn insert(write: &mut Write, request_id: Uuid, id: Uuid, new: &NewEvent) -> Result<i64, StoreError> {
    let venue = venue(write, &new.venue).await?;
    let seq: i64 = sqlx::query_scalar(
        "INSERT INTO events (id, request_id, body_hash, title, venue_seq, starts_at, currency, created_at, organiser,
                             sale_starts_at, sale_ends_at, max_per_buyer)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING seq",
    )
    .bind(id.to_string())
    .bind(request_id.to_string())
    .bind(new.fingerprint().to_vec())
    .bind(new.title.as_str())
    .bind(venue)
    .bind(new.starts_at.as_nanos())
    .bind(new.plan.currency().as_str())
    .bind(write.now.as_nanos())
    .bind(new.terms.organiser.as_ref().map_or("", OrganiserId::as_str))
    .bind(new.terms.window.starts_at().map(Timestamp::as_nanos))
    .bind(new.terms.window.ends_at().map(Timestamp::as_nanos))
    .bind(i64::from(new.terms.cap.map_or(0, BuyerCap::get)))
    .fetch_one(&mut *write.tx)
    .await?;
    search::index(write, seq, &Words::of(new.title.as_str()), &new.venue.words()).await?;
    for (position, section) in (0_i64..).zip(new.plan.sections()) {
        insert_section(write, seq, position, section).await?;
    }
    Ok(seq)
}

/// The record of a venue, made if there is none that is equal in every field. The first insert of two at once wins, and both find it.
async fn venue(write: &mut Write, venue: &Venue) -> Result<i64, StoreError> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT seq FROM venues WHERE name = $1 AND city = $2 AND address = $3 AND time_zone = $4")
            .bind(venue.name.as_str())
            .bind(venue.city())
            .bind(venue.address())
            .bind(venue.time_zone())
            .fetch_optional(&mut *write.tx)
            .await?;
    if let Some(seq) = found {
        return Ok(seq);
    }
    // The name in the conflict does nothing but make the statement answer with the row that was there.
    let seq: i64 = sqlx::query_scalar(
        "INSERT INTO venues (id, name, city, address, time_zone) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (name, city, address, time_zone) DO UPDATE SET name = excluded.name RETURNING seq",
    )
    .bind(Uuid::now_v7().to_string())
    .bind(venue.name.as_str())
    .bind(venue.city())
    .bind(venue.address())
    .bind(venue.time_zone())
    .fetch_one(&mut *write.tx)
    .await?;
    Ok(seq)
}

async fn insert_section(write: &mut Write, event: i64, position: i64, section: &Section) -> Result<(), StoreError> {
    let (rows, seats_per_row, capacity) = section.layout.numbers();
    sqlx::query(
        "INSERT INTO sections (event, position, name, row_count, seats_per_row, capacity, price)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(event)
    .bind(position)
    .bind(section.name.as_str())
    .bind(i64::from(rows))
    .bind(i64::from(seats_per_row))
    .bind(i64::from(capacity))
    .bind(section.price.amount().minor())
    .execute(&mut *write.tx)
    .await?;
    // One statement a section: 20,000 seats are no 20,000 round trips to the connection's thread.
    sqlx::query(
        "WITH RECURSIVE
           row_nos (n) AS (SELECT CAST($3 AS BIGINT) UNION ALL SELECT n + 1 FROM row_nos WHERE n < $4),
           seat_nos (n) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM seat_nos WHERE n < $5)
         INSERT INTO seats (event, section, row_no, seat_no)
         SELECT $1, $2, row_nos.n, seat_nos.n FROM row_nos CROSS JOIN seat_nos",
    )
    .bind(event)
    .bind(position)
    .bind(i64::from(*section.layout.rows().start()))
    .bind(i64::from(*section.layout.rows().end()))
    .bind(i64::from(section.layout.row_length()))
    .execute(&mut *write.tx)
    .await?;
    Ok(())
}

/// How many seats of event $1 are held at $2, and how many are sold: one statement, so that both are of one moment.
///
/// `state <> 0` says nothing new, but without it SQLite does not see that the partial index applies and reads all seats.
const COUNT_TAKEN: &str = "SELECT
    (SELECT count(*) FROM seats WHERE event = $1 AND state = 1 AND state <> 0 AND held_until > $2),
    (SELECT count(*) FROM seats WHERE event = $1 AND state = 2 AND state <> 0)";

pub(super) async fn count(
    connection: &mut Connection,
    stored: StoredEvent,
    now: Timestamp,
) -> Result<Counted, StoreError> {
    let (held, sold): (i64, i64) = sqlx::query_as(COUNT_TAKEN)
        .bind(stored.seq)
        .bind(now.as_nanos())
        .fetch_one(connection)
        .await?;
    let total = stored.event.plan.total();
    let counts = Counts::new(total, rows::small(held)?, rows::small(sold)?);
    Ok((stored.event, counts))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use service_store::SystemClock;

    /// The partial index was made for counting and not used for it: listing 50 events read all their seats.
    #[tokio::test]
    async fn counting_reads_the_taken_seats_only() {
        let folder = tempfile::TempDir::new().expect("a temporary folder");
        let path = folder.path().join("tickets.db");
        let store = Store::open(path.as_path(), Arc::new(SystemClock))
            .await
            .expect("the store opens");
        // Our own constant, nothing from outside.
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {COUNT_TAKEN}"));
        let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain)
            .bind(1_i64)
            .bind(1_i64)
            .fetch_all(store.database.reader())
            .await
            .expect("a plan");
        let searches: Vec<&str> = plan
            .iter()
            .map(|(.., detail)| detail.as_str())
            .filter(|detail| detail.contains("seats"))
            .collect();
        assert_eq!(searches.len(), 2, "{plan:?}");
        assert!(
            searches
                .iter()
                .all(|search| search.contains("COVERING INDEX seats_taken")),
            "{searches:?}"
        );
    }
}
