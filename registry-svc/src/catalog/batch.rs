//! One committed revision: what changed, in order. The unit of the store, of the history and of a watcher's delta.

use std::sync::Arc;

use telemetry::TraceParent;

use crate::model::{
    Act, Detail, Health, Heartbeat, Instance, InstanceKey, Labels, LeaseId, Override, Registrant, RemovalReason,
    ReplicaId, Revision, SecretHash, WallTime, Who,
};

/// All of one revision. Never split, neither on disk nor on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The revision that it makes; one more than the batch before.
    pub(crate) revision: Revision,
    /// When, by the registry's wall clock.
    pub(crate) at: WallTime,
    /// What watchers are told.
    pub(crate) changes: Vec<Change>,
    /// What only the store needs to know.
    pub(crate) leases: Vec<LeaseChange>,
    /// What was done to overrides. Where an instance has that name and is registered, `changes` has it with what is laid over it.
    pub(crate) overrides: Vec<OverrideChange>,
    /// Where it was asked for: the address of the peer; `None` for what the registry does by itself.
    pub(crate) by: Option<Who>,
    /// The span of the call that asked for it, if its trace is sampled. The embedded store does not keep it, and
    /// etcd's keeps it for the other replicas.
    pub(crate) trace: Option<TraceParent>,
}

/// Something was laid over an instance, or taken away from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OverrideChange {
    /// Over which.
    pub(crate) key: InstanceKey,
    /// What was done.
    pub(crate) act: Act,
    /// Who did; of what ended by itself, whoever had decided it. `None` for what was forgotten.
    pub(crate) who: Option<Who>,
    /// For people.
    pub(crate) why: Detail,
    /// All that is laid over it from now on.
    pub(crate) now: Option<Arc<Override>>,
}

/// An instance came, changed or left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It came or changed.
    Put {
        /// What it is now.
        instance: Arc<Instance>,
        /// What it was selected by before, where that differs: it may have left a watcher's selection by this change.
        left: Option<Labels>,
    },
    /// It left.
    Removed(Removal),
}

/// An instance left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Removal {
    /// Its name.
    pub(crate) key: InstanceKey,
    /// What it was selected by.
    pub(crate) labels: Labels,
    /// Why.
    pub(crate) reason: RemovalReason,
    /// For people.
    pub(crate) detail: Detail,
}

/// A lease was granted, changed or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeaseChange {
    /// Granted, or more was registered under it, or the last of it was deregistered: its owner is alive.
    Kept(LeaseRecord),
    /// Another lease took an instance from it.
    Lost(LeaseRecord),
    /// It ended.
    Ended(LeaseId),
}

/// What outlives a restart of a lease. Deadlines do not: after a restart every lease has its full time again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaseRecord {
    /// Its name.
    pub(crate) id: LeaseId,
    /// Of its secret.
    pub(crate) secret: SecretHash,
    /// How long it lives.
    pub(crate) heartbeat: Heartbeat,
    /// The replica that hears its heartbeats.
    pub(crate) owner: ReplicaId,
    /// The instances that other leases have taken from it.
    pub(crate) replaced: Vec<InstanceKey>,
    /// Whether its owner has ended the last that was left of it, so that those which were taken are not all it had.
    pub(crate) emptied: bool,
    /// In whose quota it counts; `None`: in nobody's, or it was granted before there were quotas.
    pub(crate) registrant: Option<Registrant>,
}

impl OverrideChange {
    /// Roughly what it costs in memory and on disk.
    pub(crate) fn bytes(&self) -> usize {
        let who = self.who.as_ref().map_or(0, |who| who.as_str().len());
        let now = self.now.as_ref().map_or(0, |now| now.bytes());
        64 + self.key.bytes() + who + self.why.as_str().len() + now
    }
}

impl Change {
    /// Whose change it is.
    pub(crate) fn key(&self) -> &InstanceKey {
        match self {
            Self::Put { instance, .. } => &instance.key,
            Self::Removed(removal) => &removal.key,
        }
    }
}

impl Removal {
    /// Roughly what it costs in memory and on the wire.
    pub(crate) fn bytes(&self) -> usize {
        64 + self.key.bytes() + self.labels.bytes() + self.detail.as_str().len()
    }
}

impl Batch {
    /// What the history keeps of it: all but what only the store needs to know, which may be far larger.
    pub(crate) fn for_history(self: &Arc<Self>) -> Arc<Self> {
        if self.leases.is_empty() {
            return Arc::clone(self);
        }
        Arc::new(Self {
            revision: self.revision,
            at: self.at,
            changes: self.changes.clone(),
            leases: Vec::new(),
            overrides: self.overrides.clone(),
            by: self.by.clone(),
            trace: self.trace,
        })
    }

    /// Whether it takes more room in the store than it makes. What takes an instance out does not count: it has to be possible
    /// on a full disk.
    pub(crate) fn grows(&self) -> bool {
        let puts = self.changes.iter().any(|change| match change {
            Change::Put { instance, .. } => instance.health != Health::Failing,
            Change::Removed(_) => false,
        });
        let is_governed = !self.overrides.is_empty();
        if is_governed {
            return !self.overrides.iter().all(|change| change.act.makes_room());
        }
        puts
    }

    /// Roughly what its leases cost until it is on disk.
    pub(crate) fn lease_bytes(&self) -> usize {
        let lease = |lease: &LeaseChange| match lease {
            LeaseChange::Kept(record) | LeaseChange::Lost(record) => {
                128 + record.replaced.iter().map(|key| 48 + key.bytes()).sum::<usize>()
            }
            LeaseChange::Ended(_) => 32,
        };
        self.leases.iter().map(lease).sum()
    }

    /// Roughly what the history costs that is kept of it.
    pub(crate) fn bytes(&self) -> usize {
        let change = |change: &Change| match change {
            Change::Put { instance, left } => instance.bytes() + left.as_ref().map_or(0, Labels::bytes),
            Change::Removed(removal) => removal.bytes(),
        };
        let overrides = self.overrides.iter().map(OverrideChange::bytes).sum::<usize>();
        let by = self.by.as_ref().map_or(0, |by| by.as_str().len());
        64 + by + self.changes.iter().map(change).sum::<usize>() + overrides
    }
}
