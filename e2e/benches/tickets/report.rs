//! What is told of the rounds, and the goals.

use std::time::Duration;

use service_store::Dialect;

use crate::Arm;

/// One arm in one round.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Answers a second.
    pub(crate) rate: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
}

impl Figures {
    /// Of answers that took so long, in so much time altogether.
    pub(crate) fn of(mut answers: Vec<Duration>, took: Duration) -> Self {
        answers.sort_unstable();
        let quantile = |q: f64| {
            let rank = ((answers.len() as f64 * q).ceil() as usize).clamp(1, answers.len().max(1));
            answers
                .get(rank - 1)
                .map_or(f64::NAN, |answer| answer.as_secs_f64() * 1e3)
        };
        Self {
            rate: answers.len() as f64 / took.as_secs_f64(),
            p50: quantile(0.5),
            p99: quantile(0.99),
        }
    }
}

/// Prints the table of one kind of store and its goals. Whether these are met.
pub(crate) fn tell(dialect: Dialect, rounds: &[[Figures; Arm::ALL.len()]]) -> bool {
    println!(
        "\n{}: medians of {} rounds of {} s, {} buyers at once",
        dialect.name(),
        rounds.len(),
        crate::rush::TIME.as_secs(),
        crate::rush::BUYERS
    );
    println!("  {:<20}{:>12}{:>10}{:>10}", "", "answers/s", "p50, ms", "p99, ms");
    for (at, arm) in Arm::ALL.into_iter().enumerate() {
        println!(
            "  {:<20}{:>12.0}{:>10.1}{:>10.1}",
            arm.name(),
            median(rounds, |round| round[at].rate),
            median(rounds, |round| round[at].p50),
            median(rounds, |round| round[at].p99),
        );
    }
    let of =
        |arm: Arm, round: &[Figures; Arm::ALL.len()]| round[Arm::ALL.iter().position(|one| *one == arm).unwrap_or(0)];
    let ratio = |numerator: Arm, denominator: Arm, what: fn(Figures) -> f64| {
        median(rounds, |round| {
            what(of(numerator, round)) / what(of(denominator, round))
        })
    };
    let goals = [
        (
            "purchases / three statements",
            ratio(Arm::Purchases, Arm::Bare, |figures| figures.rate),
            ">= 0.5",
            0.5,
        ),
        (
            "sold-out answers / purchases",
            ratio(Arm::SoldOut, Arm::Purchases, |figures| figures.rate),
            ">= 10",
            10.0,
        ),
        (
            "p99 of twice the buyers / p99",
            ratio(Arm::Twice, Arm::Purchases, |figures| figures.p99),
            "<= 3",
            -3.0,
        ),
    ];
    println!("  goals");
    let mut all = true;
    for (name, ratio, goal, bound) in goals {
        let met = if bound < 0.0 { ratio <= -bound } else { ratio >= bound };
        all &= met;
        println!(
            "    {name:<32}{ratio:>8.2}   goal {goal:<8}{}",
            if met { "met" } else { "MISSED" }
        );
    }
    all
}

fn median(rounds: &[[Figures; Arm::ALL.len()]], of: impl Fn(&[Figures; Arm::ALL.len()]) -> f64) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(of).collect();
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
