//! What the log has changed and the runs do not have yet, in memory. The log on disk is the truth; this is its index.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    catalog::{Batch, Change, LeaseChange, LeaseRecord},
    model::{Instance, InstanceKey, LeaseId, OverrideRecord},
    store::record,
};

/// Under one key.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// Shared with whoever else knows it.
    Instance(Arc<Instance>),
    /// A lease.
    Lease(Box<LeaseRecord>),
    /// What is laid over an instance.
    Override(Box<OverrideRecord>),
    /// It has ended; older runs may still have it.
    Gone,
}

/// See the module. Ordered by key.
#[derive(Debug, Default)]
pub(super) struct Recent(BTreeMap<Box<[u8]>, Entry>);

/// Keys of instances.
pub(super) fn instance_key(key: &InstanceKey) -> Box<[u8]> {
    key_of_names([key.namespace.as_str(), key.service.as_str(), key.id.as_str()])
}

/// Keys of what is laid over instances, after those of leases.
pub(super) fn override_key(key: &InstanceKey) -> Box<[u8]> {
    let mut bytes = instance_key(key);
    if let Some(kind) = bytes.first_mut() {
        *kind = OVERRIDE;
    }
    bytes
}

/// Of namespace, service and id, in the order that lists have: a zero byte is below all that names are made of.
pub(super) fn key_of_names(names: [&str; 3]) -> Box<[u8]> {
    let [namespace, service, id] = names.map(str::as_bytes);
    [&[INSTANCE], namespace, &[0], service, &[0], id].concat().into()
}

/// Keys of leases, after those of instances.
pub(super) fn lease_key(id: LeaseId) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(17);
    bytes.push(LEASE);
    bytes.extend_from_slice(&id.bits().to_be_bytes());
    bytes.into()
}

/// What is under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An instance.
    Instance,
    /// This lease.
    Lease(LeaseId),
    /// What is laid over an instance.
    Override,
}

/// What a key is of. One that we have not written is held for an instance's, and what is under it will not read as one.
pub(super) fn kind_of(key: &[u8]) -> Kind {
    match key.split_first() {
        Some((&LEASE, id)) => match <[u8; 16]>::try_from(id) {
            Ok(id) => Kind::Lease(LeaseId::from_random(u128::from_be_bytes(id))),
            Err(_) => Kind::Instance,
        },
        Some((&OVERRIDE, _)) => Kind::Override,
        _ => Kind::Instance,
    }
}

/// A key, for people.
pub(super) fn name_of(key: &[u8]) -> String {
    let names = || String::from_utf8_lossy(key.get(1..).unwrap_or_default()).replace('\0', "/");
    match kind_of(key) {
        Kind::Lease(lease) => format!("lease {lease}"),
        Kind::Instance => format!("instance {}", names()),
        Kind::Override => format!("override of {}", names()),
    }
}

const INSTANCE: u8 = b'i';
const LEASE: u8 = b'l';
const OVERRIDE: u8 = b'o';

impl Recent {
    /// Takes a batch in; the next one after the last.
    pub(super) fn apply(&mut self, batch: &Batch) {
        for change in &batch.changes {
            let entry = match change {
                Change::Put { instance, .. } => Entry::Instance(Arc::clone(instance)),
                Change::Removed(_) => Entry::Gone,
            };
            self.0.insert(instance_key(change.key()), entry);
        }
        for change in &batch.leases {
            let (id, entry) = match change {
                LeaseChange::Kept(lease) | LeaseChange::Lost(lease) => (lease.id, Entry::Lease(lease.clone().into())),
                LeaseChange::Ended(id) => (*id, Entry::Gone),
            };
            self.0.insert(lease_key(id), entry);
        }
        for change in &batch.overrides {
            let entry = match &change.now {
                None => Entry::Gone,
                Some(laid) => Entry::Override(Box::new(OverrideRecord {
                    key: change.key.clone(),
                    laid: Arc::clone(laid),
                })),
            };
            self.0.insert(override_key(&change.key), entry);
        }
    }

    /// By key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Entry)> {
        self.0.iter().map(|(key, entry)| (&**key, entry))
    }

    /// Everything is in a run now.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Entry {
    /// What a run has for it.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        match self {
            Self::Instance(instance) => Some(record::encode_instance(instance)),
            Self::Lease(lease) => Some(record::encode_lease(lease)),
            Self::Override(laid) => Some(record::encode_override(laid)),
            Self::Gone => None,
        }
    }
}
