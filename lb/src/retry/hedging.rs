//! When a call is sent a second time though the first has not failed (gRFC A6, `hedgingPolicy`). It starts no timer.

use std::time::Duration;

use tonic::Code;

use super::{InvalidRetry, codes::Codes, pushback::Pushback};
use crate::range::FOR_EVER;

/// gRFC A6: more attempts count as so many.
const MOST_ATTEMPTS: u32 = 5;

/// How long a hedged call waits for an answer before it goes to one more instance.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum HedgingDelay {
    /// So long. Zero sends all attempts at once.
    After(Duration),
    /// As long as that share of the method's recent calls took to be answered (0.95: only the slowest twentieth is hedged),
    /// measured on this channel over the last 30 to 60 s. Until enough calls were seen nothing is hedged.
    Percentile(f64),
}

/// How a call is hedged: sent again elsewhere while the first attempt is still under way, and the first good answer counts.
///
/// Every attempt may be processed, so it is for methods of which the caller knows that twice is as good as once. Attempts go
/// to different instances, the losers are cancelled, and hedges have a budget of their own
/// ([`Builder::hedging_budget`](crate::Builder::hedging_budget)).
///
/// The default is at most 2 attempts, the second after the 95th percentile, or at once if the first ended with UNAVAILABLE.
#[derive(Clone, Debug, PartialEq)]
pub struct HedgingPolicy {
    max_attempts: u32,
    delay: HedgingDelay,
    non_fatal: Codes,
}

impl Default for HedgingPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 2,
            delay: HedgingDelay::Percentile(0.95),
            non_fatal: Codes::default().with(Code::Unavailable),
        }
    }
}

impl HedgingPolicy {
    /// At most `max_attempts` attempts, the first one included. An attempt that ends with one of `non_fatal` is followed by the
    /// next one at once; any other failure ends the call.
    ///
    /// # Errors
    /// There must be at least 2 attempts (more than 5 count as 5), a percentile is between 0 and 1, and OK is no failure.
    pub fn try_new(
        max_attempts: u32,
        delay: HedgingDelay,
        non_fatal: impl IntoIterator<Item = Code>,
    ) -> Result<Self, InvalidRetry> {
        if max_attempts < 2 {
            return Err(InvalidRetry::TooFewAttempts(max_attempts));
        }
        if let HedgingDelay::Percentile(share) = delay
            && !(share > 0.0 && share < 1.0)
        {
            return Err(InvalidRetry::Percentile(share));
        }
        Ok(Self {
            max_attempts: max_attempts.min(MOST_ATTEMPTS),
            delay: match delay {
                HedgingDelay::After(delay) => HedgingDelay::After(delay.min(FOR_EVER)),
                measured => measured,
            },
            non_fatal: Codes::try_new(non_fatal)?,
        })
    }

    pub(crate) fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    pub(crate) fn delay(&self) -> HedgingDelay {
        self.delay
    }

    /// Whether the call may still be won by another attempt when one ended so.
    pub(crate) fn is_non_fatal(&self, code: Code) -> bool {
        self.non_fatal.contains(code)
    }

    /// How long to wait for the next attempt after one has failed with a code that is not fatal; none if there is to be none.
    pub(crate) fn after_failure(pushback: Pushback) -> Option<Duration> {
        match pushback {
            Pushback::Unsaid => Some(Duration::ZERO),
            Pushback::After(pause) => Some(pause),
            Pushback::Never => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_meant_is_refused() {
        let delay = HedgingDelay::After(Duration::ZERO);
        assert_eq!(
            HedgingPolicy::try_new(1, delay, []),
            Err(InvalidRetry::TooFewAttempts(1))
        );
        assert_eq!(
            HedgingPolicy::try_new(2, delay, [Code::Ok]),
            Err(InvalidRetry::OkIsNoFailure)
        );
        for share in [0.0, 1.0, 95.0] {
            assert_eq!(
                HedgingPolicy::try_new(2, HedgingDelay::Percentile(share), []),
                Err(InvalidRetry::Percentile(share))
            );
        }
        let many = HedgingPolicy::try_new(9, delay, [Code::Internal]).expect("valid");
        assert_eq!(many.max_attempts(), 5);
        assert!(many.is_non_fatal(Code::Internal) && !many.is_non_fatal(Code::Unavailable));
    }

    #[test]
    fn the_servers_word_counts_for_hedges_too() {
        let pause = Duration::from_millis(3);
        assert_eq!(HedgingPolicy::after_failure(Pushback::Unsaid), Some(Duration::ZERO));
        assert_eq!(HedgingPolicy::after_failure(Pushback::After(pause)), Some(pause));
        assert_eq!(HedgingPolicy::after_failure(Pushback::Never), None);
    }
}
