//! Time that passes while somebody does not: the registry stopped, the registry away, a provider that wakes up too late.

use std::time::Duration;

use e2e::{
    Process,
    registry::{Fleet, Load, Recorder, RegistryProcess, check, wire},
    trial::Trial,
    wait,
};
use proto::registry::v1::instance_event::Event;
use registry_client::{Registration, Registry};
use rustix::process::Signal;

fn everything() -> wire::WatchRequest {
    wire::WatchRequest::default()
}

/// Row 7. SIGSTOP for three times to live, then SIGCONT: it heard nobody meanwhile, so that time counts against nobody.
/// Consumers keep their set all the while.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_was_stopped_expires_nobody() {
    let mut trial = Trial::begin("a_registry_that_was_stopped_expires_nobody").await;
    let registry = RegistryProcess::start().await;
    let ttl = Duration::from_secs(1);
    let fleet = Fleet::start(&registry, "b-svc", "owner", 100, ttl).await;
    let recorder = Recorder::start(registry.channel(), everything());
    let consumer = Registry::connect([registry.address()])
        .expect("an address")
        .discover("b-svc")
        .watch();
    let sizes = Sizes::follow(&consumer);
    let load = Load::whatever_happens(&registry, Load::books("a-svc", 4, &mut trial.rng));
    for _ in 0..3 {
        load.flows(50).await;
        fleet.beats(3).await;
        registry.signal(Signal::STOP);
        // The fault itself: three times to live without the registry.
        tokio::time::sleep(3 * ttl).await;
        registry.signal(Signal::CONT);
    }
    load.flows(50).await;
    // Two times to live and more: whoever was to lapse for the pause has lapsed.
    fleet.beats(12).await;
    assert_eq!(fleet.lost(), [""; 0], "nobody is to register again");
    let expired = recorder.look(|journal| journal.removed(wire::RemovalReason::Expired).len());
    assert_eq!(expired, 0, "nobody lapsed");
    assert_eq!(sizes.least(), 100, "the consumer's set stayed whole");
    check(&registry, &mut load.stop().await).await.expect("lists");

    // The proof that expiry works at all.
    let silent = fleet.silence(3);
    recorder
        .shows("the silent ones to lapse", |journal| {
            let mut expired = journal.removed(wire::RemovalReason::Expired);
            expired.sort_unstable();
            expired == silent
        })
        .await;
}

/// Row 8. The registry is away for three times to live. Whoever is there after the restart stays, whoever is not lapses, but
/// not before it has had a full time to live; consumers never see an empty set.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_was_away_expires_only_those_who_do_not_return() {
    let mut trial = Trial::begin("a_registry_that_was_away_expires_only_those_who_do_not_return").await;
    let mut registry = RegistryProcess::start().await;
    let ttl = Duration::from_secs(1);
    let fleet = Fleet::start(&registry, "b-svc", "owner", 60, ttl).await;
    let peer = Registry::connect([registry.address()]).expect("an address");
    let providers: Vec<_> = (0..20)
        .map(|number| {
            let address = format!("127.0.0.1:{}", 7_001 + number);
            let provider = Registration::new("b-svc", address).id(format!("provider-{number}"));
            peer.register(provider.heartbeat(ttl / 5, 5))
        })
        .collect();
    for provider in &providers {
        provider.registered(wait::PATIENCE).await.expect("registers");
    }
    let mut consumer = peer.discover("b-svc").watch();
    consumer
        .wait_for(|set| set.instances.len() == 80)
        .await
        .expect("watches");
    let sizes = Sizes::follow(&consumer);
    let recorder = Recorder::start(
        registry.channel(),
        wire::WatchRequest {
            service: "b-svc".into(),
            ..everything()
        },
    );
    let load = Load::whatever_happens(&registry, Load::books("a-svc", 4, &mut trial.rng));
    load.flows(50).await;
    let mut books = load.stop().await;
    // The registry waits for the longest lease that it finds before anything lapses: for ours, not for the load's hours.
    for ledger in &mut books {
        ledger.leave(&mut registry.client()).await;
    }

    registry.kill().await;
    let silent = fleet.silence(4);
    // The fault itself: three times to live without a registry.
    tokio::time::sleep(3 * ttl).await;
    registry.begin().await;
    let began = wire::list(&mut registry.client(), "b-svc").await.expect("lists");
    assert_eq!(
        began.instances.len(),
        80,
        "all are there after a restart, the silent too"
    );

    let load = Load::whatever_happens(&registry, books);
    load.flows(50).await;
    recorder
        .shows("the silent ones to lapse", |journal| {
            let mut expired = journal.removed(wire::RemovalReason::Expired);
            expired.sort_unstable();
            expired == silent
        })
        .await;
    fleet.beats(10).await;
    assert_eq!(fleet.lost(), [""; 0], "nobody else is to register again");
    for provider in &providers {
        provider.registered(wait::PATIENCE).await.expect("is registered");
    }
    let journal = recorder.stop();
    assert_eq!(
        journal.removed(wire::RemovalReason::Expired).len(),
        4,
        "nobody else lapsed"
    );
    assert_eq!(
        journal.removed(wire::RemovalReason::Replaced),
        [""; 0],
        "nobody registered anew"
    );
    assert_eq!(journal.relists(), 0, "a restart is not a relist");
    assert!(sizes.least() >= 76, "the consumer's set stayed: {}", sizes.least());
    check(&registry, &mut load.stop().await).await.expect("lists");
}

/// Row 17, the provider: a process that was stopped past its lease wakes up after its replacement has registered the same id.
/// Its heartbeat is refused, and it returns by registering anew, with a later epoch: nothing that it does as its former self
/// touches the replacement's record.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_wakes_up_late_returns_by_registering_anew() {
    let mut trial = Trial::begin("a_provider_that_wakes_up_late_returns_by_registering_anew").await;
    let registry = RegistryProcess::start().await;
    let load = Load::whatever_happens(&registry, Load::books("a-svc", 2, &mut trial.rng));
    load.flows(20).await;
    // Others of the service, so that one silent provider of it is no mass expiry.
    let ttl = Duration::from_secs(1);
    let fleet = Fleet::start(&registry, "ticket-svc", "other", 20, ttl).await;
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("tickets.db").display().to_string();
    let flags = [
        "--heartbeat-interval",
        "200ms",
        "--heartbeat-misses",
        "5",
        "--instance-id",
        "zombie",
    ];
    let args = [
        "ticket",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "off",
        "--registry",
        registry.address(),
    ];
    let args = args.into_iter().chain(["--store", &store]).chain(flags);
    let zombie = Process::spawn("zombie", args, &[("RUST_LOG", "registry_client=debug".to_owned())]);
    let recorder = Recorder::start(registry.channel(), everything());
    let puts = |journal: &e2e::registry::Journal| -> Vec<wire::Instance> {
        let put = |event: &Event| match event {
            Event::Put(instance) if instance.id == "zombie" => Some(instance.clone()),
            _ => None,
        };
        journal.events().filter_map(put).collect()
    };
    recorder
        .shows("the provider", |journal| !puts(journal).is_empty())
        .await;

    zombie.signal(Signal::STOP);
    recorder
        .shows("the stopped one to lapse", |journal| {
            journal.removed(wire::RemovalReason::Expired) == ["zombie"]
        })
        .await;
    let mut client = registry.client();
    let replacement = wire::lasting([wire::valued("ticket-svc", "zombie", 1)]);
    let replacement = client.register(replacement).await.expect("registers").into_inner();
    client.renew(wire::renewal(&replacement)).await.expect("lives");
    zombie.signal(Signal::CONT);
    recorder
        .shows("its return", |journal| {
            puts(journal).last().is_some_and(|last| last.epoch > replacement.epoch)
        })
        .await;
    let told = puts(&recorder.look(Clone::clone));
    let epochs: Vec<i64> = told.iter().map(|instance| instance.epoch).collect();
    assert!(epochs.is_sorted(), "each registration is a later epoch: {epochs:?}");
    let replacements: Vec<_> = told.iter().filter(|told| told.epoch == replacement.epoch).collect();
    assert_eq!(
        replacements.len(),
        1,
        "the replacement's record was not touched: {replacements:#?}"
    );
    // Now the replacement is the former owner, and is told so.
    let error = client.renew(wire::renewal(&replacement)).await.expect_err("succeeded");
    assert_eq!(error.code(), tonic::Code::FailedPrecondition, "{error:?}");
    load.flows(20).await;
    assert_eq!(fleet.lost(), [""; 0]);
    check(&registry, &mut load.stop().await).await.expect("lists");
    zombie.stop().await.success();
}

/// Row 17, the protocol: whatever the former owner of an id says, to the registry it is nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_owner_is_refused_whatever_it_says() {
    let _trial = Trial::begin("a_former_owner_is_refused_whatever_it_says").await;
    let mut registry = RegistryProcess::start().await;
    let mut client = registry.client();
    let zombie = client.register(wire::lasting([wire::valued("a-svc", "a", 1)])).await;
    let zombie = zombie.expect("registers").into_inner();
    let replacement = client.register(wire::lasting([wire::valued("a-svc", "a", 2)])).await;
    let replacement = replacement.expect("registers").into_inner();
    // A restart in between changes nothing of it.
    for _ in 0..2 {
        let mut client = registry.client();
        let before = wire::list(&mut client, "").await.expect("lists");
        let refused = [
            client.renew(wire::renewal(&zombie)).await.map(|_| ()),
            client
                .update_instance(wire::update(&zombie, wire::valued("a-svc", "a", 3)))
                .await
                .map(|_| ()),
            client
                .deregister(wire::DeregisterRequest {
                    instance_ids: vec!["a".into()],
                    ..wire::deregistration(&zombie)
                })
                .await
                .map(|_| ()),
        ];
        for (what, refused) in ["renew", "update", "deregister"].into_iter().zip(refused) {
            let status = refused.expect_err("the former owner");
            assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{what}: {status:?}");
        }
        let after = wire::list(&mut client, "").await.expect("lists");
        assert_eq!(after.instances, before.instances, "unharmed");
        client
            .renew(wire::renewal(&replacement))
            .await
            .expect("the replacement lives");
        registry.kill().await;
        registry.begin().await;
    }
}

/// Follows how large a consumer's set is, which is told by state: a size that came and went unseen was none that a caller could
/// have used.
struct Sizes(
    tokio::task::JoinHandle<()>,
    std::sync::Arc<std::sync::atomic::AtomicUsize>,
);

impl Sizes {
    fn follow(consumer: &registry_client::Watcher) -> Self {
        use std::sync::atomic::Ordering;
        let least = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(usize::MAX));
        let mut sets = consumer.subscribe();
        let seen = std::sync::Arc::clone(&least);
        let task = tokio::spawn(async move {
            loop {
                let set = sets.borrow_and_update().clone();
                if set.revision > 0 {
                    seen.fetch_min(set.instances.len(), Ordering::Relaxed);
                }
                if sets.changed().await.is_err() {
                    return;
                }
            }
        });
        Self(task, least)
    }

    fn least(&self) -> usize {
        self.1.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for Sizes {
    fn drop(&mut self) {
        self.0.abort();
    }
}
