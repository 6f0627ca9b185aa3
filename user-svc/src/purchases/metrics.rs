//! What is measured of purchases, by name. Not here: calls, which the host measures.

use telemetry::metrics::{Counter, before_encode, counter, gauge};

use super::running::Register;

/// Purchases that neither go on nor end without somebody's help: their record cannot be understood, or is refused.
pub(super) fn stuck() -> Counter {
    counter(
        "tessera_purchases_stuck",
        "Purchases that cannot go on without an operator",
        &[],
    )
    .with(&[])
}

/// Purchases that were taken up from a claim that had lapsed or was given up.
pub(super) fn recovered() -> Counter {
    counter(
        "tessera_purchases_recovered",
        "Purchases taken up after whoever drove them was gone",
        &[],
    )
    .with(&[])
}

/// Purchases that another process took up while this one still drove them.
pub(super) fn overtaken() -> Counter {
    counter(
        "tessera_purchases_overtaken",
        "Purchases that another process took up from this one, which had been too slow to renew its claim",
        &[],
    )
    .with(&[])
}

/// Shows from now on what is under way. It is read when somebody scrapes.
pub(super) fn measure(register: &Register) {
    stuck();
    recovered();
    overtaken();
    let under_way = gauge("tessera_purchases_under_way", "Purchases that this process drives", &[]).with(&[]);
    let oldest = gauge(
        "tessera_purchases_oldest_seconds",
        "For how long this process has driven the oldest purchase that is under way",
        &[],
    )
    .with(&[]);
    let register = register.clone();
    before_encode(move || {
        let (count, age) = register.driven();
        under_way.set(count as f64);
        oldest.set(age.as_secs_f64());
    });
}
