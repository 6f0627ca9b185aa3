//! Watchers that do not read, and ten thousand that do.

use std::time::Duration;

use e2e::{
    registry::{Frames, LARGEST_WINDOW, Load, Recorder, RegistryProcess, WINDOW, check, wire},
    trial::Trial,
};
use proto::registry::v1::{snapshot::Cause, watch_response::Change};

/// Watches of the stalled connection: as many as a connection may have.
const STALLED: usize = 100;

fn all() -> wire::WatchRequest {
    wire::WatchRequest::default()
}

/// Row 12. A hundred watches of one connection are opened and not read while the service goes on changing, by more than the
/// history keeps. The connection is never closed, memory stays bounded, the writers and a watch that is read notice nothing;
/// when it reads again it is told in order what it has missed, as one snapshot where the history has gone past it.
#[tokio::test(flavor = "multi_thread")]
async fn watches_that_are_not_read_coalesce_and_catch_up() {
    let mut trial = Trial::begin("watches_that_are_not_read_coalesce_and_catch_up").await;
    let registry = RegistryProcess::with(&["--history-len", "200"]).await;
    let load = Load::whatever_happens(&registry, Load::books("a-svc", 8, &mut trial.rng));
    load.flows(50).await;
    let healthy = Recorder::start(registry.channel(), all());
    // Each watch stalls by itself, and the connection for none of them.
    let mut connection = Frames::connect(registry.address(), WINDOW, LARGEST_WINDOW).await;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(connection.watch(&all()).await);
    }
    let resident = registry.resident();
    // Many times what the windows and the history take.
    for _ in 0..10 {
        load.flows(300).await;
        let newest = wire::list(&mut registry.client(), "").await.expect("lists").revision;
        healthy.reaches(newest).await;
    }
    // Longer than a peer that is dead would be kept: this one answers pings.
    tokio::time::sleep(Duration::from_secs(16)).await;
    load.flows(100).await;
    let grown = registry.resident().saturating_sub(resident);
    assert!(
        grown < 32 << 20,
        "{STALLED} watches that are not read cost {grown} bytes"
    );
    assert!(!connection.is_closed(), "it was cut off");
    let mut books = load.stop().await;
    let listing = check(&registry, &mut books).await.expect("lists");

    let mut coalesced = 0;
    for told in &mut stalled {
        let (mut known, mut parts) = (0, Vec::new());
        while known < listing.revision {
            let step = told.next().await.expect("never closed");
            match step.change.expect("a change") {
                Change::Snapshot(snapshot) => {
                    assert!(step.revision > known, "{} after {known}", step.revision);
                    let expected = if known == 0 { Cause::Initial } else { Cause::Coalesced };
                    assert_eq!(snapshot.cause(), expected);
                    parts.extend(snapshot.instances);
                    if snapshot.more {
                        continue;
                    }
                    let instances = std::mem::take(&mut parts);
                    coalesced += usize::from(known > 0);
                    if step.revision == listing.revision {
                        assert_eq!(instances, listing.instances);
                    }
                }
                // The watch is of everything, so each revision touches it.
                Change::Delta(_) => assert_eq!(step.revision, known + 1, "nothing is left out"),
                Change::Bookmark(_) => assert_eq!(step.revision, known, "nothing is left out"),
            }
            known = step.revision;
        }
        assert_eq!(known, listing.revision);
    }
    assert!(
        coalesced >= STALLED / 2,
        "{coalesced} were told that they had fallen behind"
    );
    assert_eq!(
        healthy.stop().relists(),
        0,
        "the watch that was read is told every change"
    );
}

/// Row 12 with windows of 2^31-1: HTTP/2 then never holds the sender back, only the socket does. A client that does not read
/// it for some seconds costs what the send buffers hold, and no more, and then is told everything.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_window_buys_no_memory() {
    let mut trial = Trial::begin("the_largest_window_buys_no_memory").await;
    let registry = RegistryProcess::with(&["--history-len", "200"]).await;
    let mut client = registry.client();
    // Some 300 kB in the list: a hundred snapshots of it are more than any socket buffer takes.
    for number in 0..20 {
        let large = wire::Instance {
            metadata: (0..15).map(|key| (format!("k{key}"), "x".repeat(1_024))).collect(),
            ..wire::instance("large", &number.to_string())
        };
        client.register(wire::lasting([large])).await.expect("registers");
    }
    let load = Load::whatever_happens(&registry, Load::books("a-svc", 4, &mut trial.rng));
    load.flows(50).await;
    let mut connection = Frames::connect(registry.address(), LARGEST_WINDOW, LARGEST_WINDOW).await;
    // A first watch, so that the connection is in order before it falls silent.
    let mut first = connection.watch(&all()).await;
    first.next().await.expect("a snapshot");
    let resident = registry.resident();
    let mut stalled = vec![first];
    for _ in 1..STALLED {
        stalled.push(connection.watch(&all()).await);
    }
    connection.read_socket(false);
    for _ in 0..5 {
        load.flows(300).await;
    }
    let grown = registry.resident().saturating_sub(resident);
    assert!(
        grown < 64 << 20,
        "{STALLED} watches of a silent socket cost {grown} bytes"
    );
    let mut books = load.stop().await;
    let listing = check(&registry, &mut books).await.expect("lists");
    connection.read_socket(true);
    for told in &mut stalled {
        loop {
            let step = told.next().await.expect("it was not silent for longer than is allowed");
            if step.revision == listing.revision {
                break;
            }
        }
    }
}

/// Row 13. Ten thousand watches on a hundred connections, then one change: all of them are told.
#[tokio::test(flavor = "multi_thread")]
async fn one_change_reaches_ten_thousand_watches() {
    let trial = Trial::begin("one_change_reaches_ten_thousand_watches").await;
    let (connections, watches) = (trial.times(100), 100);
    let registry = RegistryProcess::start().await;
    let mut client = registry.client();
    let lease = client.register(wire::lasting([wire::valued("a-svc", "a", 1)])).await;
    let lease = lease.expect("registers").into_inner();
    let resident = registry.resident();
    let mut told = Vec::new();
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut connection = Frames::connect(registry.address(), WINDOW, 1 << 20).await;
        for _ in 0..watches {
            let request = wire::WatchRequest {
                service: "a-svc".into(),
                ..all()
            };
            let mut watch = connection.watch(&request).await;
            let first = watch.next().await.expect("a snapshot");
            assert!(matches!(first.change, Some(Change::Snapshot(_))), "{first:?}");
            told.push(watch);
        }
        open.push(connection);
    }
    let idle = registry.resident().saturating_sub(resident) / u64::try_from(told.len()).expect("fits");
    println!("{} watches, {idle} bytes each", told.len());
    assert!(idle < 64 << 10, "an idle watch costs {idle} bytes");
    let changed = client
        .update_instance(wire::update(&lease, wire::valued("a-svc", "a", 2)))
        .await;
    let revision = changed.expect("changes").into_inner().revision;
    for watch in &mut told {
        let delta = loop {
            let step = watch.next().await.expect("a delta");
            match step.change {
                // Opened long enough ago to be told that nothing has happened.
                Some(Change::Bookmark(_)) if step.revision < revision => {}
                Some(Change::Delta(delta)) if step.revision == revision => break delta,
                _ => panic!("{step:?}"),
            }
        };
        assert_eq!(delta.events.len(), 1);
    }
    assert!(open.iter().all(|connection| !connection.is_closed()));
}

/// A watch of a service in which nothing happens was told a snapshot (COALESCED) because others had made more revisions than
/// the history keeps: its cursor had stayed behind, although it had missed nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_service_is_not_relisted_because_others_are_busy() {
    let mut trial = Trial::begin("a_quiet_service_is_not_relisted_because_others_are_busy").await;
    let registry = RegistryProcess::with(&["--history-len", "100"]).await;
    let mut client = registry.client();
    let lease = client.register(wire::lasting([wire::valued("quiet", "a", 1)])).await;
    let lease = lease.expect("registers").into_inner();
    let request = wire::WatchRequest {
        service: "quiet".into(),
        ..all()
    };
    let recorder = Recorder::start(registry.channel(), request);
    recorder.reaches(lease.revision).await;
    let load = Load::whatever_happens(&registry, Load::books("a-svc", 8, &mut trial.rng));
    for value in 2..5 {
        load.flows(500).await;
        let changed = client
            .update_instance(wire::update(&lease, wire::valued("quiet", "a", value)))
            .await;
        recorder.reaches(changed.expect("changes").into_inner().revision).await;
    }
    let journal = recorder.stop();
    assert_eq!(journal.relists(), 0, "{:?}", journal.entries);
    assert_eq!(journal.events().count(), 3, "{:?}", journal.entries);
    check(&registry, &mut load.stop().await).await.expect("lists");
}
