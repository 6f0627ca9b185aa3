//! Domain values as messages of the wire.

use proto::{common, ticket::v1};
use service_store::{Money, Timestamp};

use crate::{
    domain::{
        event::{Counts, Event, Section},
        hold::{Hold, Ticket},
        seat::{SeatId, SeatState},
    },
    store::SeatView,
};

pub(super) fn event((event, counts): (Event, Counts)) -> v1::Event {
    v1::Event {
        id: event.id.to_string(),
        title: event.title,
        venue: event.venue,
        starts_at: Some(timestamp(event.starts_at)),
        sections: event.plan.sections().iter().map(section).collect(),
        seats_total: counts.total,
        seats_free: counts.free,
        seats_held: counts.held,
        seats_sold: counts.sold,
    }
}

fn section(section: &Section) -> v1::Section {
    v1::Section {
        name: section.name.to_string(),
        rows: section.rows,
        seats_per_row: section.seats_per_row,
        price: Some(money(section.price.amount())),
    }
}

pub(super) fn seat(seat: SeatView) -> v1::Seat {
    let state = match seat.state {
        SeatState::Free => v1::SeatState::Free,
        SeatState::Held => v1::SeatState::Held,
        SeatState::Sold => v1::SeatState::Sold,
    };
    named_seat(&seat.id, seat.price, state)
}

pub(super) fn hold(hold: Hold) -> v1::Hold {
    v1::Hold {
        id: hold.id.to_string(),
        token: hold.token.0,
        event_id: hold.event_id.to_string(),
        buyer_id: hold.buyer,
        // As they were granted; a repeated answer does not change.
        seats: hold
            .seats
            .iter()
            .map(|(id, price)| named_seat(id, *price, v1::SeatState::Held))
            .collect(),
        total: Some(money(hold.total)),
        expires_at: Some(timestamp(hold.expires_at)),
    }
}

pub(super) fn ticket(ticket: Ticket) -> v1::Ticket {
    v1::Ticket {
        id: ticket.id.to_string(),
        event_id: ticket.event_id.to_string(),
        seat_id: ticket.seat.to_string(),
        order_id: ticket.order_id.to_string(),
        price: Some(money(ticket.price)),
    }
}

fn named_seat(id: &SeatId, price: Money, state: v1::SeatState) -> v1::Seat {
    v1::Seat {
        id: id.to_string(),
        section: id.section().to_string(),
        row: id.row(),
        number: id.number(),
        state: state.into(),
        price: Some(money(price)),
    }
}

fn money(money: Money) -> common::v1::Money {
    common::v1::Money {
        currency_code: money.currency().as_str().to_owned(),
        minor_units: money.minor(),
    }
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.to_parts();
    prost_types::Timestamp { seconds, nanos }
}
