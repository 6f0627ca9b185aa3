//! The hub against a model: whatever watchers do, what they were told is the state at the revision they were told of.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::{Step as Tell, *};
use crate::{
    catalog::{Catalog, Command, Settings},
    fixtures::{WALL, draft, end, grant, heartbeat, join, now, scope},
    model::{HistoryId, InstanceKey, Zone},
};

type State = BTreeMap<InstanceKey, Arc<Instance>>;

/// A change of the world, or of a watcher.
#[derive(Debug, Clone)]
enum Step {
    Register {
        lease: u128,
        ids: Vec<u8>,
        zone: u8,
    },
    Join {
        lease: u128,
        ids: Vec<u8>,
        zone: u8,
    },
    End {
        lease: u128,
    },
    /// A watcher takes so many steps.
    Read {
        watcher: usize,
        steps: usize,
    },
    /// A watcher hangs up and resumes after what it was told.
    Resume {
        watcher: usize,
    },
    /// The registry restarts; watchers resume.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ids = || proptest::collection::btree_set(0..6_u8, 1..4).prop_map(|ids| ids.into_iter().collect::<Vec<u8>>());
    let step = prop_oneof![
        3 => (0..5_u128, ids(), 0..2_u8).prop_map(|(lease, ids, zone)| Step::Register { lease, ids, zone }),
        3 => (0..5_u128, ids(), 0..2_u8).prop_map(|(lease, ids, zone)| Step::Join { lease, ids, zone }),
        2 => (0..5_u128).prop_map(|lease| Step::End { lease }),
        8 => (0..WATCHERS, 1..4_usize).prop_map(|(watcher, steps)| Step::Read { watcher, steps }),
        2 => (0..WATCHERS).prop_map(|watcher| Step::Resume { watcher }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..120)
}

const WATCHERS: usize = 4;

/// One of each kind: all, a service, a zone of everything, a zone of a service.
fn selection(watcher: usize) -> Selection {
    let mut selection = scope(["", "a"][watcher % 2]);
    if watcher >= 2 {
        selection.zone = Some(Zone::try_new("z0").expect("a zone"));
    }
    selection
}

fn drafts(ids: &[u8], zone: u8) -> Vec<crate::model::Draft> {
    let service = |id: u8| ["a", "b"][usize::from(id % 2)];
    ids.iter()
        .map(|id| draft(service(*id), &id.to_string(), &format!("z{zone}")))
        .collect()
}

/// A client's side of a watch.
struct Client {
    watcher: Watcher,
    selection: Selection,
    known: State,
    at: Option<Revision>,
}

impl Client {
    fn begin(hub: &Arc<Hub>, selection: Selection) -> Self {
        let watcher = hub
            .watch(selection.clone(), WatchFrom::Nothing)
            .expect("from the beginning");
        Self {
            watcher,
            selection,
            known: State::new(),
            at: None,
        }
    }

    fn resume(&mut self, hub: &Arc<Hub>) {
        self.watcher = hub
            .watch(
                self.selection.clone(),
                self.at.map_or(WatchFrom::Nothing, WatchFrom::Revision),
            )
            .expect("what was told is no future");
    }

    /// Takes a step and holds it against the states of all revisions. False when there is nothing to tell.
    fn read(&mut self, states: &[State]) -> bool {
        let Some(step) = self.watcher.try_next() else {
            return false;
        };
        let revision = match step {
            Tell::Snapshot {
                revision,
                cause,
                instances,
            } => {
                assert_eq!(
                    cause == Cause::Initial,
                    self.at.is_none(),
                    "a watch that was told something resumes"
                );
                assert!(instances.is_sorted_by(|a, b| a.key < b.key), "by service and id");
                self.known = instances
                    .into_iter()
                    .map(|instance| (instance.key.clone(), instance))
                    .collect();
                assert!(
                    self.at.is_none_or(|at| revision > at),
                    "a snapshot replaces what is older"
                );
                revision
            }
            Tell::Delta { revision, events, .. } => {
                assert!(self.at.is_some_and(|at| revision > at), "ordered and unique");
                assert!(!events.is_empty());
                for event in events {
                    match event {
                        Told::Put(instance) => {
                            self.known.insert(instance.key.clone(), instance);
                        }
                        Told::Removed(removal) => {
                            assert!(self.known.remove(&removal.key).is_some(), "{} was known", removal.key);
                        }
                    }
                }
                revision
            }
            Tell::Bookmark { revision } => {
                assert!(self.at.is_some_and(|at| revision >= at));
                revision
            }
        };
        // Reliable and atomic: what is known is exactly the selection of that very revision.
        let index = usize::try_from(revision.get()).expect("small");
        let expected: State = states[index]
            .iter()
            .filter(|(_, instance)| self.selection.holds(instance))
            .map(|(key, instance)| (key.clone(), Arc::clone(instance)))
            .collect();
        assert_eq!(self.known, expected, "at {revision}");
        self.at = Some(revision);
        true
    }
}

const LIMITS: HistoryLimits = HistoryLimits {
    revisions: 6,
    bytes: usize::MAX,
};

fn hub() -> Arc<Hub> {
    Arc::new(Hub::restore(
        LIMITS,
        HistoryId::default(),
        Revision::ZERO,
        Revision::ZERO,
        &[],
        Vec::new(),
        Confidence::Fresh,
    ))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn watchers_know_the_state_of_the_revision_they_are_at(steps in steps()) {
        let mut catalog = Catalog::restore(Settings::default(), Revision::ZERO, Vec::new(), &[], now(0).moment);
        let mut hub = hub();
        let mut states = vec![State::new()];
        let mut clients: Vec<Client> = (0..WATCHERS).map(|n| Client::begin(&hub, selection(n))).collect();
        for step in steps {
            let command = match step {
                Step::Register { lease, ids, zone } => {
                    Command::Register(grant(lease, heartbeat(100), drafts(&ids, zone)))
                }
                Step::Join { lease, ids, zone } => Command::Register(join(lease, drafts(&ids, zone))),
                Step::End { lease } => Command::Deregister(end(lease, &[])),
                Step::Read { watcher, steps } => {
                    for _ in 0..steps {
                        clients[watcher].read(&states);
                    }
                    continue;
                }
                Step::Resume { watcher } => {
                    clients[watcher].resume(&hub);
                    continue;
                }
                Step::Restart => {
                    let (view, compacted, history) = {
                        let state = hub.read();
                        let history = state.history.iter().map(|batch| Batch::clone(batch)).collect();
                        (state.view.revision, state.window.compacted(), history)
                    };
                    let instances: Vec<_> = states.last().expect("one").values().cloned().collect();
                    hub = Arc::new(Hub::restore(LIMITS, HistoryId::default(), view, compacted, &instances, history, Confidence::Recovering));
                    for client in &mut clients {
                        client.resume(&hub);
                    }
                    continue;
                }
            };
            if let Some(batch) = catalog.apply(&command, WALL).batch {
                let mut state = states.last().expect("one").clone();
                for change in &batch.changes {
                    match change {
                        crate::catalog::Change::Put { instance, .. } => {
                            state.insert(instance.key.clone(), Arc::clone(instance));
                        }
                        crate::catalog::Change::Removed(removal) => {
                            state.remove(&removal.key);
                        }
                    }
                }
                states.push(state);
                hub.publish(&[batch]);
            }
        }
        // In the end everybody catches up.
        for client in &mut clients {
            while client.read(&states) {}
            let last = Tell::Bookmark { revision: Revision::new(states.len() as u64 - 1) };
            prop_assert_eq!(format!("{:?}", client.watcher.bookmark()), format!("{last:?}"));
        }
    }
}

#[test]
fn topics_live_as_long_as_their_watchers() {
    let hub = hub();
    let topics = || hub.read().topics.len();
    let one = hub.watch(scope("a"), WatchFrom::Nothing).expect("watches");
    let two = hub.watch(scope("a"), WatchFrom::Nothing).expect("watches");
    let all = hub.watch(scope(""), WatchFrom::Nothing).expect("watches");
    assert_eq!(topics(), 2, "one for each scope");
    drop(one);
    assert_eq!(topics(), 2);
    drop((two, all));
    assert_eq!(topics(), 0);
}

#[test]
fn the_store_is_told_what_the_history_will_have_lost() {
    let hub = hub();
    let mut catalog = Catalog::restore(Settings::default(), Revision::ZERO, Vec::new(), &[], now(0).moment);
    let mut batches = Vec::new();
    for n in 0..9 {
        let command = Command::Register(grant(n, heartbeat(100), drafts(&[1], 0)));
        batches.extend(catalog.apply(&command, WALL).batch);
    }
    let told = hub.compacted_after(&batches);
    hub.publish(&batches);
    assert_eq!(
        (
            told.get(),
            hub.read().window.compacted().get(),
            hub.read().history.len()
        ),
        (3, 3, 6)
    );
}

/// The records of leases in a batch are the store's: with a thousand names that were taken they outweigh the change, and the
/// history, which does not count them, kept them for as long as it kept the change.
#[test]
fn the_history_keeps_no_leases() {
    let hub = hub();
    let mut catalog = Catalog::restore(Settings::default(), Revision::ZERO, Vec::new(), &[], now(0).moment);
    for n in 0..3 {
        let command = Command::Register(grant(n, heartbeat(100), drafts(&[1], 0)));
        let batch = catalog.apply(&command, WALL).batch.expect("a batch");
        assert!(!batch.leases.is_empty());
        hub.publish(&[batch]);
    }
    let state = hub.read();
    assert_eq!(state.history.len(), 3);
    assert!(state.history.iter().all(|batch| batch.leases.is_empty()));
}

#[tokio::test]
async fn a_change_wakes_the_watchers_of_its_service_and_of_its_namespace_alone() {
    use std::{pin::pin, task::Poll};
    let hub = hub();
    let mut catalog = Catalog::restore(Settings::default(), Revision::ZERO, Vec::new(), &[], now(0).moment);
    let mut watchers: Vec<Watcher> = ["a", "b", ""]
        .iter()
        .map(|service| hub.watch(scope(service), WatchFrom::Nothing).expect("watches"))
        .collect();
    let command = Command::Register(grant(1, heartbeat(100), vec![draft("a", "1", "")]));
    hub.publish(&[catalog.apply(&command, WALL).batch.expect("a batch")]);
    let mut woken = Vec::new();
    for watcher in &mut watchers {
        let mut changed = pin!(watcher.changed());
        woken.push(futures_util::poll!(&mut changed) == Poll::Ready(()));
    }
    assert_eq!(woken, [true, false, true]);
}
