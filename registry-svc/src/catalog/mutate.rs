//! What an owner may do with what it has registered: change it, end it.

use std::sync::Arc;

use super::{Batch, Catalog, CatalogError, Change, Deregister, LeaseChange, Removal, Reply, Update};
use crate::model::{Instance, InstanceId, InstanceKey, WallTime};

impl Catalog {
    pub(super) fn update(
        &mut self,
        update: Update,
        wall: WallTime,
    ) -> Result<(Reply, Option<Arc<Batch>>), CatalogError> {
        let lease = self.leases.owned_by(&update.owner).ok_or(CatalogError::LeaseUnknown)?;
        let Some(present) = self.instances.get(&update.key) else {
            return Err(CatalogError::InstanceUnknown(update.key.to_string()));
        };
        if !lease.instances.contains(&update.key) || present.epoch != update.epoch {
            return Err(CatalogError::StaleEpoch(update.key));
        }
        let mut spec = present.spec.clone();
        spec.weight = update.weight.unwrap_or(spec.weight);
        spec.status = update.status.unwrap_or(spec.status);
        spec.metadata = update.metadata.unwrap_or(spec.metadata);
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
        self.instances.insert(update.key, Arc::clone(&instance));
        let change = Change::Put {
            instance: Arc::clone(&instance),
            left: None,
        };
        let batch = self.seal(wall, vec![change], Vec::new());
        Ok((Reply::Updated { instance }, Some(batch)))
    }

    pub(super) fn deregister(
        &mut self,
        deregister: &Deregister,
        wall: WallTime,
    ) -> Result<(Reply, Option<Arc<Batch>>), CatalogError> {
        let id = deregister.owner.lease;
        let lease = self
            .leases
            .owned_by(&deregister.owner)
            .ok_or(CatalogError::LeaseUnknown)?;
        if lease.is_fenced() {
            return Err(CatalogError::LeaseFenced);
        }
        let all = deregister.ids.is_empty();
        let mut keys: Vec<InstanceKey> = if all {
            lease.instances.iter().cloned().collect()
        } else {
            let mut keys = Vec::new();
            for id in &deregister.ids {
                keys.extend(lease.keys_of(id)?);
            }
            keys
        };
        // Watchers must see the same order whatever a hash map had in mind.
        keys.sort_unstable();
        keys.dedup();

        let leases = if all {
            self.leases.remove(id);
            vec![LeaseChange::Ended(id)]
        } else {
            // An empty lease lives on until it lapses: its owner may register the next instance under it. Where others have
            // taken some of its instances, that has to be put down: it would look as if they had taken all.
            let mut kept = None;
            if let Some(lease) = self.leases.get_mut(id) {
                for key in &keys {
                    lease.instances.remove(key);
                }
                if lease.instances.is_empty() && !lease.replaced.is_empty() {
                    lease.emptied = true;
                    kept = Some(LeaseChange::Kept(lease.record(id)));
                }
            }
            kept.into_iter().collect()
        };
        let changes = keys
            .iter()
            .filter_map(|key| self.instances.remove(key))
            .map(|instance| {
                Change::Removed(Removal {
                    key: instance.key.clone(),
                    labels: instance.spec.labels.clone(),
                    reason: deregister.reason,
                    detail: deregister.detail.clone(),
                })
            });
        let changes = changes.collect();
        let batch = self.seal(wall, changes, leases);
        Ok((
            Reply::Deregistered {
                revision: batch.revision,
            },
            Some(batch),
        ))
    }
}

impl super::leases::Lease {
    /// The instances of this id, in whichever services. Those that were taken are an error: they are not this lease's to end.
    fn keys_of(&self, id: &InstanceId) -> Result<Vec<InstanceKey>, CatalogError> {
        if let Some(key) = self.replaced.iter().find(|key| key.id == *id) {
            return Err(CatalogError::StaleEpoch(key.clone()));
        }
        let keys: Vec<InstanceKey> = self.instances.iter().filter(|key| key.id == *id).cloned().collect();
        if keys.is_empty() {
            return Err(CatalogError::InstanceUnknown(format!("{id} is not of this lease")));
        }
        Ok(keys)
    }
}
