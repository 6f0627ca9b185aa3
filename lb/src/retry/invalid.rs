//! Why a setting of retries, hedges or modes was refused.

use std::time::Duration;

/// Why a setting of retries, hedges or modes was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRetry {
    /// One attempt is no retry and no hedge.
    #[error("there must be at least 2 attempts, not {0}")]
    TooFewAttempts(u32),
    /// Nothing would ever be repeated.
    #[error("at least one status code must be retriable")]
    NoCodes,
    /// A success is not repeated.
    #[error("OK is no failure")]
    OkIsNoFailure,
    /// A back-off of nothing is a busy loop.
    #[error("a back-off must be longer than zero")]
    ZeroBackoff,
    /// The factor between two back-offs.
    #[error("the multiplier must be a number above 0, not {0}")]
    Multiplier(f64),
    /// The share of calls that may be repeated.
    #[error("the share of a budget must be between 0 and 10, not {0}")]
    Ratio(f64),
    /// What a budget allows each second, however few calls there are.
    #[error("a budget may allow at most 1000000 a second, not {0}")]
    PerSecond(u32),
    /// gRFC A6: in (0, 1000].
    #[error("the tokens must be 1 to 1000, not {0}")]
    MaxTokens(u32),
    /// gRFC A6: above 0; what is below a thousandth counts as nothing.
    #[error("the token ratio must be at least 0.001 and at most 1000, not {0}")]
    TokenRatio(f64),
    /// A percentile of latencies, as a share.
    #[error("a percentile is between 0 and 1, both excluded, not {0}")]
    Percentile(f64),
    /// How many instances get a call at once.
    #[error("a call forks to 2 to 16 instances, not {0}")]
    Forks(u32),
    /// How often and how many times a failed call is tried in the background.
    #[error("a call is tried again 1 to 100 times, 1 ms to 1 h apart, not {times} times, {every:?} apart")]
    Failback {
        /// The pause between two attempts.
        every: Duration,
        /// How many attempts.
        times: u32,
    },
}
