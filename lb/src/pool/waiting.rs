//! How many calls wait for anybody at all, and how long their patience is. It wakes nobody.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// Calls that wait for anybody to be ready, or to have room.
#[derive(Debug, Default)]
pub(super) struct Waiting(AtomicUsize);

/// Counted as a call that waits, until it is dropped.
pub(super) struct Waits<'a>(&'a AtomicUsize);

impl Waiting {
    pub(super) fn one_more(&self) -> Waits<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Waits(&self.0)
    }

    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// For how long each of so many endpoints may be left alone after a failed dial while calls wait.
///
/// Back-off is kind to a fleet that is away, and to a caller in front of one that has just returned it is an outage that goes
/// on (gRPC's reaches two minutes). So while somebody waits an endpoint is dialled about five times a second, and less often
/// when there are many.
pub(super) fn patience(endpoints: usize) -> Duration {
    const PAUSE: Duration = Duration::from_millis(200);
    const AT_ONCE: usize = 16;
    let times = endpoints.div_ceil(AT_ONCE).max(1);
    PAUSE.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_endpoints_are_dialled_less_often_each() {
        for (endpoints, millis) in [(0, 200), (1, 200), (16, 200), (17, 400), (1_600, 20_000)] {
            assert_eq!(patience(endpoints).as_millis(), millis, "{endpoints}");
        }
    }

    #[test]
    fn who_gives_up_waiting_is_not_counted_any_more() {
        let waiting = Waiting::default();
        let (one, other) = (waiting.one_more(), waiting.one_more());
        drop(one);
        assert!(waiting.any());
        drop(other);
        assert!(!waiting.any());
    }
}
