//! Whether a call is made again, when, and how often at most: values, and arithmetic on them. It sends nothing.
//!
//! Pure: the time and every random draw are arguments. What is shared between calls (budget, throttle, latencies) is one
//! atomic word or a table of counters, never a lock.

mod backoff;
mod budget;
mod codes;
mod hedging;
mod invalid;
mod latencies;
mod mode;
mod policy;
mod pushback;
mod throttle;

pub use backoff::RetryBackoff;
pub(crate) use budget::Budget;
pub use budget::RetryBudget;
pub use hedging::{HedgingDelay, HedgingPolicy};
pub use invalid::InvalidRetry;
pub(crate) use latencies::Latencies;
pub use mode::{FailbackPolicy, Forks, Mode};
pub(crate) use policy::Progress;
pub use policy::RetryPolicy;
pub(crate) use pushback::Pushback;
pub use throttle::RetryThrottling;
pub(crate) use throttle::Throttle;
