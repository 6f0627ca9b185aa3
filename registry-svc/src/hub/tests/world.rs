//! Random histories, and watchers that read them at random: what happened, and what each of them heard.

use std::{collections::BTreeMap, iter};

use proptest::prelude::*;

use super::*;
use crate::model::{InstanceKey, Label, Labels, Namespace, Version, Zone};

/// The instances at a revision.
pub(super) type World = BTreeMap<InstanceKey, Arc<Instance>>;

/// How many watchers there are; each has its own selection.
pub(super) const WATCHERS: usize = 10;

/// A change of the world, or of a watcher.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Revisions that become durable, and are published, together.
    Publish(Vec<Vec<Edit>>),
    /// A watcher takes so many messages.
    Read { watcher: usize, messages: usize },
    /// A watcher hangs up, perhaps in the middle of a snapshot, and resumes after what it was told.
    Resume { watcher: usize },
    /// A watcher forgets everything and begins anew.
    Forget { watcher: usize },
    /// So much time passes that nobody who is in the middle of a snapshot can read on in it.
    Stall,
    /// The registry restarts on what its store has kept; watchers resume.
    Restart,
}

/// A change of one instance.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    slot: u8,
    labels: u8,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Its owner registers it, perhaps with other labels.
    Put,
    /// Another lease takes its id.
    Take,
    /// It leaves.
    Remove,
}

/// What a watcher heard, in order.
#[derive(Debug, Clone)]
pub(super) enum Heard {
    /// It began.
    Opened {
        /// What it had been told before; `None`: it knows nothing.
        after: Option<Revision>,
        /// What the history had lost at that moment.
        compacted: Revision,
    },
    /// All parts of a snapshot.
    Snapshot {
        revision: Revision,
        cause: Cause,
        instances: Vec<Arc<Instance>>,
        /// What the history had lost when it was begun.
        compacted: Revision,
    },
    Delta {
        revision: Revision,
        events: Vec<Event>,
    },
    Bookmark {
        revision: Revision,
    },
}

/// A watcher and what it heard.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) selection: Selection,
    pub(super) heard: Vec<Heard>,
}

/// What happened, and what was heard of it.
#[derive(Debug)]
pub(super) struct Story {
    /// The world at each revision, from 0.
    pub(super) worlds: Vec<World>,
    /// The batch of each revision, from 1.
    pub(super) batches: Vec<Arc<Batch>>,
    pub(super) logs: Vec<Log>,
}

/// A client's side of a watch.
struct Client {
    watcher: Watcher,
    log: Log,
    /// Parts of a snapshot that is not complete.
    parts: Vec<Arc<Instance>>,
    /// Why it was begun, and with what the history had lost then.
    begun: Option<(Cause, Revision)>,
    at: Option<Revision>,
}

pub(super) fn acts() -> impl Strategy<Value = Vec<Act>> {
    let kind = prop_oneof![4 => Just(Kind::Put), 1 => Just(Kind::Take), 2 => Just(Kind::Remove)];
    let edit = (0..SLOTS, 0..16_u8, kind).prop_map(|(slot, labels, kind)| Edit { slot, labels, kind });
    // A revision may change nothing that is told: a lease that ends empty makes one too.
    let revision = proptest::collection::vec(edit, 0..5);
    let act = prop_oneof![
        8 => proptest::collection::vec(revision, 1..4).prop_map(Act::Publish),
        12 => (0..WATCHERS, 1..6_usize).prop_map(|(watcher, messages)| Act::Read { watcher, messages }),
        3 => (0..WATCHERS).prop_map(|watcher| Act::Resume { watcher }),
        1 => (0..WATCHERS).prop_map(|watcher| Act::Forget { watcher }),
        1 => Just(Act::Stall),
        1 => Just(Act::Restart),
    ];
    proptest::collection::vec(act, 1..100)
}

/// Two namespaces with two services of three instances each.
const SLOTS: u8 = 12;

fn key(slot: u8) -> InstanceKey {
    let namespace = ["", "staging"][usize::from(slot / 6)];
    let service = ["a", "b"][usize::from(slot / 3 % 2)];
    let key = crate::fixtures::key(service, &(slot % 3).to_string());
    let namespace = Namespace::try_new(namespace).expect("a name");
    InstanceKey::new(namespace, key.service.clone(), key.id)
}

/// One bit for each kind of label.
fn labels(bits: u8) -> Labels {
    let either = |bit: u8, options: [&'static str; 2]| options[usize::from(bits >> bit & 1)];
    Labels {
        version: Version::try_new(either(0, ["1.0.0", "2.0.0"])).expect("a version"),
        group: Label::try_new(either(1, ["", "blue"])).expect("a label"),
        zone: Zone::try_new(either(2, ["z0", "z1"])).expect("a zone"),
        tag: Label::try_new(either(3, ["", "canary"])).expect("a label"),
    }
}

/// One of each kind that a client can ask for, and some that combine them.
fn selection(watcher: usize) -> Selection {
    let some = labels(0b1111);
    let mut selection = scope(["a", "a", "a", "a", "a", "", "", "", "b", ""][watcher]);
    match watcher {
        1 => selection.version = Some(some.version),
        2 => selection.group = Some(some.group),
        3 => selection.zone = Some(some.zone),
        4 => selection.tag = Some(some.tag),
        6 => selection.zone = Some(some.zone),
        7 => (selection.version, selection.tag) = (Some(some.version), Some(some.tag)),
        8 => (selection.group, selection.zone) = (Some(some.group), Some(some.zone)),
        9 => selection.scope.namespace = Namespace::try_new("staging").expect("a name"),
        _ => {}
    }
    selection
}

/// The batch that these edits make of a world.
fn batch(world: &mut World, revision: Revision, edits: &[Edit]) -> Batch {
    let mut changes = Vec::new();
    let mut done = Vec::new();
    for Edit {
        slot,
        labels: bits,
        kind,
    } in edits
    {
        // No instance changes twice in one revision.
        if done.contains(slot) {
            continue;
        }
        done.push(*slot);
        let key = key(*slot);
        let old = world.get(&key).cloned();
        let mut draft = draft("a", "0", "");
        draft.key = key.clone();
        draft.spec.labels = labels(*bits);
        let new = Arc::new(draft.registered(revision, LeaseId::from_random(1), WALL));
        let removal = |reason, old: &Instance| {
            Change::Removed(Removal {
                key: key.clone(),
                labels: old.spec.labels.clone(),
                reason,
                detail: Detail::of(""),
            })
        };
        match (kind, old) {
            (Kind::Remove, None) => {}
            (Kind::Remove, Some(old)) => {
                changes.push(removal(RemovalReason::Expired, &old));
                world.remove(&key);
            }
            (Kind::Put, old) => {
                let left = old.map(|old| old.spec.labels.clone());
                changes.push(Change::Put {
                    instance: Arc::clone(&new),
                    left: left.filter(|left| *left != new.spec.labels),
                });
                world.insert(key, new);
            }
            (Kind::Take, old) => {
                changes.extend(old.map(|old| removal(RemovalReason::Replaced, &old)));
                changes.push(put(&new));
                world.insert(key, new);
            }
        }
    }
    Batch {
        revision,
        at: WALL,
        changes,
        leases: Vec::new(),
        overrides: Vec::new(),
        by: None,
        trace: None,
    }
}

/// Parts of two instances: nearly every snapshot has some.
fn with_small_parts(hub: Hub) -> Arc<Hub> {
    let two = 2 * batch(
        &mut World::new(),
        Revision::ZERO,
        &[Edit {
            slot: 0,
            labels: 0,
            kind: Kind::Put,
        }],
    )
    .bytes();
    Arc::new(Hub { part_bytes: two, ..hub })
}

impl Client {
    fn begin(hub: &Arc<Hub>, selection: Selection) -> Self {
        let mut client = Self {
            watcher: hub.watch(&selection, WatchFrom::Nothing).expect("from the beginning"),
            log: Log {
                selection,
                heard: Vec::new(),
            },
            parts: Vec::new(),
            begun: None,
            at: None,
        };
        client.resume(hub);
        client
    }

    fn resume(&mut self, hub: &Arc<Hub>) {
        let from = self.at.map_or(WatchFrom::Nothing, WatchFrom::Revision);
        self.watcher = hub
            .watch(&self.log.selection, from)
            .expect("what was told is no future");
        self.parts.clear();
        self.begun = None;
        self.log.heard.push(Heard::Opened {
            after: self.at,
            compacted: hub.read().past.compacted(),
        });
    }

    /// Takes one message. False when there is nothing to tell.
    fn read(&mut self, hub: &Hub) -> bool {
        let Some(step) = self.watcher.try_next(now(0).moment) else {
            return false;
        };
        let revision = step.revision;
        self.log.heard.push(match step.told {
            Told::Part(part) => {
                if part.is_first() {
                    self.parts.clear();
                    let again = self.begun.is_some();
                    assert!(!again || part.cause == Cause::Coalesced, "{:?}", part.cause);
                    let compacted = hub.read().past.compacted();
                    self.begun.get_or_insert((part.cause, compacted));
                }
                self.parts.extend_from_slice(part.instances());
                if part.has_more() {
                    return true;
                }
                let (cause, compacted) = self.begun.take().expect("begun");
                Heard::Snapshot {
                    revision,
                    cause,
                    instances: std::mem::take(&mut self.parts),
                    compacted,
                }
            }
            Told::Delta(batch) => Heard::Delta {
                revision,
                events: step::events(&batch, &self.log.selection),
            },
            Told::Bookmark => Heard::Bookmark { revision },
        });
        self.at = Some(revision);
        true
    }
}

/// Lets it all happen. In the end everybody catches up.
pub(super) fn play(acts: Vec<Act>) -> Story {
    let mut hub = with_small_parts(Hub::restore(Restored::empty(LIMITS)));
    let mut worlds = vec![World::new()];
    let mut batches: Vec<Arc<Batch>> = Vec::new();
    let mut clients: Vec<Client> = (0..WATCHERS).map(|n| Client::begin(&hub, selection(n))).collect();
    for act in acts {
        match act {
            Act::Publish(revisions) => {
                let mut group = Vec::new();
                for edits in revisions {
                    let mut world = worlds.last().expect("one").clone();
                    let revision = Revision::new(worlds.len() as u64);
                    group.push(Arc::new(batch(&mut world, revision, &edits)));
                    worlds.push(world);
                }
                hub.publish(&group);
                batches.extend(group);
            }
            Act::Read { watcher, messages } => {
                let _ = (0..messages).take_while(|_| clients[watcher].read(&hub)).count();
            }
            Act::Resume { watcher } => clients[watcher].resume(&hub),
            Act::Forget { watcher } => {
                clients[watcher].at = None;
                clients[watcher].resume(&hub);
            }
            Act::Stall => hub.tidy(now(30_000).moment),
            Act::Restart => {
                hub = restarted(&hub, worlds.last().expect("one"));
                for client in &mut clients {
                    client.resume(&hub);
                }
            }
        }
        hub.read().past.check_invariants();
    }
    for client in &mut clients {
        while client.read(&hub) {}
        let revision = client.watcher.bookmark(now(0).moment).expect("always").revision;
        client.log.heard.push(Heard::Bookmark { revision });
    }
    Story {
        worlds,
        batches,
        logs: clients.into_iter().map(|client| client.log).collect(),
    }
}

fn restarted(hub: &Hub, world: &World) -> Arc<Hub> {
    let state = hub.read();
    let instances: Vec<_> = world.values().cloned().collect();
    with_small_parts(Hub::restore(Restored {
        revision: state.view.revision,
        compacted: state.past.compacted(),
        instances: &instances,
        history: state.past.batches().map(|batch| Batch::clone(batch)).collect(),
        ..Restored::empty(LIMITS)
    }))
}

impl Story {
    /// The selected instances at a revision.
    pub(super) fn selected(&self, selection: &Selection, revision: Revision) -> World {
        let world = &self.worlds[usize::try_from(revision.get()).expect("small")];
        let selected = world.iter().filter(|(_, instance)| selection.holds(instance));
        selected
            .map(|(key, instance)| (key.clone(), Arc::clone(instance)))
            .collect()
    }

    /// What is to be told of the revisions after `after` up to and with `until`.
    pub(super) fn expected(
        &self,
        selection: &Selection,
        after: Revision,
        until: Revision,
    ) -> impl Iterator<Item = (Revision, Vec<Event>)> {
        let batches = self
            .batches
            .iter()
            .skip_while(move |batch| batch.revision <= after)
            .take_while(move |batch| batch.revision <= until);
        batches.filter_map(|batch| {
            let events = step::events(batch, selection);
            (!events.is_empty()).then_some((batch.revision, events))
        })
    }
}

impl Heard {
    /// Everything up to it has been told, after this.
    pub(super) fn revision(&self) -> Option<Revision> {
        match self {
            Self::Opened { .. } => None,
            Self::Snapshot { revision, .. } | Self::Delta { revision, .. } | Self::Bookmark { revision } => {
                Some(*revision)
            }
        }
    }
}

impl Log {
    /// What was heard, each with what had been told up to then; `None` after a new beginning from nothing.
    pub(super) fn with_before(&self) -> impl Iterator<Item = (Option<Revision>, &Heard)> {
        let before = iter::once(None).chain(self.heard.iter().scan(None, |at, heard| {
            *at = match heard {
                Heard::Opened { after, .. } => *after,
                _ => heard.revision(),
            };
            Some(*at)
        }));
        before.zip(&self.heard)
    }
}
