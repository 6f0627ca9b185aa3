//! Events: what is sold, where, when, by whom, and how many of its seats are in which state.

use service_store::{Fingerprint, Text, TimeCursor, Timestamp};
use uuid::Uuid;

use super::{
    plan::SeatingPlan,
    sale::{BuyerCap, SaleWindow},
    venue::{Title, Venue},
};

/// Whose event it is. The caller's name for them; nothing is looked up by it.
pub(crate) type OrganiserId = Text<64>;

/// An event as its maker describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewEvent {
    pub(crate) title: Title,
    pub(crate) venue: Venue,
    pub(crate) starts_at: Timestamp,
    pub(crate) plan: SeatingPlan,
    pub(crate) terms: Terms,
}

/// Who sells it, and on what terms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Terms {
    pub(crate) organiser: Option<OrganiserId>,
    pub(crate) window: SaleWindow,
    pub(crate) cap: Option<BuyerCap>,
}

/// An event that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Uuid,
    pub(crate) title: String,
    pub(crate) venue_id: Uuid,
    pub(crate) venue: Venue,
    pub(crate) starts_at: Timestamp,
    pub(crate) plan: SeatingPlan,
    pub(crate) terms: Terms,
}

/// How many seats of an event are in which state. They always add up to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) total: u32,
    pub(crate) free: u32,
    pub(crate) held: u32,
    pub(crate) sold: u32,
}

impl NewEvent {
    /// Tells a repeated CreateEvent from another one under the same request id.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let instant = |instant: Option<Timestamp>| instant.map_or(i128::MAX, |instant| instant.as_nanos().into());
        let mut print = Fingerprint::of("CreateEvent")
            .text(self.title.as_str())
            .text(self.venue.name.as_str())
            .number(self.starts_at.as_nanos().into());
        for section in self.plan.sections() {
            let (rows, seats_per_row, capacity) = section.layout.numbers();
            print = print
                .text(section.name.as_str())
                .number(rows.into())
                .number(seats_per_row.into())
                .text(section.price.amount().currency().as_str())
                .number(section.price.amount().minor().into());
            if capacity > 0 {
                print = print.number(capacity.into());
            }
        }
        // Requests of before these fields were there keep the fingerprint that is stored for them.
        if self.terms == Terms::default() && self.venue == Venue::named(self.venue.name.clone()) {
            return print.finish();
        }
        print
            .text(self.venue.city())
            .text(self.venue.address())
            .text(self.venue.time_zone())
            .text(self.terms.organiser.as_ref().map_or("", OrganiserId::as_str))
            .number(instant(self.terms.window.starts_at()))
            .number(instant(self.terms.window.ends_at()))
            .number(self.terms.cap.map_or(0, BuyerCap::get).into())
            .finish()
    }
}

impl Event {
    /// Where it stands in the list of events.
    pub(crate) fn cursor(&self) -> TimeCursor {
        TimeCursor {
            at: self.starts_at,
            id: self.id,
        }
    }
}

impl Counts {
    /// From all, and those that are taken.
    pub(crate) fn new(total: u32, held: u32, sold: u32) -> Self {
        Self {
            total,
            free: total.saturating_sub(held).saturating_sub(sold),
            held,
            sold,
        }
    }
}
