//! Everything that the rules can say no with. Not failures of the store or the wire.

use std::{fmt, time::Duration};

use service_store::Timestamp;
use uuid::Uuid;

use super::seat::SeatId;

/// A rule said no. Asking again changes nothing unless the world does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The request id was used before, for something else.
    #[error("request_id {0} was used before with another body; use a new one")]
    RequestIdReused(Uuid),
    /// There is no such event.
    #[error("there is no event {0}; ListEvents names those there are")]
    EventUnknown(Uuid),
    /// The event has no such section.
    #[error("the event has no section {0:?}; GetEvent names its sections")]
    SectionUnknown(String),
    /// The event has no such seat.
    #[error("the event has no seat {0}; ListSeats names its seats")]
    SeatUnknown(SeatId),
    /// Fewer seats are free than asked for.
    #[error("{wanted} seats wanted, {free} free")]
    SoldOut {
        /// Asked for.
        wanted: u32,
        /// Free where it was asked for.
        free: u32,
    },
    /// A chosen seat is not free.
    #[error("seat {0} is taken; choose another one")]
    SeatTaken(SeatId),
    /// There is no such hold.
    #[error("there is no hold {0}")]
    HoldUnknown(Uuid),
    /// The fencing token is another hold's.
    #[error("the token is not that of hold {0}")]
    HoldTokenWrong(Uuid),
    /// The hold ended by time.
    #[error("hold {0} has expired; hold seats again with a new request_id")]
    HoldExpired(Uuid),
    /// The hold was given back, perhaps before it was ever made.
    #[error("hold {0} was released; hold seats again with a new request_id")]
    HoldReleased(Uuid),
    /// The seats are sold already.
    #[error("hold {0} is confirmed: its seats are sold")]
    HoldConfirmed(Uuid),
    /// The seats were sold, and the order was refunded.
    #[error("hold {0} was sold and refunded: its tickets are void")]
    HoldRefunded(Uuid),
    /// Nothing was sold to this order.
    #[error("nothing was sold to order {0}")]
    OrderUnknown(Uuid),
    /// The buyer may not give the tickets back any more.
    #[error("tickets of this event could be given back until {}", DateTime(*.0))]
    RefundClosed(Timestamp),
    /// There is no such ticket.
    #[error("there is no ticket {0}")]
    TicketUnknown(Uuid),
    /// The sale has not begun.
    #[error("the sale has not begun; it does at {}", DateTime(*.0))]
    SaleNotOpen(Timestamp),
    /// The sale is over.
    #[error("the sale is over since {}", DateTime(*.0))]
    SaleClosed(Timestamp),
    /// The buyer would have more seats than one buyer may.
    #[error("one buyer may have {cap} seats of this event; this one has {has} and wants {wanted} more")]
    BuyerCap {
        /// The event's limit.
        cap: u32,
        /// Held and bought.
        has: u32,
        /// Asked for.
        wanted: u32,
    },
    /// The buyer holds too often at once.
    #[error("the buyer has {live} live holds of this event; confirm or release some, or wait {} s", wait.as_secs_f64().ceil())]
    TooManyHolds {
        /// Holds that live.
        live: u32,
        /// How long until the first of them ends.
        wait: Duration,
    },
}

/// An instant as people and RFC 3339 write it, in UTC.
pub(crate) struct DateTime(pub(crate) Timestamp);

impl fmt::Display for DateTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(self.0.as_nanos().into()) {
            Ok(time) => fmt::Display::fmt(&time, formatter),
            Err(_) => write!(formatter, "{} ns after 1970", self.0.as_nanos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_when_in_utc() {
        let refusal = Refusal::SaleNotOpen(Timestamp::from_nanos(1_900_000_000_500_000_000));
        let said = "the sale has not begun; it does at 2030-03-17T17:46:40.5Z";
        assert_eq!(refusal.to_string(), said);
        assert!(!DateTime(Timestamp::from_nanos(i64::MIN)).to_string().is_empty());
    }
}
