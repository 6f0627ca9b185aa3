//! One running copy of a service, and what is said of it by itself and by operators.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
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

/// A decision of an operator that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Who decided.
    pub who: String,
    /// Why.
    pub why: String,
    /// When it ends by itself; `None`: never.
    pub until: Option<SystemTime>,
}

/// What an operator has laid over an instance. A drain and a weight are two decisions, each with its own end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Governed {
    /// True while the operator has taken the instance out.
    pub drained: bool,
    /// The weight that replaces the instance's own.
    pub weight: Option<u32>,
    /// Who decided last.
    pub who: String,
    /// Why.
    pub why: String,
    /// When that ends by itself.
    pub until: Option<SystemTime>,
    /// The decision that drained it, as far as the registry tells.
    pub drain_decision: Option<Decision>,
    /// The decision on its weight, as far as the registry tells.
    pub weight_decision: Option<Decision>,
}

/// What the registry's own probes say of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Health {
    /// It is not probed, or has not been often enough; or a number of the wire that this version does not know.
    #[default]
    Unprobed,
    /// It answers.
    Passing,
    /// It does not, and takes no calls.
    Failing,
}

/// How the registry is to probe an instance, by grpc.health.v1. What is left at its default is the registry's to choose.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HealthProbe {
    /// The time between two, 1 s to 1 h. `None`: 30 s.
    pub interval: Option<Duration>,
    /// How long one may take, 100 ms to the interval. `None`: 3 s, or the interval if that is less.
    pub timeout: Option<Duration>,
    /// How many fail in a row before it is failing, 1 to 10. 0: 3.
    pub misses: u32,
    /// The gRPC service that is asked about. Empty: the server as a whole.
    pub grpc_service: String,
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
    /// What the registry's probes say.
    pub health: Health,
    /// How it is probed; `None`: it is not.
    pub probe: Option<HealthProbe>,
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
            health: Health::Unprobed,
            probe: None,
        }
    }

    /// True when it takes new calls: UP, not found failing, not drained by an operator, weight above 0, and with a gRPC address.
    #[must_use]
    pub fn is_callable(&self) -> bool {
        let is_well = self.status == InstanceStatus::Up && self.health != Health::Failing;
        is_well && !self.drained && self.weight > 0 && self.grpc_endpoint().is_some()
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
                health: Health::Failing,
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
