//! The one file that names generated types: proto to model, model to proto, `Status` to [`Error`]. Its
//! submodule `peer` makes the calls, `steps` hears the watches. No answer of a peer panics here: unknown numbers become `Unknown`, times out of range
//! become `None`, missing parts their defaults.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost::Message as _;
use proto::registry::v1;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::{
    error::{Answer, Error},
    model::{
        Confidence, DEFAULT_WEIGHT, Decision, Endpoint, Governed, Health, HealthProbe, Instance, InstanceEvent,
        InstanceStatus, Protocol, Removal, RemovalReason, Selector, ServiceSummary, SnapshotCause, Told, WatchStep,
    },
};

mod parts;
pub(crate) mod peer;
pub(crate) mod steps;

/// The largest answer that is read, and the largest snapshot, all of its parts together: some 50,000 instances of 1 KiB. A
/// registry that sends snapshots as one message would be unwatchable with tonic's default of 4 MiB.
const MAX_ANSWER: usize = 64 << 20;

impl From<v1::Endpoint> for Endpoint {
    fn from(wire: v1::Endpoint) -> Self {
        Self {
            protocol: match v1::Protocol::try_from(wire.protocol) {
                Ok(v1::Protocol::Unspecified | v1::Protocol::Grpc) => Protocol::Grpc,
                Ok(v1::Protocol::Grpcs) => Protocol::Grpcs,
                Ok(v1::Protocol::Http) => Protocol::Http,
                Err(_) => Protocol::Unknown(wire.protocol),
            },
            host: wire.host,
            port: u16::try_from(wire.port).unwrap_or(0),
        }
    }
}

impl From<Endpoint> for v1::Endpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            protocol: match endpoint.protocol {
                Protocol::Grpc => v1::Protocol::Grpc.into(),
                Protocol::Grpcs => v1::Protocol::Grpcs.into(),
                Protocol::Http => v1::Protocol::Http.into(),
                Protocol::Unknown(number) => number,
            },
            host: endpoint.host,
            port: endpoint.port.into(),
        }
    }
}

impl From<v1::Instance> for Instance {
    fn from(wire: v1::Instance) -> Self {
        let governed = wire.r#override.map(Governed::from);
        let laid_over = governed.as_ref().and_then(|governed| governed.weight);
        Self {
            namespace: wire.namespace,
            service: wire.service,
            id: wire.id,
            endpoints: wire.endpoints.into_iter().map(Endpoint::from).collect(),
            version: wire.version,
            group: wire.group,
            zone: wire.zone,
            tag: wire.tag,
            weight: laid_over.or(wire.weight).unwrap_or(DEFAULT_WEIGHT),
            status: match v1::InstanceStatus::try_from(wire.status) {
                Ok(v1::InstanceStatus::Unspecified | v1::InstanceStatus::Up) => InstanceStatus::Up,
                Ok(v1::InstanceStatus::Starting) => InstanceStatus::Starting,
                Ok(v1::InstanceStatus::Draining) => InstanceStatus::Draining,
                Ok(v1::InstanceStatus::Down) => InstanceStatus::Down,
                Err(_) => InstanceStatus::Unknown(wire.status),
            },
            grpc_services: wire.grpc_services,
            metadata: wire.metadata.into_iter().collect(),
            started_at: wire.started_at.and_then(system_time),
            epoch: wire.epoch,
            revision: wire.revision,
            drained: governed.as_ref().is_some_and(|governed| governed.drained),
            governed,
            health: match v1::Health::try_from(wire.health) {
                Ok(v1::Health::Passing) => Health::Passing,
                Ok(v1::Health::Failing) => Health::Failing,
                Ok(v1::Health::Unspecified) | Err(_) => Health::Unprobed,
            },
            probe: wire.probe.map(HealthProbe::from),
        }
    }
}

impl From<v1::HealthProbe> for HealthProbe {
    fn from(wire: v1::HealthProbe) -> Self {
        let duration = |wire: prost_types::Duration| wire.try_into().ok();
        Self {
            interval: wire.interval.and_then(duration),
            timeout: wire.timeout.and_then(duration),
            misses: wire.misses,
            grpc_service: wire.grpc_service,
        }
    }
}

impl From<HealthProbe> for v1::HealthProbe {
    fn from(probe: HealthProbe) -> Self {
        let duration = |duration: std::time::Duration| duration.try_into().ok();
        Self {
            interval: probe.interval.and_then(duration),
            timeout: probe.timeout.and_then(duration),
            misses: probe.misses,
            grpc_service: probe.grpc_service,
        }
    }
}

/// What an owner may say: the fields that the registry alone fills stay empty.
impl From<Instance> for v1::Instance {
    fn from(instance: Instance) -> Self {
        Self {
            namespace: instance.namespace,
            service: instance.service,
            id: instance.id,
            endpoints: instance.endpoints.into_iter().map(v1::Endpoint::from).collect(),
            version: instance.version,
            group: instance.group,
            zone: instance.zone,
            tag: instance.tag,
            weight: Some(instance.weight),
            status: match instance.status {
                InstanceStatus::Starting => v1::InstanceStatus::Starting.into(),
                InstanceStatus::Up => v1::InstanceStatus::Up.into(),
                InstanceStatus::Draining => v1::InstanceStatus::Draining.into(),
                InstanceStatus::Down => v1::InstanceStatus::Down.into(),
                InstanceStatus::Unknown(number) => number,
            },
            grpc_services: instance.grpc_services,
            metadata: instance.metadata.into_iter().collect(),
            started_at: instance.started_at.and_then(timestamp),
            epoch: 0,
            revision: 0,
            lease_id: String::new(),
            r#override: None,
            probe: instance.probe.map(v1::HealthProbe::from),
            health: 0,
        }
    }
}

impl From<v1::GovernanceDecision> for Decision {
    fn from(wire: v1::GovernanceDecision) -> Self {
        Self {
            who: wire.who,
            why: wire.why,
            until: wire.until.and_then(system_time),
        }
    }
}

impl From<v1::GovernanceOverride> for Governed {
    fn from(wire: v1::GovernanceOverride) -> Self {
        let decision = |kind| {
            let found = wire.decisions.iter().find(|decision| decision.kind() == kind);
            found.cloned().map(Decision::from)
        };
        Self {
            drained: wire.drained,
            weight: wire.weight,
            drain_decision: decision(v1::governance_decision::Kind::Drain),
            weight_decision: decision(v1::governance_decision::Kind::Weight),
            who: wire.who,
            why: wire.why,
            until: wire.until.and_then(system_time),
        }
    }
}

impl From<v1::ServiceSummary> for ServiceSummary {
    fn from(wire: v1::ServiceSummary) -> Self {
        Self {
            service: wire.service,
            instances: wire.instances,
            callable: wire.callable,
            versions: wire.versions,
        }
    }
}

impl From<Selector> for v1::Selector {
    fn from(selector: Selector) -> Self {
        Self {
            version: selector.version,
            group: selector.group,
            zone: selector.zone,
            tag: selector.tag,
        }
    }
}

impl From<Removal> for v1::RemovalReason {
    fn from(removal: Removal) -> Self {
        match removal {
            Removal::Deregistered => Self::Deregistered,
            Removal::Drained => Self::Drained,
        }
    }
}

impl From<v1::Confidence> for Confidence {
    fn from(wire: v1::Confidence) -> Self {
        match v1::confidence::State::try_from(wire.state) {
            Ok(v1::confidence::State::Unspecified | v1::confidence::State::Fresh) => Self::Fresh,
            Ok(v1::confidence::State::Recovering) => Self::Recovering,
            Ok(v1::confidence::State::Protecting) => Self::Protecting,
            Ok(v1::confidence::State::Stale) => Self::Stale(wire.age.and_then(duration).unwrap_or_default()),
            Err(_) => Self::Unknown(wire.state),
        }
    }
}

impl From<v1::WatchResponse> for WatchStep {
    fn from(wire: v1::WatchResponse) -> Self {
        let revision = wire.revision;
        let confidence = wire.confidence.map(Confidence::from).unwrap_or_default();
        match wire.change {
            Some(v1::watch_response::Change::Snapshot(snapshot)) => Self::Snapshot {
                revision,
                cause: match v1::snapshot::Cause::try_from(snapshot.cause) {
                    Ok(v1::snapshot::Cause::Initial) => SnapshotCause::Initial,
                    Ok(v1::snapshot::Cause::Compacted) => SnapshotCause::Compacted,
                    Ok(v1::snapshot::Cause::Coalesced) => SnapshotCause::Coalesced,
                    Ok(v1::snapshot::Cause::HistoryChanged) => SnapshotCause::HistoryChanged,
                    Ok(v1::snapshot::Cause::Unspecified) | Err(_) => SnapshotCause::Unknown(snapshot.cause),
                },
                instances: snapshot.instances.into_iter().map(Instance::from).collect(),
                confidence,
            },
            Some(v1::watch_response::Change::Delta(delta)) => Self::Delta {
                revision,
                events: delta.events.into_iter().filter_map(event).collect(),
                confidence,
            },
            // A kind of step that this version does not know tells its revision, as a bookmark does.
            Some(v1::watch_response::Change::Bookmark(_)) | None => Self::Bookmark { revision, confidence },
        }
    }
}

impl From<v1::WatchResponse> for Told {
    fn from(mut wire: v1::WatchResponse) -> Self {
        // One that cannot be read is none.
        let cause = match &wire.change {
            Some(v1::watch_response::Change::Delta(delta)) => delta.traceparent.parse().ok(),
            _ => None,
        };
        Self {
            cause,
            history: std::mem::take(&mut wire.history_id),
            step: wire.into(),
        }
    }
}

fn event(wire: v1::InstanceEvent) -> Option<InstanceEvent> {
    match wire.event? {
        v1::instance_event::Event::Put(instance) => Some(InstanceEvent::Put(Arc::new(instance.into()))),
        v1::instance_event::Event::Removed(removal) => Some(InstanceEvent::Removed {
            service: removal.service,
            id: removal.id,
            reason: match v1::RemovalReason::try_from(removal.reason) {
                Ok(v1::RemovalReason::Deregistered) => RemovalReason::Deregistered,
                Ok(v1::RemovalReason::Drained) => RemovalReason::Drained,
                Ok(v1::RemovalReason::Expired) => RemovalReason::Expired,
                Ok(v1::RemovalReason::Replaced) => RemovalReason::Replaced,
                Ok(v1::RemovalReason::Unspecified) | Err(_) => RemovalReason::Unknown(removal.reason),
            },
            detail: removal.detail,
            removed_at: removal.removed_at.and_then(system_time),
        }),
    }
}

fn system_time(wire: prost_types::Timestamp) -> Option<SystemTime> {
    SystemTime::try_from(wire).ok()
}

fn timestamp(time: SystemTime) -> Option<prost_types::Timestamp> {
    // prost's own conversion panics on times far away.
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(prost_types::Timestamp {
        seconds: i64::try_from(since_epoch.as_secs()).ok()?,
        nanos: i32::try_from(since_epoch.subsec_nanos()).ok()?,
    })
}

/// `None` for a negative or malformed duration. prost's own conversion negates, and overflows on `i64::MIN`.
fn duration(wire: prost_types::Duration) -> Option<Duration> {
    let nanos = u32::try_from(wire.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(wire.seconds).ok()?, nanos))
}

fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

/// A failed call as an error: what the transport says of itself is told apart from what the registry says.
fn error(endpoint: &str, status: &Status) -> Error {
    // tonic keeps the cause with every status that it makes of a local error, and a peer's status has none.
    if let Some(source) = std::error::Error::source(status) {
        return Error::Unreachable {
            endpoint: endpoint.to_owned(),
            problem: tls::ConnectError::explain(source).map_or_else(|| chain(source), |error| error.to_string()),
        };
    }
    // But not with this one, which it makes of an answer beyond our limit. Only the limit in its words tells it from the same
    // complaint of a peer, whose limit is another.
    if status.code() == Code::OutOfRange && status.message().ends_with(&format!("limit is: {} bytes", MAX_ANSWER)) {
        return Error::AnswerTooLarge {
            endpoint: endpoint.to_owned(),
            problem: status.message().to_owned(),
        };
    }
    let mut answer = Answer {
        endpoint: endpoint.to_owned(),
        code: status.code(),
        reason: String::new(),
        message: status.message().to_owned(),
        retry_after: None,
        violations: Vec::new(),
    };
    // Read by hand: tonic-types converts a RetryInfo with prost's negation, which overflows as `duration` above tells.
    let details = pb::Status::decode(status.details()).unwrap_or_default().details;
    for detail in details {
        match detail.type_url.rsplit('/').next() {
            Some("google.rpc.ErrorInfo") => {
                answer.reason = pb::ErrorInfo::decode(&*detail.value).unwrap_or_default().reason;
            }
            Some("google.rpc.RetryInfo") => {
                let info = pb::RetryInfo::decode(&*detail.value).unwrap_or_default();
                answer.retry_after = info.retry_delay.and_then(duration);
            }
            Some("google.rpc.BadRequest") => {
                let request = pb::BadRequest::decode(&*detail.value).unwrap_or_default();
                answer.violations.extend(
                    request
                        .field_violations
                        .into_iter()
                        .map(|violation| (violation.field, violation.description)),
                );
            }
            _ => {}
        }
    }
    Error::Answered(Box::new(answer))
}

/// An error with its causes, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
