//! Prequal's choice (Wydrowski et al., "Load is not what you should balance", NSDI'24, section 4): of the instances that said
//! lately how they are, the fastest of those that are not hot; if all are, the least hot.
//!
//! Hot is who has more requests in flight than three in five of the reports (the paper: five in six, in fleets where there are more
//! reports than these; here that many callers took the same few for cold, and the slowest call in a hundred took a fifth longer).
//! Going by latency alone runs into instances that are
//! fast because nobody has filled them yet (the paper: p99.9 1.6 to 2.4 times as high); going by requests in flight alone never
//! finds out who is fast.
//!
//! With fewer than [`LEAST`] reports the choice is random, by weight. Weights have no other say in it but in who is probed: what an
//! instance says of itself is better than what somebody thought that it could do. Failing is fast, so the penalty for failures
//! (`load::ewma`) counts as latency.

use super::{Candidates, Draw, below, mix, random};
use crate::{
    Prequal,
    load::{NOTHING, Probes, Ranked, SLOTS, Seen},
};

/// The paper's: with one report there is no choice.
const LEAST: usize = 2;

/// The index of the next candidate, or `None` when there is none.
pub(super) fn pick(candidates: &impl Candidates, settings: &Prequal, draw: Draw) -> Option<usize> {
    let Some(probes) = candidates.probes().filter(|_| candidates.len() > 1) else {
        return random::weighted(candidates, draw.bits);
    };
    probes.demand();
    let mut ranked = probes.ranked(draw.now);
    // From the best on by what they say, as far as one may still be the best when its failures are counted: nearly always two are
    // looked up, and however many there are does not matter.
    let mut left = ranked.ranks;
    let (mut best, mut count): (Option<Choice>, usize) = (None, 0);
    while let Some(slot) = least(&left) {
        let settled = best.as_ref().is_some_and(|best| best.rank <= left[slot]);
        if settled && count >= LEAST {
            break;
        }
        left[slot] = NOTHING;
        let seen = ranked.seen(slot);
        // Whoever is not ready any more has no index.
        let Some(index) = candidates.find(seen.number) else {
            continue;
        };
        count += 1;
        let rank = ranked.ranks[slot].max(candidates.penalty(index, draw.now) as u64);
        ranked.ranks[slot] = rank;
        if best.as_ref().is_none_or(|best| rank < best.rank) {
            best = Some(Choice { seen, index, rank });
        }
    }
    let Some(best) = best.filter(|_| count >= LEAST) else {
        return random::weighted(candidates, draw.bits);
    };
    probes.used(&best.seen);
    let removal = below((mix(draw.bits) >> 32) as u32, 1024);
    // Never down to where there is no choice: with a small pool every other pick were random.
    if removal < settings.removals && ranked.count() > LEAST {
        discard(probes, &ranked, &best);
    }
    Some(best.index)
}

/// Whose report is the best so far.
struct Choice {
    seen: Seen,
    index: usize,
    rank: u64,
}

/// The slot with the least rank, if there is any.
fn least(ranks: &[u64; SLOTS]) -> Option<usize> {
    let (mut at, mut least) = (0, NOTHING);
    for (slot, rank) in ranks.iter().enumerate() {
        (at, least) = if *rank < least { (slot, *rank) } else { (at, least) };
    }
    (least != NOTHING).then_some(at)
}

/// Takes a report out, in turns the oldest and the worst: else bad ones, which nobody uses, would fill the pool.
fn discard(probes: &Probes, ranked: &Ranked, best: &Choice) {
    let oldest = probes.removes_oldest();
    let others = (0..SLOTS).filter(|slot| ranked.ranks[*slot] != NOTHING && *slot != best.seen.slot);
    let by = |slot: &usize| {
        if oldest {
            u64::from(ranked.ages[*slot])
        } else {
            ranked.ranks[*slot]
        }
    };
    if let Some(slot) = others.max_by_key(by) {
        probes.remove(&ranked.seen(slot));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        load::{Report, Tick},
        pick::testing::{Table, close, proportional, shares, spread},
    };

    fn table(weights: &[u32], reports: &[(u32, u16, u32)]) -> Table {
        let probes = Probes::new(Prequal::default());
        probes.fit(weights.len());
        for (index, rif, latency) in reports {
            let report = Report {
                rif: *rif,
                latency: *latency,
            };
            probes.add(index + 1, report, Tick::ZERO);
        }
        let mut table = Table::new(weights);
        table.probes = Some(probes);
        table
    }

    fn next(table: &Table, bits: u64) -> Option<usize> {
        let draw = Draw {
            bits,
            now: Tick::ZERO,
            key: None,
        };
        pick(table, &Prequal::default(), draw)
    }

    #[test]
    fn nobody_and_one() {
        assert_eq!(next(&table(&[], &[]), 1), None);
        assert_eq!(next(&table(&[3], &[]), 1), Some(0));
    }

    #[test]
    fn with_too_few_reports_it_is_random_by_weight() {
        for reports in [&[][..], &[(3, 1, 5000)]] {
            let weights = [100, 300, 200, 100];
            let got = shares(Table::new(&weights), 20_000, 0, |_, bits| {
                next(&table(&weights, reports), bits)
            });
            close(&got, &proportional(&weights), 0.02);
        }
    }

    #[test]
    fn the_fastest_of_the_cold_is_next() {
        // The line is where most of the latest reports are: at 2.
        let mut reports = vec![(0, 2, 5000); 64];
        reports.extend([(7, 9, 100), (1, 2, 4000), (2, 1, 4500)]);
        assert_eq!(next(&table(&[100; 10], &reports), spread(1)), Some(1));
    }

    #[test]
    fn if_all_are_hot_it_is_the_least_hot() {
        let mut reports = vec![(0, 0, 1); 64];
        reports.extend([(0, 9, 100), (1, 7, 9000), (2, 8, 50)]);
        assert_eq!(next(&table(&[100; 10], &reports), spread(1)), Some(1));
    }

    #[test]
    fn who_fails_fast_is_not_the_fastest() {
        let mut table = table(&[100; 10], &[(1, 2, 10), (2, 2, 5000)]);
        assert_eq!(next(&table, spread(1)), Some(1));
        table.penalties[1] = 1e6;
        assert_eq!(next(&table, spread(1)), Some(2));
    }

    #[test]
    fn a_burst_does_not_run_to_one() {
        let table = table(&[100; 20], &(0..10).map(|n| (n, 1, 5000)).collect::<Vec<_>>());
        let met: std::collections::HashSet<_> = (0..20).filter_map(|n| next(&table, spread(n))).collect();
        assert!(met.len() > 4, "{met:?}");
    }

    #[test]
    fn who_is_not_ready_any_more_is_not_picked() {
        let mut reports = vec![(90, 0, 1)];
        reports.extend((0..4).map(|n| (n, 1, 5000)));
        let table = table(&[100; 10], &reports);
        for draw in 0..50 {
            assert!(next(&table, spread(draw)).is_some_and(|index| index < 10));
        }
    }

    proptest! {
        #[test]
        fn a_pick_is_always_one_of_them(
            count in 1_usize..40,
            reports in prop::collection::vec((0_u32..60, any::<u16>(), any::<u32>()), 0..40),
            draws in prop::collection::vec(any::<u64>(), 1..60),
        ) {
            let table = table(&vec![100; count], &reports);
            for draw in draws {
                prop_assert!(next(&table, draw).is_some_and(|index| index < count));
            }
        }
    }
}
