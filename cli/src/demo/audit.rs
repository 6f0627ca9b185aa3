//! The demo's second opinion: what the ticket service itself says was sold, beside what the orders say, and whether its
//! counts and its seats say the same. Pure; the lists are arguments.

use std::collections::BTreeSet;

use proto::ticket::v1::{Event, Seat, SeatState};

use super::purchase::Summary;

/// Something that must not be.
pub(crate) type Finding = String;

/// What the ticket service says of an event and each of its seats.
#[derive(Debug)]
pub(crate) struct Stock {
    /// With its counts.
    pub(crate) event: Event,
    /// All of them.
    seats: Vec<Seat>,
    /// Whether the counts were the same before and after the seats were listed.
    still: bool,
}

/// Seats by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    free: usize,
    held: usize,
    sold: usize,
}

impl Counts {
    fn of_event(event: &Event) -> Self {
        let count = |seats: u32| seats as usize;
        Self {
            free: count(event.seats_free),
            held: count(event.seats_held),
            sold: count(event.seats_sold),
        }
    }

    fn of_seats(seats: &[Seat]) -> Self {
        let count = |state| seats.iter().filter(|seat| seat.state() == state).count();
        Self {
            free: count(SeatState::Free),
            held: count(SeatState::Held),
            sold: count(SeatState::Sold),
        }
    }
}

impl Stock {
    /// The event before the seats were listed, and after that.
    pub(crate) fn new(before: &Event, event: Event, seats: Vec<Seat>) -> Self {
        Self {
            still: Counts::of_event(before) == Counts::of_event(&event),
            event,
            seats,
        }
    }

    /// Whether the event counts what its seats are.
    pub(crate) fn agrees(&self) -> bool {
        Counts::of_event(&self.event) == Counts::of_seats(&self.seats)
    }
}

/// Compares the orders of a run with the event before it and with what there is after it, where that is known. Others may
/// buy at the same time: then more is sold than this run bought, never less.
pub(crate) fn findings(summary: &Summary, before: &Event, after: Option<&Stock>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !summary.sold_twice.is_empty() {
        findings.push(format!(
            "sold to more than one buyer: {}",
            listed(summary.sold_twice.iter())
        ));
    }
    if let Some(stock) = after {
        findings.extend(of_seats(summary, stock));
        findings.extend(of_counts(summary, before, stock));
    }
    findings
}

fn of_seats(summary: &Summary, stock: &Stock) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ids: BTreeSet<&str> = stock.seats.iter().map(|seat| seat.id.as_str()).collect();
    if ids.len() != stock.seats.len() {
        findings.push("the ticket service lists a seat twice".to_owned());
    }
    let total = stock.event.seats_total;
    if ids.len() != total as usize {
        findings.push(format!("{} seats are listed, but there are {total}", ids.len()));
    }
    let sold = stock.seats.iter().filter(|seat| seat.state() == SeatState::Sold);
    let sold: BTreeSet<&str> = sold.map(|seat| seat.id.as_str()).collect();
    let mut missing = summary
        .seat_ids
        .iter()
        .filter(|seat| !sold.contains(seat.as_str()))
        .peekable();
    if missing.peek().is_some() {
        findings.push(format!(
            "bought, but not sold by the ticket service: {}",
            listed(missing)
        ));
    }
    findings
}

fn of_counts(summary: &Summary, before: &Event, stock: &Stock) -> Vec<Finding> {
    let mut findings = Vec::new();
    let after = &stock.event;
    let grown = i64::from(after.seats_sold) - i64::from(before.seats_sold);
    let bought = i64::try_from(summary.seat_ids.len()).unwrap_or(i64::MAX);
    if grown < bought {
        findings.push(format!(
            "{bought} seats were bought, but the event counts {grown} more than before"
        ));
    }
    // The free ones may be no more than the rest of the total, so the sum alone would say little. While others buy there
    // is no moment that both the counts and the list are of.
    if stock.still && !stock.agrees() {
        let (counted, listed) = (Counts::of_event(after), Counts::of_seats(&stock.seats));
        findings.push(format!(
            "the event counts {} free, {} held and {} sold seats, but {}, {} and {} are listed so",
            counted.free, counted.held, counted.sold, listed.free, listed.held, listed.sold
        ));
    }
    findings
}

fn listed<'a>(seats: impl Iterator<Item = &'a String>) -> String {
    seats.map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(free: u32, sold: u32) -> Event {
        Event {
            seats_total: 4,
            seats_free: free,
            seats_sold: sold,
            ..Event::default()
        }
    }

    fn bought(seats: &[&str]) -> Summary {
        Summary {
            seat_ids: seats.iter().map(ToString::to_string).collect(),
            ..Summary::default()
        }
    }

    /// Seats of which these are sold.
    fn seats(all: &[&str], sold: &[&str]) -> Vec<Seat> {
        all.iter()
            .map(|id| Seat {
                id: id.to_string(),
                state: if sold.contains(id) {
                    SeatState::Sold.into()
                } else {
                    SeatState::Free.into()
                },
                ..Seat::default()
            })
            .collect()
    }

    const ALL: [&str; 4] = ["a", "b", "c", "d"];

    #[test]
    fn a_clean_run_has_no_findings_even_while_others_buy() {
        let check = |before: Event, after: Event, sold: &[&str]| {
            let stock = Stock::new(&before, after, seats(&ALL, sold));
            assert_eq!(
                findings(&bought(&["a", "b"]), &event(4, 0), Some(&stock)),
                [] as [Finding; 0]
            );
        };
        check(event(1, 3), event(1, 3), &["a", "b", "c"]);
        // Somebody bought between the two counts.
        check(event(2, 2), event(1, 3), &["a", "b"]);
    }

    #[test]
    fn what_does_not_add_up_is_found() {
        let check = |summary: Summary, after: Event, seats: Vec<Seat>, expected: &str| {
            let stock = Stock::new(&after.clone(), after, seats);
            let findings = findings(&summary, &event(4, 0), Some(&stock));
            assert!(
                findings.iter().any(|finding| finding.contains(expected)),
                "{expected}: {findings:?}"
            );
        };
        check(
            bought(&["a"]),
            event(3, 1),
            seats(&ALL, &["b"]),
            "not sold by the ticket service: a",
        );
        check(
            bought(&["a", "b"]),
            event(3, 1),
            seats(&ALL, &["a", "b"]),
            "counts 1 more",
        );
        check(
            bought(&["a"]),
            event(2, 2),
            seats(&["a", "a", "b", "c"], &["a"]),
            "lists a seat twice",
        );
        check(
            bought(&["a"]),
            event(3, 1),
            seats(&ALL[..3], &["a"]),
            "3 seats are listed, but there are 4",
        );
        let twice = Summary {
            sold_twice: BTreeSet::from(["a".to_owned()]),
            ..bought(&["a"])
        };
        check(twice, event(3, 1), seats(&ALL, &["a"]), "more than one buyer: a");
    }

    /// Only the sum of the counts was compared with the total. The service makes the free seats out of the total and the
    /// other two, so the sum is right whatever the others are.
    #[test]
    fn counts_that_the_seats_do_not_bear_out_are_found() {
        let after = event(2, 2);
        let stock = Stock::new(&after.clone(), after, seats(&ALL, &["a"]));
        assert_eq!(
            findings(&bought(&["a"]), &event(4, 0), Some(&stock)),
            ["the event counts 2 free, 0 held and 2 sold seats, but 3, 0 and 1 are listed so"]
        );
    }

    #[test]
    fn a_seat_sold_twice_is_found_without_the_ticket_service() {
        let twice = Summary {
            sold_twice: BTreeSet::from(["a".to_owned()]),
            ..bought(&["a"])
        };
        assert_eq!(findings(&twice, &event(4, 0), None), ["sold to more than one buyer: a"]);
    }
}
