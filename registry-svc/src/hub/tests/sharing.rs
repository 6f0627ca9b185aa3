//! What watchers have in common, and what one that does not read costs.

use std::{cell::Cell, collections::HashSet, sync::Weak};

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
    hub.tidy(now(30_000).moment);
    assert_eq!(snapshot.strong_count(), 0, "nobody holds on to it");
}

/// Each commit, of whatever service, made another snapshot of the same instances, encoded anew for everybody who began then.
#[test]
fn a_snapshot_is_shared_while_others_change_and_a_little_longer() {
    let hub = hub();
    let instances: Vec<_> = (0..10).map(|n| large(&hub, "a", &n.to_string())).collect();
    publish(&hub, instances.iter().map(put).collect());
    let made = Cell::new(0);
    let mut parts: HashSet<*const Snapshot> = HashSet::new();
    let mut begin = |service, told| {
        let mut watcher = hub.watch(&scope(service), WatchFrom::Nothing).expect("watches");
        let first = step(&mut watcher);
        encoded(&watcher, &first, &made);
        assert_eq!(first.revision, Revision::new(told));
        let Told::Part(part) = &first.told else {
            panic!("a snapshot: {first:?}");
        };
        parts.insert(Arc::as_ptr(&part.snapshot));
        (watcher, parts.len(), made.get())
    };
    let (mut one, ..) = begin("a", 1);
    for revision in 2..=4 {
        churn(&hub, "b", 1);
        let (_, snapshots, made) = begin("a", revision);
        assert_eq!((snapshots, made), (1, 1), "of the present, by what was there");
    }
    churn(&hub, "a", 2);
    let (mut other, snapshots, made) = begin("a", 1);
    assert_eq!((snapshots, made), (1, 1), "a little older");
    for watcher in [&mut one, &mut other] {
        let rest: Vec<_> = std::iter::from_fn(|| next(watcher)).skip(9).collect();
        assert_eq!(rest, ["delta of 1 at 5", "delta of 1 at 6"], "and then what came since");
    }
    churn(&hub, "a", LIMITS.revisions);
    assert_eq!(begin("a", 12).1, 2, "the history does not reach back any more");
}

/// To begin anew with the revision and the cause that it had would look like more of the same: each instance would be told twice.
#[test]
fn a_watcher_that_stalls_while_nothing_changes_goes_on_where_it_was() {
    let hub = hub();
    let instances: Vec<_> = (0..10).map(|n| large(&hub, "a", &n.to_string())).collect();
    publish(&hub, instances.iter().map(put).collect());
    let mut stalled = hub.watch(&scope("a"), WatchFrom::Nothing).expect("watches");
    let mut told = Vec::new();
    for seconds in (0..).step_by(40) {
        churn(&hub, "b", 1);
        hub.tidy(now(seconds * 1_000).moment);
        let step = stalled.try_next(now(seconds * 1_000).moment).expect("a part");
        let Told::Part(part) = &step.told else {
            panic!("a part: {step:?}");
        };
        assert_eq!((step.revision, part.cause), (Revision::new(2), Cause::Initial));
        told.extend_from_slice(part.instances());
        if !part.has_more() {
            break;
        }
    }
    assert_eq!(told, instances);
}

/// A watcher that stalled in the middle of a snapshot kept all of it, and each instance as it was then, for ever.
#[test]
fn a_watcher_that_stalls_within_a_snapshot_costs_its_cursor() {
    let hub = hub();
    let mut instances: Vec<_> = (0..10).map(|n| large(&hub, "a", &n.to_string())).collect();
    publish(&hub, instances.iter().map(put).collect());
    let at = |seconds: u64| now(seconds * 1_000).moment;
    let mut watchers = [0, 1].map(|_| hub.watch(&scope("a"), WatchFrom::Nothing).expect("watches"));
    for watcher in &mut watchers {
        watcher.try_next(at(0)).expect("the first part");
    }
    let [stalled, slow] = &mut watchers;
    let gone: Vec<Weak<Instance>> = instances.drain(..).map(|instance| Arc::downgrade(&instance)).collect();
    let leave = (0..10).map(|n| removed(&large(&hub, "a", &n.to_string()))).collect();
    publish(&hub, leave);
    churn(&hub, "b", LIMITS.revisions);
    let alive = || gone.iter().filter(|instance| instance.strong_count() > 0).count();
    assert_eq!(alive(), 10, "they are told");
    // As long as anybody reads on, all may.
    slow.try_next(at(20)).expect("the next part");
    hub.tidy(at(40));
    assert_eq!(alive(), 10);
    hub.tidy(at(50));
    assert_eq!(alive(), 0);
    let first = stalled.try_next(at(51)).expect("begins anew");
    assert_eq!(first.revision, hub.look(View::revision));
    let Told::Part(part) = &first.told else {
        panic!("a snapshot: {first:?}");
    };
    assert!(part.is_first() && part.cause == Cause::Coalesced && part.instances().is_empty());
    assert_eq!(next(stalled), None);
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
