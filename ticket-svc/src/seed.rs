//! A small believable programme for an empty store: something to buy a minute after the first start.
//!
//! Sown in one transaction and only when there is no event at all, so that three processes that start together, or a second
//! start, do not double it.

use service_store::{Currency, Invalid, Timestamp};
use uuid::Uuid;

use crate::{
    domain::{
        event::{NewEvent, SeatingPlan, Section, Title},
        price::Price,
        seat::SectionName,
    },
    store::{Store, StoreError},
};

/// An event of the programme: title, venue, days from now, hour of the day (UTC), sections.
type Entry = (
    &'static str,
    &'static str,
    i64,
    i64,
    &'static [(&'static str, u32, u32, i64)],
);

/// Sections are (name, rows, seats a row, price in cents).
const PROGRAMME: [Entry; 6] = [
    (
        "Nova Quartet: Late Beethoven",
        "Kammersaal am Fluss",
        6,
        19,
        &[("Parkett", 10, 18, 4_200), ("Balkon", 4, 16, 2_600)],
    ),
    (
        "A Midsummer Night's Dream",
        "Theatre on the Square",
        9,
        18,
        &[
            ("Stalls", 14, 20, 3_800),
            ("Circle", 6, 18, 2_900),
            ("Gallery", 4, 16, 1_500),
        ],
    ),
    (
        "FC Harbour - United Valley",
        "Harbour Stadium",
        13,
        14,
        &[
            ("North", 12, 30, 2_400),
            ("South", 12, 30, 2_400),
            ("Main", 8, 25, 4_900),
        ],
    ),
    (
        "Reading: The Cartographer's Daughter",
        "Bookshop Lindenhof",
        4,
        18,
        &[("Room", 8, 9, 1_200)],
    ),
    (
        "The Paper Lanterns: Farewell Tour",
        "Old Gasworks",
        20,
        20,
        &[("Front", 5, 24, 7_900), ("Floor", 12, 24, 5_400)],
    ),
    (
        "Sunday Matinee: Peter and the Wolf",
        "Kammersaal am Fluss",
        27,
        10,
        &[("Parkett", 10, 18, 1_400)],
    ),
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

fn event(now: Timestamp, (title, venue, days, hour, sections): Entry) -> Result<NewEvent, SeedError> {
    const SECONDS_PER_DAY: i64 = 86_400;
    let (today, _) = now.to_parts();
    let midnight = today - today.rem_euclid(SECONDS_PER_DAY);
    let starts_at = Timestamp::from_parts(midnight + days * SECONDS_PER_DAY + hour * 3_600, 0);
    let text = |text| Title::try_new(text).map_err(|error| SeedError::Programme(error.to_string()));
    let broken = |Invalid(limit): Invalid| SeedError::Programme(limit.to_owned());
    let sections = sections.iter().map(|(name, rows, seats_per_row, cents)| {
        let price = Price::try_new(Currency::EUR, *cents)?;
        Section::try_new(SectionName::try_new(name)?, *rows, *seats_per_row, price)
    });
    let sections = sections.collect::<Result<Vec<_>, _>>().map_err(broken)?;
    Ok(NewEvent {
        title: text(title)?,
        venue: text(venue)?,
        starts_at: starts_at.ok_or_else(|| SeedError::Programme("the clock is out of range".to_owned()))?,
        plan: SeatingPlan::try_new(sections).map_err(broken)?,
    })
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
