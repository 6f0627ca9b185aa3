//! Everybody at once: all watchers return, all leases lapse, everything changes all the time.

use std::time::Duration;

use e2e::{
    registry::{Entry, Fleet, Load, Recorder, RegistryProcess, check, wire},
    trial::Trial,
};
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
