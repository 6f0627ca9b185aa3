//! The store cannot be reached.

use std::time::Duration;

use crate::model::Moment;

/// How long after the last contact with the store those who wait for it are told that nobody knows. Below the deadline that
/// callers commonly set, so that they hear why; and long enough for a store that elects a new leader.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Absence {
    /// The last contact.
    pub(super) since: Moment,
    /// Those who waited have been told.
    pub(super) told: bool,
}

impl Absence {
    /// Whether those who wait are to be told now.
    pub(super) fn is_long(&self, now: Moment) -> bool {
        now.since(self.since) >= PATIENCE
    }
}
