//! The records as prost derives them: what the hand-written encoding is compared with, and what writes the stores of format 1
//! that the present code has to read.

use prost::{Enumeration, Message, Oneof};

use crate::{
    catalog::{Batch, Change, LeaseChange, LeaseRecord, OverrideChange},
    model::{
        Act, EndpointView, Health, Instance, InstanceKey, Labels, Override, OverrideRecord, Protocol, Registrant,
        RemovalReason, Ruling, Status, WallTime,
    },
};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyRecord {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    service: String,
    #[prost(string, tag = "3")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TimeRecord {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(uint32, tag = "2")]
    nanos: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EndpointRecord {
    #[prost(enumeration = "ProtocolRecord", tag = "1")]
    protocol: i32,
    #[prost(string, tag = "2")]
    host: String,
    #[prost(uint32, tag = "3")]
    port: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LabelsRecord {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    group: String,
    #[prost(string, tag = "3")]
    zone: String,
    #[prost(string, tag = "4")]
    tag: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InstanceRecord {
    #[prost(message, optional, tag = "1")]
    key: Option<KeyRecord>,
    #[prost(message, repeated, tag = "2")]
    endpoints: Vec<EndpointRecord>,
    #[prost(message, optional, tag = "3")]
    labels: Option<LabelsRecord>,
    #[prost(uint32, tag = "4")]
    weight: u32,
    #[prost(enumeration = "StatusRecord", tag = "5")]
    status: i32,
    #[prost(string, repeated, tag = "6")]
    grpc_services: Vec<String>,
    /// Ordered, so that the same instance gives the same bytes.
    #[prost(btree_map = "string, string", tag = "7")]
    metadata: std::collections::BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    started_at: Option<TimeRecord>,
    #[prost(uint64, tag = "9")]
    epoch: u64,
    #[prost(uint64, tag = "10")]
    revision: u64,
    /// 16 bytes, big endian.
    #[prost(bytes = "vec", tag = "11")]
    lease: Vec<u8>,
    #[prost(message, optional, tag = "12")]
    governance: Option<LaidRecord>,
    #[prost(message, optional, tag = "13")]
    probe: Option<ProbeRecord>,
    #[prost(uint32, tag = "14")]
    health: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProbeRecord {
    #[prost(uint64, tag = "1")]
    interval_nanos: u64,
    #[prost(uint64, tag = "2")]
    timeout_nanos: u64,
    #[prost(uint32, tag = "3")]
    misses: u32,
    #[prost(string, tag = "4")]
    service: String,
    #[prost(string, tag = "5")]
    from: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RulingRecord {
    #[prost(string, tag = "1")]
    who: String,
    #[prost(string, tag = "2")]
    why: String,
    #[prost(message, optional, tag = "3")]
    until: Option<TimeRecord>,
    #[prost(message, optional, tag = "4")]
    at: Option<TimeRecord>,
    #[prost(uint64, tag = "5")]
    revision: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LaidRecord {
    #[prost(message, optional, tag = "1")]
    drain: Option<RulingRecord>,
    #[prost(message, optional, tag = "2")]
    of_weight: Option<RulingRecord>,
    #[prost(uint32, tag = "3")]
    weight: u32,
    #[prost(message, optional, tag = "4")]
    key: Option<KeyRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OverrideChangeRecord {
    #[prost(message, optional, tag = "1")]
    key: Option<KeyRecord>,
    #[prost(message, optional, tag = "2")]
    now: Option<LaidRecord>,
    #[prost(uint32, tag = "3")]
    act: u32,
    #[prost(string, tag = "4")]
    who: String,
    #[prost(string, tag = "5")]
    why: String,
    #[prost(uint32, tag = "6")]
    weight_and_1: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseTermsRecord {
    /// SHA-256 of the secret; never the secret.
    #[prost(bytes = "vec", tag = "1")]
    secret_sha256: Vec<u8>,
    #[prost(uint64, tag = "2")]
    interval_millis: u64,
    #[prost(uint32, tag = "3")]
    misses: u32,
    #[prost(message, repeated, tag = "4")]
    replaced: Vec<KeyRecord>,
    /// What is below a millisecond of the interval.
    #[prost(uint32, tag = "5")]
    interval_subsec_nanos: u32,
    #[prost(bool, tag = "6")]
    emptied: bool,
    #[prost(fixed64, tag = "7")]
    owner: u64,
    #[prost(bytes = "vec", tag = "8")]
    id: Vec<u8>,
    #[prost(fixed64, tag = "9")]
    registrant: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BatchRecord {
    #[prost(message, optional, tag = "1")]
    at: Option<TimeRecord>,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<ChangeRecord>,
    #[prost(message, repeated, tag = "3")]
    leases: Vec<LeaseChangeRecord>,
    #[prost(uint64, tag = "4")]
    revision: u64,
    #[prost(message, repeated, tag = "5")]
    overrides: Vec<OverrideChangeRecord>,
    #[prost(string, tag = "6")]
    by: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GroupRecord {
    #[prost(message, repeated, tag = "1")]
    pub(crate) batches: Vec<BatchRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseChangeRecord {
    #[prost(oneof = "LeaseChangeKind", tags = "1, 2, 3")]
    kind: Option<LeaseChangeKind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum LeaseChangeKind {
    #[prost(message, tag = "1")]
    Kept(LeaseTermsRecord),
    #[prost(message, tag = "2")]
    Lost(LeaseTermsRecord),
    #[prost(bytes, tag = "3")]
    Ended(Vec<u8>),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ChangeRecord {
    #[prost(oneof = "ChangeKind", tags = "1, 2")]
    kind: Option<ChangeKind>,
}

#[derive(Clone, PartialEq, Oneof)]
#[allow(
    clippy::large_enum_variant,
    reason = "lives for one encoding; a box would cost an allocation each"
)]
enum ChangeKind {
    #[prost(message, tag = "1")]
    Put(PutRecord),
    #[prost(message, tag = "2")]
    Removed(RemovalRecord),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutRecord {
    #[prost(message, optional, tag = "1")]
    instance: Option<InstanceRecord>,
    #[prost(message, optional, tag = "2")]
    left: Option<LabelsRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RemovalRecord {
    #[prost(message, optional, tag = "1")]
    key: Option<KeyRecord>,
    #[prost(message, optional, tag = "2")]
    labels: Option<LabelsRecord>,
    #[prost(enumeration = "ReasonRecord", tag = "3")]
    reason: i32,
    #[prost(string, tag = "4")]
    detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
enum ProtocolRecord {
    Grpc = 0,
    Grpcs = 1,
    Http = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
enum StatusRecord {
    Up = 0,
    Starting = 1,
    Draining = 2,
    Down = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
enum ReasonRecord {
    Deregistered = 0,
    Drained = 1,
    Expired = 2,
    Replaced = 3,
}

impl From<&InstanceKey> for KeyRecord {
    fn from(key: &InstanceKey) -> Self {
        Self {
            namespace: key.namespace.to_string(),
            service: key.service.to_string(),
            id: key.id.to_string(),
        }
    }
}

impl From<WallTime> for TimeRecord {
    fn from(time: WallTime) -> Self {
        Self {
            seconds: time.seconds,
            nanos: time.nanos,
        }
    }
}

impl From<&Labels> for LabelsRecord {
    fn from(labels: &Labels) -> Self {
        Self {
            version: labels.version.as_str().to_owned(),
            group: labels.group.to_string(),
            zone: labels.zone.to_string(),
            tag: labels.tag.to_string(),
        }
    }
}

impl From<EndpointView<'_>> for EndpointRecord {
    fn from(endpoint: EndpointView<'_>) -> Self {
        let protocol = match endpoint.protocol {
            Protocol::Grpc => ProtocolRecord::Grpc,
            Protocol::Grpcs => ProtocolRecord::Grpcs,
            Protocol::Http => ProtocolRecord::Http,
        };
        Self {
            protocol: protocol.into(),
            host: endpoint.host.to_owned(),
            port: endpoint.port.get(),
        }
    }
}

impl From<&Instance> for InstanceRecord {
    fn from(instance: &Instance) -> Self {
        let status = match instance.spec.status {
            Status::Up => StatusRecord::Up,
            Status::Starting => StatusRecord::Starting,
            Status::Draining => StatusRecord::Draining,
            Status::Down => StatusRecord::Down,
        };
        Self {
            key: Some((&instance.key).into()),
            endpoints: instance.spec.endpoints.iter().map(Into::into).collect(),
            labels: Some((&instance.spec.labels).into()),
            weight: instance.spec.weight.get(),
            status: status.into(),
            grpc_services: instance.spec.grpc_services.iter().map(ToString::to_string).collect(),
            metadata: instance
                .spec
                .metadata
                .iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
            started_at: Some(instance.started_at.into()),
            epoch: instance.epoch.revision().get(),
            revision: instance.revision.get(),
            lease: instance.lease.bits().to_be_bytes().to_vec(),
            governance: instance.governance.as_ref().map(|laid| (&**laid).into()),
            probe: instance.spec.probe.as_ref().map(|probe| ProbeRecord {
                interval_nanos: u64::try_from(probe.interval().as_nanos()).expect("at most an hour"),
                timeout_nanos: u64::try_from(probe.timeout().as_nanos()).expect("at most an hour"),
                misses: probe.misses(),
                service: probe.service().map(ToString::to_string).unwrap_or_default(),
                from: probe.from().map(|from| from.to_string()).unwrap_or_default(),
            }),
            health: match instance.health {
                Health::Unprobed => 0,
                Health::Passing => 1,
                Health::Failing => 2,
            },
        }
    }
}

impl From<&Ruling> for RulingRecord {
    fn from(ruling: &Ruling) -> Self {
        Self {
            who: ruling.who.to_string(),
            why: ruling.why.to_string(),
            until: ruling.until.map(Into::into),
            at: Some(ruling.at.into()),
            revision: ruling.revision.get(),
        }
    }
}

impl From<&Override> for LaidRecord {
    fn from(laid: &Override) -> Self {
        Self {
            drain: laid.drain.as_ref().map(Into::into),
            of_weight: laid.weight.as_ref().map(|(_, ruling)| ruling.into()),
            weight: laid.weight().map_or(0, |weight| weight.get()),
            key: None,
        }
    }
}

impl From<&OverrideRecord> for LaidRecord {
    fn from(record: &OverrideRecord) -> Self {
        Self {
            key: Some((&record.key).into()),
            ..(&*record.laid).into()
        }
    }
}

impl From<&OverrideChange> for OverrideChangeRecord {
    fn from(change: &OverrideChange) -> Self {
        let (act, weight_and_1) = match change.act {
            Act::Drained => (0, 0),
            Act::Undrained => (1, 0),
            Act::WeightCleared => (2, 0),
            Act::DrainEnded => (3, 0),
            Act::WeightEnded => (4, 0),
            Act::Forgotten => (5, 0),
            Act::WeightSet(weight) => (0, weight.get() + 1),
        };
        Self {
            key: Some((&change.key).into()),
            now: change.now.as_ref().map(|laid| (&**laid).into()),
            act,
            who: change.who.as_ref().map(ToString::to_string).unwrap_or_default(),
            why: change.why.to_string(),
            weight_and_1,
        }
    }
}

impl From<&Change> for ChangeRecord {
    fn from(change: &Change) -> Self {
        let kind = match change {
            Change::Put { instance, left } => ChangeKind::Put(PutRecord {
                instance: Some((&**instance).into()),
                left: left.as_ref().map(Into::into),
            }),
            Change::Removed(removal) => ChangeKind::Removed(RemovalRecord {
                key: Some((&removal.key).into()),
                labels: Some((&removal.labels).into()),
                reason: match removal.reason {
                    RemovalReason::Deregistered => ReasonRecord::Deregistered,
                    RemovalReason::Drained => ReasonRecord::Drained,
                    RemovalReason::Expired => ReasonRecord::Expired,
                    RemovalReason::Replaced => ReasonRecord::Replaced,
                }
                .into(),
                detail: removal.detail.to_string(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl From<&LeaseRecord> for LeaseTermsRecord {
    fn from(lease: &LeaseRecord) -> Self {
        let interval = lease.heartbeat.interval();
        Self {
            secret_sha256: lease.secret.as_bytes().to_vec(),
            interval_millis: u64::try_from(interval.as_millis()).expect("at most an hour"),
            misses: lease.heartbeat.misses(),
            replaced: lease.replaced.iter().map(KeyRecord::from).collect(),
            interval_subsec_nanos: interval.subsec_nanos() % 1_000_000,
            emptied: lease.emptied,
            owner: lease.owner.bits(),
            id: Vec::new(),
            registrant: lease.registrant.map_or(0, Registrant::bits),
        }
    }
}

impl From<&LeaseChange> for LeaseChangeRecord {
    fn from(change: &LeaseChange) -> Self {
        let with_id = |lease: &LeaseRecord| LeaseTermsRecord {
            id: lease.id.bits().to_be_bytes().to_vec(),
            ..lease.into()
        };
        Self {
            kind: Some(match change {
                LeaseChange::Kept(lease) => LeaseChangeKind::Kept(with_id(lease)),
                LeaseChange::Lost(lease) => LeaseChangeKind::Lost(with_id(lease)),
                LeaseChange::Ended(id) => LeaseChangeKind::Ended(id.bits().to_be_bytes().to_vec()),
            }),
        }
    }
}

impl From<&Batch> for BatchRecord {
    fn from(batch: &Batch) -> Self {
        Self {
            at: Some(batch.at.into()),
            changes: batch.changes.iter().map(Into::into).collect(),
            leases: batch.leases.iter().map(Into::into).collect(),
            revision: batch.revision.get(),
            overrides: batch.overrides.iter().map(Into::into).collect(),
            by: batch.by.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl BatchRecord {
    /// As the history of format 1 has it.
    pub(crate) fn of_format_1(batch: &Batch) -> Self {
        Self {
            leases: Vec::new(),
            revision: 0,
            ..batch.into()
        }
    }
}
