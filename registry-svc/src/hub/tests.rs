//! The hub against a model: whatever watchers do, what they were told is what happened.
//!
//! `world` makes random histories and lets watchers read them; `promises` holds what they heard against what happened, one
//! promise at a time, as etcd's robustness tests do (`tests/robustness/validate`). The rest are single stories.

mod acks;
mod compaction;
mod promises;
mod sharing;
mod trust;
mod waking;
mod world;

use super::*;
use crate::{
    catalog::{Change, Removal},
    fixtures::{WALL, draft, now, scope},
    model::{Detail, LeaseId, Metadata, RemovalReason},
};

/// Few enough for every random history to lose something.
const LIMITS: HistoryLimits = HistoryLimits {
    revisions: 6,
    bytes: usize::MAX,
};

fn hub() -> Arc<Hub> {
    Arc::new(Hub::restore(Restored::empty(LIMITS)))
}

/// An instance as the next revision of the hub has it.
fn instance(hub: &Hub, service: &str, id: &str) -> Arc<Instance> {
    let revision = hub.look(View::revision).next();
    Arc::new(draft(service, id, "").registered(revision, LeaseId::from_random(1), WALL))
}

/// One with some 16 KiB of metadata.
fn large(hub: &Hub, service: &str, id: &str) -> Arc<Instance> {
    let revision = hub.look(View::revision).next();
    let mut draft = draft(service, id, "");
    let pairs = (0..15).map(|key| (format!("k{key}"), "v".repeat(1_024)));
    draft.spec.metadata = Metadata::try_new(pairs).expect("fits");
    Arc::new(draft.registered(revision, LeaseId::from_random(1), WALL))
}

fn put(instance: &Arc<Instance>) -> Change {
    Change::Put {
        instance: Arc::clone(instance),
        left: None,
    }
}

fn removed(instance: &Instance) -> Change {
    Change::Removed(Removal {
        key: instance.key.clone(),
        labels: instance.spec.labels.clone(),
        reason: RemovalReason::Deregistered,
        detail: Detail::of(""),
    })
}

/// Publishes changes as the next revision.
fn publish(hub: &Hub, changes: Vec<Change>) -> Arc<Batch> {
    let batch = Arc::new(Batch {
        revision: hub.look(View::revision).next(),
        at: WALL,
        changes,
        leases: Vec::new(),
        overrides: Vec::new(),
        by: None,
        trace: None,
    });
    hub.publish(&[Arc::clone(&batch)]);
    batch
}

/// Publishes so many revisions of a service, each of which puts the same instance.
fn churn(hub: &Hub, service: &str, revisions: usize) {
    for _ in 0..revisions {
        publish(hub, vec![put(&instance(hub, service, "churn"))]);
    }
}

/// The next step, as text: what kind, and of which revision.
fn next(watcher: &mut Watcher) -> Option<String> {
    let step = watcher.try_next(now(0).moment)?;
    let told = match &step.told {
        Told::Part(part) => format!("{:?} snapshot of {}", part.cause, part.instances().len()),
        Told::Delta(batch) => format!("delta of {}", batch.changes.len()),
        Told::Bookmark => "bookmark".to_owned(),
    };
    Some(format!("{told} at {}", step.revision))
}

/// A watcher of all of a service that has been told its snapshot.
fn watching(hub: &Arc<Hub>, service: &str) -> Watcher {
    let mut watcher = hub.watch(&scope(service), WatchFrom::Nothing).expect("watches");
    assert!(next(&mut watcher).expect("a snapshot").starts_with("Initial"));
    watcher
}

#[test]
fn feeds_live_as_long_as_their_watchers() {
    let hub = hub();
    let feeds = || hub.feeds().iter().count();
    let one = hub.watch(&scope("a"), WatchFrom::Nothing).expect("watches");
    let two = hub.watch(&scope("a"), WatchFrom::Nothing).expect("watches");
    let all = hub.watch(&scope(""), WatchFrom::Nothing).expect("watches");
    assert_eq!(feeds(), 2, "one for each selection");
    drop(one);
    assert_eq!(feeds(), 2);
    drop((two, all));
    assert_eq!(feeds(), 0);
}

/// The records of leases in a batch are the store's: with a thousand names that were taken they outweigh the change, and the
/// history, which does not count them, kept them for as long as it kept the change.
#[test]
fn the_history_keeps_no_leases() {
    let hub = hub();
    let batch = Batch {
        revision: Revision::new(1),
        at: WALL,
        changes: vec![put(&instance(&hub, "a", "1"))],
        leases: vec![crate::catalog::LeaseChange::Ended(LeaseId::from_random(1))],
        overrides: Vec::new(),
        by: None,
        trace: None,
    };
    hub.publish(&[Arc::new(batch)]);
    let state = hub.read();
    assert_eq!(state.past.batches().len(), 1);
    assert!(state.past.batches().all(|batch| batch.leases.is_empty()));
}
