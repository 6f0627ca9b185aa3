//! Everything that the rules can say no with. Not failures of the store or the wire.

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
}
