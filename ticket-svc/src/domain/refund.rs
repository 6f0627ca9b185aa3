//! Refunds of what was sold: who may have one, and until when. What becomes of the seats is `hold`'s and `stock`'s.

use service_store::Timestamp;
use uuid::Uuid;

use super::{event::Event, hold::FencingToken, refusal::Refusal};

/// Asks for the tickets of an order to be revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewRefund {
    /// The request's, under which a refusal is remembered.
    pub(crate) id: Option<Uuid>,
    pub(crate) order_id: Uuid,
    /// `None` when the caller does not know it.
    pub(crate) token: Option<FencingToken>,
    pub(crate) by: Asker,
}

/// Who wants the refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Who bought: the event's terms decide.
    Buyer,
    /// Whoever runs the platform: always.
    Platform,
}

impl Event {
    /// May tickets of it be given back at `now`? That they may be by the platform, always, is what refunds the buyers of an event
    /// that does not take place.
    pub(crate) fn check_refund(&self, by: Asker, now: Timestamp) -> Result<(), Refusal> {
        let until = self.starts_at;
        match by {
            Asker::Buyer if until <= now => Err(Refusal::RefundClosed(until)),
            Asker::Buyer | Asker::Platform => Ok(()),
        }
    }
}
