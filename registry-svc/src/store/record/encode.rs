//! From the model to bytes, without a copy in between.

use std::time::Duration;

use super::wire::Writer;
use crate::{
    catalog::{Batch, Change, LeaseChange, LeaseRecord, OverrideChange, Removal},
    model::{
        Act, EndpointView, Health, Instance, InstanceKey, Labels, LeaseId, Override, OverrideRecord, Probe, Protocol,
        Registrant, RemovalReason, Ruling, Status, WallTime,
    },
};

/// Of `Instance`.
pub(super) fn instance(to: &mut Writer, instance: &Instance) {
    let Instance {
        key: name,
        spec,
        started_at,
        epoch,
        revision,
        lease,
        governance,
        health,
    } = instance;
    to.message(1, |to| key(to, name));
    for it in spec.endpoints.iter() {
        to.message(2, |to| endpoint(to, it));
    }
    to.message(3, |to| labels(to, &spec.labels));
    to.number(4, spec.weight.get().into());
    to.number(5, status(spec.status));
    for service in &spec.grpc_services {
        to.item(6, service.as_str().as_bytes());
    }
    // Ordered by key, so that the same instance gives the same bytes.
    for (name, value) in spec.metadata.iter() {
        to.message(7, |to| {
            to.text(1, name);
            to.text(2, value);
        });
    }
    to.message(8, |to| time(to, *started_at));
    to.number(9, epoch.revision().get());
    to.number(10, revision.get());
    to.bytes(11, &lease_id(*lease));
    if let Some(it) = governance {
        to.message(12, |to| laid(to, it));
    }
    if let Some(it) = &spec.probe {
        to.message(13, |to| probe(to, it));
    }
    to.number(
        14,
        match health {
            Health::Unprobed => 0,
            Health::Passing => 1,
            Health::Failing => 2,
        },
    );
}

fn probe(to: &mut Writer, probe: &Probe) {
    // At most an hour each: see `limits`.
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    to.number(1, nanos(probe.interval()));
    to.number(2, nanos(probe.timeout()));
    to.number(3, probe.misses().into());
    if let Some(service) = probe.service() {
        to.text(4, service.as_str());
    }
    if let Some(from) = probe.from() {
        to.text(5, &from.to_string());
    }
}

/// Of `OverrideRecord`.
pub(super) fn override_record(to: &mut Writer, record: &OverrideRecord) {
    laid(to, &record.laid);
    to.message(4, |to| key(to, &record.key));
}

/// Of `LeaseRecord`, all but its id.
pub(super) fn lease(to: &mut Writer, lease: &LeaseRecord, id: Option<LeaseId>) {
    let interval = lease.heartbeat.interval();
    to.bytes(1, lease.secret.as_bytes());
    // At most an hour: see `limits::HEARTBEAT_MAX`.
    to.number(2, u64::try_from(interval.as_millis()).unwrap_or(u64::MAX));
    to.number(3, lease.heartbeat.misses().into());
    for name in &lease.replaced {
        to.message(4, |to| key(to, name));
    }
    to.number(5, (interval.subsec_nanos() % 1_000_000).into());
    to.number(6, lease.emptied.into());
    to.fixed64(7, lease.owner.bits());
    if let Some(id) = id {
        to.bytes(8, &lease_id(id));
    }
    to.fixed64(9, lease.registrant.map_or(0, Registrant::bits));
}

/// Of `Batch`, with what only the store needs to know.
pub(super) fn batch(to: &mut Writer, batch: &Batch) {
    past(to, batch);
    for it in &batch.leases {
        to.message(3, |to| lease_change(to, it));
    }
    to.number(4, batch.revision.get());
    for it in &batch.overrides {
        to.message(5, |to| override_change(to, it));
    }
    if let Some(by) = &batch.by {
        to.text(6, by.as_str());
    }
}

/// Of `Batch`, the part that history keeps.
pub(super) fn past(to: &mut Writer, batch: &Batch) {
    to.message(1, |to| time(to, batch.at));
    for it in &batch.changes {
        to.message(2, |to| change(to, it));
    }
}

fn change(to: &mut Writer, change: &Change) {
    match change {
        Change::Put { instance: it, left } => to.message(1, |to| {
            to.message(1, |to| instance(to, it));
            if let Some(left) = left {
                to.message(2, |to| labels(to, left));
            }
        }),
        Change::Removed(it) => to.message(2, |to| removal(to, it)),
    }
}

fn removal(to: &mut Writer, removal: &Removal) {
    to.message(1, |to| key(to, &removal.key));
    to.message(2, |to| labels(to, &removal.labels));
    to.number(3, reason(removal.reason));
    to.text(4, removal.detail.as_str());
}

fn lease_change(to: &mut Writer, change: &LeaseChange) {
    let record = |to: &mut Writer, it: &LeaseRecord| lease(to, it, Some(it.id));
    match change {
        LeaseChange::Kept(it) => to.message(1, |to| record(to, it)),
        LeaseChange::Lost(it) => to.message(2, |to| record(to, it)),
        LeaseChange::Ended(id) => to.item(3, &lease_id(*id)),
    }
}

fn override_change(to: &mut Writer, change: &OverrideChange) {
    to.message(1, |to| key(to, &change.key));
    if let Some(now) = &change.now {
        to.message(2, |to| laid(to, now));
    }
    let (act, weight) = match change.act {
        Act::Drained => (0, None),
        Act::Undrained => (1, None),
        Act::WeightCleared => (2, None),
        Act::DrainEnded => (3, None),
        Act::WeightEnded => (4, None),
        Act::Forgotten => (5, None),
        Act::WeightSet(weight) => (0, Some(weight)),
    };
    to.number(3, act);
    if let Some(who) = &change.who {
        to.text(4, who.as_str());
    }
    to.text(5, change.why.as_str());
    if let Some(weight) = weight {
        // One more, so that it is there whatever it is.
        to.number(6, u64::from(weight.get()) + 1);
    }
}

fn laid(to: &mut Writer, laid: &Override) {
    if let Some(drain) = &laid.drain {
        to.message(1, |to| ruling(to, drain));
    }
    if let Some((weight, decided)) = &laid.weight {
        to.message(2, |to| ruling(to, decided));
        to.number(3, weight.get().into());
    }
}

fn ruling(to: &mut Writer, ruling: &Ruling) {
    to.text(1, ruling.who.as_str());
    to.text(2, ruling.why.as_str());
    if let Some(until) = ruling.until {
        to.message(3, |to| time(to, until));
    }
    to.message(4, |to| time(to, ruling.at));
    to.number(5, ruling.revision.get());
}

fn key(to: &mut Writer, key: &InstanceKey) {
    to.text(1, key.namespace.as_str());
    to.text(2, key.service.as_str());
    to.text(3, key.id.as_str());
}

fn endpoint(to: &mut Writer, endpoint: EndpointView<'_>) {
    to.number(
        1,
        match endpoint.protocol {
            Protocol::Grpc => 0,
            Protocol::Grpcs => 1,
            Protocol::Http => 2,
        },
    );
    to.text(2, endpoint.host);
    to.number(3, endpoint.port.get().into());
}

fn labels(to: &mut Writer, labels: &Labels) {
    to.text(1, labels.version.as_str());
    to.text(2, labels.group.as_str());
    to.text(3, labels.zone.as_str());
    to.text(4, labels.tag.as_str());
}

fn time(to: &mut Writer, time: WallTime) {
    // As int64 has it: a negative number is ten bytes long.
    to.number(1, time.seconds.cast_unsigned());
    to.number(2, time.nanos.into());
}

fn status(status: Status) -> u64 {
    match status {
        Status::Up => 0,
        Status::Starting => 1,
        Status::Draining => 2,
        Status::Down => 3,
    }
}

fn reason(reason: RemovalReason) -> u64 {
    match reason {
        RemovalReason::Deregistered => 0,
        RemovalReason::Drained => 1,
        RemovalReason::Expired => 2,
        RemovalReason::Replaced => 3,
    }
}

/// 16 bytes, big endian.
fn lease_id(lease: LeaseId) -> [u8; 16] {
    lease.bits().to_be_bytes()
}
