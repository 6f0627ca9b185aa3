//! The subscriber within the process: a line in the log for each event, for those who look (`RUST_LOG=ticket_svc::journal=debug`).
//! Who has to know listens to the broker.

use futures_util::future::{self, BoxFuture, FutureExt as _};
use outbox::{NotDelivered, Recorded, Subscriber};

/// Writes down what happens to seats.
#[derive(Debug)]
pub(crate) struct Journal;

impl Subscriber for Journal {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn wants(&self, kind: &str) -> bool {
        kind.starts_with("seat.")
    }

    fn take_in<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Result<(), NotDelivered>> {
        for event in events {
            tracing::debug!(kind = event.kind, hold = event.key, body = %event.body, "event");
        }
        future::ready(Ok(())).boxed()
    }
}
