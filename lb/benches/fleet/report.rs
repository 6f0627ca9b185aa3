//! What is printed: a line for each run, and a verdict for each goal.

use crate::load::Outcome;

/// Collects verdicts and prints lines.
#[derive(Default)]
pub(crate) struct Report {
    verdicts: Vec<Verdict>,
}

struct Verdict {
    case: &'static str,
    what: String,
    goal: String,
    met: bool,
}

impl Report {
    pub(crate) fn title(&self, title: &str) {
        println!("\n{title}");
        println!(
            "  {:<34}{:>8}{:>9}{:>9}{:>10}{:>8}  notes",
            "", "calls", "p50 ms", "p99 ms", "p99.9 ms", "failed"
        );
    }

    pub(crate) fn line(&self, arm: &str, outcome: &Outcome, notes: &str) {
        let errors = outcome.errors_told();
        let notes = [notes, &errors]
            .iter()
            .filter(|note| !note.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join("; ");
        println!(
            "  {arm:<34}{:>8}{:>9.1}{:>9.1}{:>10.1}{:>8}  {notes}",
            outcome.calls(),
            outcome.quantile(0.5),
            outcome.quantile(0.99),
            outcome.quantile(0.999),
            outcome.failed(),
        );
    }

    pub(crate) fn note(&self, text: &str) {
        println!("  {text}");
    }

    /// `value` of `what` shall be at most `most`.
    pub(crate) fn at_most(&mut self, case: &'static str, what: &str, value: f64, most: f64) {
        self.verdicts.push(Verdict {
            case,
            what: format!("{what}: {value:.3}"),
            goal: format!("<= {most}"),
            met: value <= most,
        });
    }

    /// `value` of `what` shall be at least `least`.
    pub(crate) fn at_least(&mut self, case: &'static str, what: &str, value: f64, least: f64) {
        self.verdicts.push(Verdict {
            case,
            what: format!("{what}: {value:.3}"),
            goal: format!(">= {least}"),
            met: value >= least,
        });
    }

    pub(crate) fn summary(&self) {
        println!("\ngoals");
        for Verdict { case, what, goal, met } in &self.verdicts {
            let word = if *met { "met" } else { "MISSED" };
            println!("  {case:<14}{what:<58}goal {goal:<10}{word}");
        }
    }
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
