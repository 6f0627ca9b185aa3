//! Medians, quantiles, and what one round has measured.

use std::time::Duration;

/// One round of one opponent.
pub(crate) struct Sample {
    elapsed: Duration,
    units: u64,
    latencies: Vec<Duration>,
}

impl Sample {
    /// Of nothing yet, over this time.
    pub(crate) fn new(elapsed: Duration) -> Self {
        Self {
            elapsed,
            units: 0,
            latencies: Vec::new(),
        }
    }

    /// Adds what one connection has done.
    pub(crate) fn add(&mut self, units: u64, latencies: Vec<Duration>) {
        self.units += units;
        self.latencies.extend(latencies);
    }

    /// Units a second.
    pub(crate) fn rate(&self) -> f64 {
        number(self.units) / self.elapsed.as_secs_f64()
    }

    /// Units done.
    pub(crate) fn units(&self) -> f64 {
        number(self.units)
    }

    /// The 99th percentile of the operations' latencies, in milliseconds.
    pub(crate) fn p99(&self) -> f64 {
        quantile(&millis(&self.latencies), 0.99)
    }
}

/// In milliseconds.
pub(crate) fn millis(durations: &[Duration]) -> Vec<f64> {
    durations.iter().map(|duration| duration.as_secs_f64() * 1e3).collect()
}

/// The value below which this part of them lies; NaN of none.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of a short list"
    )]
    let index = (number(sorted.len() as u64) * q) as usize;
    sorted
        .get(index.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The median of ratios that were taken within rounds, since a busy machine drifts between them.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    median(&ratios)
}

/// Counts stay far below 2^52.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}
