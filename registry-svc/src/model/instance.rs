//! An instance: what its owner says of it ([`Spec`]) and what the registry adds (epoch, revision, lease).

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    ops::{Deref, DerefMut},
    sync::Arc,
};

use super::{
    Endpoints, GrpcService, Health, InstanceId, Label, LeaseId, Metadata, Namespace, Override, Probe, ServiceName,
    ValueError, Version, WallTime, Zone,
};
use crate::limits;

/// The count of committed changes. 0 is the empty registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Revision(u64);

/// The revision of an instance's registration: a fencing token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Epoch(Revision);

/// Names an instance in all of the registry. Ordered as lists are: by namespace, service, id. Namespace and service are read as
/// if they were fields: they are those of its [`ServiceKey`].
#[derive(Debug, Clone)]
pub(crate) struct InstanceKey {
    of: Arc<ServiceKey>,
    /// Within the service.
    pub(crate) id: InstanceId,
}

/// Names a service in all of the registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServiceKey {
    /// Isolates.
    pub(crate) namespace: Namespace,
    /// The application.
    pub(crate) service: ServiceName,
}

/// An instance's numbers, its lease and what frames them.
const FRAME_BYTES: usize = 128;
/// A probe's numbers, and the name of a service.
const PROBE_BYTES: usize = 320;

/// Share of calls against its peers: 0 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Weight(u16);

/// What an instance says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Status {
    /// Not yet ready for calls.
    Starting,
    /// Takes calls.
    Up,
    /// Finishes what it has.
    Draining,
    /// Takes no calls.
    Down,
}

/// What a selector selects by. Fixed from one registration to the next: an update cannot change it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Labels {
    /// Semantic version.
    pub(crate) version: Version,
    /// Variants that are not interchangeable.
    pub(crate) group: Label,
    /// Where it runs.
    pub(crate) zone: Zone,
    /// For tag routing.
    pub(crate) tag: Label,
}

/// What an instance has in common with those that were rolled out with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Profile {
    /// What it is selected by.
    pub(crate) labels: Labels,
    /// What it serves.
    pub(crate) grpc_services: Box<[GrpcService]>,
}

/// What the owner says of its instance. Labels and gRPC services are read as if they were fields: they are those of its
/// [`Profile`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Spec {
    /// 1 to 8.
    pub(crate) endpoints: Endpoints,
    /// What it has in common with others.
    pub(crate) profile: Arc<Profile>,
    /// Free pairs.
    pub(crate) metadata: Metadata,
    /// Share of calls.
    pub(crate) weight: Weight,
    /// Whether it takes calls.
    pub(crate) status: Status,
    /// How it is to be probed; `None`: not at all.
    pub(crate) probe: Option<Arc<Probe>>,
}

/// An instance that asks to be registered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Draft {
    /// Its name.
    pub(crate) key: InstanceKey,
    /// What its owner says.
    pub(crate) spec: Spec,
    /// When its process started; else the time of registration.
    pub(crate) started_at: Option<WallTime>,
}

/// A registered instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    /// Its name.
    pub(crate) key: InstanceKey,
    /// What its owner says.
    pub(crate) spec: Spec,
    /// When its process started.
    pub(crate) started_at: WallTime,
    /// The revision of its registration.
    pub(crate) epoch: Epoch,
    /// The revision of its last change.
    pub(crate) revision: Revision,
    /// What keeps it.
    pub(crate) lease: LeaseId,
    /// What an operator has laid over it; a copy of what is kept under its name.
    pub(crate) governance: Option<Arc<Override>>,
    /// What its probes say.
    pub(crate) health: Health,
}

impl Revision {
    /// The empty registry.
    pub(crate) const ZERO: Self = Self(0);

    /// From its number.
    pub(crate) fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub(crate) fn get(self) -> u64 {
        self.0
    }

    /// The one after this.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Epoch {
    /// Of a registration at this revision.
    pub(crate) fn of(revision: Revision) -> Self {
        Self(revision)
    }

    /// The revision of the registration.
    pub(crate) fn revision(self) -> Revision {
        self.0
    }
}

impl PartialEq for InstanceKey {
    fn eq(&self, other: &Self) -> bool {
        // The id first: it differs where anything does, and siblings share the rest.
        self.id == other.id && (Arc::ptr_eq(&self.of, &other.of) || self.of == other.of)
    }
}

impl Eq for InstanceKey {}

impl Hash for InstanceKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.of.hash(state);
        self.id.hash(state);
    }
}

impl PartialOrd for InstanceKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InstanceKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let of = if Arc::ptr_eq(&self.of, &other.of) {
            Ordering::Equal
        } else {
            self.of.cmp(&other.of)
        };
        of.then_with(|| self.id.cmp(&other.id))
    }
}

impl Deref for InstanceKey {
    type Target = ServiceKey;

    fn deref(&self) -> &ServiceKey {
        &self.of
    }
}

impl Deref for Spec {
    type Target = Profile;

    fn deref(&self) -> &Profile {
        &self.profile
    }
}

/// What it had in common with others is then its own.
impl DerefMut for Spec {
    fn deref_mut(&mut self) -> &mut Profile {
        Arc::make_mut(&mut self.profile)
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.service, self.id)
    }
}

impl Weight {
    /// 0 to 1000.
    pub(crate) fn try_new(weight: u32) -> Result<Self, ValueError> {
        u16::try_from(weight)
            .ok()
            .filter(|w| u32::from(*w) <= limits::WEIGHT_MAX)
            .map(Self)
            .ok_or(ValueError::OutOfRange {
                min: 0,
                max: limits::WEIGHT_MAX.into(),
                found: weight.into(),
            })
    }

    /// The number.
    pub(crate) fn get(self) -> u32 {
        self.0.into()
    }
}

impl Spec {
    /// Roughly what it costs in memory and on the wire.
    fn bytes(&self) -> usize {
        let services: usize = self.grpc_services.iter().map(|s| s.as_str().len() + 8).sum();
        let probe = self.probe.as_ref().map_or(0, |_| PROBE_BYTES);
        self.endpoints.bytes() + self.labels.bytes() + services + self.metadata.bytes() + probe
    }
}

impl Draft {
    /// Roughly what it costs in memory.
    pub(crate) fn bytes(&self) -> usize {
        FRAME_BYTES + self.key.bytes() + self.spec.bytes()
    }

    /// The instance that a registration at `revision` makes of it.
    pub(crate) fn registered(self, revision: Revision, lease: LeaseId, wall: WallTime) -> Instance {
        Instance {
            key: self.key,
            spec: self.spec,
            started_at: self.started_at.unwrap_or(wall),
            epoch: Epoch::of(revision),
            revision,
            lease,
            governance: None,
            health: Health::Unprobed,
        }
    }
}

impl Instance {
    /// Whether it takes calls: it says so, no operator has taken it out, and no probe says that it does not answer.
    pub(crate) fn is_callable(&self) -> bool {
        let is_drained = self.governance.as_ref().is_some_and(|laid| laid.is_drained());
        let is_well = self.spec.status == Status::Up && self.health != Health::Failing;
        is_well && !is_drained && self.weight().get() > 0
    }

    /// The weight that counts: an operator's, or else its own.
    pub(crate) fn weight(&self) -> Weight {
        let laid = self.governance.as_ref().and_then(|laid| laid.weight());
        laid.unwrap_or(self.spec.weight)
    }

    /// Roughly what it costs in memory and on the wire.
    pub(crate) fn bytes(&self) -> usize {
        let governance = self.governance.as_ref().map_or(0, |laid| laid.bytes());
        FRAME_BYTES + self.key.bytes() + self.spec.bytes() + governance
    }
}

impl InstanceKey {
    /// Of its three names.
    pub(crate) fn new(namespace: Namespace, service: ServiceName, id: InstanceId) -> Self {
        let of = Arc::new(ServiceKey { namespace, service });
        Self { of, id }
    }

    /// Its service.
    pub(crate) fn service_key(&self) -> &Arc<ServiceKey> {
        &self.of
    }

    /// To share it with others.
    pub(super) fn service_mut(&mut self) -> &mut Arc<ServiceKey> {
        &mut self.of
    }

    /// Its three names together.
    pub(crate) fn bytes(&self) -> usize {
        self.namespace.as_str().len() + self.service.as_str().len() + self.id.as_str().len()
    }
}

impl Labels {
    /// Its four texts together.
    pub(crate) fn bytes(&self) -> usize {
        let Self {
            version,
            group,
            zone,
            tag,
        } = self;
        version.as_str().len() + group.as_str().len() + zone.as_str().len() + tag.as_str().len()
    }
}
