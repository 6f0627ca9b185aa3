//! Whether a failed attempt is followed by another one, and after what pause (gRFC A6). Budgets are asked elsewhere.

use std::time::Duration;

use tonic::Code;

use super::{InvalidRetry, RetryBackoff, codes::Codes, pushback::Pushback};

/// gRFC A6: more attempts count as so many.
const MOST_ATTEMPTS: u32 = 5;

/// How a call that may be repeated is repeated (gRFC A6, `retryPolicy`).
///
/// It concerns attempts that *may* have been processed, so it is for methods of which the caller knows that twice is as good
/// as once. (What provably reached no handler is repeated without it, and not counted here.)
///
/// The default is failover: 3 attempts in all, on UNAVAILABLE, each on an instance that has not had the call yet.
/// RESOURCE_EXHAUSTED is repeated too where the server says when to come again (`grpc-retry-pushback-ms`).
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    max_attempts: u32,
    backoff: RetryBackoff,
    codes: Codes,
    revisits: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff: RetryBackoff::default(),
            codes: Codes::default().with(Code::Unavailable),
            revisits: false,
        }
    }
}

impl RetryPolicy {
    /// At most `max_attempts` attempts, the first one included, as long as they end with one of `codes`.
    ///
    /// # Errors
    /// There must be at least 2 attempts (more than 5 count as 5) and at least one code, and OK is none.
    pub fn try_new(
        max_attempts: u32,
        backoff: RetryBackoff,
        codes: impl IntoIterator<Item = Code>,
    ) -> Result<Self, InvalidRetry> {
        if max_attempts < 2 {
            return Err(InvalidRetry::TooFewAttempts(max_attempts));
        }
        let codes = Codes::try_new(codes)?;
        if codes.is_empty() {
            return Err(InvalidRetry::NoCodes);
        }
        Ok(Self {
            max_attempts: max_attempts.min(MOST_ATTEMPTS),
            backoff,
            codes,
            revisits: false,
        })
    }

    /// An instance that has had the call may have it again when there is no other one. gRPC's own clients do so; the default
    /// here is to give up then, since who failed a moment ago will hardly do better now.
    #[must_use]
    pub fn revisiting(self) -> Self {
        Self { revisits: true, ..self }
    }

    pub(crate) fn revisits(&self) -> bool {
        self.revisits
    }

    /// Whether an attempt that ended so may be followed by another one at all.
    pub(crate) fn retries(&self, code: Code, pushback: Pushback) -> bool {
        let invited = code == Code::ResourceExhausted && matches!(pushback, Pushback::After(_));
        pushback != Pushback::Never && (self.codes.contains(code) || invited)
    }
}

/// How far one call has got with its policy.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// Attempts that have failed.
    made: u32,
    /// Retries since the server last said when to come, or since the first attempt.
    step: u32,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self { made: 0, step: 0 }
    }

    /// An attempt has ended with that: the pause before the next one, or none if it was the last. `draw` is from 0 to 1.
    pub(crate) fn failed(
        &mut self,
        policy: &RetryPolicy,
        code: Code,
        pushback: Pushback,
        draw: f64,
    ) -> Option<Duration> {
        self.made += 1;
        if !policy.retries(code, pushback) || self.made >= policy.max_attempts {
            return None;
        }
        // gRFC A6: the server's word counts exactly as it is, and the back-off starts anew after it.
        if let Pushback::After(pause) = pushback {
            self.step = 0;
            return Some(pause);
        }
        self.step += 1;
        Some(policy.backoff.delay(self.step - 1, draw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn policy(max_attempts: u32) -> RetryPolicy {
        let backoff = RetryBackoff::try_new(10 * MILLI, 1000 * MILLI, 2.0).expect("valid");
        RetryPolicy::try_new(max_attempts, backoff, [Code::Unavailable, Code::Aborted]).expect("valid")
    }

    #[test]
    fn attempts_are_counted_and_never_more_than_five() {
        for (asked, retries) in [(2, 1), (3, 2), (5, 4), (100, 4)] {
            let (policy, mut progress) = (policy(asked), Progress::start());
            let mut next = || progress.failed(&policy, Code::Aborted, Pushback::Unsaid, 0.5);
            assert_eq!(std::iter::from_fn(&mut next).count(), retries, "{asked}");
        }
    }

    #[test]
    fn other_codes_end_it() {
        for code in [
            Code::NotFound,
            Code::DeadlineExceeded,
            Code::Cancelled,
            Code::ResourceExhausted,
        ] {
            let mut progress = Progress::start();
            assert_eq!(
                progress.failed(&policy(5), code, Pushback::Unsaid, 0.5),
                None,
                "{code:?}"
            );
        }
    }

    #[test]
    fn the_servers_word_counts_and_the_backoff_starts_anew_after_it() {
        let (policy, mut progress) = (policy(5), Progress::start());
        let mut after = |pushback| progress.failed(&policy, Code::Unavailable, pushback, 0.5);
        assert_eq!(after(Pushback::Unsaid), Some(10 * MILLI));
        assert_eq!(after(Pushback::Unsaid), Some(20 * MILLI));
        assert_eq!(after(Pushback::After(7 * MILLI)), Some(7 * MILLI));
        assert_eq!(after(Pushback::Unsaid), Some(10 * MILLI));
        let mut progress = Progress::start();
        assert_eq!(progress.failed(&policy, Code::Unavailable, Pushback::Never, 0.5), None);
    }

    #[test]
    fn an_exhausted_server_that_says_when_to_come_is_believed() {
        let mut progress = Progress::start();
        let after = Pushback::After(5 * MILLI);
        assert_eq!(
            progress.failed(&RetryPolicy::default(), Code::ResourceExhausted, after, 0.5),
            Some(5 * MILLI)
        );
        // It does not make retriable what the business has decided.
        assert_eq!(Progress::start().failed(&policy(5), Code::NotFound, after, 0.5), None);
    }

    #[test]
    fn what_could_not_be_meant_is_refused() {
        let backoff = RetryBackoff::default();
        assert_eq!(
            RetryPolicy::try_new(1, backoff, [Code::Aborted]),
            Err(InvalidRetry::TooFewAttempts(1))
        );
        assert_eq!(RetryPolicy::try_new(2, backoff, []), Err(InvalidRetry::NoCodes));
        assert_eq!(
            RetryPolicy::try_new(2, backoff, [Code::Ok]),
            Err(InvalidRetry::OkIsNoFailure)
        );
    }
}
