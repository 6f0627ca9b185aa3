//! A new event as a domain value, or everything that is wrong with it.

use proto::ticket::v1;
use service_store::{Currency, Text, Timestamp, Violations};

use crate::domain::{
    event::{NewEvent, Terms},
    plan::{Layout, SeatingPlan, Section},
    price::Price,
    sale::{BuyerCap, SaleWindow},
    seat::SectionName,
    venue::{TimeZone, Title, Venue},
};

/// How an instant of the wire must be.
const INSTANT: &str = "must be between the years 1678 and 2261";

pub(super) fn new_event(violations: &mut Violations, event: &v1::Event) -> Option<NewEvent> {
    let title = violations.check("event.title", Text::try_new(&event.title));
    let venue = venue(violations, event);
    let starts_at = match event.starts_at {
        None => violations.check("event.starts_at", Err("must be set")),
        Some(time) => instant(violations, "event.starts_at", time),
    };
    let plan = plan(violations, &event.sections);
    let terms = terms(violations, event);
    Some(NewEvent {
        title: title?,
        venue: venue?,
        starts_at: starts_at?,
        plan: plan?,
        terms: terms?,
    })
}

/// The record if there is one, and the plain name otherwise. One name in both places is one name.
fn venue(violations: &mut Violations, event: &v1::Event) -> Option<Venue> {
    let Some(record) = &event.venue_record else {
        return violations
            .check("event.venue", Text::try_new(&event.venue))
            .map(Venue::named);
    };
    let name = match (event.venue.as_str(), record.name.as_str()) {
        ("", name) => violations.check("event.venue_record.name", Title::try_new(name)),
        (name, "") => violations.check("event.venue", Title::try_new(name)),
        (name, other) if name == other => violations.check("event.venue", Title::try_new(name)),
        _ => violations.check("event.venue_record.name", Err("must be the same as venue, or empty")),
    };
    let city = optional(violations, "event.venue_record.city", &record.city, Text::try_new);
    let address = optional(violations, "event.venue_record.address", &record.address, Text::try_new);
    let time_zone = optional(
        violations,
        "event.venue_record.time_zone",
        &record.time_zone,
        TimeZone::try_new,
    );
    Some(Venue {
        name: name?,
        city: city?,
        address: address?,
        time_zone: time_zone?,
    })
}

fn terms(violations: &mut Violations, event: &v1::Event) -> Option<Terms> {
    let organiser = optional(violations, "event.organiser_id", &event.organiser_id, Text::try_new);
    let mut edge = |field, time: Option<prost_types::Timestamp>| match time {
        None => Some(None),
        Some(time) => instant(violations, field, time).map(Some),
    };
    let starts_at = edge("event.sale_starts_at", event.sale_starts_at);
    let ends_at = edge("event.sale_ends_at", event.sale_ends_at);
    let window = match (starts_at, ends_at) {
        (Some(starts_at), Some(ends_at)) => {
            violations.check("event.sale_ends_at", SaleWindow::try_new(starts_at, ends_at))
        }
        _ => None,
    };
    let cap = match event.max_per_buyer {
        0 => Some(None),
        seats => violations
            .check("event.max_per_buyer", BuyerCap::try_new(seats))
            .map(Some),
    };
    Some(Terms {
        organiser: organiser?,
        window: window?,
        cap: cap?,
    })
}

/// `None` inside when it is empty, `None` outside with a violation.
fn optional<T, E: std::fmt::Display>(
    violations: &mut Violations,
    field: &str,
    text: &str,
    take: impl FnOnce(&str) -> Result<T, E>,
) -> Option<Option<T>> {
    match text {
        "" => Some(None),
        text => violations.check(field, take(text)).map(Some),
    }
}

pub(super) fn instant(violations: &mut Violations, field: &str, time: prost_types::Timestamp) -> Option<Timestamp> {
    violations.check(field, Timestamp::from_parts(time.seconds, time.nanos).ok_or(INSTANT))
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
    let layout = violations.check(
        field,
        Layout::try_new(section.rows, section.seats_per_row, section.capacity),
    );
    currency?;
    Some(Section {
        name: name?,
        layout: layout?,
        price: price?,
    })
}
