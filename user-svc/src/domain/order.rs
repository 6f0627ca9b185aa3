//! Orders: what is bought, how far it is, why it failed. What happens next is `saga`'s.

use std::fmt;

use service_store::{Fingerprint, Invalid, Money, TimeCursor, Timestamp};
use uuid::Uuid;

use super::saga::Step;

/// The most seats of one order.
pub(crate) const MAX_SEATS: usize = 10;

/// A seat's name, as the ticket service understands it: 1 to 64 of A-Z, a-z, 0-9, '-' and '/'.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SeatId(String);

/// Which seats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// These: 1 to 10, each once, sorted.
    Seats(ChosenSeats),
    /// The best ones of a section, or of all.
    BestAvailable {
        quantity: Quantity,
        section: Option<String>,
    },
}

/// 1 to 10 seats, each once, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChosenSeats(Vec<SeatId>);

/// How many seats: 1 to 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quantity(u32);

/// Asks for an order.
#[derive(Debug, Clone)]
pub(crate) struct NewOrder {
    /// The request's id, which becomes the order's.
    pub(crate) id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) event_id: Uuid,
    pub(crate) selection: Selection,
}

/// A purchase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) event_id: Uuid,
    pub(crate) selection: Selection,
    /// What is to be done next, or how it ended.
    pub(crate) step: Step,
    /// Grows with each change. A write that saw an older one is refused, so that two drivers cannot undo each other.
    pub(crate) version: i64,
    /// Who may move it on.
    pub(crate) claim: Claim,
    /// What was granted, once it was.
    pub(crate) held: Option<Held>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    /// The instance of the ticket service that answered last; empty before that.
    pub(crate) ticket_instance: String,
    /// Where the purchase belongs in a trace.
    pub(crate) trace: Trace,
    /// Who asked last for its money back, if anybody did.
    pub(crate) refund: Option<Refund>,
}

/// Asks for the money of an order back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewRefund {
    /// The request's id.
    pub(crate) id: Uuid,
    pub(crate) order_id: Uuid,
    pub(crate) by: RefundBy,
}

/// A refund that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refund {
    /// The request's id, under which the tickets are revoked.
    pub(crate) id: Uuid,
    pub(crate) by: RefundBy,
    /// Why it came to nothing, if it did.
    pub(crate) refused: Option<RefundRefused>,
}

/// Who asks for the money back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefundBy {
    /// Whose order it is: the event's terms decide.
    Buyer,
    /// An operator: also where the terms no longer allow it.
    Operator,
}

/// Why an order stays as it was sold, and the same for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefundRefused {
    pub(crate) why: RefundRefusal,
    pub(crate) detail: String,
}

/// Why the tickets were not taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefundRefusal {
    /// The event's terms allow it no longer.
    Closed,
    /// The ticket service has sold nothing to this order.
    NoTickets,
}

/// The right to move an order on, of one process at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Grows with each claim on the order. A write under an older one is refused, so that a process which stood still past
    /// the end of its claim does no harm.
    pub(crate) number: i64,
    /// Until then nobody else may claim it, by the store's clock.
    pub(crate) until: Timestamp,
}

/// The trace of a purchase. Empty when the caller sent none and none was begun.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Trace {
    /// 32 hexadecimal digits.
    pub(crate) id: String,
    /// The W3C `traceparent` under which what is resumed goes on: that of the purchase, and of the refund once that is asked for.
    pub(crate) parent: String,
}

/// Seats that are kept for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// The ticket service's fencing token.
    pub(crate) token: i64,
    pub(crate) seats: Vec<SeatId>,
    pub(crate) total: Money,
}

/// How an order looks from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrderState {
    Pending,
    Processing,
    Succeeded,
    Failed,
    Refunding,
    Refunded,
}

/// Why an order failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    SoldOut,
    SeatTaken,
    InsufficientFunds,
    HoldExpired,
    NotFound,
    NotForSale,
    Unavailable,
}

/// Why an order fails, and the same for people: what happened, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failing {
    pub(crate) failure: Failure,
    pub(crate) detail: String,
}

impl NewOrder {
    /// Tells a repeated BuyTicket from another one under the same request id.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let print = Fingerprint::of("BuyTicket")
            .text(&self.user_id.to_string())
            .text(&self.event_id.to_string());
        match &self.selection {
            Selection::Seats(seats) => {
                let print = print.number(0);
                seats
                    .as_slice()
                    .iter()
                    .fold(print, |print, seat| print.text(seat.as_str()))
            }
            Selection::BestAvailable { quantity, section } => print
                .number(1)
                .number(quantity.get().into())
                .text(section.as_deref().unwrap_or_default()),
        }
        .finish()
    }
}

impl Order {
    pub(crate) fn state(&self) -> OrderState {
        match self.step {
            Step::Begin => OrderState::Pending,
            Step::Succeeded(_) => OrderState::Succeeded,
            Step::Failed(_) => OrderState::Failed,
            Step::Revoke(_) | Step::Repay(_) => OrderState::Refunding,
            Step::Refunded(_) => OrderState::Refunded,
            Step::Hold | Step::Debit | Step::Confirm | Step::Refund(_) | Step::Release(_) => OrderState::Processing,
        }
    }

    /// Where it stands in the lists of orders.
    pub(crate) fn cursor(&self) -> TimeCursor {
        TimeCursor {
            at: self.created_at,
            id: self.id,
        }
    }

    /// Is there nothing left to do? It changes no more then, unless its money is asked back.
    pub(crate) fn is_final(&self) -> bool {
        self.step.is_final()
    }
}

impl OrderState {
    /// What it is called for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "being processed",
            Self::Succeeded => "sold",
            Self::Failed => "failed",
            Self::Refunding => "being refunded",
            Self::Refunded => "refunded",
        }
    }
}

impl RefundBy {
    /// What it is called in the store.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Buyer => "buyer",
            Self::Operator => "operator",
        }
    }
}

impl RefundRefusal {
    /// What it is called in the store.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::NoTickets => "no_tickets",
        }
    }
}

impl Failure {
    /// What it is called in the store and in events.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SoldOut => "sold_out",
            Self::SeatTaken => "seat_taken",
            Self::InsufficientFunds => "insufficient_funds",
            Self::HoldExpired => "hold_expired",
            Self::NotFound => "not_found",
            Self::NotForSale => "not_for_sale",
            Self::Unavailable => "unavailable",
        }
    }
}

impl SeatId {
    pub(crate) fn try_new(id: &str) -> Result<Self, Invalid> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'/';
        if id.is_empty() || id.len() > 64 || !id.bytes().all(allowed) {
            return Err(Invalid(
                "must have 1 to 64 of A-Z, a-z, 0-9, '-' and '/', for example A/3/12",
            ));
        }
        Ok(Self(id.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl ChosenSeats {
    pub(crate) fn try_new(mut seats: Vec<SeatId>) -> Result<Self, Invalid> {
        if seats.is_empty() || seats.len() > MAX_SEATS {
            return Err(Invalid("must have 1 to 10 seats"));
        }
        seats.sort_unstable();
        if seats.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Invalid("must name each seat once"));
        }
        Ok(Self(seats))
    }

    pub(crate) fn as_slice(&self) -> &[SeatId] {
        &self.0
    }
}

impl Quantity {
    pub(crate) fn try_new(quantity: u32) -> Result<Self, Invalid> {
        if !(1..=10).contains(&quantity) {
            return Err(Invalid("must be 1 to 10"));
        }
        Ok(Self(quantity))
    }

    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for SeatId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
