//! What is written by hand against the generated types: the same instances, field by field, and not a byte more.

use std::{sync::Arc, time::Duration};

use proto::registry::v1 as wire;

use super::*;
use crate::{
    fixtures::{WALL, draft},
    model::{
        Detail, Endpoint, GrpcService, Health, Host, LeaseId, Metadata, Override, Port, Probe, Protocol, Revision,
        Ruling, Status, Version, Weight, Who, Zone,
    },
};

fn check(instance: &Instance) {
    let mut to = Writer::default();
    put(&mut to, 1, instance);
    let written = to.finish();
    let expected = wire::ListInstancesResponse {
        instances: vec![instance::to_wire(instance)],
        ..Default::default()
    };
    let read = wire::ListInstancesResponse::decode(&*written).expect("is protobuf");
    assert_eq!(read, expected);
    assert_eq!(written.len(), expected.encoded_len(), "not a byte more than usual");
}

fn bare() -> Instance {
    draft("a", "x", "").registered(Revision::new(300), LeaseId::from_random(0xabc), WALL)
}

#[test]
fn the_least_that_an_instance_may_have() {
    check(&bare());
}

#[test]
fn all_that_an_instance_may_have() {
    let mut full = bare();
    let ruling = |seconds: i64| Ruling {
        who: Who::of("ann"),
        why: Detail::of("a disk"),
        until: Some(WallTime { seconds, nanos: 1 }),
        at: WALL,
        revision: Revision::new(301),
    };
    let laid = Override {
        drain: Some(ruling(5)),
        weight: Some((Weight::try_new(7).expect("fits"), ruling(6))),
    };
    full.governance = Some(Arc::new(laid));
    full.health = Health::Failing;
    full.started_at = WallTime { seconds: -1, nanos: 5 };
    let spec = &mut full.spec;
    spec.weight = Weight::try_new(0).expect("takes no calls");
    spec.status = Status::Down;
    let endpoints = [Protocol::Grpc, Protocol::Grpcs, Protocol::Http];
    spec.endpoints = endpoints
        .into_iter()
        .map(|protocol| Endpoint {
            protocol,
            host: Host::try_new(&format!("{}.example", "h".repeat(60))).expect("a host"),
            port: Port::try_new(443).expect("a port"),
        })
        .collect();
    let pairs = [
        ("empty", String::new()),
        ("long", "v".repeat(1_000)),
        ("wide", "\u{1f980}".into()),
    ];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value));
    spec.metadata = Metadata::try_new(pairs.into_iter()).expect("fits");
    let mut profile = (*spec.profile).clone();
    profile.labels.version = Version::try_new("1.2.3").expect("a version");
    profile.labels.zone = Zone::try_new("z1").expect("a zone");
    profile.grpc_services = ["a.B", "c.D"]
        .map(|name| GrpcService::try_new(name).expect("a name"))
        .into();
    spec.profile = Arc::new(profile);
    let second = Duration::from_secs(1);
    let probe = Probe::try_new(Some(second), Some(second), 3, None).expect("in its bounds");
    spec.probe = Some(Arc::new(probe));
    check(&full);
}
