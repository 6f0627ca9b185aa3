//! What watchers have in common, and what one that does not read costs.

use std::{cell::Cell, sync::Weak};

use bytes::Bytes;

use super::*;

/// Encodes by counting: the bytes say what was encoded, and `made` how often anything was.
fn encoded(watcher: &Watcher, step: &Step, made: &Cell<usize>) -> Bytes {
    let encode = |content: &Content<'_>| {
        made.set(made.get() + 1);
        Bytes::from(match content {
            Content::Instances(instances) => format!("{} instances", instances.len()),
            Content::Events { events, .. } => format!("{} events", events.len()),
        })
    };
    watcher.encoded(step, encode).unwrap_or_default()
}

fn step(watcher: &mut Watcher) -> Step {
    watcher.try_next(now(0).moment).expect("something to tell")
}

#[test]
fn a_change_is_encoded_once_for_all_watchers_of_a_selection() {
    let hub = hub();
    let mut watchers: Vec<Watcher> = (0..100).map(|n| watching(&hub, ["a", ""][n % 2])).collect();
    let made = Cell::new(0);
    for revision in 1..=3 {
        publish(
            &hub,
            vec![put(&instance(&hub, "a", "1")), put(&instance(&hub, "b", "2"))],
        );
        for (n, watcher) in watchers.iter_mut().enumerate() {
            let told = step(watcher);
            assert_eq!(encoded(watcher, &told, &made), ["1 events", "2 events"][n % 2]);
        }
        assert_eq!(made.get(), 2 * revision, "once for each selection");
    }
}

/// A storm of reconnecting watchers costs one snapshot, and of a large one each part is encoded when somebody gets there.
#[test]
fn a_snapshot_is_made_and_encoded_once_for_all_who_begin_together() {
    let hub = hub();
    let instances: Vec<_> = (0..200).map(|n| large(&hub, "a", &n.to_string())).collect();
    publish(&hub, instances.iter().map(put).collect());
    let mut watchers: Vec<Watcher> = (0..50)
        .map(|_| hub.watch(&scope("a"), WatchFrom::Nothing).expect("watches"))
        .collect();
    let made = Cell::new(0);
    let mut snapshots: Vec<Arc<Snapshot>> = Vec::new();
    let mut parts = 0;
    loop {
        let told: Vec<Step> = watchers.iter_mut().map(step).collect();
        parts += 1;
        for (watcher, step) in watchers.iter().zip(&told) {
            encoded(watcher, step, &made);
            let Told::Part(part) = &step.told else {
                panic!("in the middle of a snapshot: {step:?}");
            };
            assert_eq!(step.revision, Revision::new(1));
            snapshots.push(Arc::clone(&part.snapshot));
        }
        assert_eq!(made.get(), parts, "each part once, and not before it is wanted");
        if snapshots.iter().all(|snapshot| !snapshot.has_more(parts - 1)) {
            break;
        }
        // What happens meanwhile is told after all of it.
        if parts == 1 {
            churn(&hub, "a", 1);
        }
    }
    assert_eq!(parts, 200, "of 16 KiB, of which two are too large for a part");
    assert!(snapshots.iter().all(|snapshot| Arc::ptr_eq(snapshot, &snapshots[0])));
    assert!(
        watchers
            .iter_mut()
            .all(|watcher| next(watcher).expect("told") == "delta of 1 at 2")
    );
    let snapshot = Arc::downgrade(&snapshots[0]);
    snapshots.clear();
    assert_eq!(snapshot.strong_count(), 0, "nobody holds on to it");
}

#[test]
fn parts_hold_each_instance_once_and_in_order() {
    let hub = hub();
    for count in [0, 1, 63, 64, 65, 300] {
        let instances: Vec<_> = (0..count).map(|n| large(&hub, "a", &format!("{n:04}"))).collect();
        let snapshot = Snapshot::new(Revision::new(1), instances.clone(), snapshot::PART_BYTES);
        let mut told = Vec::new();
        let mut number = 0;
        loop {
            let part = snapshot.part(number);
            assert!(!part.is_empty() || count == 0);
            told.extend_from_slice(part);
            if !snapshot.has_more(number) {
                break;
            }
            number += 1;
        }
        assert_eq!(told, instances);
    }
}

/// Row 12 of the fault plan. What a watcher that is never read keeps alive: not one batch that the history has lost, and
/// nothing that is encoded for others. What is left is its cursor.
#[test]
fn a_stalled_watcher_costs_its_cursor() {
    let hub = hub();
    let mut stalled = watching(&hub, "a");
    let mut healthy = watching(&hub, "a");
    let made = Cell::new(0);
    let mut published: Vec<Weak<Batch>> = Vec::new();
    for _ in 0..2_000 {
        let batch = publish(&hub, vec![put(&large(&hub, "a", "1"))]);
        published.push(Arc::downgrade(&batch));
        drop(batch);
        let told = step(&mut healthy);
        encoded(&healthy, &told, &made);
    }
    assert_eq!(made.get(), 2_000, "the others go on");
    let alive = published.iter().filter(|batch| batch.strong_count() > 0).count();
    assert_eq!(alive, LIMITS.revisions, "those of the history, and no others");
    assert!(hub.encodings.bytes() <= 9 << 20, "{}", hub.encodings.bytes());
    assert!(size_of::<Watcher>() <= 256, "{}", size_of::<Watcher>());

    // Never cut off, never skipped silently: it is told that it was coalesced, and goes on.
    assert_eq!(next(&mut stalled).expect("told"), "Coalesced snapshot of 1 at 2000");
    assert_eq!(next(&mut stalled), None);
}
