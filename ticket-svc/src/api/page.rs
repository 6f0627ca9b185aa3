//! The token of a page of seats: the last seat's place. Events have theirs from `service-store`.

use crate::domain::seat::Place;

pub(super) fn seat_token(place: Place) -> String {
    format!("{}.{}.{}", place.section, place.row, place.number)
}

pub(super) fn seat_cursor(token: &str) -> Option<Place> {
    let mut parts = token.split('.').map(|part| part.parse::<u32>().ok());
    let place = Place {
        section: parts.next()??,
        row: parts.next()??,
        number: parts.next()??,
    };
    parts.next().is_none().then_some(place)
}
