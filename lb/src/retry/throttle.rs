//! gRPC's throttle of retries (gRFC A6, `retryThrottling`): while more than half of the attempts fail, nothing is repeated.

use super::InvalidRetry;
use crate::sync::{AtomicU32, Ordering};

/// The unit of the count: thousandths of a token, which is as fine as gRFC A6 goes.
const TOKEN: u32 = 1000;

/// gRPC's throttle of retries and hedges, for all calls of a channel (gRFC A6).
///
/// It holds up to `max_tokens`. Every failed attempt takes one away, every success gives `token_ratio` back; while half of
/// them or fewer are left, nothing is sent twice. Default of a channel: none, since the [`RetryBudget`](crate::RetryBudget)
/// is there anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryThrottling {
    /// In thousandths, both.
    max: u32,
    gain: u32,
}

impl RetryThrottling {
    /// See [`RetryThrottling`]; gRFC A6's usual values are 10 and 0.1.
    ///
    /// # Errors
    /// `max_tokens` must be 1 to 1000, and `token_ratio` at least 0.001 (what is finer is cut off) and at most 1000.
    pub fn try_new(max_tokens: u32, token_ratio: f64) -> Result<Self, InvalidRetry> {
        if !(1..=1000).contains(&max_tokens) {
            return Err(InvalidRetry::MaxTokens(max_tokens));
        }
        if !(0.001..=1000.0).contains(&token_ratio) {
            return Err(InvalidRetry::TokenRatio(token_ratio));
        }
        Ok(Self {
            max: max_tokens * TOKEN,
            // A little more first: 0.003 times 1000 is 2.9999 in binary.
            gain: (token_ratio * f64::from(TOKEN) + 1e-6) as u32,
        })
    }
}

/// The count of a [`RetryThrottling`], shared by all calls of a channel.
#[derive(Debug)]
pub(crate) struct Throttle {
    terms: RetryThrottling,
    tokens: AtomicU32,
}

impl Throttle {
    pub(crate) fn new(terms: RetryThrottling) -> Self {
        Self {
            terms,
            tokens: AtomicU32::new(terms.max),
        }
    }

    pub(crate) fn terms(&self) -> RetryThrottling {
        self.terms
    }

    /// An attempt has failed with a code that may be repeated, or its server does not want it repeated.
    pub(crate) fn failed(&self) {
        self.update(|tokens| tokens.saturating_sub(TOKEN));
    }

    /// An attempt has succeeded.
    pub(crate) fn succeeded(&self) {
        self.update(|tokens| tokens.saturating_add(self.terms.gain).min(self.terms.max));
    }

    /// Whether anything may be sent twice now.
    pub(crate) fn allows(&self) -> bool {
        self.tokens.load(Ordering::Relaxed) > self.terms.max / 2
    }

    fn update(&self, change: impl Fn(u32) -> u32) {
        // One word that nothing else hangs on: no order is needed.
        let (Ok(_) | Err(_)) = self
            .tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| Some(change(tokens)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_of_the_tokens_must_be_left() {
        let throttle = Throttle::new(RetryThrottling::try_new(10, 0.1).expect("valid"));
        for _ in 0..4 {
            throttle.failed();
            assert!(throttle.allows());
        }
        throttle.failed();
        assert!(!throttle.allows(), "5 of 10 are not more than half");
        throttle.succeeded();
        assert!(throttle.allows());
        throttle.failed();
        for _ in 0..9 {
            throttle.succeeded();
            assert!(!throttle.allows());
        }
        throttle.succeeded();
        assert!(throttle.allows());
    }

    #[test]
    fn ranges_are_those_of_a6() {
        let refused = RetryThrottling::try_new;
        assert_eq!(refused(0, 0.1), Err(InvalidRetry::MaxTokens(0)));
        assert_eq!(refused(1001, 0.1), Err(InvalidRetry::MaxTokens(1001)));
        assert_eq!(refused(10, 0.0), Err(InvalidRetry::TokenRatio(0.0)));
        let fine = RetryThrottling::try_new(1, 0.0039).expect("valid");
        assert_eq!(fine.gain, 3);
        assert_eq!(RetryThrottling::try_new(1, 0.003).expect("valid").gain, 3);
    }

    proptest! {
        #[test]
        fn the_count_stays_within_its_bounds(max in 1_u32..20, gain in 1_u32..3_000, ends in prop::collection::vec(any::<bool>(), 0..200)) {
            let throttle = Throttle::new(RetryThrottling::try_new(max, f64::from(gain) / 1000.0).expect("valid"));
            let mut model = i64::from(max) * 1000;
            for good in ends {
                if good {
                    throttle.succeeded();
                    model = (model + i64::from(gain)).min(i64::from(max) * 1000);
                } else {
                    throttle.failed();
                    model = (model - 1000).max(0);
                }
                prop_assert_eq!(i64::from(throttle.tokens.load(Ordering::Relaxed)), model);
                prop_assert_eq!(throttle.allows(), model * 2 > i64::from(max) * 1000);
            }
        }
    }
}
