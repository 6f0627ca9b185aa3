//! Instances on the wire: `proto::Instance` to and from the model's.

use std::sync::Arc;

use proto::registry::v1 as wire;

use super::validate::{Violations, path};
use crate::{
    limits,
    model::{
        Confidence, Draft, Endpoint, EndpointView, Endpoints, GrpcService, Health, Host, Instance, InstanceId,
        InstanceKey, Label, Labels, Metadata, Namespace, Override, Port, Probe, Profile, Protocol, RemovalReason,
        Revision, Ruling, ServiceName, Spec, Status, ValueError, Version, WallTime, Weight, Zone,
    },
    prober::Speaks,
};

/// An instance as a request describes it; its id may be left to us.
#[derive(Debug, Hash)]
pub(super) struct Wanted {
    /// Isolates.
    pub(super) namespace: Namespace,
    /// The application.
    pub(super) service: ServiceName,
    /// `None`: we choose.
    pub(super) id: Option<InstanceId>,
    spec: Spec,
    started_at: Option<WallTime>,
}

impl Wanted {
    /// With an id, drawn from `random` where the request has none.
    pub(super) fn draft(self, random: u64) -> Draft {
        let id = self.id.unwrap_or_else(|| InstanceId::chosen(&self.service, random));
        let key = InstanceKey::new(self.namespace, self.service, id);
        Draft {
            key,
            spec: self.spec,
            started_at: self.started_at,
        }
    }
}

/// What a Register says of an instance.
pub(super) fn wanted(
    violations: &mut Violations,
    prefix: &str,
    instance: wire::Instance,
    probes: Speaks,
) -> Option<Wanted> {
    let at = |field: &str| path(prefix, field);
    for (field, is_set) in [
        ("epoch", instance.epoch != 0),
        ("revision", instance.revision != 0),
        ("lease_id", !instance.lease_id.is_empty()),
        ("override", instance.r#override.is_some()),
        ("health", instance.health != 0),
    ] {
        if is_set {
            violations.add(at(field), "output only: leave it out");
        }
    }
    let namespace = violations.check(at("namespace"), Namespace::try_new(&instance.namespace));
    let service = violations.check(at("service"), ServiceName::try_new(&instance.service));
    let id = match instance.id.as_str() {
        "" => Some(None),
        id => violations.check(at("id"), InstanceId::try_new(id)).map(Some),
    };
    let endpoints = endpoints(violations, &at("endpoints"), instance.endpoints);
    let version = violations.check(at("version"), Version::try_new(&instance.version));
    let group = violations.check(at("group"), Label::try_new(&instance.group));
    let zone = violations.check(at("zone"), Zone::try_new(&instance.zone));
    let tag = violations.check(at("tag"), Label::try_new(&instance.tag));
    let weight = weight(violations, &at("weight"), instance.weight);
    let status = status(violations, &at("status"), instance.status);
    let grpc_services = grpc_services(violations, &at("grpc_services"), &instance.grpc_services);
    let metadata = violations.check(at("metadata"), Metadata::try_new(instance.metadata.into_iter()));
    let probe = match instance.probe {
        Some(asked) => probe(violations, &at("probe"), asked, endpoints.as_ref(), probes).map(Some),
        None => Some(None),
    };
    let started_at = match instance.started_at {
        Some(time) => violations.time(at("started_at"), time).map(Some),
        None => Some(None),
    };
    Some(Wanted {
        namespace: namespace?,
        service: service?,
        id: id?,
        spec: Spec {
            endpoints: endpoints?,
            profile: Arc::new(Profile {
                labels: Labels {
                    version: version?,
                    group: group?,
                    zone: zone?,
                    tag: tag?,
                },
                grpc_services: grpc_services?,
            }),
            metadata: metadata?,
            weight: weight?,
            status: status?,
            probe: probe?.map(Arc::new),
        },
        started_at: started_at?,
    })
}

/// The name of one instance, complete.
pub(super) fn key(
    violations: &mut Violations,
    prefix: &str,
    namespace: &str,
    service: &str,
    id: &str,
) -> Option<InstanceKey> {
    let namespace = violations.check(path(prefix, "namespace"), Namespace::try_new(namespace));
    let service = violations.check(path(prefix, "service"), ServiceName::try_new(service));
    let id = violations.check(path(prefix, "id"), InstanceId::try_new(id));
    Some(InstanceKey::new(namespace?, service?, id?))
}

pub(super) fn weight(violations: &mut Violations, field: &str, weight: Option<u32>) -> Option<Weight> {
    violations.check(field, Weight::try_new(weight.unwrap_or(limits::WEIGHT_DEFAULT)))
}

pub(super) fn status(violations: &mut Violations, field: &str, status: i32) -> Option<Status> {
    let known = wire::InstanceStatus::try_from(status).map(|status| match status {
        wire::InstanceStatus::Unspecified | wire::InstanceStatus::Up => Status::Up,
        wire::InstanceStatus::Starting => Status::Starting,
        wire::InstanceStatus::Draining => Status::Draining,
        wire::InstanceStatus::Down => Status::Down,
    });
    violations.check(
        field,
        known.map_err(|_| "must be one of the statuses STARTING, UP, DRAINING, DOWN"),
    )
}

fn endpoints(violations: &mut Violations, field: &str, endpoints: Vec<wire::Endpoint>) -> Option<Endpoints> {
    let found = endpoints.len();
    if found == 0 {
        violations.add(field, format!("required: 1 to {} addresses", limits::ENDPOINTS));
        return None;
    }
    if found > limits::ENDPOINTS {
        violations.add(
            field,
            ValueError::TooManyEntries {
                limit: limits::ENDPOINTS,
                found,
            },
        );
        return None;
    }
    let checked = endpoints.into_iter().enumerate().map(|(index, endpoint)| {
        let prefix = format!("{field}[{index}]");
        let protocol = wire::Protocol::try_from(endpoint.protocol).map(|protocol| match protocol {
            wire::Protocol::Unspecified | wire::Protocol::Grpc => Protocol::Grpc,
            wire::Protocol::Grpcs => Protocol::Grpcs,
            wire::Protocol::Http => Protocol::Http,
        });
        let protocol = violations.check(
            path(&prefix, "protocol"),
            protocol.map_err(|_| "must be one of GRPC, GRPCS, HTTP"),
        );
        let host = violations.check(path(&prefix, "host"), Host::try_new(&endpoint.host));
        let port = violations.check(path(&prefix, "port"), Port::try_new(endpoint.port));
        Some(Endpoint {
            protocol: protocol?,
            host: host?,
            port: port?,
        })
    });
    // All of them are looked at, not only those up to the first that is wrong.
    let checked: Vec<Option<Endpoint>> = checked.collect();
    checked.into_iter().collect()
}

/// What is asked for; where the request's connection came from is not known here.
fn probe(
    violations: &mut Violations,
    field: &str,
    asked: wire::HealthProbe,
    endpoints: Option<&Endpoints>,
    probes: Speaks,
) -> Option<Probe> {
    let grpc = |endpoint: &EndpointView<'_>| matches!(endpoint.protocol, Protocol::Grpc | Protocol::Grpcs);
    let first = endpoints?.iter().find(grpc).map(|endpoint| endpoint.protocol);
    let missing = match (first, probes) {
        (Some(Protocol::Grpc), _) | (Some(_), Speaks::Tls) => None,
        (Some(_), Speaks::Plain) => Some(
            "needs an endpoint of PROTOCOL_GRPC as the first gRPC one: this registry has no CA bundle (--tls-ca), without \
             which it cannot probe TLS",
        ),
        (None, _) => Some("needs an endpoint of PROTOCOL_GRPC or PROTOCOL_GRPCS, the first of which is probed"),
    };
    if let Some(missing) = missing {
        violations.add(field, missing);
        return None;
    }
    let mut read = |name: &str, value: Option<prost_types::Duration>| match value {
        Some(value) => violations.duration(&path(field, name), value).map(Some),
        None => Some(None),
    };
    let (interval, timeout) = (read("interval", asked.interval), read("timeout", asked.timeout));
    let service = match asked.grpc_service.as_str() {
        "" => Some(None),
        name => violations
            .check(path(field, "grpc_service"), GrpcService::try_new(name))
            .map(Some),
    };
    violations.check(field, Probe::try_new(interval?, timeout?, asked.misses, service?))
}

fn grpc_services(violations: &mut Violations, field: &str, services: &[String]) -> Option<Box<[GrpcService]>> {
    let found = services.len();
    if found > limits::GRPC_SERVICES {
        violations.add(
            field,
            ValueError::TooManyEntries {
                limit: limits::GRPC_SERVICES,
                found,
            },
        );
        return None;
    }
    let checked = services.iter().enumerate();
    let checked: Vec<Option<GrpcService>> = checked
        .map(|(index, service)| violations.check(format!("{field}[{index}]"), GrpcService::try_new(service)))
        .collect();
    checked.into_iter().collect()
}

/// As the wire has it.
pub(super) fn to_wire(instance: &Instance) -> wire::Instance {
    let Instance {
        key,
        spec,
        started_at,
        epoch,
        revision,
        lease,
        governance,
        health,
    } = instance;
    let endpoint = |endpoint: EndpointView<'_>| wire::Endpoint {
        protocol: protocol_to_wire(endpoint.protocol).into(),
        host: endpoint.host.to_owned(),
        port: endpoint.port.get(),
    };
    wire::Instance {
        namespace: key.namespace.to_string(),
        service: key.service.to_string(),
        id: key.id.to_string(),
        endpoints: spec.endpoints.iter().map(endpoint).collect(),
        version: spec.labels.version.as_str().to_owned(),
        group: spec.labels.group.to_string(),
        zone: spec.labels.zone.to_string(),
        tag: spec.labels.tag.to_string(),
        weight: Some(spec.weight.get()),
        status: status_to_wire(spec.status).into(),
        grpc_services: spec.grpc_services.iter().map(ToString::to_string).collect(),
        metadata: spec
            .metadata
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        started_at: Some(timestamp(*started_at)),
        epoch: number(epoch.revision()),
        revision: number(*revision),
        lease_id: lease.to_string(),
        r#override: governance.as_ref().map(|laid| override_to_wire(laid)),
        probe: spec.probe.as_deref().map(probe_to_wire),
        health: health_to_wire(*health).into(),
    }
}

pub(super) fn protocol_to_wire(protocol: Protocol) -> wire::Protocol {
    match protocol {
        Protocol::Grpc => wire::Protocol::Grpc,
        Protocol::Grpcs => wire::Protocol::Grpcs,
        Protocol::Http => wire::Protocol::Http,
    }
}

pub(super) fn status_to_wire(status: Status) -> wire::InstanceStatus {
    match status {
        Status::Starting => wire::InstanceStatus::Starting,
        Status::Up => wire::InstanceStatus::Up,
        Status::Draining => wire::InstanceStatus::Draining,
        Status::Down => wire::InstanceStatus::Down,
    }
}

pub(super) fn health_to_wire(health: Health) -> wire::Health {
    match health {
        Health::Unprobed => wire::Health::Unspecified,
        Health::Passing => wire::Health::Passing,
        Health::Failing => wire::Health::Failing,
    }
}

pub(super) fn probe_to_wire(probe: &Probe) -> wire::HealthProbe {
    wire::HealthProbe {
        interval: Some(duration(probe.interval())),
        timeout: Some(duration(probe.timeout())),
        misses: probe.misses(),
        grpc_service: probe.service().map(ToString::to_string).unwrap_or_default(),
    }
}

/// What is laid over an instance, as the wire has it.
pub(super) fn override_to_wire(laid: &Override) -> wire::GovernanceOverride {
    use wire::governance_decision::Kind;
    let decision = |kind: Kind, ruling: &Ruling| wire::GovernanceDecision {
        who: ruling.who.to_string(),
        why: ruling.why.to_string(),
        until: ruling.until.map(timestamp),
        at: Some(timestamp(ruling.at)),
        revision: number(ruling.revision),
        kind: kind.into(),
    };
    let latest = laid.latest().map(|ruling| decision(Kind::Unspecified, ruling));
    let latest = latest.unwrap_or_default();
    let drain = laid.drain.as_ref().map(|ruling| decision(Kind::Drain, ruling));
    let weight = laid.weight.as_ref();
    let weight = weight.map(|(_, ruling)| decision(Kind::Weight, ruling));
    wire::GovernanceOverride {
        drained: laid.is_drained(),
        weight: laid.weight().map(Weight::get),
        who: latest.who,
        why: latest.why,
        until: latest.until,
        decisions: drain.into_iter().chain(weight).collect(),
    }
}

pub(super) fn timestamp(time: WallTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.seconds,
        nanos: i32::try_from(time.nanos).unwrap_or(i32::MAX),
    }
}

/// Durations of ours are bounded by hours; the wire's reach 10,000 years.
pub(super) fn duration(duration: std::time::Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

/// A revision on the wire. At a million a second, 63 bits last for 292,000 years.
pub(super) fn number(revision: Revision) -> i64 {
    i64::try_from(revision.get()).unwrap_or(i64::MAX)
}

pub(super) fn reason(reason: RemovalReason) -> wire::RemovalReason {
    match reason {
        RemovalReason::Deregistered => wire::RemovalReason::Deregistered,
        RemovalReason::Drained => wire::RemovalReason::Drained,
        RemovalReason::Expired => wire::RemovalReason::Expired,
        RemovalReason::Replaced => wire::RemovalReason::Replaced,
    }
}

pub(super) fn confidence(confidence: Confidence) -> wire::Confidence {
    let (state, age) = match confidence {
        Confidence::Fresh => (wire::confidence::State::Fresh, None),
        Confidence::Recovering => (wire::confidence::State::Recovering, None),
        Confidence::Protecting => (wire::confidence::State::Protecting, None),
        Confidence::Stale { age } => (wire::confidence::State::Stale, Some(age)),
    };
    wire::Confidence {
        state: state.into(),
        // A time that protobuf cannot hold is longer than any registry lives.
        age: age.and_then(|age| age.try_into().ok()),
    }
}
