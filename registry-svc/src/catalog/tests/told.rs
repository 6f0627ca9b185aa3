//! What the batches of a history come to, folded independently of the catalog that made them.

use std::collections::BTreeMap;

use super::*;
use crate::model::{Act, Epoch, Override};

/// What committed batches tell, as a store would have it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Told {
    /// By name.
    pub(super) instances: BTreeMap<InstanceKey, Arc<Instance>>,
    /// By id.
    pub(super) leases: BTreeMap<LeaseId, LeaseRecord>,
    /// By name, registered or not.
    pub(super) overrides: BTreeMap<InstanceKey, Arc<Override>>,
    /// Of the last batch.
    pub(super) revision: Revision,
    /// The highest epoch that each name ever had.
    pub(super) epochs: BTreeMap<InstanceKey, Epoch>,
}

impl Told {
    /// Takes a batch in; the next one.
    pub(super) fn commit(&mut self, batch: &Batch) {
        assert_eq!(batch.revision, self.revision.next(), "revisions are consecutive");
        self.revision = batch.revision;
        for change in &batch.changes {
            match change {
                Change::Put { instance, .. } => {
                    assert_eq!(instance.revision, batch.revision);
                    let highest = self.epochs.entry(instance.key.clone()).or_insert(instance.epoch);
                    assert!(instance.epoch >= *highest, "epochs never go back");
                    *highest = instance.epoch;
                    self.instances.insert(instance.key.clone(), Arc::clone(instance));
                }
                Change::Removed(removal) => {
                    let gone = self
                        .instances
                        .remove(&removal.key)
                        .expect("only what is there is removed");
                    assert_eq!(gone.spec.labels, removal.labels);
                }
            }
        }
        for change in &batch.leases {
            match change {
                LeaseChange::Kept(record) | LeaseChange::Lost(record) => {
                    self.leases.insert(record.id, record.clone());
                }
                LeaseChange::Ended(id) => assert!(self.leases.remove(id).is_some(), "only what lives ends"),
            }
        }
        for change in &batch.overrides {
            let before = match &change.now {
                Some(laid) => self.overrides.insert(change.key.clone(), Arc::clone(laid)),
                None => self.overrides.remove(&change.key),
            };
            // Both may end at once.
            let is_taken = matches!(change.act, Act::Undrained | Act::WeightCleared | Act::Forgotten);
            assert!(before.is_some() || !is_taken, "only what is laid is taken away");
            let registered = self.instances.get(&change.key);
            let told = registered.is_none_or(|instance| instance.revision == batch.revision);
            assert!(told, "watchers are told with it");
        }
    }
}
