//! The client against a registry that does what a test tells it to, over real sockets of the loopback interface. What the pure
//! parts decide is tested beside them; here it is whether the right calls go out and the right things come back.
//!
//! The clock is paused: when everything waits, it leaps to the next timer, so an hour of outage costs nothing and a bound on
//! a wait is exact.

mod calls;
mod fake;
mod registrar;
mod replicas;
mod watcher;
mod wire_cutter;

use std::time::Duration;

/// Long enough for every wait of these tests; with the clock paused it costs nothing.
const PATIENCE: Duration = Duration::from_secs(600);

/// Bounds a wait, so that a broken test fails instead of hanging.
async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// Looks at a condition again and again, where nothing tells of its change.
async fn poll(what: &str, condition: impl Fn() -> bool) {
    let mut again = tokio::time::interval(Duration::from_millis(1));
    soon(what, async {
        while !condition() {
            again.tick().await;
        }
    })
    .await;
}
