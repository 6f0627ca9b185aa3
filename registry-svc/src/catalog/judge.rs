//! What probes say of an instance becomes a revision like any other change, so that every watcher is told of it, and every replica.

use std::sync::Arc;

use super::{Batch, Catalog, CatalogError, Change, Judge, Reply, Undo, undo::Step};
use crate::model::{Instance, LeaseId, WallTime};

impl Catalog {
    pub(super) fn judge(
        &mut self,
        judge: &Judge,
        wall: WallTime,
        undo: &mut Undo,
    ) -> Result<(Reply, Option<Arc<Batch>>), CatalogError> {
        let Some(present) = self.instance(&judge.key) else {
            return Err(CatalogError::InstanceUnknown(judge.key.to_string()));
        };
        // Somebody else has registered the name since: the probe was of another process.
        if present.epoch != judge.epoch {
            return Err(CatalogError::StaleEpoch(judge.key.clone()));
        }
        if present.health == judge.health {
            let instance = Arc::clone(present);
            return Ok((Reply::Updated { instance }, None));
        }
        let instance = Arc::new(Instance {
            health: judge.health,
            revision: self.revision.next(),
            ..Instance::clone(present)
        });
        let before = self.insert_instance(Arc::clone(&instance));
        undo.note(Step::Instance(judge.key.clone(), before));
        let change = Change::Put {
            instance: Arc::clone(&instance),
            left: None,
        };
        let batch = self.seal(wall, vec![change], Vec::new(), undo);
        Ok((Reply::Updated { instance }, Some(batch)))
    }

    /// Whether this replica hears the heartbeats of a lease: then it probes its instances, and no other does.
    pub(crate) fn hears(&self, lease: LeaseId) -> bool {
        let lease = self.leases.get(lease);
        lease.is_some_and(|lease| lease.terms.owner == self.leases.own())
    }
}
