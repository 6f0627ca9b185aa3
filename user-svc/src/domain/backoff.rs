//! How long to wait before a call is tried again.

use std::time::Duration;

/// Exponential from 50 ms, with full jitter, capped.
///
/// Full jitter (a delay drawn from 0 to the bound) spreads retries of many purchases best: with equal or no jitter they come
/// back together and meet the same overload again. `attempt` is the one that failed, from 1; `draw` is from 0 to 1.
pub(crate) fn delay(attempt: u32, cap: Duration, draw: f64) -> Duration {
    const BASE: Duration = Duration::from_millis(50);
    let exponent = attempt.saturating_sub(1).min(16);
    let bound = BASE.saturating_mul(1 << exponent).min(cap);
    bound.mul_f64(draw.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap() {
        let cap = Duration::from_secs(2);
        let bounds: Vec<u128> = (1..=8).map(|attempt| delay(attempt, cap, 1.0).as_millis()).collect();
        assert_eq!(bounds, [50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
        assert_eq!(delay(5, cap, 0.0), Duration::ZERO);
        assert_eq!(delay(u32::MAX, cap, 0.5), Duration::from_secs(1));
    }
}
