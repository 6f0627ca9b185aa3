//! What a million instances cost, and what many leases that are due cost. Measurements, not tests: run them one at a time with
//! `cargo test --release -p registry-svc --lib -- --ignored --nocapture --test-threads 1 measure_`.

use std::time::Instant;

use super::*;
use crate::{
    fixtures::{grant, heartbeat, key, owner},
    history::HistoryLimits,
    hub::{Hub, Restored, Trust},
    model::{
        Draft, Endpoint, GrpcService, HistoryId, Host, Label, Labels, Metadata, Port, Profile, Protocol, Spec, Status,
        Version, Weight, Zone,
    },
};

const INSTANCES: u128 = 1_000_000;

fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: f64 = statm.split(' ').nth(1).expect("resident").parse().expect("a number");
    pages * 4.0 / 1_024.0
}

/// Some 256 bytes on the wire, as one of a thousand in each of a thousand services.
fn typical(n: u128) -> Draft {
    let pair = |key: &str, value: String| (key.to_owned(), value);
    let metadata = vec![
        pair("git.sha", format!("{n:040x}")),
        pair("region", "eu-central-1".into()),
        pair("node", format!("ip-10-{}-{}-{}", n >> 16 & 255, n >> 8 & 255, n & 255)),
    ];
    Draft {
        key: key(
            &format!("service-{:03}", n / 1_000),
            &format!("service-{:03}-{:06x}", n / 1_000, n),
        ),
        spec: Spec {
            endpoints: [Endpoint {
                protocol: Protocol::Grpc,
                host: Host::try_new(&format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255)).expect("a host"),
                port: Port::try_new(7_101).expect("a port"),
            }]
            .into_iter()
            .collect(),
            profile: Arc::new(Profile {
                labels: Labels {
                    version: Version::try_new("1.14.2").expect("a version"),
                    group: Label::try_new("").expect("none"),
                    zone: Zone::try_new(["eu-central-1a", "eu-central-1b", "eu-central-1c"][(n % 3) as usize])
                        .expect("a zone"),
                    tag: Label::try_new("").expect("none"),
                },
                grpc_services: Box::new([GrpcService::try_new("tessera.ticket.v1.TicketService").expect("a name")]),
            }),
            weight: Weight::try_new(100).expect("a weight"),
            status: Status::Up,
            probe: None,
            metadata: Metadata::try_new(metadata.into_iter()).expect("fits"),
        },
        started_at: None,
    }
}

fn held(per_lease: u128) {
    let mut catalog = catalog();
    let hub = Hub::restore(Restored {
        limits: HistoryLimits { revisions: 1, bytes: 0 },
        history_id: HistoryId::default(),
        revision: Revision::ZERO,
        compacted: Revision::ZERO,
        instances: &[],
        overrides: Vec::new(),
        history: Vec::new(),
        trust: Trust::default(),
        is_replicated: false,
    });
    let before = resident_mib();
    let begun = Instant::now();
    for lease in 0..INSTANCES / per_lease {
        let drafts = (lease * per_lease..(lease + 1) * per_lease).map(typical).collect();
        let outcome = catalog.apply(&Command::Register(grant(lease, heartbeat(5_000), drafts)), WALL);
        hub.publish(&[outcome.batch.expect("a batch")]);
    }
    let took = begun.elapsed();
    let after = resident_mib();
    drop(hub);
    let without_hub = resident_mib();
    println!(
        "{INSTANCES} instances, {per_lease} a lease: {:.0} MiB, {:.0} B each, in {took:.1?}; \
         without the hub (as far as the allocator gives back) {:.0} MiB",
        after - before,
        (after - before) * 1_048_576.0 / INSTANCES as f64,
        without_hub - before
    );
    let begun = Instant::now();
    catalog.look(now(200));
    for lease in 0..INSTANCES / per_lease {
        catalog.leases.extend(LeaseId::from_random(lease), catalog.clock.now());
    }
    println!("extended {} leases in {:.1?}", INSTANCES / per_lease, begun.elapsed());
    for millis in (300..75_200).step_by(100) {
        catalog.look(now(millis));
    }
    let begun = Instant::now();
    let expired = catalog.expire(WALL, 1);
    println!("first expiry: {} batches, {:.1?}", expired.len(), begun.elapsed());
    drop(expired);
    for millis in [75_300, 75_400, 75_500] {
        catalog.look(now(millis));
        let begun = Instant::now();
        let expired = catalog.expire(WALL, 1);
        println!("next expiry: {} batches, {:.1?}", expired.len(), begun.elapsed());
    }
}

#[test]
#[ignore = "a measurement"]
fn measure_a_million_instances_in_leases_of_64() {
    held(64);
}

#[test]
#[ignore = "a measurement"]
fn measure_a_million_instances_of_a_lease_each() {
    held(1);
}

#[test]
#[ignore = "a measurement"]
fn measure_an_expiry_of_one_in_ten() {
    let mut catalog = catalog();
    let owners: Vec<Owner> = (0..100_000).map(owner).collect();
    for n in 0..100_000 {
        catalog.apply(
            &Command::Register(grant(n, heartbeat(5_000), vec![typical(n % 1_000 * 1_000 + n / 1_000)])),
            WALL,
        );
    }
    for millis in (100..=25_000).step_by(100) {
        catalog.look(now(millis));
        if millis == 10_000 || millis == 20_000 {
            let begun = Instant::now();
            for owner in owners.iter().filter(|owner| owner.lease.bits() / 1_000 % 10 > 0) {
                catalog.renew(owner).expect("lives");
            }
            println!("renewed 90,000 in {:.1?}", begun.elapsed());
        }
        let begun = Instant::now();
        let expired = catalog.expire(WALL, millis);
        let took = begun.elapsed();
        if !expired.is_empty() {
            let changes: usize = expired.iter().map(|(batch, _)| batch.changes.len()).sum();
            println!("at {millis}: {changes} lapsed in {took:.1?}");
        }
    }
}
