//! A small believable programme for an empty store: something to buy a minute after the first start.
//!
//! Sown in one transaction and only when there is no event at all, so that three processes that start together, or a second
//! start, do not double it.

use service_store::{Currency, Invalid, Text, Timestamp};
use uuid::Uuid;

use crate::{
    domain::{
        event::{NewEvent, Terms},
        plan::{Layout, SeatingPlan, Section},
        price::Price,
        sale::{BuyerCap, SaleWindow},
        seat::SectionName,
        venue::{TimeZone, Venue},
    },
    store::{Store, StoreError},
};

/// An event of the programme.
struct Entry {
    title: &'static str,
    venue: &'static str,
    city: &'static str,
    address: &'static str,
    time_zone: &'static str,
    /// Days from now.
    days: i64,
    /// Hour of the day (UTC).
    hour: i64,
    /// Seats that one buyer may have; 0 for no limit.
    cap: u32,
    /// Name, rows, seats a row, capacity, price in cents.
    sections: &'static [(&'static str, u32, u32, u32, i64)],
}

/// Every event is on sale from the day before it is sown until it begins.
const PROGRAMME: [Entry; 6] = [
    Entry {
        title: "Nova Quartet: Late Beethoven",
        venue: "Kammersaal am Fluss",
        city: "Frankfurt am Main",
        address: "Mainkai 17",
        time_zone: "Europe/Berlin",
        days: 6,
        hour: 19,
        cap: 0,
        sections: &[("Parkett", 10, 18, 0, 4_200), ("Balkon", 4, 16, 0, 2_600)],
    },
    Entry {
        title: "A Midsummer Night's Dream",
        venue: "Theatre on the Square",
        city: "York",
        address: "8 St Sampson's Square",
        time_zone: "Europe/London",
        days: 9,
        hour: 18,
        cap: 0,
        sections: &[
            ("Stalls", 14, 20, 0, 3_800),
            ("Circle", 6, 18, 0, 2_900),
            ("Gallery", 4, 16, 0, 1_500),
        ],
    },
    Entry {
        title: "FC Harbour - United Valley",
        venue: "Harbour Stadium",
        city: "Hull",
        address: "Dock Road",
        time_zone: "Europe/London",
        days: 13,
        hour: 14,
        cap: 0,
        sections: &[
            ("North", 12, 30, 0, 2_400),
            ("South", 12, 30, 0, 2_400),
            ("Main", 8, 25, 0, 4_900),
        ],
    },
    Entry {
        title: "Reading: The Cartographer's Daughter",
        venue: "Bookshop Lindenhof",
        city: "Zürich",
        address: "Pfalzgasse 3",
        time_zone: "Europe/Zurich",
        days: 4,
        hour: 18,
        cap: 0,
        sections: &[("Room", 8, 9, 0, 1_200)],
    },
    Entry {
        title: "The Paper Lanterns: Farewell Tour",
        venue: "Old Gasworks",
        city: "Berlin",
        address: "Torgauer Straße 12",
        time_zone: "Europe/Berlin",
        days: 20,
        hour: 20,
        cap: 100,
        sections: &[("Front", 5, 24, 0, 7_900), ("Floor", 0, 0, 288, 5_400)],
    },
    Entry {
        title: "Sunday Matinee: Peter and the Wolf",
        venue: "Kammersaal am Fluss",
        city: "Frankfurt am Main",
        address: "Mainkai 17",
        time_zone: "Europe/Berlin",
        days: 27,
        hour: 10,
        cap: 0,
        sections: &[("Parkett", 10, 18, 0, 1_400)],
    },
];

/// Request ids start here, so that the programme's events have the same ids on every machine.
const FIRST_ID: u128 = 0x7e55_e2a0_0000_4000_8000_0000_0000_0000;

/// Sows the programme if the store has no events. Answers whether it did.
pub(crate) async fn sow(store: &Store, now: Timestamp) -> Result<bool, SeedError> {
    Ok(store.sow(&programme(now)?).await?)
}

/// Why there is no programme.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeedError {
    /// An entry breaks a limit.
    #[error("the programme breaks a limit: {0}")]
    Programme(String),
    /// It could not be written.
    #[error("cannot write the programme")]
    Store(#[from] StoreError),
}

fn programme(now: Timestamp) -> Result<Vec<(Uuid, NewEvent)>, SeedError> {
    (1_u128..)
        .zip(PROGRAMME)
        .map(|(number, entry)| Ok((Uuid::from_u128(FIRST_ID + number), event(now, entry)?)))
        .collect()
}

fn event(now: Timestamp, entry: Entry) -> Result<NewEvent, SeedError> {
    const SECONDS_PER_DAY: i64 = 86_400;
    let (today, _) = now.to_parts();
    let midnight = today - today.rem_euclid(SECONDS_PER_DAY);
    let instant = |seconds| {
        let instant = Timestamp::from_parts(seconds, 0);
        instant.ok_or_else(|| SeedError::Programme("the clock is out of range".to_owned()))
    };
    let starts_at = instant(midnight + entry.days * SECONDS_PER_DAY + entry.hour * 3_600)?;
    let sale_starts_at = instant(midnight - SECONDS_PER_DAY)?;
    let broken = |Invalid(limit): Invalid| SeedError::Programme(limit.to_owned());
    let sections = entry
        .sections
        .iter()
        .map(|(name, rows, seats_per_row, capacity, cents)| {
            Ok(Section {
                name: SectionName::try_new(name)?,
                layout: Layout::try_new(*rows, *seats_per_row, *capacity)?,
                price: Price::try_new(Currency::EUR, *cents)?,
            })
        });
    let sections = sections.collect::<Result<Vec<_>, _>>().map_err(broken)?;
    let cap = match entry.cap {
        0 => None,
        seats => Some(BuyerCap::try_new(seats).map_err(broken)?),
    };
    Ok(NewEvent {
        title: text(entry.title)?,
        venue: Venue {
            name: text(entry.venue)?,
            city: Some(text(entry.city)?),
            address: Some(text(entry.address)?),
            time_zone: Some(TimeZone::try_new(entry.time_zone).map_err(broken)?),
        },
        starts_at,
        plan: SeatingPlan::try_new(sections).map_err(broken)?,
        terms: Terms {
            organiser: None,
            window: SaleWindow::try_new(Some(sale_starts_at), Some(starts_at)).map_err(broken)?,
            cap,
        },
    })
}

fn text<const MAX: usize>(text: &str) -> Result<Text<MAX>, SeedError> {
    Text::try_new(text).map_err(|error| SeedError::Programme(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programme_keeps_all_limits_and_lies_ahead() {
        let now = Timestamp::from_nanos(1_700_000_000_000_000_000);
        let programme = programme(now).expect("it keeps the limits");
        assert_eq!(programme.len(), 6);
        assert!(programme.iter().all(|(_, event)| event.starts_at > now));
        let seats: u32 = programme.iter().map(|(_, event)| event.plan.total()).sum();
        assert!((1_500..=2_500).contains(&seats), "{seats} seats");
        assert!(programme.iter().all(|(id, _)| id.get_version_num() == 4));
    }
}
