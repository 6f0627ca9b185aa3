//! What is registered: the instance as its owner describes it, and how it is kept. Whether the values are within their limits
//! is the registry's to say, so that there is one place for the limits.

use std::time::{Duration, SystemTime};

use rand::RngExt as _;

use crate::model::{Endpoint, HealthProbe, Instance, InstanceStatus, Protocol};

/// How often the owner renews its lease unless told otherwise.
pub const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);
/// How many heartbeats may be missed unless told otherwise: the lease lives interval x misses, 15 s by default.
pub const DEFAULT_MISSES: u32 = 3;

/// An instance to register. Build it, then give it to [`Registry::register`](crate::Registry::register).
#[derive(Debug, Clone)]
pub struct Registration {
    pub(crate) instance: Instance,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) misses_allowed: u32,
}

impl Registration {
    /// An instance of `service` that takes gRPC calls at `address` (`host:port`, reachable for its callers).
    ///
    /// Its id is random, its start is now; everything else has its default. An address that cannot be read is refused by the
    /// registry, and [`Registrar::registered`](crate::Registrar::registered) returns that.
    #[must_use]
    pub fn new(service: impl Into<String>, address: impl AsRef<str>) -> Self {
        let service = service.into();
        // 48 random bits: among 10,000 instances of a service two agree with a chance of 1 in 5 million. Chosen here rather
        // than by the registry, so that it is known before the first answer and stays the same in all of them.
        let id = format!("{service}-{:012x}", rand::rng().random::<u64>() >> 16);
        let mut instance = Instance::new(service, id, address.as_ref());
        instance.started_at = Some(SystemTime::now());
        Self {
            instance,
            heartbeat_interval: DEFAULT_HEARTBEAT,
            misses_allowed: DEFAULT_MISSES,
        }
    }

    /// How callers speak to its address. Default: gRPC without TLS.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        if let Some(endpoint) = self.instance.endpoints.first_mut() {
            endpoint.protocol = protocol;
        }
        self
    }

    /// The instance's id; whoever registers the same id later replaces it.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.instance.id = id.into();
        self
    }

    /// Its address is to be called with TLS. Default: without.
    #[must_use]
    pub fn secured(mut self) -> Self {
        if let Some(first) = self.instance.endpoints.first_mut() {
            first.protocol = Protocol::Grpcs;
        }
        self
    }

    /// A further address.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.instance.endpoints.push(endpoint);
        self
    }

    /// Semantic version.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.instance.version = version.into();
        self
    }

    /// Variant of the service.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.instance.group = group.into();
        self
    }

    /// Where it runs.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.instance.zone = zone.into();
        self
    }

    /// Traffic tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.instance.tag = tag.into();
        self
    }

    /// Full names of the gRPC services it serves.
    #[must_use]
    pub fn grpc_services<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.instance.grpc_services = names.into_iter().map(Into::into).collect();
        self
    }

    /// One free pair; a later value of the same key wins.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.instance.metadata.insert(key.into(), value.into());
        self
    }

    /// Share of calls against its peers, 0 to 1000. Default: 100.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.instance.weight = weight;
        self
    }

    /// What it says of itself at first. Default: UP.
    #[must_use]
    pub fn status(mut self, status: InstanceStatus) -> Self {
        self.instance.status = status;
        self
    }

    /// Has the registry probe it. Default: it does not. Refused where the registry may not dial: see the contract.
    #[must_use]
    pub fn probe(mut self, probe: HealthProbe) -> Self {
        self.instance.probe = Some(probe);
        self
    }

    /// When the process started. Default: when this description was made.
    #[must_use]
    pub fn started_at(mut self, started_at: SystemTime) -> Self {
        self.instance.started_at = Some(started_at);
        self
    }

    /// Renews every `interval` (100 ms to 1 h) and may miss `misses` (1 to 100) of them; their product is at least 500 ms.
    /// Default: 5 s and 3.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration, misses: u32) -> Self {
        self.heartbeat_interval = interval;
        self.misses_allowed = misses;
        self
    }

    /// The id that will be registered.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.instance.id
    }
}
