//! How values look on disk: protobuf messages of our own, apart from the wire's, so that either can change without the other.
//!
//! Rules of change: a field number is never reused or given another type; a new field's default must mean what its absence
//! meant. Only what breaks that raises [`super::embedded`]'s format number.

use std::{sync::Arc, time::Duration};

use prost::{Enumeration, Message, Oneof};

use crate::{
    catalog::{Batch, Change, LeaseRecord, Removal},
    model::{
        Detail, Endpoint, Epoch, GrpcService, Heartbeat, Host, Instance, InstanceId, InstanceKey, Label, Labels,
        LeaseId, Metadata, Namespace, Port, Protocol, RemovalReason, ReplicaId, Revision, SecretHash, ServiceName,
        Spec, Status, ValueError, Version, WallTime, Weight, Zone,
    },
};

/// Why a record does not read back.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// Not protobuf.
    #[error(transparent)]
    Decode(#[from] prost::DecodeError),
    /// Protobuf, but not a value that we could have written.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A part that is always written is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyRecord {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    service: String,
    #[prost(string, tag = "3")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TimeRecord {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(uint32, tag = "2")]
    nanos: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EndpointRecord {
    #[prost(enumeration = "ProtocolRecord", tag = "1")]
    protocol: i32,
    #[prost(string, tag = "2")]
    host: String,
    #[prost(uint32, tag = "3")]
    port: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelsRecord {
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
pub(super) struct InstanceRecord {
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
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LeaseTermsRecord {
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
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BatchRecord {
    #[prost(message, optional, tag = "1")]
    at: Option<TimeRecord>,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<ChangeRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ChangeRecord {
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
pub(super) struct PutRecord {
    #[prost(message, optional, tag = "1")]
    instance: Option<InstanceRecord>,
    #[prost(message, optional, tag = "2")]
    left: Option<LabelsRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RemovalRecord {
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

pub(super) fn encode_instance(instance: &Instance) -> Vec<u8> {
    InstanceRecord::from(instance).encode_to_vec()
}

pub(super) fn decode_instance(bytes: &[u8]) -> Result<Instance, RecordError> {
    InstanceRecord::decode(bytes)?.try_into()
}

pub(super) fn encode_lease(lease: &LeaseRecord) -> Vec<u8> {
    let interval = lease.heartbeat.interval();
    LeaseTermsRecord {
        secret_sha256: lease.secret.as_bytes().to_vec(),
        // At most an hour: see `limits::HEARTBEAT_MAX`.
        interval_millis: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
        misses: lease.heartbeat.misses(),
        replaced: lease.replaced.iter().map(KeyRecord::from).collect(),
        interval_subsec_nanos: interval.subsec_nanos() % 1_000_000,
        emptied: lease.emptied,
        owner: lease.owner.bits(),
    }
    .encode_to_vec()
}

pub(super) fn decode_lease(id: LeaseId, bytes: &[u8]) -> Result<LeaseRecord, RecordError> {
    let record = LeaseTermsRecord::decode(bytes)?;
    let secret: [u8; 32] = record
        .secret_sha256
        .try_into()
        .map_err(|_| RecordError::Missing("the secret's hash"))?;
    let interval =
        Duration::from_millis(record.interval_millis) + Duration::from_nanos(record.interval_subsec_nanos.into());
    Ok(LeaseRecord {
        id,
        secret: SecretHash::from_bytes(secret),
        heartbeat: Heartbeat::try_new(interval, record.misses)?,
        replaced: record
            .replaced
            .into_iter()
            .map(TryInto::try_into)
            .collect::<Result<_, _>>()?,
        emptied: record.emptied,
        owner: ReplicaId::from_bits(record.owner),
    })
}

pub(super) fn encode_batch(batch: &Batch) -> Vec<u8> {
    let changes = batch.changes.iter().map(ChangeRecord::from).collect();
    BatchRecord {
        at: Some(batch.at.into()),
        changes,
    }
    .encode_to_vec()
}

/// The lease changes of a batch are not in the history: nobody resumes a lease from there.
pub(super) fn decode_batch(revision: Revision, bytes: &[u8]) -> Result<Batch, RecordError> {
    let record = BatchRecord::decode(bytes)?;
    Ok(Batch {
        revision,
        at: record.at.ok_or(RecordError::Missing("the time"))?.into(),
        changes: record
            .changes
            .into_iter()
            .map(TryInto::try_into)
            .collect::<Result<_, _>>()?,
        leases: Vec::new(),
    })
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

impl TryFrom<KeyRecord> for InstanceKey {
    type Error = RecordError;

    fn try_from(record: KeyRecord) -> Result<Self, RecordError> {
        Ok(Self {
            namespace: Namespace::try_new(&record.namespace)?,
            service: ServiceName::try_new(&record.service)?,
            id: InstanceId::try_new(&record.id)?,
        })
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

impl From<TimeRecord> for WallTime {
    fn from(record: TimeRecord) -> Self {
        Self {
            seconds: record.seconds,
            nanos: record.nanos,
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

impl TryFrom<LabelsRecord> for Labels {
    type Error = RecordError;

    fn try_from(record: LabelsRecord) -> Result<Self, RecordError> {
        Ok(Self {
            version: Version::try_new(&record.version)?,
            group: Label::try_new(&record.group)?,
            zone: Zone::try_new(&record.zone)?,
            tag: Label::try_new(&record.tag)?,
        })
    }
}

impl From<&Endpoint> for EndpointRecord {
    fn from(endpoint: &Endpoint) -> Self {
        let protocol = match endpoint.protocol {
            Protocol::Grpc => ProtocolRecord::Grpc,
            Protocol::Grpcs => ProtocolRecord::Grpcs,
            Protocol::Http => ProtocolRecord::Http,
        };
        Self {
            protocol: protocol.into(),
            host: endpoint.host.as_str().to_owned(),
            port: endpoint.port.get(),
        }
    }
}

impl TryFrom<EndpointRecord> for Endpoint {
    type Error = RecordError;

    fn try_from(record: EndpointRecord) -> Result<Self, RecordError> {
        Ok(Self {
            protocol: match record.protocol() {
                ProtocolRecord::Grpc => Protocol::Grpc,
                ProtocolRecord::Grpcs => Protocol::Grpcs,
                ProtocolRecord::Http => Protocol::Http,
            },
            host: Host::try_new(&record.host)?,
            port: Port::try_new(record.port)?,
        })
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
        }
    }
}

impl TryFrom<InstanceRecord> for Instance {
    type Error = RecordError;

    fn try_from(record: InstanceRecord) -> Result<Self, RecordError> {
        let status = match record.status() {
            StatusRecord::Up => Status::Up,
            StatusRecord::Starting => Status::Starting,
            StatusRecord::Draining => Status::Draining,
            StatusRecord::Down => Status::Down,
        };
        let lease: [u8; 16] = record.lease.try_into().map_err(|_| RecordError::Missing("the lease"))?;
        Ok(Self {
            key: record.key.ok_or(RecordError::Missing("the key"))?.try_into()?,
            spec: Spec {
                endpoints: record
                    .endpoints
                    .into_iter()
                    .map(TryInto::try_into)
                    .collect::<Result<_, _>>()?,
                labels: record.labels.unwrap_or_default().try_into()?,
                weight: Weight::try_new(record.weight)?,
                status,
                grpc_services: record
                    .grpc_services
                    .iter()
                    .map(|s| GrpcService::try_new(s))
                    .collect::<Result<_, _>>()?,
                metadata: Metadata::try_new(record.metadata.into_iter())?,
            },
            started_at: record.started_at.ok_or(RecordError::Missing("the time"))?.into(),
            epoch: Epoch::of(Revision::new(record.epoch)),
            revision: Revision::new(record.revision),
            lease: LeaseId::from_random(u128::from_be_bytes(lease)),
        })
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

impl TryFrom<ChangeRecord> for Change {
    type Error = RecordError;

    fn try_from(record: ChangeRecord) -> Result<Self, RecordError> {
        Ok(match record.kind.ok_or(RecordError::Missing("the change"))? {
            ChangeKind::Put(put) => Self::Put {
                instance: Arc::new(put.instance.ok_or(RecordError::Missing("the instance"))?.try_into()?),
                left: put.left.map(TryInto::try_into).transpose()?,
            },
            ChangeKind::Removed(removal) => Self::Removed(Removal {
                reason: match removal.reason() {
                    ReasonRecord::Deregistered => RemovalReason::Deregistered,
                    ReasonRecord::Drained => RemovalReason::Drained,
                    ReasonRecord::Expired => RemovalReason::Expired,
                    ReasonRecord::Replaced => RemovalReason::Replaced,
                },
                key: removal.key.ok_or(RecordError::Missing("the key"))?.try_into()?,
                labels: removal.labels.unwrap_or_default().try_into()?,
                detail: Detail::try_new(&removal.detail)?,
            }),
        })
    }
}
