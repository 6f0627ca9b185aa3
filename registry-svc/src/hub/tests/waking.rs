//! Who is woken by what.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use super::*;
use crate::model::Zone;

/// Which of the watchers are woken by what `act` does.
fn woken(watchers: &mut [Watcher], act: impl FnOnce()) -> Vec<bool> {
    let mut is_woken = |watcher: &mut Watcher| {
        let mut cx = Context::from_waker(Waker::noop());
        watcher.poll_woken(&mut cx).is_ready()
    };
    while watchers.iter_mut().any(&mut is_woken) {}
    act();
    watchers.iter_mut().map(is_woken).collect()
}

#[test]
fn a_change_wakes_the_watchers_of_its_service_and_of_its_namespace_alone() {
    let hub = hub();
    let mut watchers = ["a", "b", ""].map(|service| watching(&hub, service));
    let woken = woken(&mut watchers, || churn(&hub, "a", 1));
    assert_eq!(woken, [true, false, true]);
}

/// A console that filters by zone used to be woken by every change of the namespace.
#[test]
fn a_change_outside_of_the_selection_wakes_nobody() {
    let hub = hub();
    let in_zone = |zone| {
        let mut selection = scope("a");
        selection.zone = Some(Zone::try_new(zone).expect("a zone"));
        hub.watch(&selection, WatchFrom::Nothing).expect("watches")
    };
    let mut watchers = [in_zone("z1"), in_zone("z2")];
    let moving = |zone| Arc::new(draft("a", "1", zone).registered(Revision::new(1), LeaseId::from_random(1), WALL));
    let came = woken(&mut watchers, || drop(publish(&hub, vec![put(&moving("z1"))])));
    assert_eq!(came, [true, false]);
    let moved = Change::Put {
        instance: moving("z2"),
        left: Some(moving("z1").spec.labels.clone()),
    };
    let both = woken(&mut watchers, || drop(publish(&hub, vec![moved])));
    assert_eq!(both, [true, true], "one loses it and one gets it");
}

/// Woken before the whole group was there, a watcher was told the rest only at the next change.
#[test]
fn who_wakes_finds_the_whole_group() {
    let hub = hub();
    let mut watchers = [watching(&hub, "a")];
    let batch = |revision: u64| {
        Arc::new(Batch {
            revision: Revision::new(revision),
            at: WALL,
            changes: vec![put(&instance(&hub, "a", "1"))],
            leases: Vec::new(),
            overrides: Vec::new(),
            by: None,
            trace: None,
        })
    };
    let group = [batch(1), batch(2), batch(3)];
    assert_eq!(woken(&mut watchers, || hub.publish(&group)), [true]);
    let [watcher] = &mut watchers;
    let told: Vec<_> = std::iter::from_fn(|| next(watcher)).collect();
    assert_eq!(told, ["delta of 1 at 1", "delta of 1 at 2", "delta of 1 at 3"]);
}

/// Between the look that finds nothing and the wait, a change may come.
#[test]
fn what_comes_after_the_question_is_not_missed() {
    let hub = hub();
    let mut watcher = watching(&hub, "a");
    assert_eq!(next(&mut watcher), None);
    churn(&hub, "a", 1);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(watcher.poll_woken(&mut cx).is_ready(), "though it did not wait yet");
    assert!(watcher.poll_woken(&mut cx).is_pending(), "once");
}

#[tokio::test]
async fn a_revision_is_waited_for() {
    let hub = hub();
    let mut reached = pin!(hub.reached(Revision::new(2)));
    assert_eq!(futures_util::poll!(&mut reached), Poll::Pending);
    churn(&hub, "a", 1);
    assert_eq!(futures_util::poll!(&mut reached), Poll::Pending);
    churn(&hub, "b", 1);
    assert_eq!(futures_util::poll!(&mut reached), Poll::Ready(()));
    hub.reached(Revision::new(1)).await;
}
