//! Domain values as messages of the wire.

use std::time::Duration;

use identity::KeyPair;
use proto::{common, ticket::v1};
use service_store::{Money, Timestamp};

use crate::{
    code::{self, Admission},
    domain::{
        event::{Counts, Event},
        hold::{Hold, Ticket},
        map::{Letter, SeatMap, SectionCounts},
        plan::Section,
        sale::{BuyerCap, SaleState},
        seat::{SeatId, SeatState},
    },
    store::{CheckedTicket, SeatView, SectionSales, StoreError, revenue},
};

/// An event with its counts, as it is on sale or not at `now`.
pub(super) fn event((event, counts): (Event, Counts), now: Timestamp) -> v1::Event {
    let sale = match event.terms.window.state_at(now) {
        SaleState::NotOpen { .. } => v1::SaleState::NotOpen,
        SaleState::Open => v1::SaleState::Open,
        SaleState::Closed { .. } => v1::SaleState::Closed,
    };
    v1::Event {
        id: event.id.to_string(),
        title: event.title,
        venue: event.venue.name.as_str().to_owned(),
        venue_record: Some(v1::Venue {
            id: event.venue_id.to_string(),
            name: event.venue.name.as_str().to_owned(),
            city: event.venue.city().to_owned(),
            address: event.venue.address().to_owned(),
            time_zone: event.venue.time_zone().to_owned(),
        }),
        sale_starts_at: event.terms.window.starts_at().map(timestamp),
        sale_ends_at: event.terms.window.ends_at().map(timestamp),
        max_per_buyer: event.terms.cap.map_or(0, BuyerCap::get),
        organiser_id: event
            .terms
            .organiser
            .map_or_else(String::new, |id| id.as_str().to_owned()),
        sale: sale.into(),
        starts_at: Some(timestamp(event.starts_at)),
        sections: event.plan.sections().iter().map(section).collect(),
        seats_total: counts.total,
        seats_free: counts.free,
        seats_held: counts.held,
        seats_sold: counts.sold,
    }
}

fn section(section: &Section) -> v1::Section {
    let (rows, seats_per_row, capacity) = section.layout.numbers();
    v1::Section {
        name: section.name.to_string(),
        rows,
        seats_per_row,
        price: Some(money(section.price.amount())),
        capacity,
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

/// A ticket with its code.
pub(super) fn ticket(ticket: Ticket, signer: &KeyPair) -> v1::Ticket {
    let seat = ticket.seat.to_string();
    v1::Ticket {
        code: code::sign(signer, ticket.id, ticket.event_id, &seat),
        id: ticket.id.to_string(),
        event_id: ticket.event_id.to_string(),
        seat_id: seat,
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

/// All seats of an event.
pub(super) fn seat_map(event: &Event, map: &SeatMap) -> v1::SeatMap {
    let sections = event.plan.sections().iter().zip(map.counts()).zip(map.rows());
    v1::SeatMap {
        revision: map.revision,
        sections: sections
            .map(|((section, counts), rows)| v1::SectionMap {
                rows: rows.into_iter().map(letters).collect(),
                ..section_counts(section, counts)
            })
            .collect(),
    }
}

/// What is different in a later map of the event.
pub(super) fn delta(event: &Event, from: &SeatMap, to: &SeatMap) -> v1::AvailabilityDelta {
    let counts = from.counts().into_iter().zip(to.counts());
    let sections = event.plan.sections().iter().zip(counts);
    let seats = from.changes(to).into_iter().filter_map(|(place, letter)| {
        let (seat, _) = event.plan.describe(place)?;
        Some(v1::SeatChange {
            seat_id: seat.to_string(),
            state: match letter {
                Letter::Free => v1::SeatState::Free,
                Letter::Held => v1::SeatState::Held,
                Letter::Sold => v1::SeatState::Sold,
            }
            .into(),
        })
    });
    v1::AvailabilityDelta {
        revision: to.revision,
        sections: sections
            .filter(|(_, (was, is))| was != is)
            .map(|(section, (_, is))| section_counts(section, is))
            .collect(),
        seats: seats.collect(),
    }
}

fn section_counts(section: &Section, counts: SectionCounts) -> v1::SectionMap {
    v1::SectionMap {
        section: section.name.to_string(),
        free: counts.free,
        held: counts.held,
        sold: counts.sold,
        rows: Vec::new(),
    }
}

fn letters(row: &[Letter]) -> String {
    let letter = |letter: &Letter| match letter {
        Letter::Free => 'F',
        Letter::Held => 'H',
        Letter::Sold => 'S',
    };
    row.iter().map(letter).collect()
}

/// What an event has sold, by section and in all.
pub(super) fn sales(event: &Event, sales: &[SectionSales]) -> Result<v1::GetSalesResponse, StoreError> {
    let mut total = SectionSales::default();
    let mut taken = Money::zero(event.plan.currency());
    let mut sections = Vec::with_capacity(sales.len());
    for (section, sales) in event.plan.sections().iter().zip(sales) {
        let revenue = revenue(section.price.amount(), sales.sold)?;
        taken = taken
            .plus(revenue)
            .map_err(|_| StoreError::Corrupt("prices without a sum"))?;
        total.free += sales.free;
        total.held += sales.held;
        total.sold += sales.sold;
        total.refunded += sales.refunded;
        sections.push(section_sales(
            section.name.to_string(),
            section.seats(),
            *sales,
            revenue,
        ));
    }
    Ok(v1::GetSalesResponse {
        sections,
        total: Some(section_sales(String::new(), event.plan.total(), total, taken)),
    })
}

fn section_sales(section: String, capacity: u32, sales: SectionSales, revenue: Money) -> v1::SectionSales {
    v1::SectionSales {
        section,
        capacity,
        free: sales.free,
        held: sales.held,
        sold: sales.sold,
        refunded: sales.refunded,
        revenue: Some(money(revenue)),
    }
}

/// A ticket that was shown.
pub(super) fn checked(admission: Admission, ticket: CheckedTicket) -> v1::CheckTicketResponse {
    let state = match ticket.revoked_at {
        None => v1::TicketState::Valid,
        Some(_) => v1::TicketState::Revoked,
    };
    v1::CheckTicketResponse {
        ticket_id: admission.ticket_id.to_string(),
        event_id: admission.event_id.to_string(),
        seat_id: admission.seat,
        state: state.into(),
        sold_at: Some(timestamp(ticket.sold_at)),
        revoked_at: ticket.revoked_at.map(timestamp),
    }
}

/// What tickets cost together; nothing without tickets.
pub(super) fn total(tickets: &[Ticket]) -> Result<Option<common::v1::Money>, StoreError> {
    let mut prices = tickets.iter().map(|ticket| ticket.price);
    let Some(first) = prices.next() else { return Ok(None) };
    let total = prices.try_fold(first, |sum, price| sum.plus(price));
    let total = total.map_err(|_| StoreError::Corrupt("prices without a sum"))?;
    Ok(Some(money(total)))
}

/// Durations here are at most an hour.
pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or_default()
}

pub(super) fn money(money: Money) -> common::v1::Money {
    common::v1::Money {
        currency_code: money.currency().as_str().to_owned(),
        minor_units: money.minor(),
    }
}

pub(super) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.to_parts();
    prost_types::Timestamp { seconds, nanos }
}
