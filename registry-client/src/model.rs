//! What a registry knows, in our own types: instances, removals, the steps of a watch. Nothing here names the generated types
//! (`wire` translates) and nothing acts.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// The namespace that is meant when none is named.
pub const DEFAULT_NAMESPACE: &str = "default";
/// The weight of an instance that does not say one.
pub const DEFAULT_WEIGHT: u32 = 100;

/// How an endpoint is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Protocol {
    /// gRPC over HTTP/2 without TLS.
    #[default]
    Grpc,
    /// gRPC over HTTP/2 with TLS.
    Grpcs,
    /// Plain HTTP, for example metrics.
    Http,
    /// A number of the wire that this version does not know.
    Unknown(i32),
}

/// An address of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// How it is spoken to.
    pub protocol: Protocol,
    /// A DNS name or an IP address, without port and brackets.
    pub host: String,
    /// 1 to 65535; 0 stands for a port that could not be read.
    pub port: u16,
}

impl Endpoint {
    /// A gRPC endpoint from `host:port` or `[ipv6]:port`.
    ///
    /// Text without a readable port becomes a host with port 0, which the registry refuses with a violation that names the
    /// field: what an address may be is decided in one place.
    #[must_use]
    pub fn grpc(address: &str) -> Self {
        let split = address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = split.unwrap_or((address, 0));
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        Self {
            protocol: Protocol::Grpc,
            host: host.to_owned(),
            port,
        }
    }

    /// The same address, spoken to in another way.
    #[must_use]
    pub fn with_protocol(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// `host:port`, with brackets around an IPv6 address.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// What an instance says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum InstanceStatus {
    /// Not yet ready for calls.
    Starting,
    /// Takes calls.
    #[default]
    Up,
    /// Finishes what it has and takes no new calls.
    Draining,
    /// Registered, but takes no calls.
    Down,
    /// A number of the wire that this version does not know; treated as one that takes no calls.
    Unknown(i32),
}

impl fmt::Display for InstanceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.pad("STARTING"),
            Self::Up => f.pad("UP"),
            Self::Draining => f.pad("DRAINING"),
            Self::Down => f.pad("DOWN"),
            Self::Unknown(number) => f.pad(&format!("UNKNOWN({number})")),
        }
    }
}

/// What an operator has laid over an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Governed {
    /// True while the operator has taken the instance out.
    pub drained: bool,
    /// The weight that replaces the instance's own.
    pub weight: Option<u32>,
    /// Who decided.
    pub who: String,
    /// Why.
    pub why: String,
    /// When it ends by itself.
    pub until: Option<SystemTime>,
}

/// One running copy of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The namespace it lives in.
    pub namespace: String,
    /// The application's name, for example `ticket-svc`.
    pub service: String,
    /// Unique within the service.
    pub id: String,
    /// Its addresses; the first gRPC one is the one to call.
    pub endpoints: Vec<Endpoint>,
    /// Semantic version; may be empty.
    pub version: String,
    /// Variant of the service that is not interchangeable with others; may be empty.
    pub group: String,
    /// Where it runs; may be empty.
    pub zone: String,
    /// Traffic tag; empty means untagged.
    pub tag: String,
    /// Share of calls against its peers, 0 to 1000, default 100. An operator's weight is already applied.
    pub weight: u32,
    /// What it says of itself.
    pub status: InstanceStatus,
    /// Full names of the gRPC services it serves.
    pub grpc_services: Vec<String>,
    /// Free pairs.
    pub metadata: BTreeMap<String, String>,
    /// When the process started, for warm-up.
    pub started_at: Option<SystemTime>,
    /// The revision of its registration: a fencing token that grows with every registration of the id.
    pub epoch: i64,
    /// The revision of its last change.
    pub revision: i64,
    /// True while an operator has taken it out.
    pub drained: bool,
    /// All that an operator has laid over it.
    pub governed: Option<Governed>,
}

impl Instance {
    /// An instance with one gRPC address (`host:port`) and everything else at its default.
    #[must_use]
    pub fn new(service: impl Into<String>, id: impl Into<String>, address: &str) -> Self {
        Self {
            namespace: DEFAULT_NAMESPACE.to_owned(),
            service: service.into(),
            id: id.into(),
            endpoints: vec![Endpoint::grpc(address)],
            version: String::new(),
            group: String::new(),
            zone: String::new(),
            tag: String::new(),
            weight: DEFAULT_WEIGHT,
            status: InstanceStatus::Up,
            grpc_services: Vec::new(),
            metadata: BTreeMap::new(),
            started_at: None,
            epoch: 0,
            revision: 0,
            drained: false,
            governed: None,
        }
    }

    /// True when it takes new calls: UP, not drained by an operator, weight above 0, and with a gRPC address.
    #[must_use]
    pub fn is_callable(&self) -> bool {
        self.status == InstanceStatus::Up && !self.drained && self.weight > 0 && self.grpc_endpoint().is_some()
    }

    /// The endpoint that balancers call: the first of protocol grpc or grpcs.
    #[must_use]
    pub fn grpc_endpoint(&self) -> Option<&Endpoint> {
        self.endpoints
            .iter()
            .find(|endpoint| matches!(endpoint.protocol, Protocol::Grpc | Protocol::Grpcs))
    }

    /// `host:port` of [`grpc_endpoint`](Self::grpc_endpoint).
    #[must_use]
    pub fn grpc_address(&self) -> Option<String> {
        self.grpc_endpoint().map(Endpoint::authority)
    }
}

/// How much the registry trusts what it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Confidence {
    /// Up to date.
    #[default]
    Fresh,
    /// Just restarted: nothing expires until the window for re-attaching has closed.
    Recovering,
    /// Too many leases lapse at once: expiry is slowed down.
    Protecting,
    /// Its store cannot be reached: true as of so long ago.
    Stale(Duration),
    /// A number of the wire that this version does not know.
    Unknown(i32),
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.pad("FRESH"),
            Self::Recovering => f.pad("RECOVERING"),
            Self::Protecting => f.pad("PROTECTING"),
            Self::Stale(age) => f.pad(&format!("STALE({age:?})")),
            Self::Unknown(number) => f.pad(&format!("UNKNOWN({number})")),
        }
    }
}

/// The instances of a service as a [`Watcher`](crate::Watcher) knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Everything up to this revision of the registry is in it; 0 before the first word of the registry.
    pub revision: i64,
    /// Ordered by service and id. Not only callable ones: see [`Instance::is_callable`].
    pub instances: Vec<Arc<Instance>>,
    /// How the watcher stands with the registry.
    pub state: SnapshotState,
    /// What the registry last said about its own certainty.
    pub confidence: Confidence,
    /// How many of the instances are kept although the registry no longer shows them: see the crate's page on the
    /// never-empty rule.
    pub unconfirmed: usize,
}

/// How a watcher stands with the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotState {
    /// Nothing is known yet, and nothing has failed yet.
    Connecting,
    /// The watch is open: what the registry knows is here a moment later.
    Fresh,
    /// The watch is broken, or never came to be: this is the last good set, perhaps an empty one (then `revision` is 0).
    Stale {
        /// Since when the registry has not been heard.
        since: Instant,
        /// Why, for people.
        reason: String,
    },
}

impl Snapshot {
    /// The set of nothing, before the first word of the registry.
    #[must_use]
    pub fn connecting() -> Self {
        Self {
            revision: 0,
            instances: Vec::new(),
            state: SnapshotState::Connecting,
            confidence: Confidence::Fresh,
            unconfirmed: 0,
        }
    }

    /// A fresh set of these instances, as for a target that is fixed or fed by hand.
    #[must_use]
    pub fn fresh(revision: i64, instances: impl IntoIterator<Item = Instance>) -> Self {
        Self {
            revision,
            instances: instances.into_iter().map(Arc::new).collect(),
            state: SnapshotState::Fresh,
            confidence: Confidence::Fresh,
            unconfirmed: 0,
        }
    }

    /// Those that take new calls.
    pub fn callable(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.iter().filter(|instance| instance.is_callable())
    }

    /// True once the registry has told its set at least once.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.revision > 0 || self.state == SnapshotState::Fresh
    }
}

/// Which instances of a service are meant. Empty fields select everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// An exact version.
    pub version: String,
    /// A group.
    pub group: String,
    /// A zone.
    pub zone: String,
    /// A tag.
    pub tag: String,
}

/// What an owner says when it takes its instance back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Removal {
    /// It leaves.
    Deregistered,
    /// It leaves after draining.
    Drained,
}

/// Why an instance left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemovalReason {
    /// Its owner deregistered it.
    Deregistered,
    /// Its owner deregistered it after draining.
    Drained,
    /// Its lease lapsed.
    Expired,
    /// Another lease registered the same id.
    Replaced,
    /// A number of the wire that this version does not know.
    Unknown(i32),
}

impl fmt::Display for RemovalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deregistered => f.pad("DEREGISTERED"),
            Self::Drained => f.pad("DRAINED"),
            Self::Expired => f.pad("EXPIRED"),
            Self::Replaced => f.pad("REPLACED"),
            Self::Unknown(number) => f.pad(&format!("UNKNOWN({number})")),
        }
    }
}

/// Why a snapshot was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SnapshotCause {
    /// The watch began without a revision.
    Initial,
    /// The revision to resume from is older than the history that the registry keeps.
    Compacted,
    /// The watcher was so slow that its changes were merged into one snapshot.
    Coalesced,
    /// A number of the wire that this version does not know.
    Unknown(i32),
}

/// One step of a raw watch: see [`Registry::watch`](crate::Registry::watch).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchStep {
    /// Replaces everything that was known of the selection.
    Snapshot {
        /// The revision it is of.
        revision: i64,
        /// Ordered by service and id.
        instances: Vec<Instance>,
        /// Why it was sent.
        cause: SnapshotCause,
        /// How far to trust it.
        confidence: Confidence,
    },
    /// What changed, all of one revision.
    Delta {
        /// The revision.
        revision: i64,
        /// In the order in which they were applied.
        events: Vec<InstanceEvent>,
        /// How far to trust it.
        confidence: Confidence,
    },
    /// Nothing changed in the selection.
    Bookmark {
        /// A safe point to resume from.
        revision: i64,
        /// How far to trust it.
        confidence: Confidence,
    },
}

impl WatchStep {
    /// Everything up to this revision has been told.
    #[must_use]
    pub fn revision(&self) -> i64 {
        match self {
            Self::Snapshot { revision, .. } | Self::Delta { revision, .. } | Self::Bookmark { revision, .. } => {
                *revision
            }
        }
    }

    /// How far the registry trusts what it tells.
    #[must_use]
    pub fn confidence(&self) -> Confidence {
        match self {
            Self::Snapshot { confidence, .. } | Self::Delta { confidence, .. } | Self::Bookmark { confidence, .. } => {
                *confidence
            }
        }
    }
}

/// An instance came, changed or left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceEvent {
    /// It came or changed: what it is now.
    Put(Arc<Instance>),
    /// It left.
    Removed {
        /// Its service.
        service: String,
        /// Its id.
        id: String,
        /// Why.
        reason: RemovalReason,
        /// For people.
        detail: String,
        /// By the registry's wall clock.
        removed_at: Option<SystemTime>,
    },
}

/// A service in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSummary {
    /// Its name.
    pub service: String,
    /// How many instances are registered.
    pub instances: u32,
    /// How many of them take calls.
    pub callable: u32,
    /// The versions that run, each once.
    pub versions: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        let cases = [
            ("127.0.0.1:7101", "127.0.0.1", 7101, "127.0.0.1:7101"),
            ("[::1]:7101", "::1", 7101, "[::1]:7101"),
            ("ticket-svc:80", "ticket-svc", 80, "ticket-svc:80"),
            ("ticket-svc", "ticket-svc", 0, "ticket-svc:0"),
            ("host:99999", "host:99999", 0, "[host:99999]:0"),
            ("", "", 0, ":0"),
        ];
        for (text, host, port, authority) in cases {
            let endpoint = Endpoint::grpc(text);
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port), "{text:?}");
            assert_eq!(endpoint.authority(), authority, "{text:?}");
        }
    }

    #[test]
    fn who_takes_calls() {
        let up = Instance::new("ticket-svc", "a", "127.0.0.1:7101");
        assert!(up.is_callable());
        let not = [
            Instance {
                status: InstanceStatus::Draining,
                ..up.clone()
            },
            Instance {
                status: InstanceStatus::Unknown(77),
                ..up.clone()
            },
            Instance {
                drained: true,
                ..up.clone()
            },
            Instance {
                weight: 0,
                ..up.clone()
            },
            Instance {
                endpoints: vec![Endpoint::grpc("127.0.0.1:9101").with_protocol(Protocol::Http)],
                ..up
            },
        ];
        for instance in not {
            assert!(!instance.is_callable(), "{instance:?}");
        }
    }

    #[test]
    fn the_first_grpc_endpoint_is_the_one_to_call() {
        let mut instance = Instance::new("ticket-svc", "a", "127.0.0.1:9101");
        instance.endpoints[0].protocol = Protocol::Http;
        instance
            .endpoints
            .push(Endpoint::grpc("10.0.0.1:7101").with_protocol(Protocol::Unknown(9)));
        instance.endpoints.push(Endpoint::grpc("[fe80::1]:7101"));
        instance.endpoints.push(Endpoint::grpc("10.0.0.2:7101"));
        assert_eq!(instance.grpc_address().as_deref(), Some("[fe80::1]:7101"));
    }
}
