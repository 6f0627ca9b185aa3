//! What an owner may do with what it has registered: change it, end it.

use std::sync::Arc;

use super::{
    Batch, Catalog, CatalogError, Change, Deregister, LeaseChange, Removal, Reply, Undo, Update, leases::LeaseTerms,
    undo::Step,
};
use crate::model::{Instance, InstanceId, InstanceKey, LeaseId, WallTime};

impl Catalog {
    pub(super) fn update(
        &mut self,
        update: &Update,
        wall: WallTime,
        undo: &mut Undo,
    ) -> Result<(Reply, Option<Arc<Batch>>), CatalogError> {
        self.leases.owned_by(&update.owner).ok_or(CatalogError::LeaseUnknown)?;
        let Some(present) = self.instance(&update.key) else {
            return Err(CatalogError::InstanceUnknown(update.key.to_string()));
        };
        if present.lease != update.owner.lease || present.epoch != update.epoch {
            return Err(CatalogError::StaleEpoch(update.key.clone()));
        }
        let mut spec = present.spec.clone();
        spec.weight = update.weight.unwrap_or(spec.weight);
        spec.status = update.status.unwrap_or(spec.status);
        spec.metadata = update.metadata.clone().unwrap_or(spec.metadata);
        if spec == present.spec {
            return Ok((
                Reply::Updated {
                    instance: Arc::clone(present),
                },
                None,
            ));
        }
        let instance = Arc::new(Instance {
            spec,
            revision: self.revision.next(),
            ..Instance::clone(present)
        });
        let before = self.insert_instance(Arc::clone(&instance));
        undo.note(Step::Instance(update.key.clone(), before));
        let change = Change::Put {
            instance: Arc::clone(&instance),
            left: None,
        };
        let batch = self.seal(wall, vec![change], Vec::new(), undo);
        Ok((Reply::Updated { instance }, Some(batch)))
    }

    pub(super) fn deregister(
        &mut self,
        deregister: &Deregister,
        wall: WallTime,
        undo: &mut Undo,
    ) -> Result<(Reply, Option<Arc<Batch>>), CatalogError> {
        let id = deregister.owner.lease;
        let lease = self
            .leases
            .owned_by(&deregister.owner)
            .ok_or(CatalogError::LeaseUnknown)?;
        if !lease.is_within(deregister.within.as_ref()) {
            return Err(CatalogError::LeaseNotCovered);
        }
        if lease.is_fenced() {
            return Err(CatalogError::LeaseFenced);
        }
        let all = deregister.ids.is_empty();
        let mut keys: Vec<InstanceKey> = if all {
            lease.instances().iter().map(|instance| instance.key.clone()).collect()
        } else {
            let mut keys = Vec::new();
            for id in &deregister.ids {
                keys.extend(lease.keys_of(id)?);
            }
            keys
        };
        // Watchers see the order of lists, whatever that of the request was.
        keys.sort_unstable();
        keys.dedup();

        let mut leases = Vec::new();
        if all {
            if let Some(lease) = self.leases.remove(id) {
                undo.note(Step::Ended(id, lease));
            }
            leases.push(LeaseChange::Ended(id));
        }
        let changes = keys
            .iter()
            .filter_map(|key| self.take_instance(key, undo))
            .map(|instance| {
                Change::Removed(Removal {
                    key: instance.key.clone(),
                    labels: instance.spec.labels.clone(),
                    reason: deregister.reason,
                    detail: deregister.detail.clone(),
                })
            });
        let changes = changes.collect();
        if !all {
            leases.extend(self.note_emptied(id, undo));
        }
        let batch = self.seal(wall, changes, leases, undo);
        Ok((
            Reply::Deregistered {
                revision: batch.revision,
            },
            Some(batch),
        ))
    }

    /// An empty lease lives on until it lapses: its owner may register the next instance under it. Where others have taken some
    /// of its instances, that has to be put down: it would look as if they had taken all.
    fn note_emptied(&mut self, id: LeaseId, undo: &mut Undo) -> Option<LeaseChange> {
        let lease = self.leases.get(id)?;
        if !lease.instances().is_empty() || lease.replaced().next().is_none() {
            return None;
        }
        let terms = LeaseTerms {
            emptied: true,
            ..lease.terms
        };
        self.set_terms(id, terms, undo);
        let lease = self.leases.get(id)?;
        Some(LeaseChange::Kept(lease.record(id)))
    }

    /// Takes an instance out, in a way that can be taken back.
    pub(super) fn take_instance(&mut self, key: &InstanceKey, undo: &mut Undo) -> Option<Arc<Instance>> {
        let instance = self.remove_instance(key)?;
        undo.note(Step::Instance(key.clone(), Some(Arc::clone(&instance))));
        Some(instance)
    }
}

impl super::leases::Lease {
    /// The instances of this id, in whichever services. Those that were taken are an error: they are not this lease's to end.
    fn keys_of(&self, id: &InstanceId) -> Result<Vec<InstanceKey>, CatalogError> {
        if let Some(key) = self.replaced().find(|key| key.id == *id) {
            return Err(CatalogError::StaleEpoch(key.clone()));
        }
        let keys = self.instances().iter().map(|instance| &instance.key);
        let keys: Vec<InstanceKey> = keys.filter(|key| key.id == *id).cloned().collect();
        if keys.is_empty() {
            return Err(CatalogError::InstanceUnknown(format!("{id} is not of this lease")));
        }
        Ok(keys)
    }
}
