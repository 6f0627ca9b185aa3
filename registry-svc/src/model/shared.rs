//! What many instances have in common is kept once.
//!
//! Instances come one by one, each with its own copy of the name of its service and of all that its siblings say too. Whoever
//! holds many of them passes them through a [`Shared`].

use std::{collections::HashSet, hash::Hash, sync::Arc};

use super::{Instance, InstanceKey, Profile, ServiceKey};

/// Below so many the search for what nobody uses any more is not worth it.
const SWEEP_MIN: usize = 1_024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    services: Pool<ServiceKey>,
    profiles: Pool<Profile>,
}

#[derive(Debug)]
struct Pool<T> {
    known: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            sweep_at: SWEEP_MIN,
        }
    }
}

impl<T: Eq + Hash> Pool<T> {
    fn share(&mut self, value: &mut Arc<T>) {
        if let Some(known) = self.known.get(value) {
            if !Arc::ptr_eq(known, value) {
                *value = Arc::clone(known);
            }
            return;
        }
        // Doubling: what is swept costs no more than what came since.
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = SWEEP_MIN.max(self.known.len() * 2);
        }
        self.known.insert(Arc::clone(value));
    }
}

impl Shared {
    /// Makes a name share its service with the others.
    pub(crate) fn key(&mut self, key: &mut InstanceKey) {
        self.services.share(key.service_mut());
    }

    /// Makes an instance share what it can with the others.
    pub(crate) fn instance(&mut self, instance: &mut Instance) {
        self.key(&mut instance.key);
        self.profiles.share(&mut instance.spec.profile);
    }

    /// Others are to share with this one.
    pub(crate) fn learn(&mut self, instance: &Instance) {
        let (mut service, mut profile) = (
            Arc::clone(instance.key.service_key()),
            Arc::clone(&instance.spec.profile),
        );
        self.services.share(&mut service);
        self.profiles.share(&mut profile);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{WALL, draft},
        model::{LeaseId, Revision},
    };

    fn instance(service: &str, id: &str) -> Instance {
        draft(service, id, "east").registered(Revision::ZERO, LeaseId::from_random(1), WALL)
    }

    #[test]
    fn siblings_share_and_strangers_do_not() {
        let mut shared = Shared::default();
        let [mut one, mut two, mut other] = [instance("a", "1"), instance("a", "2"), instance("b", "1")];
        for instance in [&mut one, &mut two, &mut other] {
            let before = instance.clone();
            shared.instance(instance);
            assert_eq!(*instance, before);
        }
        assert!(Arc::ptr_eq(one.key.service_key(), two.key.service_key()));
        assert!(!Arc::ptr_eq(one.key.service_key(), other.key.service_key()));
        assert!(Arc::ptr_eq(&one.spec.profile, &other.spec.profile), "both say the same");
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let mut shared = Shared::default();
        let mut kept = instance("kept", "1");
        shared.instance(&mut kept);
        for n in 0..SWEEP_MIN * 8 {
            shared.instance(&mut instance(&format!("s-{n}"), "1"));
        }
        assert!(shared.services.known.len() <= SWEEP_MIN);
        let mut again = instance("kept", "2");
        shared.instance(&mut again);
        assert!(Arc::ptr_eq(kept.key.service_key(), again.key.service_key()));
    }
}
