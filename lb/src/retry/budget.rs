//! How many more attempts a channel may make than it has calls.
//!
//! A limit for each call alone (three attempts) triples the load on a fleet that fails because it has too much of it. A share
//! of all calls does not: with every instance failing, attempts stay at 1.2 times the calls, and a few a second for callers
//! that make few. Finagle's budget is the model, with two differences. Its deposits expire slot by slot after ten seconds;
//! here they lose a tenth of their worth every second, so that the whole balance is one atomic word and no two calls can
//! ever spend the same token. And its allowance for ten seconds may be spent at once; here that of one second.

use std::time::Duration;

use tokio::time::Instant;

use super::InvalidRetry;
use crate::sync::{AtomicU64, Ordering};

/// The unit of balances: thousandths of an attempt.
const TOKEN: u32 = 1000;
const SECOND_NANOS: u64 = 1_000_000_000;

/// How many more attempts than calls there may be: a share of the calls of the last ten seconds or so, and a number a second
/// besides.
///
/// The default is Finagle's: a fifth, and 10 a second. Over `t` seconds, at most `ratio * calls + per_second * (t + 1)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// What a call adds, in thousandths of an attempt.
    deposit: u32,
    per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            deposit: 200,
            per_second: 10,
        }
    }
}

impl RetryBudget {
    /// A tenth of the calls, and 10 a second.
    pub(crate) const fn tenth() -> Self {
        Self {
            deposit: 100,
            per_second: 10,
        }
    }

    /// `ratio` of the calls (0 to 10, in steps of a thousandth), and `per_second` (0 to 1000000) however few calls there are.
    ///
    /// # Errors
    /// One of them is out of its range.
    pub fn try_new(ratio: f64, per_second: u32) -> Result<Self, InvalidRetry> {
        if !(0.0..=10.0).contains(&ratio) {
            return Err(InvalidRetry::Ratio(ratio));
        }
        if per_second > 1_000_000 {
            return Err(InvalidRetry::PerSecond(per_second));
        }
        let deposit = (ratio * f64::from(TOKEN)).round() as u32;
        Ok(Self { deposit, per_second })
    }
}

/// The balance of a [`RetryBudget`], shared by all calls of a channel.
#[derive(Debug)]
pub(crate) struct Budget {
    terms: RetryBudget,
    opened: Instant,
    deposits: AtomicU64,
    /// What is allowed each second, as GCRA's theoretical arrival time: nanoseconds from the opening.
    allowance: AtomicU64,
}

/// What calls have paid in, and in which second it was looked at last: one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Deposits {
    second: u32,
    balance: u32,
}

impl Deposits {
    fn unpacked(word: u64) -> Self {
        Self {
            second: (word >> 32) as u32,
            balance: word as u32,
        }
    }

    fn packed(self) -> u64 {
        u64::from(self.second) << 32 | u64::from(self.balance)
    }

    /// A tenth of it is lost every second. Somebody may have seen a later second already; then time stands still.
    fn at(self, second: u32) -> Self {
        let mut balance = u64::from(self.balance);
        for _ in self.second..second {
            if balance == 0 {
                break;
            }
            // Rounded down: what is left in the end is nothing.
            balance = balance * 9 / 10;
        }
        Self {
            second: self.second.max(second),
            balance: balance as u32,
        }
    }

    fn plus(self, amount: u32) -> Self {
        Self {
            balance: self.balance.saturating_add(amount),
            ..self
        }
    }

    fn minus(self, amount: u32) -> Option<Self> {
        let balance = self.balance.checked_sub(amount)?;
        Some(Self { balance, ..self })
    }
}

impl Budget {
    pub(crate) fn new(terms: RetryBudget, now: Instant) -> Self {
        Self {
            terms,
            opened: now,
            deposits: AtomicU64::new(0),
            allowance: AtomicU64::new(0),
        }
    }

    /// A call begins that may need more attempts than one.
    pub(crate) fn deposit(&self, now: Instant) {
        let (second, amount) = (self.age(now).as_secs() as u32, self.terms.deposit);
        // The word stands for itself: nothing else is published by it, so no order is needed.
        let (Ok(_) | Err(_)) = self
            .deposits
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                Some(Deposits::unpacked(word).at(second).plus(amount).packed())
            });
    }

    /// Takes one more attempt out, if there is one.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let age = self.age(now);
        let second = age.as_secs() as u32;
        let spent = self
            .deposits
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let left = Deposits::unpacked(word).at(second).minus(TOKEN)?;
                Some(left.packed())
            });
        spent.is_ok() || self.allowed(age)
    }

    /// GCRA: `per_second` at once at most, then evenly.
    fn allowed(&self, age: Duration) -> bool {
        let Some(interval) = SECOND_NANOS.checked_div(u64::from(self.terms.per_second)) else {
            return false;
        };
        let now = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        self.allowance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                let after = next.max(now).saturating_add(interval);
                (after - now <= SECOND_NANOS).then_some(after)
            })
            .is_ok()
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use proptest::prelude::*;

    use super::*;

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn withdrawn(budget: &Budget, now: Instant) -> u32 {
        (0..1_000_000).take_while(|_| budget.withdraw(now)).count() as u32
    }

    #[test]
    fn a_fifth_of_the_calls_and_ten_a_second() {
        let now = Instant::now();
        let budget = Budget::new(RetryBudget::default(), now);
        for _ in 0..1000 {
            budget.deposit(now);
        }
        assert_eq!(withdrawn(&budget, now), 210);
        assert_eq!(withdrawn(&budget, now + second(1)), 10, "and no more of those calls");
        assert_eq!(
            withdrawn(&budget, now + second(100)),
            10,
            "what was not spent is not saved up"
        );
    }

    #[test]
    fn deposits_lose_their_worth() {
        let now = Instant::now();
        for (later, left) in [(0, 200), (1, 180), (2, 162), (10, 69), (30, 8), (100, 0)] {
            let budget = Budget::new(RetryBudget::try_new(0.2, 0).expect("valid"), now);
            for _ in 0..1000 {
                budget.deposit(now);
            }
            assert_eq!(withdrawn(&budget, now + second(later)), left, "after {later} s");
        }
    }

    #[test]
    fn nothing_allows_nothing() {
        let now = Instant::now();
        let budget = Budget::new(RetryBudget::try_new(0.0, 0).expect("valid"), now);
        budget.deposit(now);
        assert!(!budget.withdraw(now + second(1)));
        assert_eq!(RetryBudget::try_new(-0.1, 0), Err(InvalidRetry::Ratio(-0.1)));
        assert_eq!(
            RetryBudget::try_new(0.0, 2_000_000),
            Err(InvalidRetry::PerSecond(2_000_000))
        );
    }

    /// No two callers spend the same token, however they meet.
    #[test]
    fn many_threads_together_get_no_more_than_there_is() {
        let now = Instant::now();
        let budget = Budget::new(RetryBudget::default(), now);
        let got = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        budget.deposit(now);
                        got.fetch_add(u32::from(budget.withdraw(now)), Ordering::Relaxed);
                    }
                });
            }
        });
        let all = got.load(Ordering::Relaxed) + withdrawn(&budget, now);
        assert_eq!(all, 4 * 5_000 / 5 + 10);
    }

    proptest! {
        /// Whatever the calls and the pauses between them: never more than the terms say.
        #[test]
        fn it_is_never_exceeded(
            events in prop::collection::vec((0_u32..40, 0_u32..60, 0_u64..2_000), 1..80),
            ratio in 0_u32..500,
            per_second in 0_u32..30,
        ) {
            let opened = Instant::now();
            let terms = RetryBudget::try_new(f64::from(ratio) / 1000.0, per_second).expect("valid");
            let budget = Budget::new(terms, opened);
            let (mut now, mut calls, mut got) = (opened, 0_u64, 0_u64);
            for (deposits, wishes, pause) in events {
                for _ in 0..deposits {
                    budget.deposit(now);
                }
                calls += u64::from(deposits);
                got += (0..wishes).filter(|_| budget.withdraw(now)).count() as u64;
                let age = now - opened;
                let most = calls * u64::from(ratio) * 1000
                    + u64::from(per_second) * (age.as_millis() as u64 + 1000) * 1000;
                prop_assert!(got * 1_000_000 <= most, "{got} after {calls} calls and {age:?}");
                now += Duration::from_millis(pause);
            }
        }
    }
}
