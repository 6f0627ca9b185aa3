//! What is written by hand against the generated types: the same responses, field by field.

use std::{cell::RefCell, sync::Arc};

use bytes::Buf as _;
use wire::watch_response::Change as Told;

use super::*;
use crate::{
    catalog::{Batch, Change},
    fixtures::{WALL, draft, now, scope},
    history::HistoryLimits,
    hub::{Hub, Restored, Trust, View, WatchFrom, Watcher},
    model::{Detail, Instance, LeaseId, Metadata, RemovalReason},
};

const LIMITS: HistoryLimits = HistoryLimits {
    revisions: 10,
    bytes: usize::MAX,
};

fn instance(id: &str, metadata_bytes: usize) -> Arc<Instance> {
    let mut draft = draft("a", id, "z1");
    let pairs = (0..metadata_bytes / 1_000).map(|n| (format!("k{n}"), "v".repeat(1_000)));
    draft.spec.metadata = Metadata::try_new(pairs).expect("fits");
    Arc::new(draft.registered(Revision::new(300), LeaseId::from_random(1), WALL))
}

fn publish(hub: &Hub, changes: Vec<Change>) {
    let batch = Batch {
        revision: hub.look(View::revision).next(),
        at: WALL,
        changes,
        leases: Vec::new(),
        overrides: Vec::new(),
        by: None,
        trace: None,
    };
    hub.publish(&[Arc::new(batch)]);
}

/// An event as the generated types have it.
fn generated(event: &Event, at: WallTime) -> wire::InstanceEvent {
    use wire::instance_event;
    let event = match event {
        Event::Put(instance) => instance_event::Event::Put(instance::to_wire(instance)),
        Event::Removed(removal) => instance_event::Event::Removed(removed(removal, at)),
    };
    wire::InstanceEvent { event: Some(event) }
}

/// The next step of a watcher: sent by hand, and what the generated types make of the same.
fn both(watcher: &mut Watcher) -> (Outgoing, wire::WatchResponse) {
    let step = watcher.try_next(now(2_500).moment).expect("something to tell");
    let seen = RefCell::default();
    let shared = watcher.encoded(&step, |content| {
        let change = match content {
            Content::Instances(instances) => Told::Snapshot(wire::Snapshot {
                instances: instances.iter().map(|instance| instance::to_wire(instance)).collect(),
                ..Default::default()
            }),
            Content::Events { at, trace, events } => Told::Delta(wire::Delta {
                events: events.iter().map(|told| generated(told, *at)).collect(),
                traceparent: trace.map(|trace| trace.to_string()).unwrap_or_default(),
            }),
        };
        seen.replace(Some(change));
        super::shared(content)
    });
    let mut change = seen.take().unwrap_or(Told::Bookmark(wire::Bookmark {}));
    if let (Told::Snapshot(snapshot), crate::hub::Told::Part(part)) = (&mut change, &step.told) {
        snapshot.cause = cause(part.cause).into();
        snapshot.more = part.has_more();
    }
    let expected = wire::WatchResponse {
        revision: instance::number(step.revision),
        confidence: Some(instance::confidence(step.confidence)),
        change: Some(change),
        watch_id: "0123456789abcdef0123456789abcdef".into(),
        history_id: "fedcba9876543210".into(),
    };
    let names = Names::new(expected.watch_id.clone(), expected.history_id.clone());
    (message(&step, &names, shared), expected)
}

fn check(watcher: &mut Watcher) -> (wire::WatchResponse, bool) {
    let (Outgoing { head, rest }, expected) = both(watcher);
    let is_in_two = rest.is_some();
    let mut bytes = head.chain(rest.unwrap_or_default());
    assert_eq!(bytes.get_u8(), 0, "not compressed");
    assert_eq!(usize::try_from(bytes.get_u32()).expect("fits"), bytes.remaining());
    assert_eq!(bytes.remaining(), expected.encoded_len(), "not a byte more than usual");
    let decoded = wire::WatchResponse::decode(bytes).expect("decodes");
    assert_eq!(decoded, expected);
    (decoded, is_in_two)
}

#[test]
fn clients_see_what_the_generated_types_would_have_sent() {
    let hub = Arc::new(Hub::restore(Restored {
        revision: Revision::new(300),
        compacted: Revision::new(300),
        instances: &[instance("1", 0), instance("2", 15_000)],
        ..Restored::empty(LIMITS)
    }));
    let mut watcher = hub.watch(&scope("a"), WatchFrom::Nothing).expect("watches");
    let (snapshot, is_in_two) = check(&mut watcher);
    assert!(matches!(snapshot.change, Some(Told::Snapshot(snapshot)) if snapshot.instances.len() == 2));
    assert!(is_in_two, "a large one is shared and not copied");

    let gone = instance("1", 0);
    let removal = Removal {
        key: gone.key.clone(),
        labels: gone.spec.labels.clone(),
        reason: RemovalReason::Expired,
        detail: Detail::of("silent"),
    };
    publish(
        &hub,
        vec![
            Change::Removed(removal),
            Change::Put {
                instance: instance("3", 0),
                left: None,
            },
        ],
    );
    let (delta, is_in_two) = check(&mut watcher);
    assert!(matches!(delta.change, Some(Told::Delta(delta)) if delta.events.len() == 2));
    assert!(!is_in_two);

    hub.set_trust(Trust {
        stale_since: Some(now(1_000).moment),
        ..Trust::default()
    });
    let (bookmark, _) = check(&mut watcher);
    let age = bookmark
        .confidence
        .and_then(|confidence| confidence.age)
        .expect("an age");
    assert_eq!((age.seconds, age.nanos), (1, 500_000_000));
}

/// An empty snapshot, of revision 0, has nothing but its cause: the fields that are left out are as important as the others.
#[test]
fn nothing_is_told_as_the_generated_types_tell_it() {
    let hub = Arc::new(Hub::restore(Restored::empty(LIMITS)));
    let mut watcher = hub.watch(&scope("a"), WatchFrom::Nothing).expect("watches");
    let (response, _) = check(&mut watcher);
    assert_eq!(response.revision, 0);
    publish(&hub, Vec::new());
    let from = WatchFrom::Revision(Revision::new(1));
    let mut resumed = hub.watch(&scope("a"), from).expect("watches");
    let (response, _) = check(&mut resumed);
    assert_eq!(response.change, Some(Told::Bookmark(wire::Bookmark {})));
}
