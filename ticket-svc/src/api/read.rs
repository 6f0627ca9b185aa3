//! Requests as domain values, or INVALID_ARGUMENT with everything that is wrong with them.

use identity::KeySet;
use proto::ticket::v1::{self, hold_seats_request};
use service_host::status;
use service_store::{Page, PageSizes, Text, TimeCursor, Timestamp, Violations};
use tonic::Status;
use uuid::Uuid;

use super::{
    new_event::{self, new_event},
    page,
};
use crate::{
    code::{self, Admission},
    domain::{
        event::NewEvent,
        hold::{BuyerId, ChosenSeats, FencingToken, HoldTtl, MAX_SEATS, NewHold, Quantity, Selection},
        line::Visitor,
        refund::{Asker, NewRefund},
        search::{Query, Standing, Words},
        seat::{Place, SeatId, SeatState, SectionName},
    },
    pass,
};

/// How many events a page has.
const EVENTS: PageSizes = PageSizes { default: 50, max: 200 };

/// How many events a page of a search has.
const FOUND: PageSizes = PageSizes { default: 20, max: 100 };

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

/// Who wants seats, and whether their pass is good: `None` without one.
pub(super) fn visitor(hold: &NewHold, pass: &str, keys: &KeySet, now: Timestamp) -> Result<(Visitor, bool), Status> {
    let visitor = Visitor {
        event: hold.event_id,
        buyer: hold.buyer.as_str().to_owned(),
    };
    if pass.is_empty() {
        return Ok((visitor, false));
    }
    let mut violations = Violations::default();
    let until = pass::verify(keys, &visitor, pass);
    let until = violations.check(
        "pass",
        until.ok_or("must be what WaitInLine gave for this event and buyer, or empty"),
    );
    match until {
        Some(until) => Ok((visitor, now < until)),
        None => Err(status::invalid(violations)),
    }
}

pub(super) fn wait_in_line(request: &v1::WaitInLineRequest) -> Result<Visitor, Status> {
    let mut violations = Violations::default();
    let event = violations.uuid("event_id", &request.event_id);
    let buyer: Option<BuyerId> = violations.check("buyer_id", Text::try_new(&request.buyer_id));
    match (event, buyer) {
        (Some(event), Some(buyer)) => Ok(Visitor {
            event,
            buyer: buyer.as_str().to_owned(),
        }),
        _ => Err(status::invalid(violations)),
    }
}

pub(super) fn refund(request: &v1::RefundTicketsRequest) -> Result<NewRefund, Status> {
    let mut violations = Violations::default();
    let order_id = violations.uuid("order_id", &request.order_id);
    let token = token_if_known(&mut violations, request.hold_token);
    let id = match request.request_id.as_str() {
        "" => Some(None),
        id => violations.uuid("request_id", id).map(Some),
    };
    let by = if request.by_buyer {
        Asker::Buyer
    } else {
        Asker::Platform
    };
    match (order_id, token, id) {
        (Some(order_id), Some(token), Some(id)) => Ok(NewRefund {
            id,
            order_id,
            token,
            by,
        }),
        _ => Err(status::invalid(violations)),
    }
}

/// An id that is all that a request has.
pub(super) fn only_id(field: &str, id: &str) -> Result<Uuid, Status> {
    let mut violations = Violations::default();
    let read = violations.uuid(field, id);
    read.ok_or_else(|| status::invalid(violations))
}

pub(super) fn ticket_code(keys: &KeySet, code: &str) -> Result<Admission, Status> {
    code::verify(keys, code).map_err(|error| {
        let mut violations = Violations::default();
        violations.add("code", format!("must be the code of a ticket: {error}"));
        status::invalid(violations)
    })
}

pub(super) fn search(request: &v1::SearchEventsRequest) -> Result<(Query, Page<Standing>), Status> {
    let mut violations = Violations::default();
    let text = violations.check("text", Words::asked(&request.text));
    let place = violations.check("place", Words::asked(&request.place));
    let from = edge(&mut violations, "starts_from", request.starts_from);
    let before = edge(&mut violations, "starts_before", request.starts_before);
    let page = Page::read(
        &mut violations,
        FOUND,
        request.page_size,
        &request.page_token,
        Standing::from_token,
    );
    match (text, place, from, before, page) {
        (Some(text), Some(place), Some(from), Some(before), Some(page)) => {
            let query = Query {
                text,
                place,
                from,
                before,
            };
            Ok((query, page))
        }
        _ => Err(status::invalid(violations)),
    }
}

fn edge(violations: &mut Violations, field: &str, time: Option<prost_types::Timestamp>) -> Option<Option<Timestamp>> {
    match time {
        None => Some(None),
        Some(time) => new_event::instant(violations, field, time).map(Some),
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
    let token = token_if_known(&mut violations, request.hold_token);
    match (hold_id, token) {
        (Some(hold_id), Some(token)) => Ok((hold_id, token)),
        _ => Err(status::invalid(violations)),
    }
}

/// `None` inside when the caller does not know it.
fn token_if_known(violations: &mut Violations, token: i64) -> Option<Option<FencingToken>> {
    match token {
        0 => Some(None),
        token @ 1.. => Some(Some(FencingToken(token))),
        _ => violations.check(
            "hold_token",
            Err("must be the token of the hold, or 0 when it is not known"),
        ),
    }
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
