//! What an operator may do to an instance: take it out, put it back, lay a weight over its own. And how that ends by itself.
//!
//! It is decided on the name of the instance and not on the instance: whoever registers that name again has it again.

use std::sync::Arc;

use super::{Batch, Catalog, CatalogError, Change, Decision, Govern, OverrideChange, Reply, Undo, undo::Step};
use crate::{
    limits,
    model::{Act, Detail, Instance, InstanceKey, Override, OverrideRecord, Ruling, WallTime},
};

impl Catalog {
    /// What was laid over instances before a restart.
    pub(crate) fn with_overrides(mut self, overrides: Vec<OverrideRecord>) -> Self {
        self.overrides = overrides.into_iter().collect();
        for held in &self.instances {
            self.overrides.came(&held.0.key);
        }
        self
    }

    /// How many instances have something laid over them, registered or not.
    pub(crate) fn overrides(&self) -> usize {
        self.overrides.len()
    }

    pub(super) fn govern(
        &mut self,
        govern: &Govern,
        wall: WallTime,
        undo: &mut Undo,
    ) -> Result<(Reply, Option<Arc<Batch>>), CatalogError> {
        let Govern {
            key,
            decision,
            who,
            why,
        } = govern;
        let laid = self.overrides.get(key);
        // Of one that is not there, what is laid over it can be taken back and nothing be added: a slip of the pen would be kept.
        let may_be_absent = laid.is_some() && !decision.lays();
        if !may_be_absent && self.instance(key).is_none() {
            return Err(CatalogError::InstanceUnknown(key.to_string()));
        }
        let mut laid = laid.map(|laid| Override::clone(laid)).unwrap_or_default();
        let ruling = |until| Ruling {
            who: who.clone(),
            why: why.clone(),
            until,
            at: wall,
            revision: self.revision.next(),
        };
        // What says nothing new makes no revision: it can be repeated as often as one likes.
        let (act, known) = match *decision {
            Decision::Drain { until } => {
                let known = laid.drain.as_ref().filter(|drain| drain.says(who, why, until));
                let known = known.map(|drain| drain.revision);
                laid.drain = Some(ruling(until));
                (Act::Drained, known)
            }
            Decision::Undrain => {
                let known = laid.drain.take().is_none();
                (Act::Undrained, known.then_some(self.revision))
            }
            Decision::SetWeight { weight, until } => {
                let known = laid.weight.as_ref();
                let known = known.filter(|(known, ruling)| *known == weight && ruling.says(who, why, until));
                let known = known.map(|(_, ruling)| ruling.revision);
                laid.weight = Some((weight, ruling(until)));
                (Act::WeightSet(weight), known)
            }
            Decision::OwnWeight => {
                let known = laid.weight.take().is_none();
                (Act::WeightCleared, known.then_some(self.revision))
            }
        };
        if let Some(revision) = known {
            let instance = self.instance(key).cloned();
            return Ok((Reply::Governed { instance, revision }, None));
        }
        let now = laid.kept();
        let change = self.lay(key, now.clone(), undo);
        let overrides = vec![OverrideChange {
            key: key.clone(),
            act,
            who: Some(who.clone()),
            why: why.clone(),
            now,
        }];
        let batch = self.seal_with(wall, change.into_iter().collect(), Vec::new(), overrides, undo);
        let reply = Reply::Governed {
            instance: self.instance(key).cloned(),
            revision: batch.revision,
        };
        Ok((reply, Some(batch)))
    }

    /// Ends what was decided until now or earlier. Where several replicas share a store the elected one does, and tells the others
    /// by its commit: no reader's clock has a say in it.
    pub(crate) fn end_overrides(&mut self, wall: WallTime) -> Vec<(Arc<Batch>, Undo)> {
        let mut batches = Vec::new();
        while self.leases.ends_for_all() {
            // Each is an instance in a delta, and so as large as one that is registered.
            let due = self.overrides.due(wall, limits::INSTANCES_PER_REGISTER);
            if due.is_empty() {
                break;
            }
            let (mut changes, mut overrides, mut undo) = (Vec::new(), Vec::new(), Undo::default());
            for key in due {
                let Some(laid) = self.overrides.get(&key) else { continue };
                let mut laid = Override::clone(laid);
                let ended = laid.end(wall);
                let now = laid.kept();
                changes.extend(self.lay(&key, now.clone(), &mut undo));
                overrides.extend(ended.into_iter().map(|(act, ruling)| OverrideChange {
                    key: key.clone(),
                    act,
                    who: Some(ruling.who),
                    why: ruling.why,
                    now: now.clone(),
                }));
            }
            let batch = self.seal_with(wall, changes, Vec::new(), overrides, &mut undo);
            batches.push((batch, undo));
        }
        batches
    }

    /// Lays this over an instance instead of what was, in a way that can be taken back. Returns what watchers are told, if it is
    /// registered.
    fn lay(&mut self, key: &InstanceKey, now: Option<Arc<Override>>, undo: &mut Undo) -> Option<Change> {
        let present = self.instance(key).cloned();
        let former = self.overrides.set(key, now.clone(), present.is_none());
        undo.note(Step::Override(key.clone(), former));
        let instance = Arc::new(Instance {
            governance: now,
            revision: self.revision.next(),
            ..Instance::clone(&*present?)
        });
        let former = self.insert_instance(Arc::clone(&instance));
        undo.note(Step::Instance(key.clone(), former));
        Some(Change::Put { instance, left: None })
    }

    /// Forgets what is laid over too many that have left. Only a removal makes them more, so it is looked for with one.
    pub(super) fn prune_overrides(&mut self, changes: &[Change], undo: &mut Undo) -> Vec<OverrideChange> {
        let mut forgotten = Vec::new();
        let left = changes.iter().filter_map(|change| match change {
            Change::Removed(removal) => Some(removal.key.service_key()),
            Change::Put { .. } => None,
        });
        let (of_service, all) = (self.capacity.overrides_of_service, self.capacity.overrides);
        for service in left {
            while let Some(key) = self.overrides.too_many(service, of_service, all) {
                let former = self.overrides.set(&key, None, true);
                undo.note(Step::Override(key.clone(), former));
                forgotten.push(OverrideChange {
                    key,
                    act: Act::Forgotten,
                    who: None,
                    why: Detail::of("too many instances are not registered that something is laid over"),
                    now: None,
                });
            }
        }
        forgotten
    }

    /// Takes over what another replica has laid.
    pub(super) fn follow_overrides(&mut self, changes: &[OverrideChange]) {
        for change in changes {
            let is_absent = self.instance(&change.key).is_none();
            self.overrides.set(&change.key, change.now.clone(), is_absent);
        }
    }
}
