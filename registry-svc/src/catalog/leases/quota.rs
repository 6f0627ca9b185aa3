//! How many instances are kept in whose name. Counted and never judged here: who follows another replica, or has restarted, may
//! have more than it would grant.

use std::collections::{HashMap, hash_map::Entry};

use crate::model::Registrant;

/// The instances of all leases, by who was granted them.
#[derive(Debug, Default)]
pub(super) struct Quotas(HashMap<Registrant, usize>);

impl Quotas {
    /// So many more are kept.
    pub(super) fn charge(&mut self, registrant: Option<Registrant>, instances: usize) {
        if let Some(registrant) = registrant
            && instances > 0
        {
            *self.0.entry(registrant).or_default() += instances;
        }
    }

    /// So many of them are not any more.
    pub(super) fn discharge(&mut self, registrant: Option<Registrant>, instances: usize) {
        if let Some(registrant) = registrant
            && let Entry::Occupied(mut kept) = self.0.entry(registrant)
        {
            *kept.get_mut() -= instances.min(*kept.get());
            if *kept.get() == 0 {
                kept.remove();
            }
        }
    }

    /// Somebody's.
    pub(super) fn of(&self, registrant: Registrant) -> usize {
        self.0.get(&registrant).copied().unwrap_or_default()
    }

    /// Panics where a recount gives something else.
    #[cfg(test)]
    pub(super) fn check<'a>(&self, leases: impl Iterator<Item = &'a super::Lease>) {
        let mut again = Self::default();
        leases.for_each(|lease| again.charge(lease.registrant, lease.instances.len()));
        assert_eq!(again.0, self.0, "the count of instances by registrant");
    }
}
