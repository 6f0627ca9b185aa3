//! Everybody at once: all watchers return, all leases lapse, everything changes all the time.

use std::time::Duration;

use e2e::{
    registry::{Entry, Fleet, Load, Recorder, RegistryProcess, check, wire},
    trial::Trial,
};
use proto::registry::v1::instance_event::Event;
use registry_client::Registry;

/// Row 14. The registry is killed under two thousand watches and started again. All of them resume: no snapshot, no empty
/// list, and heartbeats are answered meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_storm_is_resumed_not_relisted() {
    let mut trial = Trial::begin("a_reconnect_storm_is_resumed_not_relisted").await;
    let mut registry = RegistryProcess::start().await;
    let services = 20;
    let ttl = Duration::from_secs(5);
    let mut fleets = Vec::new();
    for service in 0..services {
        fleets.push(Fleet::start(&registry, &format!("s{service}"), "owner", 5, ttl).await);
    }
    let mut recorders = Vec::new();
    for _ in 0..trial.times(25) {
        // 80 to a connection, as our client does.
        let channel = registry.channel();
        for number in 0..80 {
            let request = wire::WatchRequest {
                service: format!("s{}", number % services),
                ..Default::default()
            };
            recorders.push(Recorder::start(channel.clone(), request));
        }
    }
    for recorder in &recorders {
        recorder
            .shows("the first snapshot", |journal| {
                matches!(journal.entries.get(1), Some(Entry::Snapshot { instances, .. }) if instances.len() == 5)
            })
            .await;
    }
    let peer = Registry::connect([registry.address()]).expect("an address");
    let mut consumers: Vec<_> = (0..services)
        .map(|service| peer.discover(format!("s{service}")).watch())
        .collect();
    for consumer in &mut consumers {
        consumer
            .wait_for(|set| set.instances.len() == 5)
            .await
            .expect("watches");
    }
    let mut books = Load::books("a-svc", 4, &mut trial.rng);
    for _ in 0..3 {
        let load = Load::until_it_fails(&registry, books);
        load.flows(50).await;
        registry.kill().await;
        books = load.ended().await;
        registry.begin().await;
        futures_util::future::join_all(fleets.iter().map(|fleet| fleet.beats(1))).await;
        let load = Load::whatever_happens(&registry, books);
        load.flows(50).await;
        books = load.stop().await;
        check(&registry, &mut books).await.expect("lists");
    }
    // One change of each service: who has it has resumed.
    let mut client = registry.client();
    for (service, consumer) in consumers.iter_mut().enumerate() {
        let name = format!("s{service}");
        let last = client.register(wire::lasting([wire::instance(&name, "last")])).await;
        let last = last.expect("registers").into_inner().revision;
        for recorder in recorders.iter().skip(service).step_by(services) {
            recorder.reaches(last).await;
        }
        let set = consumer.wait_for(|set| set.instances.len() == 6).await;
        assert_eq!(set.expect("watches").unconfirmed, 0);
    }
    for fleet in &fleets {
        assert_eq!(fleet.lost(), [""; 0], "nobody is to register again");
    }
    for recorder in recorders {
        let journal = recorder.stop();
        assert_eq!(journal.relists(), 0, "{:?}", journal.entries);
        let snapshots = journal
            .entries
            .iter()
            .filter(|entry| matches!(entry, Entry::Snapshot { .. }))
            .count();
        assert_eq!(snapshots, 1, "the one it began with");
        assert_eq!(journal.events().count(), 1, "the one change: {:?}", journal.entries);
    }
}

/// Row 16. Instances come and go as fast as the disk allows, under five hundred watches: memory and the store stay as large as
/// what is kept, every watch is told what it selects in order, and none is relisted.
#[tokio::test(flavor = "multi_thread")]
async fn churn_leaves_nothing_behind() {
    const SERVICES: usize = 50;
    let trial = Trial::begin("churn_leaves_nothing_behind").await;
    let registry = RegistryProcess::with(&["--history-len", "1000"]).await;
    let mut recorders = Vec::new();
    for _ in 0..10 {
        let channel = registry.channel();
        for number in 0..SERVICES {
            let request = wire::WatchRequest {
                service: format!("s{number}"),
                ..Default::default()
            };
            recorders.push(Recorder::start(channel.clone(), request));
        }
    }
    for recorder in &recorders {
        recorder
            .shows("the first snapshot", |journal| journal.entries.len() > 1)
            .await;
    }
    // Of 8 KiB each, so that what is left behind shows.
    let body = (0..8)
        .map(|key| (format!("k{key}"), "x".repeat(1_000)))
        .collect::<std::collections::HashMap<_, _>>();
    let client = registry.client();
    let churn = async |rounds: usize| {
        let mut last = 0;
        for round in 0..rounds {
            let one = (0..SERVICES).map(|number| {
                let (mut client, body) = (client.clone(), body.clone());
                async move {
                    let instance = wire::Instance {
                        metadata: body,
                        ..wire::instance(&format!("s{number}"), &format!("i{round}"))
                    };
                    let lease = client.register(wire::lasting([instance])).await.expect("registers");
                    let ended = client.deregister(wire::deregistration(lease.get_ref())).await;
                    ended.expect("ends").into_inner().revision
                }
            });
            last = futures_util::future::join_all(one)
                .await
                .into_iter()
                .fold(last, i64::max);
        }
        last
    };
    // The history is full, and every cache has been used.
    churn(trial.times(20)).await;
    let before = (registry.resident(), registry.stored());
    let last = churn(trial.times(40)).await;
    let after = (registry.resident(), registry.stored());
    println!(
        "{last} revisions; resident {} -> {}, stored {} -> {}",
        before.0, after.0, before.1, after.1
    );
    assert!(
        after.0 < before.0 * 3 / 2 + (32 << 20),
        "memory grew from {} to {}",
        before.0,
        after.0
    );
    assert!(
        after.1 < before.1 * 3 / 2 + (32 << 20),
        "the store grew from {} to {}",
        before.1,
        after.1
    );
    let listing = wire::list(&mut registry.client(), "").await.expect("lists");
    assert_eq!(listing.instances, [], "all have left");
    let mut client = registry.client();
    for number in 0..SERVICES {
        let name = format!("s{number}");
        let marker = client.register(wire::lasting([wire::instance(&name, "marker")])).await;
        let marker = marker.expect("registers").into_inner().revision;
        for recorder in recorders.iter().skip(number).step_by(SERVICES) {
            recorder.reaches(marker).await;
        }
    }
    for recorder in recorders {
        let journal = recorder.stop();
        assert_eq!(journal.relists(), 0, "it was behind by less than the history keeps");
        let mut there = std::collections::BTreeSet::new();
        let mut revision = 0;
        for entry in &journal.entries {
            if let Entry::Delta { revision: told, .. } = entry {
                assert!(*told > revision, "{told} after {revision}");
                revision = *told;
            }
        }
        for event in journal.events() {
            match event {
                Event::Put(instance) => assert!(there.insert(instance.id.clone()), "{} came twice", instance.id),
                Event::Removed(removal) => assert!(there.remove(&removal.id), "{} left twice", removal.id),
            }
        }
        assert_eq!(there.into_iter().collect::<Vec<_>>(), ["marker"]);
    }
}
