//! Which event the demo buys tickets for. Pure: the list is an argument.

use proto::{common::v1::Money, ticket::v1::Event};

/// Why there is no event to buy for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChoiceError {
    #[error("there are no events")]
    Empty,
    #[error("no event has the id or title {wanted}")]
    Unknown { wanted: String, titles: Vec<String> },
    #[error("more than one event has {wanted} in its title")]
    Ambiguous { wanted: String, titles: Vec<String> },
}

impl ChoiceError {
    /// What to do about it.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Empty => "start a ticket service with --seed, or create one with `tessera call`".to_owned(),
            Self::Unknown { titles, .. } => format!("there is {}", quoted(titles)),
            Self::Ambiguous { titles, .. } => format!("it could be {}", quoted(titles)),
        }
    }
}

/// The event that is meant by its id, its title or a part of it; or the first one with so many free seats, else the one
/// with the most.
pub(crate) fn choose<'a>(events: &'a [Event], wanted: Option<&str>, seats: u32) -> Result<&'a Event, ChoiceError> {
    match wanted {
        Some(wanted) => named(events, wanted),
        None => events
            .iter()
            .find(|event| event.seats_free >= seats)
            .or_else(|| events.iter().max_by_key(|event| event.seats_free))
            .ok_or(ChoiceError::Empty),
    }
}

fn named<'a>(events: &'a [Event], wanted: &str) -> Result<&'a Event, ChoiceError> {
    let lower = wanted.to_lowercase();
    let exact = |event: &&Event| event.id == wanted || event.title.to_lowercase() == lower;
    if let Some(event) = events.iter().find(exact) {
        return Ok(event);
    }
    let alike: Vec<&Event> = events
        .iter()
        .filter(|event| event.title.to_lowercase().contains(&lower))
        .collect();
    let titles = |events: &[&Event]| events.iter().map(|event| event.title.clone()).collect();
    match alike.as_slice() {
        [only] => Ok(only),
        [] if events.is_empty() => Err(ChoiceError::Empty),
        [] => Err(ChoiceError::Unknown {
            wanted: wanted.to_owned(),
            titles: titles(&events.iter().collect::<Vec<_>>()),
        }),
        several => Err(ChoiceError::Ambiguous {
            wanted: wanted.to_owned(),
            titles: titles(several),
        }),
    }
}

/// What is surely enough for so many seats of the event: the dearest price each.
pub(crate) fn budget(event: &Event, seats: u32) -> Money {
    let prices = || event.sections.iter().filter_map(|section| section.price.as_ref());
    let dearest = prices().map(|price| price.minor_units).max().unwrap_or(0);
    Money {
        currency_code: prices()
            .next()
            .map_or_else(|| "EUR".to_owned(), |price| price.currency_code.clone()),
        // A top-up is at least one minor unit, and a seat may be free of charge.
        minor_units: dearest.saturating_mul(seats.into()).max(1),
    }
}

fn quoted(titles: &[String]) -> String {
    let titles: Vec<String> = titles.iter().map(|title| format!("{title:?}")).collect();
    crate::output::one_of(&titles)
}

#[cfg(test)]
mod tests {
    use proto::ticket::v1::Section;

    use super::*;

    fn event(title: &str, seats_free: u32) -> Event {
        Event {
            id: format!("id of {title}"),
            title: title.to_owned(),
            seats_free,
            ..Event::default()
        }
    }

    #[test]
    fn an_event_is_found_by_what_people_remember() {
        let events = [
            event("Night of the Comets", 10),
            event("Night Shift", 10),
            event("Night", 10),
        ];
        let check = |wanted: &str, expected: &str| {
            assert_eq!(
                choose(&events, Some(wanted), 1).map(|event| event.title.as_str()),
                Ok(expected),
                "{wanted}"
            );
        };
        check("comets", "Night of the Comets");
        check("night", "Night");
        check("id of Night Shift", "Night Shift");
        let error = choose(&events, Some("night s"), 1).map(|event| event.title.clone());
        assert_eq!(error, Ok("Night Shift".to_owned()));
        assert!(matches!(
            choose(&events[..2], Some("night"), 1),
            Err(ChoiceError::Ambiguous { .. })
        ));
        assert!(matches!(
            choose(&events, Some("opera"), 1),
            Err(ChoiceError::Unknown { .. })
        ));
        assert_eq!(choose(&[], Some("opera"), 1), Err(ChoiceError::Empty));
    }

    #[test]
    fn by_default_the_next_event_that_has_room() {
        let events = [event("a", 1), event("b", 100), event("c", 200)];
        let title = |seats| choose(&events, None, seats).map(|event| event.title.as_str());
        assert_eq!(title(1), Ok("a"));
        assert_eq!(title(50), Ok("b"));
        assert_eq!(title(1_000), Ok("c"));
        assert_eq!(choose(&[], None, 1), Err(ChoiceError::Empty));
    }

    #[test]
    fn the_budget_covers_the_dearest_seats() {
        let section = |minor_units| Section {
            price: Some(Money {
                currency_code: "SEK".to_owned(),
                minor_units,
            }),
            ..Section::default()
        };
        let event = Event {
            sections: vec![section(500), section(900)],
            ..event("a", 1)
        };
        assert_eq!(
            budget(&event, 3),
            Money {
                currency_code: "SEK".to_owned(),
                minor_units: 2_700
            }
        );
    }
}
