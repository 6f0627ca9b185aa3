//! All seats of an event at one moment, a byte each, and what is different between two moments. Knows no names: the plan does.

use super::{
    plan::SeatingPlan,
    seat::{GENERAL_ROW, Place},
};

/// The state of a seat on the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Letter {
    Free,
    Held,
    Sold,
}

/// How many of a section are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SectionCounts {
    pub(crate) free: u32,
    pub(crate) held: u32,
    pub(crate) sold: u32,
}

/// All seats of an event: 20,000 of them are 20,000 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeatMap {
    /// The sum of the versions of all seats: each change adds one, so it grows with every change, and is the same number for whoever
    /// reads the same seats. A counter of changes would be one row that all buyers of an event fight for.
    pub(crate) revision: i64,
    sections: Vec<SectionMap>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct SectionMap {
    first_row: u32,
    row_length: u32,
    /// Row by row.
    seats: Vec<Letter>,
}

impl SeatMap {
    /// Before anything is sold.
    pub(crate) fn all_free(plan: &SeatingPlan) -> Self {
        let sections = plan.sections().iter().map(|section| SectionMap {
            first_row: *section.layout.rows().start(),
            row_length: section.layout.row_length(),
            seats: vec![Letter::Free; section.seats() as usize],
        });
        Self {
            revision: 0,
            sections: sections.collect(),
        }
    }

    /// Sets a seat; `None` if there is no such seat.
    pub(crate) fn mark(&mut self, place: Place, letter: Letter) -> Option<()> {
        let section = self.sections.get_mut(place.section as usize)?;
        let number = place
            .number
            .checked_sub(1)
            .filter(|number| *number < section.row_length)?;
        let row = place.row.checked_sub(section.first_row)?;
        let index = row.checked_mul(section.row_length)?.checked_add(number)?;
        *section.seats.get_mut(index as usize)? = letter;
        Some(())
    }

    /// How many are in which state, by section.
    pub(crate) fn counts(&self) -> Vec<SectionCounts> {
        self.sections.iter().map(SectionMap::counts).collect()
    }

    /// The rows of each section; none with general admission, where no place is another one.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Vec<&[Letter]>> {
        self.sections.iter().map(|section| match section.first_row {
            GENERAL_ROW => Vec::new(),
            _ => section.seats.chunks(section.row_length as usize).collect(),
        })
    }

    /// The numbered seats that are different in `later`, with what they are there. Of general admission only the counts matter.
    pub(crate) fn changes(&self, later: &Self) -> Vec<(Place, Letter)> {
        let mut changes = Vec::new();
        for (section, (before, after)) in (0_u32..).zip(self.sections.iter().zip(&later.sections)) {
            if before.first_row == GENERAL_ROW {
                continue;
            }
            for (index, (was, is)) in (0_u32..).zip(before.seats.iter().zip(&after.seats)) {
                if was != is {
                    let place = Place {
                        section,
                        row: before.first_row + index / before.row_length,
                        number: index % before.row_length + 1,
                    };
                    changes.push((place, *is));
                }
            }
        }
        changes
    }
}

impl SectionMap {
    fn counts(&self) -> SectionCounts {
        let mut counts = SectionCounts::default();
        for seat in &self.seats {
            match seat {
                Letter::Free => counts.free += 1,
                Letter::Held => counts.held += 1,
                Letter::Sold => counts.sold += 1,
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use service_store::Currency;

    use super::*;
    use crate::domain::{
        plan::{Layout, Section},
        price::Price,
        seat::SectionName,
    };

    fn plan() -> SeatingPlan {
        let section = |name, rows, seats_per_row, capacity| Section {
            name: SectionName::try_new(name).expect("a name"),
            layout: Layout::try_new(rows, seats_per_row, capacity).expect("in range"),
            price: Price::try_new(Currency::EUR, 1).expect("in range"),
        };
        SeatingPlan::try_new(vec![section("A", 2, 3, 0), section("F", 0, 0, 4)]).expect("a plan")
    }

    fn place(section: u32, row: u32, number: u32) -> Place {
        Place { section, row, number }
    }

    #[test]
    fn a_map_counts_and_tells_what_changed() {
        let before = SeatMap::all_free(&plan());
        let mut after = before.clone();
        for (at, letter) in [
            (place(0, 2, 3), Letter::Sold),
            (place(0, 1, 1), Letter::Held),
            (place(1, 0, 4), Letter::Sold),
        ] {
            after.mark(at, letter).expect("it exists");
        }
        let counts = |free, held, sold| SectionCounts { free, held, sold };
        assert_eq!(after.counts(), [counts(4, 1, 1), counts(3, 0, 1)]);
        let changed = [(place(0, 1, 1), Letter::Held), (place(0, 2, 3), Letter::Sold)];
        assert_eq!(before.changes(&after), changed);
        assert!(after.changes(&after).is_empty());
        let rows: Vec<usize> = after.rows().map(|rows| rows.len()).collect();
        assert_eq!(rows, [2, 0], "general admission has no rows");
    }

    #[test]
    fn what_is_not_there_is_not_marked() {
        let mut map = SeatMap::all_free(&plan());
        for nowhere in [
            place(2, 1, 1),
            place(0, 0, 1),
            place(0, 3, 1),
            place(0, 1, 4),
            place(0, 1, 0),
            place(1, 1, 1),
        ] {
            assert_eq!(map.mark(nowhere, Letter::Sold), None, "{nowhere:?}");
        }
        assert_eq!(map, SeatMap::all_free(&plan()));
    }
}
