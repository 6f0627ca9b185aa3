//! The seating plan of an event: sections with numbered seats or general admission. Which seats are taken is not known here.
//!
//! General admission is a row of places like any other, row 0, of which only the number counts. So one mechanism holds, sells and
//! refunds all of them, and there is no counter that every buyer of a full floor would have to write.

use service_store::{Currency, Invalid, Money};

use super::{
    price::Price,
    seat::{GENERAL_ROW, Place, SeatId, SectionName},
};

/// A part of the venue with one price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) name: SectionName,
    pub(crate) layout: Layout,
    pub(crate) price: Price,
}

/// How people sit or stand in a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// 1 to 100 rows of 1 to 200 numbered seats.
    Seated(Rows),
    /// 1 to 20,000 admissions.
    General(Capacity),
}

/// 1 to 100 rows of 1 to 200 seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows {
    rows: u32,
    seats_per_row: u32,
}

/// 1 to 20,000 places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity(u32);

/// The sections of an event: 1 to 50 with different names, one currency, at most 20,000 seats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeatingPlan(Vec<Section>);

impl Layout {
    /// From the numbers that say it: rows and seats a row, or a capacity and neither of those.
    pub(crate) fn try_new(rows: u32, seats_per_row: u32, capacity: u32) -> Result<Self, Invalid> {
        match (rows, seats_per_row, capacity) {
            (0, 0, capacity @ 1..=SeatingPlan::MAX_SEATS) => Ok(Self::General(Capacity(capacity))),
            (0, 0, 1..) => Err(Invalid("capacity must be 1 to 20,000")),
            (_, _, 1..) => Err(Invalid("must have rows and seats_per_row, or a capacity, not both")),
            (rows, seats_per_row, 0) => {
                if !(1..=100).contains(&rows) {
                    return Err(Invalid("rows must be 1 to 100"));
                }
                if !(1..=200).contains(&seats_per_row) {
                    return Err(Invalid("seats_per_row must be 1 to 200"));
                }
                Ok(Self::Seated(Rows { rows, seats_per_row }))
            }
        }
    }

    /// The first and the last row, both included.
    pub(crate) fn rows(self) -> std::ops::RangeInclusive<u32> {
        match self {
            Self::Seated(rows) => 1..=rows.rows,
            Self::General(_) => GENERAL_ROW..=GENERAL_ROW,
        }
    }

    /// How many places each row has.
    pub(crate) fn row_length(self) -> u32 {
        match self {
            Self::Seated(rows) => rows.seats_per_row,
            Self::General(Capacity(places)) => places,
        }
    }

    /// Rows, seats a row and capacity, as [`Layout::try_new`] takes them.
    pub(crate) fn numbers(self) -> (u32, u32, u32) {
        match self {
            Self::Seated(rows) => (rows.rows, rows.seats_per_row, 0),
            Self::General(Capacity(places)) => (0, 0, places),
        }
    }

    fn seats(self) -> u32 {
        match self {
            Self::Seated(rows) => rows.rows.saturating_mul(rows.seats_per_row),
            Self::General(Capacity(places)) => places,
        }
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
        let layout = self.0[position as usize].layout;
        let exists = layout.rows().contains(&seat.row()) && (1..=layout.row_length()).contains(&seat.number());
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

impl Section {
    /// How many seats or admissions it has.
    pub(crate) fn seats(&self) -> u32 {
        self.layout.seats()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(name: &str, layout: (u32, u32, u32), currency: &str) -> Section {
        let price = Price::try_new(Currency::try_new(currency).expect("a code"), 100).expect("in range");
        Section {
            name: SectionName::try_new(name).expect("a name"),
            layout: Layout::try_new(layout.0, layout.1, layout.2).expect("in range"),
            price,
        }
    }

    fn seated(name: &str, rows: u32, seats_per_row: u32, currency: &str) -> Section {
        section(name, (rows, seats_per_row, 0), currency)
    }

    #[test]
    fn a_plan_keeps_its_limits() {
        assert!(SeatingPlan::try_new(vec![seated("A", 100, 200, "EUR")]).is_ok());
        assert!(SeatingPlan::try_new(vec![section("A", (0, 0, 20_000), "EUR")]).is_ok());
        let many = (0..51).map(|n| seated(&format!("S{n}"), 1, 1, "EUR")).collect();
        for bad in [
            vec![],
            many,
            vec![seated("A", 1, 1, "EUR"), seated("A", 2, 2, "EUR")],
            vec![seated("A", 1, 1, "EUR"), seated("B", 1, 1, "USD")],
            vec![seated("A", 100, 200, "EUR"), seated("B", 1, 1, "EUR")],
            vec![seated("A", 1, 1, "EUR"), section("B", (0, 0, 20_000), "EUR")],
        ] {
            assert!(SeatingPlan::try_new(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_section_has_rows_or_a_capacity() {
        for numbers in [(1, 1, 0), (100, 200, 0), (0, 0, 1), (0, 0, 20_000)] {
            let (rows, seats_per_row, capacity) = numbers;
            let layout = Layout::try_new(rows, seats_per_row, capacity).expect("in range");
            assert_eq!(layout.numbers(), numbers);
        }
        for (rows, seats_per_row, capacity) in [
            (0, 0, 0),
            (0, 1, 0),
            (1, 0, 0),
            (101, 1, 0),
            (1, 201, 0),
            (u32::MAX, u32::MAX, 0),
            (0, 0, 20_001),
            (0, 0, u32::MAX),
            (1, 1, 1),
            (1, 0, 5),
        ] {
            assert!(Layout::try_new(rows, seats_per_row, capacity).is_err());
        }
    }

    #[test]
    fn every_place_has_a_name_and_every_name_a_place() {
        let sections = vec![
            seated("A", 2, 3, "EUR"),
            seated("B", 1, 4, "EUR"),
            section("F", (0, 0, 5), "EUR"),
        ];
        let plan = SeatingPlan::try_new(sections).expect("a plan");
        assert_eq!(plan.total(), 15);
        for name in ["B/1/4", "F/ga/5"] {
            let seat: SeatId = name.parse().expect("a seat");
            let place = plan.place(&seat).expect("it exists");
            assert_eq!(plan.describe(place).expect("it exists").0, seat);
        }
        for unknown in ["A/3/1", "A/1/4", "B/2/1", "C/1/1", "F/ga/6", "F/1/1", "A/ga/1"] {
            assert_eq!(plan.place(&unknown.parse().expect("a seat")), None, "{unknown}");
        }
    }
}
