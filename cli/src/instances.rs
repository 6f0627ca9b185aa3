//! `tessera instances`: who serves, and how an instance is shown wherever one is.

use std::time::SystemTime;

use jiff::Timestamp;
use registry_client::{Decision, Governed, Health, Instance};
use serde_json::{Value, json};

use crate::{
    args::InstancesArgs,
    failure::Failure,
    output::{self, Output, Table},
    registry,
};

/// Lists the instances of a service, or of all.
pub(crate) async fn run(args: &InstancesArgs, output: Output) -> Result<(), Failure> {
    let registry = registry::open(&args.discovery)?;
    let failed = |error| registry::failure(&registry, &error);
    let instances = registry.list_instances(args.service.as_deref()).await.map_err(failed)?;
    if let (Some(service), true) = (&args.service, instances.is_empty()) {
        let known = registry.list_services().await.map_err(failed)?;
        // A service that was there and has no instance now is an answer; one that nobody ever saw is a mistake in
        // typing.
        if !known.iter().any(|known| known.service == *service) {
            return Err(unknown_service(
                service,
                known.iter().map(|known| known.service.as_str()),
            ));
        }
    }
    let document = json!({
        "namespace": registry.namespace(),
        "service": args.service,
        "instances": instances.iter().map(as_json).collect::<Vec<_>>(),
    });
    output.print(&document, || human(&instances, registry.namespace()))
}

/// Nobody has registered under this name: which names there are.
pub(crate) fn unknown_service<'a>(service: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let known: Vec<&str> = known.collect();
    let failure = Failure::new(format!("no service {service} is registered"));
    match known.as_slice() {
        [] => failure.why("nothing is").advice("start a cluster with `tessera up`"),
        known => failure.advice(format!("there is {}", known.join(", "))),
    }
}

fn human(instances: &[Instance], namespace: &str) -> String {
    if instances.is_empty() {
        return format!("No instance is registered in namespace {namespace}.");
    }
    let mut table = Table::new([
        "service",
        "id",
        "address",
        "status",
        "weight",
        "version",
        "zone",
        "up since (UTC)",
    ]);
    for instance in instances {
        table.row([
            instance.service.clone(),
            instance.id.clone(),
            instance.grpc_address().unwrap_or_default(),
            status(instance),
            weight(instance),
            instance.version.clone(),
            instance.zone.clone(),
            instance
                .started_at
                .and_then(timestamp)
                .map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
                .unwrap_or_default(),
        ]);
    }
    table.render()
}

/// What the instance says, and what an operator has laid over it.
pub(crate) fn status(instance: &Instance) -> String {
    if instance.health == Health::Failing && !instance.drained {
        return format!("{} (probes fail)", instance.status);
    }
    if !instance.drained {
        return instance.status.to_string();
    }
    let decision = instance.governed.as_ref().and_then(|laid| laid.drain_decision.as_ref());
    match decision {
        Some(decision) => format!("{} (drained by {})", instance.status, decision.who),
        None => format!("{} (drained)", instance.status),
    }
}

/// The weight that counts, and who has laid it over the instance's own.
fn weight(instance: &Instance) -> String {
    let decision = instance
        .governed
        .as_ref()
        .and_then(|laid| laid.weight_decision.as_ref());
    match decision {
        Some(decision) => format!("{} (by {})", instance.weight, decision.who),
        None => instance.weight.to_string(),
    }
}

/// What an operator has laid over an instance, as a machine reads it.
fn override_as_json(laid: &Governed) -> Value {
    let decision = |decision: &Decision| {
        json!({
            "who": decision.who,
            "why": decision.why,
            "until": decision.until.and_then(timestamp).map(output::instant),
        })
    };
    json!({
        "drained": laid.drained,
        "drain_decision": laid.drain_decision.as_ref().map(decision),
        "weight": laid.weight,
        "weight_decision": laid.weight_decision.as_ref().map(decision),
    })
}

/// An instance as a machine reads it.
pub(crate) fn as_json(instance: &Instance) -> Value {
    json!({
        "service": instance.service,
        "id": instance.id,
        "address": instance.grpc_address(),
        "endpoints": instance.endpoints.iter().map(|endpoint| json!({
            "protocol": format!("{:?}", endpoint.protocol).to_lowercase(),
            "host": endpoint.host,
            "port": endpoint.port,
        })).collect::<Vec<_>>(),
        "status": instance.status.to_string(),
        "callable": instance.is_callable(),
        "drained": instance.drained,
        "health": match instance.health {
            Health::Unprobed => "UNPROBED",
            Health::Passing => "PASSING",
            Health::Failing => "FAILING",
        },
        "weight": instance.weight,
        "override": instance.governed.as_ref().map(override_as_json),
        "version": instance.version,
        "group": instance.group,
        "zone": instance.zone,
        "tag": instance.tag,
        "grpc_services": instance.grpc_services,
        "metadata": instance.metadata,
        "started_at": instance.started_at.and_then(timestamp).map(output::instant),
        "epoch": instance.epoch,
        "revision": instance.revision,
    })
}

/// A moment that people can read; `None` for one no calendar has.
pub(crate) fn timestamp(at: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(at).ok()
}
