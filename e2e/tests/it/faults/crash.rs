//! SIGKILL under load: what was acknowledged is there, what was not is there or not, and watches go on as if nothing had been.

use std::time::Duration;

use e2e::{
    registry::{Load, Recorder, RegistryProcess, Truth, check, wire},
    trial::Trial,
};
use rand::RngExt as _;

/// Calls that must be answered before each kill.
const CALLS: u64 = 8;

fn watch(service: &str) -> wire::WatchRequest {
    wire::WatchRequest {
        service: service.into(),
        ..Default::default()
    }
}

/// Row 1. Eight writers, SIGKILL at a random moment, two hundred times. After each restart the list holds what was answered,
/// revisions have not gone back, and an outcome that was unknown stays what it turned out to be. At the end three watches that
/// lived through all of it are compared with the history that the last restart read from the disk.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    let mut trial = Trial::begin("kill_9_loses_nothing_that_was_acknowledged").await;
    let mut registry = RegistryProcess::with(&["--history-len", "1000000"]).await;
    let mut books = Load::books("a-svc", 8, &mut trial.rng);
    let mut client = registry.client();
    let origin = client
        .register(wire::lasting([wire::instance("origin", "origin")]))
        .await;
    assert_eq!(origin.expect("registers").into_inner().revision, 1);
    let begin = wire::list(&mut client, "").await.expect("lists");
    let recorders = [("all services", ""), ("a-svc", "a-svc"), ("origin", "origin")]
        .map(|(who, service)| (who, service, Recorder::start(registry.channel(), watch(service))));

    let kills = trial.times(200);
    for kill in 1..=kills {
        let load = Load::until_it_fails(&registry, books);
        load.flows(CALLS).await;
        // The load itself, not a wait for anything: the kill is to hit any moment of a commit.
        tokio::time::sleep(Duration::from_millis(trial.rng.random_range(0..150))).await;
        registry.kill().await;
        books = load.ended().await;
        registry.begin().await;
        check(&registry, &mut books)
            .await
            .unwrap_or_else(|error| panic!("after kill {kill}: {error}"));
    }
    let load = Load::whatever_happens(&registry, books);
    load.flows(10 * CALLS).await;
    let mut books = load.stop().await;
    let acked: u64 = books.iter().map(e2e::registry::Ledger::acked).sum();
    // One more of each service, so that every watch has something to reach.
    for service in ["a-svc", "origin"] {
        let last = registry
            .client()
            .register(wire::lasting([wire::instance(service, "last")]))
            .await;
        let last = last.expect("registers").into_inner().revision;
        for (_, watched, recorder) in &recorders {
            if watched.is_empty() || *watched == service {
                recorder.reaches(last).await;
            }
        }
    }
    registry.kill().await;
    registry.begin().await;
    let listing = check(&registry, &mut books).await.expect("lists");
    let truth = Truth::read(&registry, begin).await;
    for (who, service, recorder) in recorders {
        let journal = recorder.stop();
        journal.check(who, &truth, |of, _| service.is_empty() || of == service);
        assert_eq!(journal.relists(), 0, "{who}: a restart is not a relist");
    }
    println!(
        "{kills} kills, {acked} calls acknowledged, {} revisions, {}",
        truth.len(),
        listing.revision
    );
}

/// Row 10. Fifty watches of all kinds through a dozen kills: the whole namespace, a service, a zone of it, and from some
/// revision of the past. Each is told exactly what was committed in its selection.
#[tokio::test(flavor = "multi_thread")]
async fn watches_of_all_kinds_hold_over_kills() {
    let mut trial = Trial::begin("watches_of_all_kinds_hold_over_kills").await;
    let mut registry = RegistryProcess::with(&["--history-len", "1000000"]).await;
    let mut client = registry.client();
    let mut begin = None;
    for zone in ["east", "west"] {
        // Their own instances have a zone, the load's have none.
        let instance = wire::Instance {
            zone: zone.into(),
            ..wire::instance("a-svc", &format!("{zone}-0"))
        };
        client.register(wire::lasting([instance])).await.expect("registers");
        if begin.is_none() {
            begin = Some(wire::list(&mut client, "").await.expect("lists"));
        }
    }
    let mut books = [
        Load::books("a-svc", 4, &mut trial.rng),
        Load::books("b-svc", 4, &mut trial.rng),
    ];
    let mut recorders = Vec::new();
    let kills = trial.times(12);
    let mut newest = 2;
    for kill in 0..kills {
        for kind in 0..4 {
            let (service, zone) = [("", ""), ("a-svc", ""), ("b-svc", ""), ("a-svc", "east")][kind];
            let request = wire::WatchRequest {
                selector: Some(wire::Selector {
                    zone: zone.into(),
                    ..Default::default()
                }),
                // From nothing, or from anywhere in the past.
                start_after_revision: if kill % 2 == 0 {
                    0
                } else {
                    trial.rng.random_range(1..=newest)
                },
                ..watch(service)
            };
            let who = format!("{request:?}");
            recorders.push((who, service, zone, Recorder::start(registry.channel(), request)));
        }
        let [a, b] = books.map(|books| Load::until_it_fails(&registry, books));
        a.flows(CALLS).await;
        b.flows(CALLS).await;
        tokio::time::sleep(Duration::from_millis(trial.rng.random_range(0..300))).await;
        registry.kill().await;
        books = [a.ended().await, b.ended().await];
        registry.begin().await;
        let zoned = wire::Instance {
            zone: ["east", "west"][kill % 2].into(),
            ..wire::instance("a-svc", &format!("{}-{kill}", ["east", "west"][kill % 2]))
        };
        registry
            .client()
            .register(wire::lasting([zoned]))
            .await
            .expect("registers");
        let [a, b] = &mut books;
        for ledger in a.iter_mut().chain(b) {
            ledger.check(&wire::list(&mut registry.client(), "").await.expect("lists"));
        }
        newest = wire::list(&mut registry.client(), "").await.expect("lists").revision;
    }
    let last_b = registry
        .client()
        .register(wire::lasting([wire::instance("b-svc", "last")]))
        .await;
    let east = wire::Instance {
        zone: "east".into(),
        ..wire::instance("a-svc", "east-last")
    };
    let last_a = registry.client().register(wire::lasting([east])).await;
    let [last_a, last_b] = [last_a, last_b].map(|last| last.expect("registers").into_inner().revision);
    for (_, service, _, recorder) in &recorders {
        recorder
            .reaches(if *service == "b-svc" { last_b } else { last_a })
            .await;
    }
    registry.kill().await;
    registry.begin().await;
    let truth = Truth::read(&registry, begin.expect("read above")).await;
    for (who, service, zone, recorder) in recorders {
        let journal = recorder.stop();
        journal.check(&who, &truth, |of, id| {
            (service.is_empty() || of == service) && (zone.is_empty() || id.starts_with(zone))
        });
        assert_eq!(journal.relists(), 0, "{who}: a restart is not a relist");
    }
    assert!(truth.len() > kills * 2, "there was traffic: {}", truth.len());
}
