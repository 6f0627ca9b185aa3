//! What a pick costs, in nanoseconds and in allocations, by policy and number of instances.
//! `cargo bench -p lb --bench pick --features bench`.
//!
//! "choose" is the snapshot, the clock, the random bits and the policy; "pick" is what a call does: that, one call counted and
//! its end. One thread, so nothing is contended. Sizes alternate within a round and the ratios are of medians, since a busy machine
//! drifts; the least of the rounds is shown as well, which is what the machine can do when it is left alone.

use std::{
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};

use lb::{ConsistentHash, LeastRequest, PeakEwma, Policy, Prequal, bench::Picks};
use tokio::runtime::Runtime;

const ROUNDS: usize = 15;
const PICKS: u32 = 100_000;
const SIZES: [u32; 3] = [10, 1_000, 10_000];
/// From the fewest instances to the most.
const FLAT: f64 = 1.2;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A policy, and what it is to cost at most (this project's goals).
struct Case {
    name: &'static str,
    policy: Policy,
    is_mixed: bool,
    most_nanos: f64,
}

fn cases() -> Vec<Case> {
    let case = |name, policy, is_mixed, most_nanos| Case {
        name,
        policy,
        is_mixed,
        most_nanos,
    };
    let (least, ewma) = (LeastRequest::default(), PeakEwma::default());
    vec![
        case("random", Policy::Random, false, f64::INFINITY),
        case("weighted random", Policy::WeightedRandom, true, f64::INFINITY),
        case("round robin", Policy::RoundRobin, false, f64::INFINITY),
        case("weighted round robin", Policy::WeightedRoundRobin, true, 50.0),
        case("least request", Policy::LeastRequest(least), false, 60.0),
        case("least request, weights", Policy::LeastRequest(least), true, 60.0),
        case("peak EWMA", Policy::PeakEwma(ewma), false, 120.0),
        case("peak EWMA, weights", Policy::PeakEwma(ewma), true, 120.0),
        case(
            "consistent hash",
            Policy::ConsistentHash(ConsistentHash::default()),
            false,
            60.0,
        ),
        case("Prequal", Policy::Prequal(Prequal::default().keeping()), false, 300.0),
    ]
}

fn main() -> ExitCode {
    // `cargo test --all-targets` runs this too, unoptimised: figures of that would mislead.
    if !std::env::args().any(|arg| arg == "--bench") {
        println!("skipped: run it with `cargo bench -p lb`");
        return ExitCode::SUCCESS;
    }
    match Runtime::new()
        .map_err(Failed::from)
        .and_then(|runtime| runtime.block_on(measure()))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<(), Failed> {
    println!("medians (and the least) of {ROUNDS} rounds of {PICKS} picks; ns each\n");
    println!(
        "policy                    instances        choose          pick  of {:>2}'s  allocations",
        SIZES[0]
    );
    for case in cases() {
        let mut fleets = Vec::new();
        for size in SIZES {
            let weight = |number: u32| if case.is_mixed { 50 + number % 100 } else { 100 };
            fleets.push(Picks::new(case.policy.clone(), size, weight).await);
        }
        let mut figures = vec![(Vec::new(), Vec::new()); SIZES.len()];
        for round in 0..=ROUNDS {
            for (picks, (chosen, picked)) in fleets.iter().zip(&mut figures) {
                picks.hear();
                let choosing = time(|key| {
                    black_box(picks.choose(key));
                });
                let picking = time(|key| drop(black_box(picks.pick(key))));
                // The first round only warms up.
                if round > 0 {
                    chosen.push(choosing);
                    picked.push(picking);
                }
            }
        }
        let base = median(&figures[0].0);
        for ((size, picks), (chosen, picked)) in SIZES.iter().zip(&fleets).zip(&figures) {
            let allocations = allocation_counter::measure(|| {
                for key in 0..1000 {
                    drop(black_box(picks.pick(Some(key))));
                }
            });
            let (chosen_in, ratio) = (median(chosen), median(chosen) / base);
            let mut remarks = Vec::new();
            if chosen_in > case.most_nanos {
                remarks.push(format!("MISSED: {:.0} ns", case.most_nanos));
            }
            if ratio > FLAT {
                remarks.push(format!("MISSED: flat within {FLAT}"));
            }
            println!(
                "{:<26}{size:>9}{:>14}{:>14}{ratio:>8.2}{:>13}  {}",
                case.name,
                format!("{chosen_in:.1} ({:.1})", least(chosen)),
                format!("{:.1} ({:.1})", median(picked), least(picked)),
                allocations.count_total,
                remarks.join(", ")
            );
        }
    }
    Ok(())
}

/// The nanoseconds that one of many takes.
fn time(mut pick: impl FnMut(Option<u64>)) -> f64 {
    let begun = Instant::now();
    // Keys all over the table, for those who go by keys: neighbours would find everything in the cache.
    for key in 0..PICKS {
        pick(Some(u64::from(key).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    }
    let took: Duration = begun.elapsed();
    took.as_secs_f64() * 1e9 / f64::from(PICKS)
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
