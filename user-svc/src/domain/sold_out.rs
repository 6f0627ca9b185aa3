//! What the ticket service has just said cannot be had, so that in a rush for what is gone not everybody asks again.
//!
//! A refusal is remembered for [`GOOD_FOR`]. Within it, whoever wants as much of the same event (or of the same section) is refused
//! in the same words without a call, and after it the next one asks. What becomes free meanwhile is noticed that much later: whoever was
//! refused just before would have been refused in any case.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::order::{Failing, Failure, Selection};

/// How old a refusal may be that is given again.
pub(crate) const GOOD_FOR: Duration = Duration::from_millis(500);

/// What is remembered at the most: events and sections that sell out within [`GOOD_FOR`]. What there is no room for is asked about.
const MOST: usize = 1_024;

/// Refusals of the best available seats by what was wanted.
#[derive(Debug, Default)]
pub(crate) struct SoldOut(HashMap<Wanted, Refused>);

/// An event, and its section if one was named.
type Wanted = (Uuid, Option<String>);

#[derive(Debug)]
struct Refused {
    /// So many were not to be had; fewer may be.
    quantity: u32,
    why: Failing,
    at: Instant,
}

impl SoldOut {
    /// Remembers that `selection` was refused at `now`, if it is of the kind that is the same for everybody.
    pub(crate) fn refused(&mut self, event_id: Uuid, selection: &Selection, why: &Failing, now: Instant) {
        let (Failure::SoldOut, Some((wanted, quantity))) = (why.failure, wanted(event_id, selection)) else {
            return;
        };
        if self.0.len() >= MOST {
            self.0.retain(|_, refused| refused.is_good(now));
        }
        if self.0.len() >= MOST && !self.0.contains_key(&wanted) {
            return;
        }
        let before = self.0.get(&wanted).filter(|refused| refused.is_good(now));
        let is_news = before.is_none_or(|before| quantity <= before.quantity);
        if is_news {
            let (why, at) = (why.clone(), now);
            self.0.insert(wanted, Refused { quantity, why, at });
        }
    }

    /// Why `selection` need not be asked for at `now`.
    pub(crate) fn known(&self, event_id: Uuid, selection: &Selection, now: Instant) -> Option<Failing> {
        let (wanted, quantity) = wanted(event_id, selection)?;
        let refused = self.0.get(&wanted)?;
        (refused.is_good(now) && quantity >= refused.quantity).then(|| refused.why.clone())
    }
}

impl Refused {
    fn is_good(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < GOOD_FOR
    }
}

/// `None` for chosen seats: each is another question.
fn wanted(event_id: Uuid, selection: &Selection) -> Option<(Wanted, u32)> {
    match selection {
        Selection::Seats(_) => None,
        Selection::BestAvailable { quantity, section } => Some(((event_id, section.clone()), quantity.get())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::order::{ChosenSeats, Quantity, SeatId};

    const EVENT: Uuid = Uuid::from_u128(7);

    fn best(quantity: u32, section: Option<&str>) -> Selection {
        Selection::BestAvailable {
            quantity: Quantity::try_new(quantity).expect("1 to 10"),
            section: section.map(str::to_owned),
        }
    }

    fn sold_out(detail: &str) -> Failing {
        Failing::new(Failure::SoldOut, detail)
    }

    #[test]
    fn a_refusal_is_given_again_to_who_wants_as_much_for_half_a_second() {
        let (mut memory, now) = (SoldOut::default(), Instant::now());
        memory.refused(EVENT, &best(3, None), &sold_out("2 are left"), now);
        let known = |memory: &SoldOut, quantity, at| memory.known(EVENT, &best(quantity, None), at);
        assert_eq!(known(&memory, 3, now), Some(sold_out("2 are left")));
        assert_eq!(known(&memory, 10, now), Some(sold_out("2 are left")));
        assert_eq!(known(&memory, 2, now), None, "two may be there");
        let later = now + GOOD_FOR;
        assert_eq!(known(&memory, 3, later), None, "it has to be asked again");
        assert_eq!(memory.known(Uuid::from_u128(8), &best(3, None), now), None);
        assert_eq!(memory.known(EVENT, &best(3, Some("A")), now), None, "another question");
    }

    #[test]
    fn fewer_that_are_not_there_either_are_news_and_more_are_not() {
        let (mut memory, now) = (SoldOut::default(), Instant::now());
        memory.refused(EVENT, &best(3, None), &sold_out("2 are left"), now);
        memory.refused(EVENT, &best(1, None), &sold_out("none is left"), now);
        memory.refused(EVENT, &best(5, None), &sold_out("none is left, once more"), now);
        assert_eq!(memory.known(EVENT, &best(1, None), now), Some(sold_out("none is left")));
    }

    #[test]
    fn what_is_a_matter_of_one_buyer_or_one_seat_is_not_remembered() {
        let (mut memory, now) = (SoldOut::default(), Instant::now());
        let broke = Failing::new(Failure::InsufficientFunds, "no money");
        memory.refused(EVENT, &best(1, None), &broke, now);
        assert_eq!(memory.known(EVENT, &best(1, None), now), None);
        let seat = SeatId::try_new("A/1/1").expect("a seat");
        let chosen = Selection::Seats(ChosenSeats::try_new(vec![seat]).expect("one"));
        memory.refused(EVENT, &chosen, &sold_out("gone"), now);
        assert_eq!(memory.known(EVENT, &chosen, now), None);
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let (mut memory, now) = (SoldOut::default(), Instant::now());
        for event in 0..2 * MOST as u128 {
            memory.refused(Uuid::from_u128(event), &best(1, None), &sold_out("gone"), now);
        }
        assert_eq!(memory.0.len(), MOST);
        let later = now + GOOD_FOR;
        memory.refused(EVENT, &best(1, None), &sold_out("gone"), later);
        assert_eq!(memory.0.len(), 1, "what is too old makes room");
    }
}
