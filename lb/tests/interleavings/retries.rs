//! What retries are paid with.

use std::{sync::Arc, time::Duration};

use loom::thread;
use tokio::time::Instant;

use crate::{
    budget::{Budget, RetryBudget},
    throttle::{RetryThrottling, Throttle},
};

fn budget(ratio: f64, per_second: u32) -> (Arc<Budget>, Instant) {
    let (terms, now) = (RetryBudget::try_new(ratio, per_second), Instant::now());
    (Arc::new(Budget::new(terms.expect("in its ranges"), now)), now)
}

/// How many of those at once get one.
fn withdrawals(budget: &Arc<Budget>, pays: bool, times: [Instant; 2]) -> u32 {
    let threads = times.map(|now| {
        let budget = Arc::clone(budget);
        thread::spawn(move || {
            if pays {
                budget.deposit(now);
            }
            u32::from(budget.withdraw(now))
        })
    });
    threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
}

pub(super) fn deposits() {
    // Each call pays for one attempt.
    let (budget, now) = budget(1.0, 0);
    let got = withdrawals(&budget, true, [now; 2]);
    let left = (0..5).take_while(|_| budget.withdraw(now)).count();
    assert_eq!((got, left), (2, 0), "as many as were paid for");
}

pub(super) fn seconds() {
    let (budget, now) = budget(1.0, 0);
    budget.deposit(now);
    budget.deposit(now);
    // Of two, one and four fifths are left a second later: whoever comes first, that is one for both.
    let got = withdrawals(&budget, false, [now, now + Duration::from_secs(1)]);
    assert_eq!(got, 1);
}

pub(super) fn allowance() {
    let (budget, now) = budget(0.0, 1);
    let got = withdrawals(&budget, false, [now; 2]);
    assert_eq!(got + u32::from(budget.withdraw(now)), 1);
    let next = now + Duration::from_secs(1);
    assert_eq!(withdrawals(&budget, false, [next; 2]), 1, "and one a second later");
}

pub(super) fn throttle() {
    let terms = RetryThrottling::try_new(4, 1.0).expect("in their ranges");
    let throttle = Arc::new(Throttle::new(terms));
    throttle.failed();
    let ends = [Throttle::failed, Throttle::failed, Throttle::succeeded];
    let threads = ends.map(|end| {
        let throttle = Arc::clone(&throttle);
        thread::spawn(move || end(&throttle))
    });
    for thread in threads {
        thread.join().expect("no panic");
    }
    // Two of four, in every order.
    assert!(!throttle.allows(), "half of them is not more than half");
    throttle.succeeded();
    assert!(throttle.allows());
}
