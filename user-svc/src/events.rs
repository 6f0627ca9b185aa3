//! What this service tells the world: how orders end, and that they were refunded. Ids and facts only; who wants an address or a name asks for it.

use outbox::Event;
use serde_json::json;

use crate::domain::{
    order::{Order, SeatId},
    saga::Step,
};

/// The version of the bodies.
const SCHEMA: u32 = 1;

/// A purchase is complete: seats sold, money taken.
pub(crate) const SUCCEEDED: &str = "order.succeeded";
/// Nothing was bought and nothing paid.
pub(crate) const FAILED: &str = "order.failed";
/// The tickets of a purchase are void, and its money is back.
pub(crate) const REFUNDED: &str = "order.refunded";

/// What there is to tell of an order that has just come from that step to this one. Its key is the order, whose row was written
/// before.
pub(crate) fn of(was: &Step, order: &Order) -> Option<Event> {
    let mut body = json!({
        "order_id": order.id.to_string(),
        "user_id": order.user_id.to_string(),
        "event_id": order.event_id.to_string(),
        "version": order.version,
    });
    let kind = match &order.step {
        // A refund that was refused changes nothing: that the order has succeeded was told when it did.
        Step::Succeeded(_) if matches!(was, Step::Revoke(_)) => return None,
        Step::Succeeded(tickets) => {
            body["ticket_ids"] = tickets.iter().map(ToString::to_string).collect();
            SUCCEEDED
        }
        Step::Refunded(tickets) => {
            body["ticket_ids"] = tickets.iter().map(ToString::to_string).collect();
            REFUNDED
        }
        Step::Failed(why) => {
            body["failure"] = why.failure.name().into();
            FAILED
        }
        _ => return None,
    };
    if let Some(held) = &order.held {
        body["seat_ids"] = held.seats.iter().map(SeatId::as_str).collect();
        body["total"] = json!({
            "currency_code": held.total.currency().as_str(),
            "minor_units": held.total.minor(),
        });
    }
    Some(Event {
        key: order.id.to_string(),
        kind,
        schema: SCHEMA,
        body,
    })
}
