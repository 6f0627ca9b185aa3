//! Instances on the wire, written straight from the model: for answers with many of them. What tells of one goes through the
//! generated types, by [`instance::to_wire`], and the tests compare the two.
//!
//! A generated `Instance` owns some twenty texts. To make, measure and drop them was the most of what a list of instances cost.

use prost::Message;

use super::instance;
use crate::{
    model::{EndpointView, Instance, WallTime},
    protobuf::Writer,
};

/// An instance, as a field of a message.
pub(super) fn put(to: &mut Writer, field: u64, instance: &Instance) {
    to.message(field, |to| fields(to, instance));
}

/// What is small or rare, as the generated types write it.
pub(super) fn generated(to: &mut Writer, field: u64, message: &impl Message) {
    to.message(field, |to| to.append(&message.encode_to_vec()));
}

/// By the numbers of `Instance`.
fn fields(to: &mut Writer, instance: &Instance) {
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
    to.text(1, key.namespace.as_str());
    to.text(2, key.service.as_str());
    to.text(3, key.id.as_str());
    for it in spec.endpoints.iter() {
        to.message(4, |to| endpoint(to, it));
    }
    to.text(5, spec.labels.version.as_str());
    to.text(6, spec.labels.group.as_str());
    to.text(7, spec.labels.zone.as_str());
    to.text(8, spec.labels.tag.as_str());
    to.present(9, spec.weight.get().into());
    to.number(10, enumerator(instance::status_to_wire(spec.status).into()));
    for service in &spec.grpc_services {
        to.item(11, service.as_str().as_bytes());
    }
    for (name, value) in spec.metadata.iter() {
        to.message(12, |to| {
            to.text(1, name);
            to.text(2, value);
        });
    }
    to.message(13, |to| time(to, *started_at));
    to.number(14, epoch.revision().get());
    to.number(15, revision.get());
    to.bytes(16, &lease.digits());
    if let Some(laid) = governance {
        generated(to, 17, &instance::override_to_wire(laid));
    }
    if let Some(probe) = &spec.probe {
        generated(to, 18, &instance::probe_to_wire(probe));
    }
    to.number(19, enumerator(instance::health_to_wire(*health).into()));
}

fn endpoint(to: &mut Writer, endpoint: EndpointView<'_>) {
    to.number(1, enumerator(instance::protocol_to_wire(endpoint.protocol).into()));
    to.text(2, endpoint.host);
    to.number(3, endpoint.port.get().into());
}

fn time(to: &mut Writer, time: WallTime) {
    // Negative ones are as their two's complement, in ten bytes.
    to.number(1, time.seconds.cast_unsigned());
    to.number(2, time.nanos.into());
}

/// None of ours is negative.
fn enumerator(number: i32) -> u64 {
    number.unsigned_abs().into()
}

#[cfg(test)]
mod tests;
