//! Level-triggered, bounded waits: ask, and ask again, until it is so. Never a sleep that hopes to be long enough.

use std::{
    fmt::Display,
    future::Future,
    time::{Duration, Instant},
};

/// Long enough for a loaded two-core machine; a healthy run needs a fraction of it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `probe` until it answers `Ok`, and panics with its last error after [`PATIENCE`].
pub async fn until<T, E, F>(what: &str, probe: impl FnMut() -> F) -> T
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    within(PATIENCE, what, probe).await
}

/// As [`until`], with a bound of its own.
pub async fn within<T, E, F>(bound: Duration, what: &str, mut probe: impl FnMut() -> F) -> T
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let started = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(error) => assert!(started.elapsed() < bound, "{what}: not within {bound:?}; last: {error}"),
        }
        // The pause between two questions, not a wait for anything.
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
