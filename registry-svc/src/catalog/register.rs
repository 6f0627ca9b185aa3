//! Registration: many instances, one lease, one revision, all or none.

use std::{collections::HashMap, sync::Arc};

use super::{
    Batch, Catalog, CatalogError, Change, LeaseChange, LeaseChoice, LeaseRecord, Register, Registered, Removal, Reply,
    Secret, Undo, leases::LeaseTerms, requests::Recent, undo::Step,
};
use crate::{
    limits,
    model::{Detail, Draft, Heartbeat, Instance, InstanceId, InstanceKey, LeaseId, RemovalReason, WallTime},
};

impl Catalog {
    pub(super) fn register(
        &mut self,
        register: &Register,
        wall: WallTime,
        undo: &mut Undo,
    ) -> Result<(Reply, Option<Arc<Batch>>), CatalogError> {
        let now = self.clock.now();
        if let Some(request) = &register.request {
            match self.requests.look_up(request, now) {
                Recent::New => {}
                Recent::Same(registered) => {
                    let registered = registered.clone();
                    if self.leases.revive(registered.lease, now) {
                        return Ok((Reply::Registered(registered), None));
                    }
                    // Its lease has ended: the same answer would be a lease that nobody can renew.
                    if let Some(answered) = self.requests.forget(request.id) {
                        undo.note(Step::Forgotten(request.id, answered));
                    }
                }
                Recent::Reused => return Err(CatalogError::RequestIdReused),
            }
        }
        let heartbeat = self.admit(register)?;

        // Nothing below fails: from here on the registration happens as a whole.
        let own = self.leases.own();
        let (lease, secret) = match &register.lease {
            LeaseChoice::Grant { id, secret, .. } => {
                let record = LeaseRecord {
                    id: *id,
                    secret: secret.hash(),
                    heartbeat,
                    owner: own,
                    replaced: Vec::new(),
                    emptied: false,
                    registrant: register.registrant,
                };
                self.leases.insert(record, now);
                undo.note(Step::Granted(*id));
                (*id, secret.reveal())
            }
            // Whoever registers here is heard here from now on.
            LeaseChoice::Join { owner, secret, .. } => {
                let terms = LeaseTerms {
                    heartbeat,
                    owner: own,
                    emptied: false,
                };
                self.set_terms(owner.lease, terms, undo);
                (owner.lease, secret.clone())
            }
        };
        let ids: Arc<[InstanceId]> = register.drafts.iter().map(|draft| draft.key.id.clone()).collect();
        let mut changes = Vec::with_capacity(register.drafts.len());
        let mut losers: Vec<LeaseId> = Vec::new();
        for draft in &register.drafts {
            self.put(draft, lease, wall, &mut changes, &mut losers, undo);
        }
        // Its owner has spoken. Only now: while it kept nothing it passed for one that is fenced.
        self.leases.extend(lease, now);
        losers.sort_unstable();
        losers.dedup();
        for id in &losers {
            if let Some(deadline) = self.leases.hasten_if_fenced(*id, now) {
                undo.note(Step::Hastened(*id, deadline));
            }
        }
        let kept = self.leases.get(lease).map(|kept| LeaseChange::Kept(kept.record(lease)));
        let lost = losers
            .into_iter()
            .filter_map(|id| self.leases.get(id).map(|lost| LeaseChange::Lost(lost.record(id))));
        let leases = kept.into_iter().chain(lost).collect();
        let batch = self.seal(wall, changes, leases, undo);

        let ttl = self
            .leases
            .get(lease)
            .map_or(limits::TTL_MIN, super::leases::Lease::ttl);
        let registered = Registered {
            lease,
            secret: Secret(secret),
            ids,
            revision: batch.revision,
            ttl,
        };
        if let Some(request) = register.request {
            let evicted = self.requests.remember(request, registered.clone(), now);
            undo.note(Step::Remembered(request.id, evicted));
        }
        Ok((Reply::Registered(registered), Some(batch)))
    }

    /// Whether the registration fits, and the heartbeat that its lease is to have; changes nothing.
    fn admit(&self, register: &Register) -> Result<Heartbeat, CatalogError> {
        let limit = limits::INSTANCES_PER_LEASE;
        let heartbeat = match &register.lease {
            LeaseChoice::Grant { id, heartbeat, .. } => {
                if self.leases.len() >= self.capacity.leases {
                    return Err(CatalogError::RegistryFull {
                        what: "leases",
                        limit: self.capacity.leases,
                    });
                }
                // 128 random bits do not repeat; a caller that draws badly must not take another's lease.
                if self.leases.get(*id).is_some() {
                    return Err(CatalogError::LeaseUnknown);
                }
                if register.drafts.len() > limit {
                    return Err(CatalogError::LeaseFull { limit });
                }
                *heartbeat
            }
            LeaseChoice::Join {
                owner, terms, within, ..
            } => {
                let lease = self.leases.owned_by(owner).ok_or(CatalogError::LeaseUnknown)?;
                if !lease.is_within(within.as_ref()) {
                    return Err(CatalogError::LeaseNotCovered);
                }
                // A process that has been succeeded must not take its instances back by the lease it lost them under.
                if lease.is_fenced() {
                    return Err(CatalogError::LeaseFenced);
                }
                let added = register
                    .drafts
                    .iter()
                    .filter(|draft| !lease.keeps(&draft.key) && !lease.has_lost(&draft.key));
                if lease.names() + added.count() > limit {
                    return Err(CatalogError::LeaseFull { limit });
                }
                terms.over(lease.terms.heartbeat).map_err(CatalogError::Terms)?
            }
        };
        self.admit_registrant(register)?;
        let added = register
            .drafts
            .iter()
            .filter(|draft| !self.instances.contains(&draft.key))
            .count();
        if self.instances.len() + added > self.capacity.instances {
            return Err(CatalogError::RegistryFull {
                what: "instances",
                limit: self.capacity.instances,
            });
        }
        debug_assert!(unique(&register.drafts), "the api refuses repeated keys");
        Ok(heartbeat)
    }

    /// Whether it fits into the quota in which its lease counts. What is there already in that name counts once, and who has more
    /// than the limit, as it is now, may register that again.
    fn admit_registrant(&self, register: &Register) -> Result<(), CatalogError> {
        let registrant = match &register.lease {
            LeaseChoice::Grant { .. } => register.registrant,
            LeaseChoice::Join { owner, .. } => self.leases.get(owner.lease).and_then(|lease| lease.registrant),
        };
        let Some((registrant, limit)) = registrant.zip(self.capacity.instances_of_registrant) else {
            return Ok(());
        };
        let is_counted = |draft: &&Draft| {
            let lease = self
                .instance(&draft.key)
                .and_then(|present| self.leases.get(present.lease));
            lease.is_some_and(|lease| lease.registrant == Some(registrant))
        };
        let added = register.drafts.iter().filter(|draft| !is_counted(draft)).count();
        let held = self.leases.kept_for(registrant);
        if added > 0 && held + added > limit {
            return Err(CatalogError::QuotaExceeded { limit, held });
        }
        Ok(())
    }

    /// Puts one instance under `lease` and notes which lease lost it.
    fn put(
        &mut self,
        draft: &Draft,
        lease: LeaseId,
        wall: WallTime,
        changes: &mut Vec<Change>,
        losers: &mut Vec<LeaseId>,
        undo: &mut Undo,
    ) {
        let mut instance = draft.clone().registered(self.revision.next(), lease, wall);
        self.shared.instance(&mut instance);
        instance.governance = self.overrides.get(&instance.key).cloned();
        let instance = Arc::new(instance);
        let former = self.insert_instance(Arc::clone(&instance));
        undo.note(Step::Instance(instance.key.clone(), former.clone()));
        let mut left = None;
        match former {
            None => {}
            // The owner speaks again: the same process, so watchers see a change, not a new one.
            Some(former) if former.lease == lease => {
                left = (former.spec.labels != instance.spec.labels).then(|| former.spec.labels.clone());
            }
            // Another process has taken the name: watchers see one leave and one come.
            Some(former) => {
                self.set_lost(former.lease, &former.key, true, undo);
                losers.push(former.lease);
                changes.push(Change::Removed(replaced(&former)));
            }
        }
        self.set_lost(lease, &instance.key, false, undo);
        changes.push(Change::Put { instance, left });
    }

    /// Says whether a name was taken from a lease, in a way that can be taken back.
    fn set_lost(&mut self, lease: LeaseId, key: &InstanceKey, lost: bool, undo: &mut Undo) {
        if let Some(present) = self.leases.get_mut(lease)
            && present.set_lost(key, lost) != lost
        {
            undo.note(Step::Lost(lease, key.clone(), !lost));
        }
    }
}

fn replaced(former: &Instance) -> Removal {
    Removal {
        key: former.key.clone(),
        labels: former.spec.labels.clone(),
        reason: RemovalReason::Replaced,
        detail: Detail::of("registered anew under another lease"),
    }
}

fn unique(drafts: &[Draft]) -> bool {
    let keys: HashMap<&InstanceKey, ()> = drafts.iter().map(|draft| (&draft.key, ())).collect();
    keys.len() == drafts.len()
}
