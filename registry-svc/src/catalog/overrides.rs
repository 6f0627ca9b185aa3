//! What operators have laid over instances, by the names of these: of those that are registered, and of those that are not for
//! as long as there is room.
//!
//! It knows who is absent, who is to be forgotten first and whose time is over; it decides nothing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::model::{InstanceKey, Override, OverrideRecord, Revision, ServiceKey, WallTime};

/// By the revision of the last decision, so that the first is the one that is forgotten first.
type ByAge = BTreeSet<(Revision, InstanceKey)>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    by_key: HashMap<InstanceKey, Arc<Override>>,
    /// When some of each ends by itself, if it does.
    ends: BTreeSet<(WallTime, InstanceKey)>,
    /// Those whose instances are not registered.
    absent: ByAge,
    /// The same by service.
    absent_of: HashMap<Arc<ServiceKey>, ByAge>,
}

impl Overrides {
    /// What is laid over an instance.
    pub(super) fn get(&self, key: &InstanceKey) -> Option<&Arc<Override>> {
        // Most registries have none.
        if self.by_key.is_empty() {
            return None;
        }
        self.by_key.get(key)
    }

    /// Lays this over an instance instead of what was. Returns that.
    pub(super) fn set(
        &mut self,
        key: &InstanceKey,
        laid: Option<Arc<Override>>,
        is_absent: bool,
    ) -> Option<Arc<Override>> {
        let former = self.by_key.remove(key);
        if let Some(former) = &former {
            self.forget_end(key, former);
            self.forget_absence(key, former);
        }
        if let Some(laid) = laid {
            if let Some(end) = laid.next_end() {
                self.ends.insert((end, key.clone()));
            }
            if is_absent {
                self.note_absence(key, laid.revision());
            }
            self.by_key.insert(key.clone(), laid);
        }
        former
    }

    /// An instance is registered.
    pub(super) fn came(&mut self, key: &InstanceKey) {
        if let Some(laid) = self.get(key).cloned() {
            self.forget_absence(key, &laid);
        }
    }

    /// It is not any more.
    pub(super) fn went(&mut self, key: &InstanceKey) {
        if let Some(laid) = self.get(key) {
            let revision = laid.revision();
            self.note_absence(key, revision);
        }
    }

    /// Who has to be forgotten first while there are more than so many of a service, or in all.
    pub(super) fn too_many(&self, service: &ServiceKey, of_service: usize, all: usize) -> Option<InstanceKey> {
        let of = self.absent_of.get(service).filter(|of| of.len() > of_service);
        let oldest = of.or_else(|| Some(&self.absent).filter(|absent| absent.len() > all))?;
        oldest.first().map(|(_, key)| key.clone())
    }

    /// The instances of which something ends by now, the first first; at most so many.
    pub(super) fn due(&self, wall: WallTime, most: usize) -> Vec<InstanceKey> {
        let due = self.ends.iter().take_while(|(end, _)| *end <= wall);
        due.take(most).map(|(_, key)| key.clone()).collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// All of them, in any order.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&InstanceKey, &Arc<Override>)> {
        self.by_key.iter()
    }

    fn note_absence(&mut self, key: &InstanceKey, revision: Revision) {
        let entry = (revision, key.clone());
        let of = self.absent_of.entry(Arc::clone(key.service_key())).or_default();
        of.insert(entry.clone());
        self.absent.insert(entry);
    }

    fn forget_absence(&mut self, key: &InstanceKey, laid: &Override) {
        let entry = (laid.revision(), key.clone());
        if !self.absent.remove(&entry) {
            return;
        }
        if let Some(of) = self.absent_of.get_mut(key.service_key()) {
            of.remove(&entry);
            if of.is_empty() {
                self.absent_of.remove(key.service_key());
            }
        }
    }

    fn forget_end(&mut self, key: &InstanceKey, laid: &Override) {
        if let Some(end) = laid.next_end() {
            self.ends.remove(&(end, key.clone()));
        }
    }

    /// Panics where the structures disagree with each other, or with who is registered, or where more is kept than may be.
    #[cfg(test)]
    pub(super) fn check_invariants(
        &self,
        is_registered: impl Fn(&InstanceKey) -> bool,
        (of_service, all): (usize, usize),
    ) {
        let absent: ByAge = self
            .by_key
            .iter()
            .filter(|(key, _)| !is_registered(key))
            .map(|(key, laid)| (laid.revision(), key.clone()))
            .collect();
        assert_eq!(self.absent, absent, "who is absent");
        let by_service: ByAge = self.absent_of.values().flatten().cloned().collect();
        assert_eq!(by_service, absent, "by service");
        assert!(self.absent_of.values().all(|of| (1..=of_service).contains(&of.len())));
        assert!(self.absent.len() <= all, "what is kept of the absent is bounded");
        let ends: BTreeSet<_> = self
            .by_key
            .iter()
            .filter_map(|(key, laid)| Some((laid.next_end()?, key.clone())))
            .collect();
        assert_eq!(self.ends, ends, "whose time is over when");
        assert!(
            self.by_key.values().all(|laid| !laid.is_empty()),
            "nothing empty is kept"
        );
    }
}

impl FromIterator<OverrideRecord> for Overrides {
    /// Nobody is registered yet.
    fn from_iter<I: IntoIterator<Item = OverrideRecord>>(records: I) -> Self {
        let mut overrides = Self::default();
        for OverrideRecord { key, laid } in records {
            overrides.set(&key, Some(laid), true);
        }
        overrides
    }
}
