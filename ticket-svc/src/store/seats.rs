//! Seats as buyers see them.

use service_store::Money;
use uuid::Uuid;

use super::{
    Store, StoreError,
    rows::{self, EventKey},
};
use crate::domain::{
    refusal::Refusal,
    seat::{Place, SeatId, SeatState},
};

/// A seat with its price and its state now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeatView {
    pub(crate) place: Place,
    pub(crate) id: SeatId,
    pub(crate) price: Money,
    pub(crate) state: SeatState,
}

impl Store {
    /// At most `limit` seats of an event after `cursor`, front to back; only those in `state` if one is given.
    pub(crate) async fn seats(
        &self,
        event_id: Uuid,
        state: Option<SeatState>,
        cursor: Option<Place>,
        limit: u32,
    ) -> Result<Vec<SeatView>, StoreError> {
        let mut reader = self.database.reader().acquire().await?;
        let stored = rows::event(&mut reader, EventKey::Id(event_id)).await?;
        let stored = stored.ok_or(Refusal::EventUnknown(event_id))?;
        let now = self.database.now();
        // Rows and numbers count from 1, so this is before the first seat.
        let after = cursor.unwrap_or(Place {
            section: 0,
            row: 0,
            number: 0,
        });
        // The CASE is `Seat::state_at` in SQL; the tests hold the two together.
        type Row = (i64, i64, i64, i64, i64, Option<i64>, Option<i64>);
        let found: Vec<Row> = sqlx::query_as(
            "SELECT section, row_no, seat_no, version, state, hold, held_until FROM seats
             WHERE event = $1 AND (section, row_no, seat_no) > ($2, $3, $4)
               AND ($5 < 0 OR $5 = CASE WHEN state = 1 AND held_until <= $6 THEN 0 ELSE state END)
             ORDER BY section, row_no, seat_no LIMIT $7",
        )
        .bind(stored.seq)
        .bind(i64::from(after.section))
        .bind(i64::from(after.row))
        .bind(i64::from(after.number))
        .bind(state.map_or(-1, code))
        .bind(now.as_nanos())
        .bind(i64::from(limit))
        .fetch_all(&mut *reader)
        .await?;
        found
            .into_iter()
            .map(|(section, row, number, version, state, hold, held_until)| {
                let place = rows::place((section, row, number))?;
                let described = stored.event.plan.describe(place);
                let (id, price) = described.ok_or(StoreError::Corrupt("a seat of no section"))?;
                let state = rows::seat(version, state, hold, held_until)?.state_at(now);
                Ok(SeatView {
                    place,
                    id,
                    price,
                    state,
                })
            })
            .collect()
    }
}

fn code(state: SeatState) -> i64 {
    match state {
        SeatState::Free => 0,
        SeatState::Held => 1,
        SeatState::Sold => 2,
    }
}
