//! What is measured of events, by name.

use service_store::Timestamp;
use telemetry::metrics::{Counter, counter, gauge};

use crate::table::Waiting;

pub(crate) fn delivered() -> Counter {
    counter("tessera_outbox_delivered", "Events that were delivered", &[]).with(&[])
}

pub(crate) fn failed() -> Counter {
    counter("tessera_outbox_failed", "Attempts to deliver an event that failed", &[]).with(&[])
}

/// Shows whether this process's broker takes events over.
pub(crate) fn broker_away(is_away: bool) {
    gauge(
        "tessera_outbox_broker_away",
        "1 while the broker takes no events over, and they wait; 0 otherwise",
        &[],
    )
    .with(&[])
    .set(f64::from(u8::from(is_away)));
}

/// Shows what waits in the store, which is that of all processes on it.
pub(crate) fn show(waiting: Waiting, now: Timestamp) {
    let age = waiting
        .oldest
        .map_or(0, |oldest| now.as_nanos().saturating_sub(oldest.as_nanos()).max(0));
    gauge(
        "tessera_outbox_pending",
        "Events in the store that wait to be delivered",
        &[],
    )
    .with(&[])
    .set(waiting.pending as f64);
    gauge(
        "tessera_outbox_oldest_seconds",
        "Age of the oldest event in the store that waits to be delivered",
        &[],
    )
    .with(&[])
    .set(age as f64 / 1e9);
    gauge(
        "tessera_outbox_dead",
        "Dead letters in the store: events that failed for good",
        &[],
    )
    .with(&[])
    .set(waiting.dead as f64);
}
