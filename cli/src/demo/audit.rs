//! The demo's second opinion: what the ticket service itself says was sold, beside what the orders say. Pure; the lists
//! are arguments.

use std::collections::BTreeSet;

use proto::ticket::v1::{Event, Seat};

use super::purchase::Summary;

/// Something that must not be.
pub(crate) type Finding = String;

/// Compares the orders of a run with the event before it, the event after it, and the seats that are sold after it.
/// Others may buy at the same time: then more is sold than this run bought, never less.
pub(crate) fn findings(summary: &Summary, before: &Event, after: &Event, sold: &[Seat]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |wrong: bool, finding: String| {
        if wrong {
            findings.push(finding);
        }
    };
    let twice: Vec<&str> = summary.sold_twice.iter().map(String::as_str).collect();
    find(
        !twice.is_empty(),
        format!("sold to more than one buyer: {}", twice.join(", ")),
    );

    let listed: BTreeSet<&str> = sold.iter().map(|seat| seat.id.as_str()).collect();
    find(
        listed.len() != sold.len(),
        "the ticket service lists a sold seat twice".to_owned(),
    );
    let missing: Vec<&str> = summary
        .seat_ids
        .iter()
        .map(String::as_str)
        .filter(|seat| !listed.contains(seat))
        .collect();
    find(
        !missing.is_empty(),
        format!("bought, but not sold by the ticket service: {}", missing.join(", ")),
    );

    let grown = i64::from(after.seats_sold) - i64::from(before.seats_sold);
    let bought = i64::try_from(summary.seat_ids.len()).unwrap_or(i64::MAX);
    find(
        grown < bought,
        format!("{bought} seats were bought, but the event counts {grown} more than before"),
    );

    let counted = u64::from(after.seats_free) + u64::from(after.seats_held) + u64::from(after.seats_sold);
    find(
        counted != u64::from(after.seats_total),
        format!(
            "free, held and sold seats make {counted}, but there are {}",
            after.seats_total
        ),
    );
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(free: u32, sold: u32) -> Event {
        Event {
            seats_total: 10,
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

    fn seats(ids: &[&str]) -> Vec<Seat> {
        ids.iter()
            .map(|id| Seat {
                id: id.to_string(),
                ..Seat::default()
            })
            .collect()
    }

    #[test]
    fn a_clean_run_has_no_findings_even_while_others_buy() {
        let all = seats(&["a", "b", "c"]);
        assert_eq!(
            findings(&bought(&["a", "b"]), &event(10, 0), &event(7, 3), &all),
            [] as [Finding; 0]
        );
    }

    #[test]
    fn what_does_not_add_up_is_found() {
        let check = |summary: Summary, before: Event, after: Event, sold: &[&str], expected: &str| {
            let findings = findings(&summary, &before, &after, &seats(sold));
            assert!(
                findings.iter().any(|finding| finding.contains(expected)),
                "{expected}: {findings:?}"
            );
        };
        check(
            bought(&["a"]),
            event(10, 0),
            event(9, 1),
            &["b"],
            "not sold by the ticket service: a",
        );
        check(
            bought(&["a", "b"]),
            event(10, 0),
            event(9, 1),
            &["a", "b"],
            "counts 1 more",
        );
        check(bought(&["a"]), event(10, 0), event(10, 1), &["a"], "make 11");
        check(
            bought(&["a"]),
            event(10, 0),
            event(8, 2),
            &["a", "a"],
            "lists a sold seat twice",
        );
        let twice = Summary {
            sold_twice: BTreeSet::from(["a".to_owned()]),
            ..bought(&["a"])
        };
        check(twice, event(10, 0), event(9, 1), &["a"], "more than one buyer: a");
    }
}
