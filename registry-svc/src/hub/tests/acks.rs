//! Who is waited for, and until when.

use std::pin::pin;

use super::*;
use crate::model::{WallTime, WatchId, Zone};

/// A named watch of a selection.
fn named(hub: &Arc<Hub>, name: u128, selection: &Selection, from: WatchFrom) -> Watcher {
    let watcher = hub.watch(selection, from).expect("watches");
    watcher.named(WatchId::from_random(name), None, WALL)
}

/// Takes everything there is to tell, as a connection does.
fn take_all(watcher: &mut Watcher) {
    while let Some(step) = watcher.try_next(now(0).moment) {
        watcher.sent(&step, || WALL);
    }
}

fn ack(hub: &Hub, name: u128, revision: u64) -> Result<(), AckError> {
    let at = WallTime { seconds: 7, ..WALL };
    hub.acks()
        .acknowledge(WatchId::from_random(name), Revision::new(revision), at)
}

fn late(hub: &Hub, instance: &Instance, revision: u64) -> Vec<WatchId> {
    let mut late = hub.acks().told_of(instance);
    late.retain(|standing| standing.acknowledged < Revision::new(revision));
    late.sort_by_key(|standing| standing.id);
    late.iter().map(|standing| standing.id).collect()
}

fn ids(names: &[u128]) -> Vec<WatchId> {
    names.iter().map(|name| WatchId::from_random(*name)).collect()
}

#[tokio::test]
async fn all_who_are_told_of_an_instance_are_waited_for_and_nobody_else() {
    let hub = hub();
    let instance = instance(&hub, "a", "1");
    publish(&hub, vec![put(&instance)]);
    let mut elsewhere = scope("a");
    elsewhere.zone = Some(Zone::try_new("z9").expect("a zone"));
    let selections = [scope("a"), scope(""), scope("b"), elsewhere];
    let mut watchers: Vec<_> = (0..)
        .zip(&selections)
        .map(|(name, selection)| named(&hub, name, selection, WatchFrom::Nothing))
        .collect();
    watchers.iter_mut().for_each(take_all);

    publish(&hub, vec![put(&instance)]);
    let mut acknowledged = pin!(hub.acks().acknowledged(&instance, Revision::new(2)));
    assert!(futures_util::poll!(&mut acknowledged).is_pending());
    watchers.iter_mut().for_each(take_all);
    assert!(
        futures_util::poll!(&mut acknowledged).is_pending(),
        "sent is not acknowledged"
    );
    ack(&hub, 0, 2).expect("was sent");
    assert!(futures_util::poll!(&mut acknowledged).is_pending());
    assert_eq!(late(&hub, &instance, 2), ids(&[1]));
    // What is later stands for what was before.
    publish(&hub, vec![put(&instance)]);
    watchers.iter_mut().for_each(take_all);
    ack(&hub, 1, 3).expect("was sent");
    assert!(futures_util::poll!(&mut acknowledged).is_ready());
    assert_eq!(late(&hub, &instance, 3), ids(&[0]));
}

#[tokio::test]
async fn who_ends_is_not_waited_for_and_who_begins_is() {
    let hub = hub();
    let instance = instance(&hub, "a", "1");
    publish(&hub, vec![put(&instance)]);
    let before = named(&hub, 0, &scope("a"), WatchFrom::Nothing);
    let mut acknowledged = pin!(hub.acks().acknowledged(&instance, Revision::new(1)));
    assert!(futures_util::poll!(&mut acknowledged).is_pending());
    let begun = named(&hub, 1, &scope("a"), WatchFrom::Nothing);
    drop(before);
    assert!(
        futures_util::poll!(&mut acknowledged).is_pending(),
        "the one that came meanwhile"
    );
    drop(begun);
    assert!(futures_util::poll!(&mut acknowledged).is_ready());
    assert_eq!(ack(&hub, 0, 1), Err(AckError::UnknownWatch));
}

#[test]
fn who_resumes_has_acknowledged_the_revision() {
    let hub = hub();
    let instance = instance(&hub, "a", "1");
    publish(&hub, vec![put(&instance)]);
    publish(&hub, vec![put(&instance)]);
    let from = |revision| WatchFrom::Revision(Revision::new(revision));
    let _watchers = [
        named(&hub, 0, &scope("a"), from(1)),
        named(&hub, 1, &scope("a"), from(2)),
        named(&hub, 2, &scope("a"), WatchFrom::OtherHistory),
    ];
    assert_eq!(late(&hub, &instance, 2), ids(&[0, 2]));
}

#[test]
fn what_was_not_sent_cannot_be_acknowledged_and_what_is_lower_changes_nothing() {
    let hub = hub();
    let instance = instance(&hub, "a", "1");
    publish(&hub, vec![put(&instance)]);
    let mut watcher = named(&hub, 0, &scope("a"), WatchFrom::Nothing);
    let not_sent = |asked, sent| {
        Err(AckError::NotSent {
            asked: Revision::new(asked),
            sent: Revision::new(sent),
        })
    };
    assert_eq!(ack(&hub, 0, 1), not_sent(1, 0), "it waits to be sent");
    take_all(&mut watcher);
    ack(&hub, 0, 1).expect("was sent");
    assert_eq!(ack(&hub, 0, 2), not_sent(2, 1));
    ack(&hub, 0, 0).expect("is harmless");
    ack(&hub, 0, 1).expect("once more");
    let [standing] = hub.acks().told_of(&instance)[..] else {
        panic!("one")
    };
    assert_eq!(
        (standing.sent, standing.acknowledged),
        (Revision::new(1), Revision::new(1))
    );
    assert_eq!(standing.sent_at, Some(WALL));
    assert_eq!(standing.acknowledged_at.map(|at| at.seconds), Some(7));
}

/// Counted as sent with its first part, a snapshot could be acknowledged by who had not read the rest.
#[test]
fn a_snapshot_is_sent_with_its_last_part() {
    let hub = Arc::new(Hub::restore(Restored::empty(LIMITS)).with_parts_of(20_000));
    let instances = [large(&hub, "a", "1"), large(&hub, "a", "2")];
    publish(&hub, instances.iter().map(put).collect());
    let mut watcher = named(&hub, 0, &scope("a"), WatchFrom::Nothing);
    for is_whole in [false, true] {
        let step = watcher.try_next(now(0).moment).expect("a part");
        watcher.sent(&step, || WALL);
        assert_eq!(ack(&hub, 0, 1).is_ok(), is_whole);
    }
}

/// A bookmark is progress, and a client that acknowledges it is believed, but it tells nothing new of when it was told.
#[test]
fn a_bookmark_can_be_acknowledged() {
    let hub = hub();
    let mut watcher = named(&hub, 0, &scope("a"), WatchFrom::Nothing);
    take_all(&mut watcher);
    churn(&hub, "b", 3);
    let step = watcher.bookmark(now(0).moment).expect("a bookmark");
    watcher.sent(&step, || unreachable!("nothing was told"));
    ack(&hub, 0, 3).expect("was sent");
}

/// Where thousands acknowledge at once, each of them used to be looked for again at each one's.
#[tokio::test]
async fn thousands_acknowledge_in_any_order() {
    let hub = hub();
    let instance = instance(&hub, "a", "1");
    publish(&hub, vec![put(&instance)]);
    let mut watchers: Vec<_> = (0..5_000)
        .map(|name| named(&hub, name, &scope("a"), WatchFrom::Nothing))
        .collect();
    watchers.iter_mut().for_each(take_all);
    let mut acknowledged = pin!(hub.acks().acknowledged(&instance, Revision::new(1)));
    for name in (0..2_500).chain((2_500..5_000).rev()) {
        assert!(futures_util::poll!(&mut acknowledged).is_pending());
        ack(&hub, name, 1).expect("was sent");
    }
    assert!(futures_util::poll!(&mut acknowledged).is_ready());
}
