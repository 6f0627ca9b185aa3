//! What is so: every batch that is durable, who made it, and the state after each.
//!
//! Folded here anew from the batches, independently of the catalog and of the hub's view, so that those can be compared with it.
//! It never forgets: what is compacted is gone for the registries, not for those who judge them.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use super::Time;
use crate::{
    catalog::{Batch, Change, LeaseChange, LeaseRecord},
    hub::Selection,
    model::{Instance, InstanceKey, LeaseId, Override, OverrideRecord, Revision},
};

/// All that was committed since the store was made.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// The virtual time.
    pub(super) now: Time,
    entries: Vec<Entry>,
    /// Of the empty registry and after each batch.
    states: Vec<State>,
}

/// A durable batch.
#[derive(Debug)]
pub(super) struct Entry {
    /// What.
    pub(super) batch: Arc<Batch>,
    /// Since when.
    pub(super) at: Time,
    /// When its maker sent it to the store.
    pub(super) decided: Time,
    /// Which replica made it, in which of its lives.
    pub(super) by: (usize, u64),
}

/// The registry's state at a revision.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// By key.
    pub(super) instances: Rc<BTreeMap<Rc<InstanceKey>, Arc<Instance>>>,
    /// By id.
    pub(super) leases: Rc<BTreeMap<LeaseId, Rc<LeaseRecord>>>,
    /// What is laid over instances, registered or not, by key.
    pub(super) overrides: Rc<BTreeMap<InstanceKey, Arc<Override>>>,
}

impl Truth {
    /// The empty registry.
    pub(super) fn new() -> Self {
        Self {
            states: vec![State::default()],
            ..Self::default()
        }
    }

    /// The last durable revision.
    pub(super) fn head(&self) -> Revision {
        Revision::new(self.entries.len() as u64)
    }

    /// The batch that made a revision.
    pub(super) fn entry(&self, revision: Revision) -> Option<&Entry> {
        self.entries.get(index(revision).checked_sub(1)?)
    }

    /// The durable batches after a revision.
    pub(super) fn after(&self, revision: Revision) -> &[Entry] {
        &self.entries[index(revision).min(self.entries.len())..]
    }

    /// The state at a revision that is durable.
    pub(super) fn state(&self, revision: Revision) -> Option<&State> {
        self.states.get(index(revision))
    }

    /// The state at a time.
    pub(super) fn state_at(&self, time: Time) -> Option<&State> {
        self.states.get(self.entries.partition_point(|entry| entry.at <= time))
    }

    /// The state now.
    pub(super) fn present(&self) -> &State {
        self.states.last().expect("there is always the empty one")
    }

    /// What was once laid over names that nobody has registered now, and is no more: as a store that has missed it would load it.
    pub(super) fn lifted(&self) -> Vec<OverrideRecord> {
        let present = self.present();
        let mut once = BTreeMap::new();
        for change in self.entries.iter().flat_map(|entry| &entry.batch.overrides) {
            if let Some(laid) = &change.now {
                once.insert(&change.key, laid);
            }
        }
        let lifted = once
            .into_iter()
            .filter(|(key, _)| !present.overrides.contains_key(*key) && present.get(key).is_none());
        let records = lifted.map(|(key, laid)| OverrideRecord {
            key: key.clone(),
            laid: Arc::clone(laid),
        });
        records.collect()
    }

    /// A batch has become durable. What does not follow the one before is refused: the store is broken.
    pub(super) fn append(&mut self, batch: Arc<Batch>, decided: Time, by: (usize, u64)) -> Result<(), String> {
        let next = self.head().next();
        if batch.revision != next {
            return Err(format!(
                "the store took revision {} where {next} was next",
                batch.revision
            ));
        }
        let state = self.present().after(&batch);
        self.states.push(state);
        self.entries.push(Entry {
            batch,
            at: self.now,
            decided,
            by,
        });
        Ok(())
    }
}

fn index(revision: Revision) -> usize {
    usize::try_from(revision.get()).unwrap_or(usize::MAX)
}

impl State {
    fn after(&self, batch: &Batch) -> Self {
        let mut state = self.clone();
        if !batch.changes.is_empty() {
            let instances = Rc::make_mut(&mut state.instances);
            for change in &batch.changes {
                match change {
                    Change::Put { instance, .. } => {
                        instances.insert(Rc::new(instance.key.clone()), Arc::clone(instance));
                    }
                    Change::Removed(removal) => {
                        instances.remove(&removal.key);
                    }
                }
            }
        }
        if !batch.leases.is_empty() {
            let leases = Rc::make_mut(&mut state.leases);
            for change in &batch.leases {
                match change {
                    LeaseChange::Kept(record) | LeaseChange::Lost(record) => {
                        leases.insert(record.id, Rc::new(record.clone()));
                    }
                    LeaseChange::Ended(id) => {
                        leases.remove(id);
                    }
                }
            }
        }
        if !batch.overrides.is_empty() {
            let overrides = Rc::make_mut(&mut state.overrides);
            for change in &batch.overrides {
                match &change.now {
                    Some(laid) => drop(overrides.insert(change.key.clone(), Arc::clone(laid))),
                    None => drop(overrides.remove(&change.key)),
                }
            }
        }
        state
    }

    /// What is laid over instances, as a store would load it.
    pub(super) fn overrides(&self) -> Vec<OverrideRecord> {
        let records = self.overrides.iter().map(|(key, laid)| OverrideRecord {
            key: key.clone(),
            laid: Arc::clone(laid),
        });
        records.collect()
    }

    /// One instance.
    pub(super) fn get(&self, key: &InstanceKey) -> Option<&Arc<Instance>> {
        self.instances.get(key)
    }

    /// What a selection holds of it, by key.
    pub(super) fn selected(&self, selection: &Selection) -> Vec<&Arc<Instance>> {
        self.instances
            .values()
            .filter(|instance| selects(selection, instance))
            .collect()
    }
}

/// Whether a selection means an instance. Written out again, since the hub's own answer is what is under test.
pub(super) fn selects(selection: &Selection, instance: &Instance) -> bool {
    let (key, labels, scope) = (&instance.key, &instance.spec.labels, &selection.scope);
    key.namespace == scope.namespace
        && scope.service.as_ref().is_none_or(|service| key.service == *service)
        && selection
            .version
            .as_ref()
            .is_none_or(|version| labels.version == *version)
        && selection.group.as_ref().is_none_or(|group| labels.group == *group)
        && selection.zone.as_ref().is_none_or(|zone| labels.zone == *zone)
        && selection.tag.as_ref().is_none_or(|tag| labels.tag == *tag)
}
