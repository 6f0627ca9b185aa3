//! Events and their seating plan. Which seats are taken is not known here.

use service_store::{Currency, Fingerprint, Invalid, Money, Text, TimeCursor, Timestamp};
use uuid::Uuid;

use super::{
    price::Price,
    seat::{Place, SeatId, SectionName},
};

/// What an event is called, or where it is.
pub(crate) type Title = Text<200>;

/// An event as its maker describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewEvent {
    pub(crate) title: Title,
    pub(crate) venue: Title,
    pub(crate) starts_at: Timestamp,
    pub(crate) plan: SeatingPlan,
}

/// An event that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Uuid,
    pub(crate) title: String,
    pub(crate) venue: String,
    pub(crate) starts_at: Timestamp,
    pub(crate) plan: SeatingPlan,
}

/// A part of the venue with one price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) name: SectionName,
    pub(crate) rows: u32,
    pub(crate) seats_per_row: u32,
    pub(crate) price: Price,
}

/// The sections of an event: 1 to 50 with different names, one currency, at most 20,000 seats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeatingPlan(Vec<Section>);

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
        let mut print = Fingerprint::of("CreateEvent")
            .text(self.title.as_str())
            .text(self.venue.as_str())
            .number(self.starts_at.as_nanos().into());
        for section in self.plan.sections() {
            print = print
                .text(section.name.as_str())
                .number(section.rows.into())
                .number(section.seats_per_row.into())
                .text(section.price.amount().currency().as_str())
                .number(section.price.amount().minor().into());
        }
        print.finish()
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

impl Section {
    /// Takes a section of 1 to 100 rows with 1 to 200 seats each.
    pub(crate) fn try_new(name: SectionName, rows: u32, seats_per_row: u32, price: Price) -> Result<Self, Invalid> {
        if !(1..=100).contains(&rows) {
            return Err(Invalid("rows must be 1 to 100"));
        }
        if !(1..=200).contains(&seats_per_row) {
            return Err(Invalid("seats_per_row must be 1 to 200"));
        }
        Ok(Self {
            name,
            rows,
            seats_per_row,
            price,
        })
    }

    fn seats(&self) -> u32 {
        self.rows.saturating_mul(self.seats_per_row)
    }
}

impl SeatingPlan {
    pub(crate) const MAX_SECTIONS: usize = 50;
    pub(crate) const MAX_SEATS: u32 = 20_000;

    /// Takes sections that keep the limits together.
    pub(crate) fn try_new(sections: Vec<Section>) -> Result<Self, Invalid> {
        if sections.is_empty() || sections.len() > Self::MAX_SECTIONS {
            return Err(Invalid("must have 1 to 50 sections"));
        }
        let mut names: Vec<&SectionName> = sections.iter().map(|section| &section.name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Invalid("each section must have a name of its own"));
        }
        let currency = |section: &Section| section.price.amount().currency();
        if sections.windows(2).any(|pair| currency(&pair[0]) != currency(&pair[1])) {
            return Err(Invalid("all sections must have one currency"));
        }
        let seats = sections.iter().map(Section::seats).fold(0, u32::saturating_add);
        if seats > Self::MAX_SEATS {
            return Err(Invalid("must have at most 20,000 seats in all"));
        }
        Ok(Self(sections))
    }

    pub(crate) fn sections(&self) -> &[Section] {
        &self.0
    }

    pub(crate) fn currency(&self) -> Currency {
        self.0
            .first()
            .map_or(Currency::EUR, |section| section.price.amount().currency())
    }

    pub(crate) fn total(&self) -> u32 {
        self.0.iter().map(Section::seats).sum()
    }

    /// Where a named seat is, if the event has it.
    pub(crate) fn place(&self, seat: &SeatId) -> Option<Place> {
        let position = self.position(seat.section())?;
        let section = &self.0[position as usize];
        let exists = seat.row() <= section.rows && seat.number() <= section.seats_per_row;
        exists.then(|| Place {
            section: position,
            row: seat.row(),
            number: seat.number(),
        })
    }

    /// A section's position, from 0.
    pub(crate) fn position(&self, name: &SectionName) -> Option<u32> {
        let position = self.0.iter().position(|section| section.name == *name)?;
        u32::try_from(position).ok()
    }

    /// The name and price of a place, if the event has it.
    pub(crate) fn describe(&self, place: Place) -> Option<(SeatId, Money)> {
        let section = self.0.get(place.section as usize)?;
        Some((
            SeatId::new(section.name.clone(), place.row, place.number),
            section.price.amount(),
        ))
    }
}

impl Counts {
    /// From how many are taken. Never more than there are.
    pub(crate) fn new(total: u32, held: u32, sold: u32) -> Self {
        Self {
            total,
            free: total.saturating_sub(held).saturating_sub(sold),
            held,
            sold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(name: &str, rows: u32, seats_per_row: u32, currency: &str) -> Section {
        let price = Price::try_new(Currency::try_new(currency).expect("a code"), 100).expect("in range");
        Section::try_new(SectionName::try_new(name).expect("a name"), rows, seats_per_row, price).expect("in range")
    }

    #[test]
    fn a_plan_keeps_its_limits() {
        assert!(SeatingPlan::try_new(vec![section("A", 100, 200, "EUR")]).is_ok());
        let many = (0..51).map(|n| section(&format!("S{n}"), 1, 1, "EUR")).collect();
        for bad in [
            vec![],
            many,
            vec![section("A", 1, 1, "EUR"), section("A", 2, 2, "EUR")],
            vec![section("A", 1, 1, "EUR"), section("B", 1, 1, "USD")],
            vec![section("A", 100, 200, "EUR"), section("B", 1, 1, "EUR")],
        ] {
            assert!(SeatingPlan::try_new(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_place_has_a_name_and_every_name_a_place() {
        let plan = SeatingPlan::try_new(vec![section("A", 2, 3, "EUR"), section("B", 1, 4, "EUR")]).expect("a plan");
        assert_eq!(plan.total(), 10);
        let seat: SeatId = "B/1/4".parse().expect("a seat");
        let place = plan.place(&seat).expect("it exists");
        assert_eq!(plan.describe(place).expect("it exists").0, seat);
        for unknown in ["A/3/1", "A/1/4", "B/2/1", "C/1/1"] {
            assert_eq!(plan.place(&unknown.parse().expect("a seat")), None, "{unknown}");
        }
    }
}
