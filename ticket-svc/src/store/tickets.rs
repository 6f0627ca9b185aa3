//! Tickets as they are shown at a door.

use service_store::Timestamp;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::refusal::Refusal;

/// What the store knows of a ticket that somebody shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckedTicket {
    pub(crate) sold_at: Timestamp,
    /// When it was refunded, if it was: it lets nobody in then.
    pub(crate) revoked_at: Option<Timestamp>,
}

impl Store {
    /// Whether a ticket is good at this moment.
    pub(crate) async fn check_ticket(&self, id: Uuid) -> Result<CheckedTicket, StoreError> {
        let found: Option<(i64, Option<i64>)> = sqlx::query_as("SELECT sold_at, revoked_at FROM tickets WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(self.database.reader())
            .await?;
        let (sold_at, revoked_at) = found.ok_or(Refusal::TicketUnknown(id))?;
        Ok(CheckedTicket {
            sold_at: Timestamp::from_nanos(sold_at),
            revoked_at: revoked_at.map(Timestamp::from_nanos),
        })
    }
}
