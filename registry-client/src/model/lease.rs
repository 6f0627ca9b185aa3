//! What passes between the owner of an instance and its registry: what the owner says, and the lease that it gets for it.

use std::{collections::BTreeMap, time::Duration};

use super::{Instance, InstanceStatus};

/// The right to keep instances registered.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) id: String,
    pub(crate) secret: String,
}

/// Without the secret: whoever reads a log must not own the lease.
impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a registration brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) lease: Lease,
    pub(crate) instance_id: String,
    pub(crate) epoch: i64,
    pub(crate) revision: i64,
    /// `None` when the registry did not say.
    pub(crate) ttl: Option<Duration>,
}

/// What an owner may change without registering again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Says {
    pub(crate) status: InstanceStatus,
    pub(crate) weight: u32,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// One thing of what [`Says`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    Status,
    Weight,
    Metadata,
}

impl Field {
    /// The one that callers feel most comes first.
    pub(crate) const ALL: [Self; 3] = [Self::Status, Self::Weight, Self::Metadata];
}

impl Says {
    /// True when both say the same of the field.
    pub(crate) fn agrees(&self, other: &Self, field: Field) -> bool {
        match field {
            Field::Status => self.status == other.status,
            Field::Weight => self.weight == other.weight,
            Field::Metadata => self.metadata == other.metadata,
        }
    }

    /// Says of the field what the other one says.
    pub(crate) fn take(&mut self, field: Field, other: Self) {
        match field {
            Field::Status => self.status = other.status,
            Field::Weight => self.weight = other.weight,
            Field::Metadata => self.metadata = other.metadata,
        }
    }

    /// The instance, saying this.
    pub(crate) fn laid_over(self, instance: Instance) -> Instance {
        Instance {
            status: self.status,
            weight: self.weight,
            metadata: self.metadata,
            ..instance
        }
    }
}
