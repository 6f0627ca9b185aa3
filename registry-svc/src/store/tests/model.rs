//! What a store must hold, and batches to put into it.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use crate::{
    catalog::{Batch, Change, LeaseChange, LeaseRecord, OverrideChange, Removal},
    fixtures::{WALL, draft, heartbeat, key},
    model::{
        Act, Detail, Instance, InstanceKey, LeaseId, LeaseSecret, Metadata, Override, Registrant, RemovalReason,
        ReplicaId, Revision, Ruling, WallTime, Weight, Who,
    },
    store::{Loaded, Store},
};

/// What a store must hold after some batches.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::store) struct Model {
    revision: Revision,
    compacted: Revision,
    instances: BTreeMap<InstanceKey, Arc<Instance>>,
    leases: BTreeMap<LeaseId, LeaseRecord>,
    overrides: BTreeMap<InstanceKey, Arc<Override>>,
    history: Vec<Batch>,
}

impl Model {
    /// Takes a batch in.
    pub(in crate::store) fn apply(&mut self, batch: &Batch) {
        self.revision = batch.revision;
        for change in &batch.changes {
            match change {
                Change::Put { instance, .. } => {
                    self.instances.insert(instance.key.clone(), Arc::clone(instance));
                }
                Change::Removed(removal) => {
                    self.instances.remove(&removal.key);
                }
            }
        }
        for change in &batch.leases {
            match change {
                LeaseChange::Kept(record) | LeaseChange::Lost(record) => {
                    self.leases.insert(record.id, record.clone());
                }
                LeaseChange::Ended(id) => {
                    self.leases.remove(id);
                }
            }
        }
        for change in &batch.overrides {
            match &change.now {
                Some(laid) => drop(self.overrides.insert(change.key.clone(), Arc::clone(laid))),
                None => drop(self.overrides.remove(&change.key)),
            }
        }
        self.history.push(Batch {
            leases: Vec::new(),
            ..batch.clone()
        });
    }

    /// Forgets the history up to and with a revision.
    pub(in crate::store) fn compact(&mut self, compacted: Revision) {
        self.compacted = compacted;
        self.history.retain(|batch| batch.revision > compacted);
    }

    /// Of the last batch.
    pub(in crate::store) fn revision(&self) -> Revision {
        self.revision
    }

    /// The last revision that the history no longer has.
    pub(in crate::store) fn compacted(&self) -> Revision {
        self.compacted
    }

    /// What the store has.
    pub(in crate::store) fn of(store: &mut impl Store) -> Self {
        let Loaded {
            revision,
            compacted,
            instances,
            leases,
            overrides,
            ..
        } = store.load().expect("loads");
        Self {
            revision,
            compacted,
            instances: instances
                .into_iter()
                .map(|instance| (instance.key.clone(), instance))
                .collect(),
            leases: leases.into_iter().map(|lease| (lease.id, lease)).collect(),
            overrides: overrides.into_iter().map(|record| (record.key, record.laid)).collect(),
            history: store.history().expect("has a history"),
        }
    }
}

/// A batch that touches every field that is stored. Every third instance has something laid over it, also when it leaves, and
/// every fifth revision takes that away.
pub(in crate::store) fn batch(revision: u64, id: u8, removes: bool) -> Arc<Batch> {
    let revision = Revision::new(revision);
    let lease = LeaseId::from_random(u128::from(id) << 100 | 7);
    let mut wanted = draft("a-svc", &format!("i{id}"), "z1");
    wanted.spec.metadata = Metadata::try_new([("k".to_owned(), revision.to_string())].into_iter()).expect("fits");
    wanted.started_at = Some(WallTime {
        seconds: 1,
        nanos: 999_999_999,
    });
    let laid = (id.is_multiple_of(3) && !revision.get().is_multiple_of(5)).then(|| laid(revision));
    let instance = Arc::new(Instance {
        governance: laid.clone(),
        ..wanted.registered(revision, lease, WALL)
    });
    // What needs room is what does without it too.
    let act = match (removes, laid.is_some()) {
        (true, true) => Act::Drained,
        (true, false) => Act::DrainEnded,
        (false, true) => Act::WeightSet(Weight::try_new(0).expect("a weight")),
        (false, false) => Act::Undrained,
    };
    let decided = id.is_multiple_of(3).then(|| OverrideChange {
        key: instance.key.clone(),
        act,
        who: laid.as_ref().map(|_| who()),
        why: Detail::of("a disk"),
        now: laid,
    });
    let labels = instance.spec.labels.clone();
    let (change, lease) = if removes {
        let (reason, detail) = (RemovalReason::Expired, Detail::of("gone"));
        let removal = Removal {
            key: instance.key.clone(),
            labels,
            reason,
            detail,
        };
        (Change::Removed(removal), LeaseChange::Ended(lease))
    } else {
        let secret = secret(revision).hash();
        let replaced = vec![key("a-svc", "taken")];
        let heartbeat = heartbeat(100 + u64::from(id));
        let record = LeaseRecord {
            id: lease,
            secret,
            heartbeat,
            owner: ReplicaId::from_bits(id.into()),
            replaced,
            emptied: id.is_multiple_of(2),
            registrant: Registrant::from_bits(id.into()),
        };
        (
            Change::Put {
                instance,
                left: Some(labels),
            },
            LeaseChange::Kept(record),
        )
    };
    Arc::new(Batch {
        revision,
        at: WALL,
        changes: vec![change],
        leases: vec![lease],
        overrides: decided.into_iter().collect(),
        by: Some(Who::of("10.0.0.7:4711")),
        trace: None,
    })
}

fn who() -> Who {
    Who::try_new("ann").expect("a name")
}

fn laid(revision: Revision) -> Arc<Override> {
    let ruling = |until| Ruling {
        who: who(),
        why: Detail::of("a disk"),
        until,
        at: WALL,
        revision,
    };
    Arc::new(Override {
        drain: Some(ruling(None)),
        weight: Some((Weight::try_new(0).expect("a weight"), ruling(Some(WALL)))),
    })
}

/// The secret of the lease that [`batch`] grants.
pub(in crate::store) fn secret(revision: Revision) -> LeaseSecret {
    LeaseSecret::from_random(u128::from(revision.get()) << 64 | 0xfeed)
}

/// The same batch as a version had it that knew no overrides.
pub(in crate::store) fn plain(batch: &Batch) -> Batch {
    let plain = |change: &Change| match change {
        Change::Put { instance, left } => Change::Put {
            instance: Arc::new(Instance {
                governance: None,
                health: crate::model::Health::Unprobed,
                ..Instance::clone(instance)
            }),
            left: left.clone(),
        },
        removed => removed.clone(),
    };
    Batch {
        changes: batch.changes.iter().map(plain).collect(),
        overrides: Vec::new(),
        by: None,
        trace: None,
        ..batch.clone()
    }
}

/// The same batch as the next one after `newest`.
pub(in crate::store) fn after(newest: Revision, batch: &Batch) -> Arc<Batch> {
    Arc::new(Batch {
        revision: newest.next(),
        ..batch.clone()
    })
}

/// A batch of so many instances with all the metadata that one may have, under one lease.
pub(in crate::store) fn large(revision: u64, instances: u16) -> Arc<Batch> {
    let mut whole = (*batch(revision, 1, false)).clone();
    let lease = LeaseId::from_random(1_u128 << 100 | 7);
    let pairs: Vec<_> = (0..15)
        .map(|n| (format!("k{n}"), format!("{revision:04}").repeat(256)))
        .collect();
    whole.changes.extend((0..instances).map(|n| {
        let mut wanted = draft("large-svc", &format!("i{n}"), "z1");
        wanted.spec.metadata = Metadata::try_new(pairs.clone().into_iter()).expect("fits");
        wanted.started_at = Some(WALL);
        let instance = Arc::new(wanted.registered(whole.revision, lease, WALL));
        Change::Put { instance, left: None }
    }));
    Arc::new(whole)
}

/// Groups of batches, as sizes and contents.
pub(in crate::store) fn groups() -> impl Strategy<Value = Vec<Vec<Arc<Batch>>>> {
    let changes = proptest::collection::vec((0..6_u8, proptest::bool::weighted(0.3)), 1..5);
    proptest::collection::vec(changes, 1..12).prop_map(|groups| {
        let mut revision = 0;
        let mut number = |(id, removes): (u8, bool)| {
            revision += 1;
            batch(revision, id, removes)
        };
        groups
            .into_iter()
            .map(|group| group.into_iter().map(&mut number).collect())
            .collect()
    })
}
