//! What this service tells the world: how holds go. Ids and facts only; whose order it is, the order's own events say.
//!
//! The key is the hold, whose row was written before. Seats pass from one hold to the next, and between holds there is no order:
//! who follows a seat goes by `fencing_token`, which grows from hold to hold (T5), and ignores what has a lesser one than it has seen.

use outbox::Event;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::{
    hold::{FencingToken, Hold, Ticket},
    seat::SeatId,
};

/// The version of the bodies.
const SCHEMA: u32 = 1;

/// Seats are kept for somebody.
const HELD: &str = "seat.held";
/// They have tickets.
const SOLD: &str = "seat.sold";
/// The hold is over, and the seats that it still had are free.
const RELEASED: &str = "seat.released";
/// The tickets are revoked, and the seats free.
const REFUNDED: &str = "seat.refunded";

/// Which hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OfHold {
    pub(crate) id: Uuid,
    pub(crate) token: FencingToken,
    pub(crate) event_id: Uuid,
}

/// Why seats were given back.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reason {
    /// Whoever had them gave them back.
    Released,
    /// Time ran out.
    Expired,
}

pub(crate) fn held(hold: &Hold) -> Event {
    let of = OfHold {
        id: hold.id,
        token: hold.token,
        event_id: hold.event_id,
    };
    let seats = hold.seats.iter().map(|(seat, _)| seat);
    let mut event = event(HELD, of, seats);
    // As in every body: nanoseconds since 1970, as text, since JSON's numbers end at 2^53.
    event.body["expires_at_unix_nanos"] = hold.expires_at.as_nanos().to_string().into();
    event
}

pub(crate) fn sold(of: OfHold, tickets: &[Ticket]) -> Event {
    of_order(SOLD, of, tickets)
}

pub(crate) fn refunded(of: OfHold, tickets: &[Ticket]) -> Event {
    of_order(REFUNDED, of, tickets)
}

/// `freed`: the seats that it still had. Those that it had lost to later holds are not free, and perhaps all of them are lost.
pub(crate) fn released(of: OfHold, freed: &[SeatId], reason: Reason) -> Event {
    let mut event = event(RELEASED, of, freed);
    let reason = match reason {
        Reason::Released => "released",
        Reason::Expired => "expired",
    };
    event.body["reason"] = reason.into();
    event
}

fn of_order(kind: &'static str, of: OfHold, tickets: &[Ticket]) -> Event {
    let mut event = event(kind, of, tickets.iter().map(|ticket| &ticket.seat));
    if let Some(first) = tickets.first() {
        event.body["order_id"] = first.order_id.to_string().into();
    }
    event.body["ticket_ids"] = tickets.iter().map(|ticket| ticket.id.to_string()).collect();
    event
}

fn event<'a>(kind: &'static str, of: OfHold, seats: impl IntoIterator<Item = &'a SeatId>) -> Event {
    Event {
        key: of.id.to_string(),
        kind,
        schema: SCHEMA,
        body: json!({
            "hold_id": of.id.to_string(),
            "fencing_token": of.token.0,
            "event_id": of.event_id.to_string(),
            "seat_ids": seats.into_iter().map(|seat| Value::from(seat.to_string())).collect::<Vec<_>>(),
        }),
    }
}
