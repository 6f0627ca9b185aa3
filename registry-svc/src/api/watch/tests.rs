//! Where a watch begins when the registry is one of several.

use futures_util::FutureExt as _;
use tokio::time::advance;

use super::*;
use crate::{
    catalog::Batch,
    fixtures::{WALL, scope},
    history::HistoryLimits,
    hub::Restored,
};

const LIMITS: HistoryLimits = HistoryLimits {
    revisions: 10,
    bytes: usize::MAX,
};

fn hub(is_replicated: bool) -> Arc<Hub> {
    Arc::new(Hub::restore(Restored {
        is_replicated,
        ..Restored::empty(LIMITS)
    }))
}

fn publish(hub: &Hub) {
    let batch = Batch {
        revision: hub.look(crate::hub::View::revision).next(),
        at: WALL,
        changes: Vec::new(),
        leases: Vec::new(),
        overrides: Vec::new(),
        by: None,
        trace: None,
    };
    hub.publish(&[Arc::new(batch)]);
}

fn second() -> WatchFrom {
    WatchFrom::Revision(Revision::new(2))
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_alone_knows_that_a_revision_has_not_happened() {
    let (hub, drain) = (hub(false), DrainSignal::new());
    let begun = begin(&hub, &drain, &scope("a"), second()).now_or_never();
    assert!(matches!(begun, Some(Err(ApiError::FutureRevision(_)))), "{begun:?}");
}

/// A client that failed over to a replica which was a few milliseconds behind was told that its revision was of another
/// history, and began to doubt all that it knew.
#[tokio::test(start_paused = true)]
async fn a_replica_that_is_behind_catches_up_first() {
    let (hub, drain) = (hub(true), DrainSignal::new());
    let selection = scope("a");
    let mut begun = Box::pin(begin(&hub, &drain, &selection, second()));
    assert!(begun.as_mut().now_or_never().is_none());
    publish(&hub);
    assert!(begun.as_mut().now_or_never().is_none(), "not yet");
    publish(&hub);
    let mut watcher = begun.now_or_never().expect("it is there").expect("watches");
    let step = watcher.try_next(crate::fixtures::now(0).moment).expect("told at once");
    assert_eq!(step.revision, Revision::new(2));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_stays_behind_says_so_and_a_draining_one_does_not_wait() {
    let (hub, drain) = (hub(true), DrainSignal::new());
    let selection = scope("a");
    let mut begun = Box::pin(begin(&hub, &drain, &selection, second()));
    assert!(begun.as_mut().now_or_never().is_none());
    advance(CATCH_UP).await;
    assert!(matches!(begun.now_or_never(), Some(Err(ApiError::FutureRevision(_)))));

    let mut begun = Box::pin(begin(&hub, &drain, &selection, second()));
    assert!(begun.as_mut().now_or_never().is_none());
    drain.fire();
    assert!(matches!(begun.now_or_never(), Some(Err(ApiError::Draining))));
}
