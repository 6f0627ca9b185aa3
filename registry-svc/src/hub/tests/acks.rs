//! Who is waited for, and until when.

use std::{pin::pin, time::Duration};

use super::*;
use crate::{
    hub::acks::RETURN,
    model::{WallTime, WatchId, Zone},
};

/// A named watch of a selection.
fn named(hub: &Arc<Hub>, name: u128, selection: &Selection, from: WatchFrom) -> Watcher {
    let watcher = hub.watch(selection, from).expect("watches");
    watcher.named(WatchId::from_random(name), at(7), WALL)
}

/// Whoever is at the other end of this port.
fn at(port: u16) -> Holder {
    Holder {
        address: Some(([127, 0, 0, 1], port).into()),
        principal: None,
    }
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
        .acknowledge(WatchId::from_random(name), &self::at(7), Revision::new(revision), at)
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

/// Who resumed was taken to have applied what it was told: its watch had broken before it did, and whoever drained was told that
/// all callers knew.
#[test]
fn who_resumes_has_acknowledged_nothing_and_can_at_once() {
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
    assert_eq!(late(&hub, &instance, 2), ids(&[0, 1, 2]));
    ack(&hub, 1, 2).expect("was told before");
    assert_eq!(late(&hub, &instance, 2), ids(&[0, 2]));
    assert!(ack(&hub, 0, 2).is_err(), "was not told that far");
}

/// Those who drain are told the names of others' watches: any of them, and anybody with a right to read, could acknowledge for all
/// callers of a service, and its instances stopped while they were called.
#[test]
fn nobody_acknowledges_for_others() {
    let hub = hub();
    let instance = instance(&hub, "a", "1");
    publish(&hub, vec![put(&instance)]);
    let as_principal = |port, name: Option<&str>| Holder {
        principal: name.map(Arc::from),
        ..at(port)
    };
    let nobody = Holder::default();
    let says = |watch: &Holder, speaker: &Holder| {
        let watcher = hub.watch(&scope("a"), WatchFrom::Nothing).expect("watches");
        let id = WatchId::from_random(9);
        let mut watcher = watcher.named(id, watch.clone(), WALL);
        take_all(&mut watcher);
        hub.acks().acknowledge(id, speaker, Revision::new(1), WALL)
    };
    let (ann, bob) = (as_principal(1, Some("ann")), as_principal(2, Some("bob")));
    let cases = [
        (at(1), at(1), true),
        (at(1), at(2), false),
        (ann.clone(), as_principal(3, Some("ann")), true),
        (ann.clone(), bob, false),
        (ann, as_principal(3, None), false),
        (at(1), nobody.clone(), false),
        (nobody.clone(), nobody, false),
    ];
    for (watch, speaker, may) in cases {
        let expected = if may { Ok(()) } else { Err(AckError::UnknownWatch) };
        assert_eq!(says(&watch, &speaker), expected, "{watch:?} {speaker:?}");
    }
}

/// The board is empty after a restart, and on an empty board all have acknowledged: an instance that stopped then was told that
/// nobody called it, while all its callers were on their way back with the old set.
#[tokio::test(start_paused = true)]
async fn after_a_restart_watchers_may_come_back() {
    let restored = |revision, recovering| {
        Hub::restore(Restored {
            revision: Revision::new(revision),
            compacted: Revision::new(revision),
            trust: Trust {
                recovering,
                ..Trust::default()
            },
            ..Restored::empty(LIMITS)
        })
    };
    let after = |elapsed: Duration| Moment::after_start(elapsed);
    let begin = restored(0, false);
    assert!(begin.acks().is_settled(after(Duration::ZERO)), "it has told nobody");

    let restarted = restored(5, false);
    let acks = restarted.acks();
    let second = Duration::from_secs(1);
    assert!(!acks.is_settled(after(second)) && !acks.is_settled(after(15 * second)));
    assert!(acks.is_settled(after(RETURN)));
    let mut settled = pin!(acks.settled(after(second)));
    assert!(futures_util::poll!(&mut settled).is_pending());
    tokio::time::advance(RETURN).await;
    assert!(futures_util::poll!(&mut settled).is_ready());

    let recovering = restored(5, true);
    let acks = recovering.acks();
    assert!(!acks.is_settled(after(RETURN)));
    let mut settled = pin!(acks.settled(after(RETURN)));
    assert!(futures_util::poll!(&mut settled).is_pending());
    recovering.set_trust(Trust::default());
    assert!(futures_util::poll!(&mut settled).is_ready() && acks.is_settled(after(RETURN)));
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
