//! Seats: how they are named, where they are, what state they are in.

use std::{fmt, str::FromStr};

use service_store::Invalid;

/// The name of a section: 1 to 40 of A-Z, a-z, 0-9 and '-'.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SectionName(String);

/// The row that general admission is kept in. Rows of chairs count from 1.
pub(crate) const GENERAL_ROW: u32 = 0;

/// How that row is spelt: `FLOOR/ga/17`.
const GENERAL: &str = "ga";

/// A seat's public name, `section/row/number`, for example `A/3/12` or `FLOOR/ga/17`. One seat has one spelling.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SeatId {
    section: SectionName,
    row: u32,
    number: u32,
}

/// Where a seat is within its event. Orders seats front to back and left to right, sections as the event lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The section's position in the event, from 0.
    pub(crate) section: u32,
    /// From 1, or [`GENERAL_ROW`].
    pub(crate) row: u32,
    /// From 1.
    pub(crate) number: u32,
}

/// The state of a seat as a buyer sees it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeatState {
    Free,
    Held,
    Sold,
}

impl SectionName {
    /// Takes `name` if it keeps the limits.
    pub(crate) fn try_new(name: &str) -> Result<Self, Invalid> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if name.is_empty() || name.len() > 40 || !name.bytes().all(allowed) {
            return Err(Invalid("must have 1 to 40 of A-Z, a-z, 0-9 and '-'"));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl SeatId {
    pub(crate) fn new(section: SectionName, row: u32, number: u32) -> Self {
        Self { section, row, number }
    }

    pub(crate) fn section(&self) -> &SectionName {
        &self.section
    }

    pub(crate) fn row(&self) -> u32 {
        self.row
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl FromStr for SeatId {
    type Err = Invalid;

    fn from_str(id: &str) -> Result<Self, Invalid> {
        const SHAPE: Invalid = Invalid("must be section/row/number, for example A/3/12");
        let mut parts = id.split('/');
        let (Some(section), Some(row), Some(number), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SHAPE);
        };
        Ok(Self {
            section: SectionName::try_new(section).map_err(|_| SHAPE)?,
            row: match row {
                GENERAL => GENERAL_ROW,
                row => ordinal(row).ok_or(SHAPE)?,
            },
            number: ordinal(number).ok_or(SHAPE)?,
        })
    }
}

/// A number from 1 in its only spelling: "+7" and "07" parse as integers but would give one seat several names.
fn ordinal(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number > 0 && number.to_string() == text).then_some(number)
}

impl fmt::Display for SectionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for SectionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for SeatId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            GENERAL_ROW => write!(formatter, "{}/{GENERAL}/{}", self.section, self.number),
            row => write!(formatter, "{}/{row}/{}", self.section, self.number),
        }
    }
}

impl fmt::Debug for SeatId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_seat_has_one_spelling() {
        let seat: SeatId = "A/3/12".parse().expect("a seat");
        assert_eq!((seat.section().as_str(), seat.row(), seat.number()), ("A", 3, 12));
        let place: SeatId = "Floor/ga/17".parse().expect("an admission");
        assert_eq!((place.row(), place.number()), (GENERAL_ROW, 17));
        for bad in [
            "",
            "A",
            "A/3",
            "A/3/12/1",
            "A/0/1",
            "A/1/0",
            "A/+1/1",
            "A/01/1",
            "A/1/-1",
            "A b/1/1",
            "/1/1",
            "A/1/9999999999",
            "A/ga/0",
            "A/GA/1",
            "A/ga",
        ] {
            assert!(bad.parse::<SeatId>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_the_same(text in "[A-Za-z0-9/-]{0,20}|[A-Z]{1,3}/(ga|[0-9]{1,2})/[0-9]{1,3}") {
            if let Ok(seat) = text.parse::<SeatId>() {
                prop_assert_eq!(seat.to_string(), text);
            }
        }
    }
}
