//! Requests as domain values, or INVALID_ARGUMENT with everything that is wrong with them.

use proto::ticket::v1::{self, hold_seats_request};
use service_host::status;
use service_store::{Currency, Page, PageSizes, Text, TimeCursor, Timestamp, Violations};
use tonic::Status;
use uuid::Uuid;

use super::page;
use crate::domain::{
    event::{NewEvent, SeatingPlan, Section},
    hold::{ChosenSeats, FencingToken, HoldTtl, MAX_SEATS, NewHold, Quantity, Selection},
    price::Price,
    seat::{Place, SeatId, SeatState, SectionName},
};

/// How many events a page has.
const EVENTS: PageSizes = PageSizes { default: 50, max: 200 };

/// How many seats a page has.
const SEATS: PageSizes = PageSizes {
    default: 200,
    max: 1_000,
};

pub(super) fn create_event(request: v1::CreateEventRequest) -> Result<(Uuid, NewEvent), Status> {
    let mut violations = Violations::default();
    let request_id = violations.uuid("request_id", &request.request_id);
    let event = new_event(&mut violations, &request.event.unwrap_or_default());
    match (request_id, event) {
        (Some(request_id), Some(event)) => Ok((request_id, event)),
        _ => Err(status::invalid(violations)),
    }
}

pub(super) fn get_event(request: &v1::GetEventRequest) -> Result<Uuid, Status> {
    let mut violations = Violations::default();
    let event_id = violations.uuid("event_id", &request.event_id);
    event_id.ok_or_else(|| status::invalid(violations))
}

pub(super) fn list_events(request: &v1::ListEventsRequest) -> Result<Page<TimeCursor>, Status> {
    let mut violations = Violations::default();
    let page = Page::read(
        &mut violations,
        EVENTS,
        request.page_size,
        &request.page_token,
        TimeCursor::from_token,
    );
    page.ok_or_else(|| status::invalid(violations))
}

pub(super) fn list_seats(request: &v1::ListSeatsRequest) -> Result<(Uuid, Option<SeatState>, Page<Place>), Status> {
    let mut violations = Violations::default();
    let event_id = violations.uuid("event_id", &request.event_id);
    let state = match v1::SeatState::try_from(request.state) {
        Ok(v1::SeatState::Unspecified) => Some(None),
        Ok(v1::SeatState::Free) => Some(Some(SeatState::Free)),
        Ok(v1::SeatState::Held) => Some(Some(SeatState::Held)),
        Ok(v1::SeatState::Sold) => Some(Some(SeatState::Sold)),
        Err(_) => violations.check("state", Err("must be a SeatState, or unspecified for all")),
    };
    let page = Page::read(
        &mut violations,
        SEATS,
        request.page_size,
        &request.page_token,
        page::seat_cursor,
    );
    match (event_id, state, page) {
        (Some(event_id), Some(state), Some(page)) => Ok((event_id, state, page)),
        _ => Err(status::invalid(violations)),
    }
}

pub(super) fn hold_seats(request: v1::HoldSeatsRequest) -> Result<NewHold, Status> {
    let mut violations = Violations::default();
    let id = violations.uuid("request_id", &request.request_id);
    let event_id = violations.uuid("event_id", &request.event_id);
    let buyer = violations.check("buyer_id", Text::try_new(&request.buyer_id));
    let selection = selection(&mut violations, request.selection);
    let ttl = match request.ttl {
        None => Some(HoldTtl::default()),
        Some(ttl) => violations.check("ttl", duration(ttl)),
    };
    match (id, event_id, buyer, selection, ttl) {
        (Some(id), Some(event_id), Some(buyer), Some(selection), Some(ttl)) => Ok(NewHold {
            id,
            event_id,
            buyer,
            selection,
            ttl,
        }),
        _ => Err(status::invalid(violations)),
    }
}

pub(super) fn confirm_hold(request: &v1::ConfirmHoldRequest) -> Result<(Uuid, FencingToken, Uuid), Status> {
    let mut violations = Violations::default();
    let hold_id = violations.uuid("hold_id", &request.hold_id);
    let token = (request.hold_token >= 1).then_some(FencingToken(request.hold_token));
    let token = violations.check("hold_token", token.ok_or("must be the token of the hold, at least 1"));
    let order_id = violations.uuid("order_id", &request.order_id);
    match (hold_id, token, order_id) {
        (Some(hold_id), Some(token), Some(order_id)) => Ok((hold_id, token, order_id)),
        _ => Err(status::invalid(violations)),
    }
}

pub(super) fn release_hold(request: &v1::ReleaseHoldRequest) -> Result<(Uuid, Option<FencingToken>), Status> {
    let mut violations = Violations::default();
    let hold_id = violations.uuid("hold_id", &request.hold_id);
    let token = match request.hold_token {
        0 => Some(None),
        token @ 1.. => Some(Some(FencingToken(token))),
        _ => violations.check(
            "hold_token",
            Err("must be the token of the hold, or 0 when it is not known"),
        ),
    };
    match (hold_id, token) {
        (Some(hold_id), Some(token)) => Ok((hold_id, token)),
        _ => Err(status::invalid(violations)),
    }
}

fn new_event(violations: &mut Violations, event: &v1::Event) -> Option<NewEvent> {
    let title = violations.check("event.title", Text::try_new(&event.title));
    let venue = violations.check("event.venue", Text::try_new(&event.venue));
    let starts_at = event
        .starts_at
        .and_then(|time| Timestamp::from_parts(time.seconds, time.nanos));
    let starts_at = violations.check(
        "event.starts_at",
        starts_at.ok_or("must be set, and between the years 1678 and 2261"),
    );
    let plan = plan(violations, &event.sections);
    Some(NewEvent {
        title: title?,
        venue: venue?,
        starts_at: starts_at?,
        plan: plan?,
    })
}

fn plan(violations: &mut Violations, sections: &[v1::Section]) -> Option<SeatingPlan> {
    if sections.len() > SeatingPlan::MAX_SECTIONS {
        // Not one violation for each of perhaps a million.
        return violations.check("event.sections", Err("must have 1 to 50 sections"));
    }
    let read: Vec<Option<Section>> = sections
        .iter()
        .enumerate()
        .map(|(index, read)| section(violations, &format!("event.sections[{index}]"), read))
        .collect();
    let sections = read.into_iter().collect::<Option<Vec<_>>>()?;
    violations.check("event.sections", SeatingPlan::try_new(sections))
}

fn section(violations: &mut Violations, field: &str, section: &v1::Section) -> Option<Section> {
    let name = violations.check(format!("{field}.name"), SectionName::try_new(&section.name));
    let price = section.price.clone().unwrap_or_default();
    let currency = violations.check(
        format!("{field}.price.currency_code"),
        Currency::try_new(&price.currency_code),
    );
    let amount = Price::try_new(currency.unwrap_or(Currency::EUR), price.minor_units);
    let price = violations.check(format!("{field}.price.minor_units"), amount);
    let (name, _, price) = (name?, currency?, price?);
    violations.check(
        field,
        Section::try_new(name, section.rows, section.seats_per_row, price),
    )
}

fn selection(violations: &mut Violations, selection: Option<hold_seats_request::Selection>) -> Option<Selection> {
    match selection {
        None => violations.check("selection", Err("must be seats or best_available")),
        Some(hold_seats_request::Selection::Seats(choice)) => chosen(violations, &choice.seat_ids),
        Some(hold_seats_request::Selection::BestAvailable(best)) => {
            let quantity = violations.check("best_available.quantity", Quantity::try_new(best.quantity));
            let section = match best.section.as_str() {
                "" => Some(None),
                name => violations
                    .check("best_available.section", SectionName::try_new(name))
                    .map(Some),
            };
            Some(Selection::BestAvailable {
                quantity: quantity?,
                section: section?,
            })
        }
    }
}

fn chosen(violations: &mut Violations, ids: &[String]) -> Option<Selection> {
    if ids.len() > MAX_SEATS {
        return violations.check("seats.seat_ids", Err("must have 1 to 10 seats"));
    }
    let read: Vec<Option<SeatId>> = ids
        .iter()
        .enumerate()
        .map(|(index, id)| violations.check(format!("seats.seat_ids[{index}]"), id.parse()))
        .collect();
    let seats = read.into_iter().collect::<Option<Vec<_>>>()?;
    violations
        .check("seats.seat_ids", ChosenSeats::try_new(seats))
        .map(Selection::Seats)
}

fn duration(ttl: prost_types::Duration) -> Result<HoldTtl, &'static str> {
    const LIMIT: &str = "must be 1 s to 15 min";
    let ttl = std::time::Duration::try_from(ttl).map_err(|_| LIMIT)?;
    HoldTtl::try_new(ttl).map_err(|_| LIMIT)
}
