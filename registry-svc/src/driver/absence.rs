//! The store cannot be reached.

use std::time::Duration;

use crate::model::Moment;

/// How long after the last contact with the store those who wait for it are told that nobody knows, and owners of leases that
/// they had better renew elsewhere. Below the deadline that callers commonly set, so that they hear why; long enough for a store
/// that elects a new leader; and well below the time after which other replicas hold this one for dead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Absence {
    /// The last contact.
    pub(super) since: Moment,
    /// It has lasted for so long that those who waited have been told.
    pub(super) told: bool,
}

impl Absence {
    /// Whether those who wait are to be told now.
    pub(super) fn is_long(&self, now: Moment, patience: Duration) -> bool {
        now.since(self.since) >= patience
    }
}
