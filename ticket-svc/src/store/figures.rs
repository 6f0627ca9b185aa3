//! What is sold, held and free, for organisers and for seat maps: each in one statement, so that all of it is of one moment.

use service_store::{Connection, Money, Timestamp};
use uuid::Uuid;

use super::{
    Store, StoreError,
    rows::{self, EventKey},
};
use crate::domain::{
    event::Event,
    map::{Letter, SeatMap},
    refusal::Refusal,
};

/// What became of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SectionSales {
    pub(crate) free: u32,
    pub(crate) held: u32,
    pub(crate) sold: u32,
    pub(crate) refunded: u32,
}

/// Counts by section and state at $2, and the refunds as state 3.
const SALES: &str = "
    SELECT section, CASE WHEN state = 1 AND held_until <= $2 THEN 0 ELSE state END AS kind, count(*) AS number
      FROM seats WHERE event = $1 GROUP BY 1, 2
    UNION ALL
    SELECT section, 3, count(*) FROM tickets WHERE event = $1 AND revoked_at IS NOT NULL GROUP BY section";

impl Store {
    /// What an event has sold, by section.
    pub(crate) async fn sales(&self, event_id: Uuid) -> Result<(Event, Vec<SectionSales>), StoreError> {
        let mut reader = self.database.reader().acquire().await?;
        let stored = rows::event(&mut reader, EventKey::Id(event_id)).await?;
        let stored = stored.ok_or(Refusal::EventUnknown(event_id))?;
        let found: Vec<(i64, i64, i64)> = sqlx::query_as(SALES)
            .bind(stored.seq)
            .bind(self.database.now().as_nanos())
            .fetch_all(&mut *reader)
            .await?;
        let mut sales = vec![SectionSales::default(); stored.event.plan.sections().len()];
        for (section, kind, number) in found {
            let number = u32::try_from(number).map_err(|_| StoreError::Corrupt("a number of seats that is none"))?;
            let section = usize::try_from(section).ok().and_then(|section| sales.get_mut(section));
            let section = section.ok_or(StoreError::Corrupt("a seat of no section"))?;
            match kind {
                0 => section.free = number,
                1 => section.held = number,
                2 => section.sold = number,
                3 => section.refunded = number,
                _ => return Err(StoreError::Corrupt("a seat state that is none")),
            }
        }
        Ok((stored.event, sales))
    }
}

impl Store {
    /// The sum of the versions of an event's seats: grows with every change of one.
    pub(crate) async fn revision(&self, event: i64) -> Result<i64, StoreError> {
        let sum = sqlx::query_scalar("SELECT CAST(coalesce(sum(version), 0) AS BIGINT) FROM seats WHERE event = $1");
        Ok(sum.bind(event).fetch_one(self.database.reader()).await?)
    }

    /// All seats of an event that is known already.
    pub(crate) async fn map_of(&self, event: i64, described: &Event) -> Result<SeatMap, StoreError> {
        let mut reader = self.database.reader().acquire().await?;
        map(&mut reader, event, described, self.database.now()).await
    }
}

/// The taken seats in one statement; all others are free. The revision comes with them: a statement sees one moment.
async fn map(
    connection: &mut Connection,
    event: i64,
    described: &Event,
    now: Timestamp,
) -> Result<SeatMap, StoreError> {
    let found: Vec<(i64, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT -1, 0, 0, 0, CAST(COALESCE(SUM(version), 0) AS BIGINT) FROM seats WHERE event = $1
         UNION ALL
         SELECT section, row_no, seat_no, state, 0 FROM seats
          WHERE event = $1 AND state <> 0 AND (state = 2 OR held_until > $2)",
    )
    .bind(event)
    .bind(now.as_nanos())
    .fetch_all(connection)
    .await?;
    let mut map = SeatMap::all_free(&described.plan);
    for (section, row, number, state, version) in found {
        if section < 0 {
            map.revision = version;
            continue;
        }
        let letter = match state {
            1 => Letter::Held,
            2 => Letter::Sold,
            _ => return Err(StoreError::Corrupt("a seat state that is none")),
        };
        let place = rows::place((section, row, number))?;
        map.mark(place, letter)
            .ok_or(StoreError::Corrupt("a seat of no section"))?;
    }
    Ok(map)
}

/// What `seats` of a section cost together. Prices do not change, so what is sold says what was paid.
pub(crate) fn revenue(price: Money, seats: u32) -> Result<Money, StoreError> {
    let minor = price.minor().checked_mul(seats.into());
    let money = minor.and_then(|minor| Money::try_new(price.currency(), minor).ok());
    money.ok_or(StoreError::Corrupt("prices without a sum"))
}
