//! From bytes to the model. Every value passes its own rules again: a record is input as a request is.

use std::{sync::Arc, time::Duration};

use super::{
    RecordError,
    wire::{Fields, Value},
};
use crate::{
    catalog::{Batch, Change, LeaseChange, LeaseRecord, OverrideChange, Removal},
    limits,
    model::{
        Act, Detail, Endpoint, Epoch, GrpcService, Health, Heartbeat, Host, Instance, InstanceId, InstanceKey, Label,
        Labels, LeaseId, Metadata, Namespace, Override, OverrideRecord, Port, Probe, Profile, Protocol, Registrant,
        RemovalReason, ReplicaId, Revision, Ruling, SecretHash, ServiceName, Shared, Spec, Status, ValueError, Version,
        WallTime, Weight, Who, Zone,
    },
};

/// Reads records one after the other. Neighbours have much in common: a text that is as in the record before is neither
/// checked nor allocated again.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    namespace: Option<Namespace>,
    service: Option<ServiceName>,
    version: Option<Version>,
    group: Option<Label>,
    zone: Option<Zone>,
    tag: Option<Label>,
    /// By their place in the list.
    grpc_services: Vec<Option<GrpcService>>,
    detail: Option<Detail>,
    by: Option<Who>,
    shared: Shared,
}

/// What was read last, if that is what the text says; else what `make` makes of it, which is then the last.
fn again<T: Clone>(
    last: &mut Option<T>,
    text: &str,
    read: impl Fn(&T) -> &str,
    make: impl FnOnce(&str) -> Result<T, ValueError>,
) -> Result<T, ValueError> {
    match last {
        Some(last) if read(last) == text => Ok(last.clone()),
        _ => {
            let made = make(text)?;
            *last = Some(made.clone());
            Ok(made)
        }
    }
}

impl Decoder {
    /// Of [`super::encode_instance`].
    pub(crate) fn instance(&mut self, bytes: &[u8]) -> Result<Instance, RecordError> {
        self.instance_of(Fields::of(bytes))
    }

    /// Of [`super::encode_lease`].
    pub(crate) fn lease(&mut self, id: LeaseId, bytes: &[u8]) -> Result<LeaseRecord, RecordError> {
        self.lease_of(Some(id), Fields::of(bytes))
    }

    /// With its id in it, as in a [`LeaseChange`].
    pub(crate) fn whole_lease(&mut self, bytes: &[u8]) -> Result<LeaseRecord, RecordError> {
        self.lease_of(None, Fields::of(bytes))
    }

    /// Of [`super::encode_override`].
    pub(crate) fn laid(&mut self, bytes: &[u8]) -> Result<OverrideRecord, RecordError> {
        let mut key = None;
        for field in Fields::of(bytes) {
            if let (4, value) = field? {
                key = Some(self.key(value)?);
            }
        }
        let laid = Self::override_of(Fields::of(bytes))?;
        Ok(OverrideRecord {
            key: key.ok_or(RecordError::Missing("the key"))?,
            laid: laid.kept().ok_or(RecordError::Missing("what is laid over it"))?,
        })
    }

    /// Of [`super::encode_group`].
    pub(crate) fn group(&mut self, bytes: &[u8]) -> Result<Vec<Batch>, RecordError> {
        let mut batches = Vec::new();
        for field in Fields::of(bytes) {
            if let (1, value) = field? {
                batches.push(self.batch_of(None, value.message()?)?);
            }
        }
        Ok(batches)
    }

    /// Of a history of format 1, in which a batch does not say its revision.
    pub(crate) fn batch(&mut self, revision: Revision, bytes: &[u8]) -> Result<Batch, RecordError> {
        self.batch_of(Some(revision), Fields::of(bytes))
    }

    fn batch_of(&mut self, revision: Option<Revision>, fields: Fields<'_>) -> Result<Batch, RecordError> {
        let (mut at, mut revision) = (None, revision);
        let (mut changes, mut leases, mut overrides, mut by) = (Vec::new(), Vec::new(), Vec::new(), None);
        for field in fields {
            match field? {
                (1, value) => at = Some(time(value)?),
                (2, value) => changes.push(self.change(value)?),
                (3, value) => leases.push(self.lease_change(value)?),
                (4, value) => revision = Some(Revision::new(value.number()?)),
                (5, value) => overrides.push(self.override_change(value)?),
                (6, value) => by = Some(again(&mut self.by, value.text()?, Who::as_str, Who::try_new)?),
                _ => {}
            }
        }
        Ok(Batch {
            revision: revision.ok_or(RecordError::Missing("the revision"))?,
            at: at.ok_or(RecordError::Missing("the time"))?,
            changes,
            leases,
            overrides,
            by,
            // Whoever waited for it has been answered by now.
            trace: None,
        })
    }

    fn change(&mut self, value: Value<'_>) -> Result<Change, RecordError> {
        let mut change = None;
        for field in value.message()? {
            match field? {
                (1, value) => change = Some(self.put(value)?),
                (2, value) => change = Some(Change::Removed(self.removal(value)?)),
                _ => {}
            }
        }
        change.ok_or(RecordError::Missing("the change"))
    }

    fn put(&mut self, value: Value<'_>) -> Result<Change, RecordError> {
        let (mut instance, mut left) = (None, None);
        for field in value.message()? {
            match field? {
                (1, value) => instance = Some(self.instance_of(value.message()?)?),
                (2, value) => left = Some(self.labels(value)?),
                _ => {}
            }
        }
        let instance = Arc::new(instance.ok_or(RecordError::Missing("the instance"))?);
        Ok(Change::Put { instance, left })
    }

    fn removal(&mut self, value: Value<'_>) -> Result<Removal, RecordError> {
        let (mut key, mut labels, mut reason, mut detail) = (None, None, RemovalReason::Deregistered, "");
        for field in value.message()? {
            match field? {
                (1, value) => key = Some(self.key(value)?),
                (2, value) => labels = Some(self.labels(value)?),
                (3, value) => reason = removal_reason(value.number()?)?,
                (4, value) => detail = value.text()?,
                _ => {}
            }
        }
        Ok(Removal {
            key: key.ok_or(RecordError::Missing("the key"))?,
            labels: labels.ok_or(RecordError::Missing("what it was selected by"))?,
            reason,
            detail: again(&mut self.detail, detail, Detail::as_str, Detail::try_new)?,
        })
    }

    fn lease_change(&mut self, value: Value<'_>) -> Result<LeaseChange, RecordError> {
        let mut change = None;
        for field in value.message()? {
            match field? {
                (1, value) => change = Some(LeaseChange::Kept(self.lease_of(None, value.message()?)?)),
                (2, value) => change = Some(LeaseChange::Lost(self.lease_of(None, value.message()?)?)),
                (3, value) => change = Some(LeaseChange::Ended(lease_id(value)?)),
                _ => {}
            }
        }
        change.ok_or(RecordError::Missing("the lease's change"))
    }

    fn override_change(&mut self, value: Value<'_>) -> Result<OverrideChange, RecordError> {
        let (mut key, mut now, mut act, mut weight, mut who, mut why) = (None, None, 0, 0, None, "");
        for field in value.message()? {
            match field? {
                (1, value) => key = Some(self.key(value)?),
                (2, value) => now = Self::override_of(value.message()?)?.kept(),
                (3, value) => act = value.number()?,
                (4, value) => who = Some(Who::try_new(value.text()?)?),
                (5, value) => why = value.text()?,
                (6, value) => weight = value.number32()?,
                _ => {}
            }
        }
        Ok(OverrideChange {
            key: key.ok_or(RecordError::Missing("the key"))?,
            act: match weight.checked_sub(1) {
                Some(weight) => Act::WeightSet(Weight::try_new(weight)?),
                None => act_of(act)?,
            },
            who,
            why: again(&mut self.detail, why, Detail::as_str, Detail::try_new)?,
            now,
        })
    }

    fn override_of(fields: Fields<'_>) -> Result<Override, RecordError> {
        let (mut drain, mut of_weight, mut weight) = (None, None, 0);
        for field in fields {
            match field? {
                (1, value) => drain = Some(ruling(value)?),
                (2, value) => of_weight = Some(ruling(value)?),
                (3, value) => weight = value.number32()?,
                _ => {}
            }
        }
        let weight = Weight::try_new(weight)?;
        Ok(Override {
            drain,
            weight: of_weight.map(|ruling| (weight, ruling)),
        })
    }

    fn lease_of(&mut self, id: Option<LeaseId>, fields: Fields<'_>) -> Result<LeaseRecord, RecordError> {
        let (mut id, mut secret, mut owner) = (id, None, ReplicaId::ALONE);
        let (mut millis, mut nanos, mut misses) = (0, 0, 0);
        let (mut replaced, mut emptied, mut registrant) = (Vec::new(), false, None);
        for field in fields {
            match field? {
                (1, value) => secret = <[u8; 32]>::try_from(value.bytes()?).ok(),
                (2, value) => millis = value.number()?,
                (3, value) => misses = value.number32()?,
                (4, value) => replaced.push(self.key(value)?),
                (5, value) => nanos = value.number32()?,
                (6, value) => emptied = value.number()? != 0,
                (9, value) => registrant = Registrant::from_bits(value.number()?),
                (7, value) => owner = ReplicaId::from_bits(value.number()?),
                (8, value) => id = Some(lease_id(value)?),
                _ => {}
            }
        }
        let nanos = below(nanos, 1_000_000, "interval")?;
        let interval = Duration::from_millis(millis) + Duration::from_nanos(nanos.into());
        Ok(LeaseRecord {
            id: id.ok_or(RecordError::Missing("the lease"))?,
            secret: SecretHash::from_bytes(secret.ok_or(RecordError::Missing("the secret's hash"))?),
            heartbeat: Heartbeat::try_new(interval, misses)?,
            owner,
            replaced,
            emptied,
            registrant,
        })
    }

    fn instance_of(&mut self, fields: Fields<'_>) -> Result<Instance, RecordError> {
        let (mut key, mut labels, mut started_at, mut lease, mut governance) = (None, None, None, None, None);
        let (mut weight, mut status, mut epoch, mut revision) = (0, Status::Up, 0, 0);
        let (mut probe, mut health) = (None, Health::Unprobed);
        let (mut endpoints, mut grpc_services, mut metadata) = (Vec::new(), Vec::new(), Vec::new());
        for field in fields {
            match field? {
                (1, value) => key = Some(self.key(value)?),
                (2, value) => endpoints.push(Self::endpoint(value)?),
                (3, value) => labels = Some(self.labels(value)?),
                (4, value) => weight = value.number32()?,
                (5, value) => status = status_of(value.number()?)?,
                (6, value) => grpc_services.push(self.grpc_service(grpc_services.len(), value.text()?)?),
                (7, value) => metadata.push(pair(value)?),
                (8, value) => started_at = Some(time(value)?),
                (9, value) => epoch = value.number()?,
                (10, value) => revision = value.number()?,
                (11, value) => lease = Some(lease_id(value)?),
                (13, value) => probe = Some(Arc::new(Self::probe(value)?)),
                (14, value) => health = health_of(value.number()?)?,
                (12, value) => governance = Self::override_of(value.message()?)?.kept(),
                _ => {}
            }
        }
        below(endpoints.len(), limits::ENDPOINTS + 1, "number of endpoints")?;
        below(
            grpc_services.len(),
            limits::GRPC_SERVICES + 1,
            "number of gRPC services",
        )?;
        let profile = Profile {
            labels: labels.ok_or(RecordError::Missing("what it is selected by"))?,
            grpc_services: grpc_services.into(),
        };
        let mut instance = Instance {
            key: key.ok_or(RecordError::Missing("the key"))?,
            spec: Spec {
                endpoints: endpoints.into_iter().collect(),
                profile: Arc::new(profile),
                metadata: Metadata::try_new(metadata.into_iter())?,
                weight: Weight::try_new(weight)?,
                status,
                probe,
            },
            started_at: started_at.ok_or(RecordError::Missing("the time"))?,
            epoch: Epoch::of(Revision::new(epoch)),
            revision: Revision::new(revision),
            lease: lease.ok_or(RecordError::Missing("the lease"))?,
            governance,
            health,
        };
        self.shared.instance(&mut instance);
        Ok(instance)
    }

    fn probe(value: Value<'_>) -> Result<Probe, RecordError> {
        let (mut interval, mut timeout, mut misses, mut service, mut from) = (None, None, 0, None, None);
        for field in value.message()? {
            match field? {
                (1, value) => interval = Some(Duration::from_nanos(value.number()?)),
                (2, value) => timeout = Some(Duration::from_nanos(value.number()?)),
                (3, value) => misses = value.number32()?,
                (4, value) => service = Some(GrpcService::try_new(value.text()?)?),
                (5, value) => from = value.text()?.parse().ok(),
                _ => {}
            }
        }
        Ok(Probe::try_new(interval, timeout, misses, service)?.asked_from(from))
    }

    fn grpc_service(&mut self, place: usize, name: &str) -> Result<GrpcService, RecordError> {
        if self.grpc_services.len() <= place {
            self.grpc_services.resize(place + 1, None);
        }
        let last = &mut self.grpc_services[place];
        Ok(again(last, name, GrpcService::as_str, GrpcService::try_new)?)
    }

    fn key(&mut self, value: Value<'_>) -> Result<InstanceKey, RecordError> {
        let (mut namespace, mut service, mut id) = ("", "", "");
        for field in value.message()? {
            match field? {
                (1, value) => namespace = value.text()?,
                (2, value) => service = value.text()?,
                (3, value) => id = value.text()?,
                _ => {}
            }
        }
        let mut key = InstanceKey::new(
            again(&mut self.namespace, namespace, Namespace::as_str, Namespace::try_new)?,
            again(&mut self.service, service, ServiceName::as_str, ServiceName::try_new)?,
            InstanceId::try_new(id)?,
        );
        self.shared.key(&mut key);
        Ok(key)
    }

    fn labels(&mut self, value: Value<'_>) -> Result<Labels, RecordError> {
        let (mut version, mut group, mut zone, mut tag) = ("", "", "", "");
        for field in value.message()? {
            match field? {
                (1, value) => version = value.text()?,
                (2, value) => group = value.text()?,
                (3, value) => zone = value.text()?,
                (4, value) => tag = value.text()?,
                _ => {}
            }
        }
        Ok(Labels {
            version: again(&mut self.version, version, Version::as_str, Version::try_new)?,
            group: again(&mut self.group, group, Label::as_str, Label::try_new)?,
            zone: again(&mut self.zone, zone, Zone::as_str, Zone::try_new)?,
            tag: again(&mut self.tag, tag, Label::as_str, Label::try_new)?,
        })
    }

    fn endpoint(value: Value<'_>) -> Result<Endpoint, RecordError> {
        let (mut protocol, mut host, mut port) = (Protocol::Grpc, "", 0);
        for field in value.message()? {
            match field? {
                (1, value) => protocol = protocol_of(value.number()?)?,
                (2, value) => host = value.text()?,
                (3, value) => port = value.number32()?,
                _ => {}
            }
        }
        Ok(Endpoint {
            protocol,
            host: Host::try_new(host)?,
            port: Port::try_new(port)?,
        })
    }
}

/// A number that is below another one.
fn below<N: PartialOrd>(number: N, end: N, what: &'static str) -> Result<N, RecordError> {
    if number < end {
        Ok(number)
    } else {
        Err(RecordError::Beyond(what))
    }
}

fn pair(value: Value<'_>) -> Result<(String, String), RecordError> {
    let (mut name, mut text) = ("", "");
    for field in value.message()? {
        match field? {
            (1, value) => name = value.text()?,
            (2, value) => text = value.text()?,
            _ => {}
        }
    }
    Ok((name.to_owned(), text.to_owned()))
}

fn time(value: Value<'_>) -> Result<WallTime, RecordError> {
    let mut time = WallTime { seconds: 0, nanos: 0 };
    for field in value.message()? {
        match field? {
            (1, value) => time.seconds = value.number()?.cast_signed(),
            (2, value) => time.nanos = value.number32()?,
            _ => {}
        }
    }
    below(time.nanos, 1_000_000_000, "time")?;
    Ok(time)
}

fn ruling(value: Value<'_>) -> Result<Ruling, RecordError> {
    let (mut who, mut why, mut until, mut at, mut revision) = ("", "", None, None, 0);
    for field in value.message()? {
        match field? {
            (1, value) => who = value.text()?,
            (2, value) => why = value.text()?,
            (3, value) => until = Some(time(value)?),
            (4, value) => at = Some(time(value)?),
            (5, value) => revision = value.number()?,
            _ => {}
        }
    }
    Ok(Ruling {
        who: Who::try_new(who)?,
        why: Detail::try_new(why)?,
        until,
        at: at.ok_or(RecordError::Missing("the time"))?,
        revision: Revision::new(revision),
    })
}

fn act_of(number: u64) -> Result<Act, RecordError> {
    match number {
        0 => Ok(Act::Drained),
        1 => Ok(Act::Undrained),
        2 => Ok(Act::WeightCleared),
        3 => Ok(Act::DrainEnded),
        4 => Ok(Act::WeightEnded),
        5 => Ok(Act::Forgotten),
        _ => Err(RecordError::Unknown("act")),
    }
}

fn lease_id(value: Value<'_>) -> Result<LeaseId, RecordError> {
    let bytes = <[u8; 16]>::try_from(value.bytes()?).map_err(|_| RecordError::Missing("the lease"))?;
    Ok(LeaseId::from_random(u128::from_be_bytes(bytes)))
}

fn protocol_of(number: u64) -> Result<Protocol, RecordError> {
    match number {
        0 => Ok(Protocol::Grpc),
        1 => Ok(Protocol::Grpcs),
        2 => Ok(Protocol::Http),
        _ => Err(RecordError::Unknown("protocol")),
    }
}

fn status_of(number: u64) -> Result<Status, RecordError> {
    match number {
        0 => Ok(Status::Up),
        1 => Ok(Status::Starting),
        2 => Ok(Status::Draining),
        3 => Ok(Status::Down),
        _ => Err(RecordError::Unknown("status")),
    }
}

fn removal_reason(number: u64) -> Result<RemovalReason, RecordError> {
    match number {
        0 => Ok(RemovalReason::Deregistered),
        1 => Ok(RemovalReason::Drained),
        2 => Ok(RemovalReason::Expired),
        3 => Ok(RemovalReason::Replaced),
        _ => Err(RecordError::Unknown("reason of removal")),
    }
}

fn health_of(number: u64) -> Result<Health, RecordError> {
    match number {
        0 => Ok(Health::Unprobed),
        1 => Ok(Health::Passing),
        2 => Ok(Health::Failing),
        _ => Err(RecordError::Unknown("health")),
    }
}
