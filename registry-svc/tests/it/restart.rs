//! What outlives the process.

use proto::registry::v1::{self as wire, snapshot::Cause};

use crate::support::{
    Fixture, Watch, config, deregistration, events, fleeting, ids, instance, register, registration, renewal, until_ids,
};

#[tokio::test]
async fn a_restart_is_not_a_relist() {
    let mut fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let one = register(&mut client, "a-svc", "1").await;
    register(&mut client, "a-svc", "2").await;
    client.deregister(deregistration(&one)).await.expect("deregisters");
    fixture.restart().await;

    let mut client = fixture.client().await;
    assert_eq!(ids(&mut client, "a-svc").await, ["2"]);
    let mut watch = Watch::open(&mut client, "a-svc", 1).await;
    assert_eq!(watch.delta().await, (2, vec!["put 2".into()]));
    assert_eq!(watch.delta().await, (3, vec!["removed 1 DEREGISTERED".into()]));
    let mut watch = Watch::open(&mut client, "a-svc", 3).await;
    assert_eq!(watch.bookmark().await, 3);
    // Revisions go on where they were.
    register(&mut client, "a-svc", "3").await;
    assert_eq!(watch.delta().await, (4, vec!["put 3".into()]));
}

#[tokio::test]
async fn owners_go_on_renewing_as_if_nothing_had_happened() {
    let mut fixture = Fixture::start().await;
    let lease = register(&mut fixture.client().await, "a-svc", "1").await;
    fixture.restart().await;
    let mut client = fixture.client().await;
    let list = client
        .list_instances(wire::ListInstancesRequest::default())
        .await
        .expect("lists")
        .into_inner();
    assert_eq!(
        list.confidence.expect("told").state(),
        wire::confidence::State::Recovering
    );
    client.renew(renewal(&lease)).await.expect("the secret is still good");
    let update = wire::UpdateInstanceRequest {
        lease_id: lease.lease_id.clone(),
        lease_secret: lease.lease_secret.clone(),
        instance: Some(wire::Instance {
            weight: Some(1),
            ..instance("a-svc", "1")
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["weight".into()],
        }),
        epoch: lease.epoch,
    };
    client.update_instance(update).await.expect("and the epoch");
}

/// A registry that was away must not punish the owners for it: each has its full time again, and until all of them have had
/// the time to come back nothing lapses at all.
#[tokio::test]
async fn nothing_expires_while_recovering_and_then_the_dead_do() {
    let mut fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let alive = client
        .register(fleeting([instance("a-svc", "alive")]))
        .await
        .expect("registers")
        .into_inner();
    client
        .register(fleeting([instance("a-svc", "dead")]))
        .await
        .expect("registers");
    fixture.restart().await;

    let mut client = fixture.client().await;
    let mut watch = Watch::open(&mut client, "a-svc", 0).await;
    assert_eq!(watch.snapshot().await.2, ["alive", "dead"]);
    let expired = tokio::spawn(async move {
        // The end of the recovery is told first, by a bookmark, if the watch is quicker than the expiry.
        let mut first = watch.next().await;
        if matches!(first.change, Some(wire::watch_response::Change::Bookmark(_))) {
            first = watch.next().await;
        }
        let fresh = first.confidence.map(|confidence| confidence.state()) == Some(wire::confidence::State::Fresh);
        (fresh, events(&first))
    });
    while !expired.is_finished() {
        let list = client
            .list_instances(wire::ListInstancesRequest::default())
            .await
            .expect("lists")
            .into_inner();
        let recovering = list.confidence.expect("told").state() == wire::confidence::State::Recovering;
        assert!(
            !recovering || list.instances.len() == 2,
            "nothing expires while recovering"
        );
        client.renew(renewal(&alive)).await.expect("lives");
    }
    assert_eq!(
        expired.await.expect("no panic"),
        (true, vec!["removed dead EXPIRED".to_owned()])
    );
    assert_eq!(ids(&mut client, "a-svc").await, ["alive"]);
}

#[tokio::test]
async fn the_former_owner_stays_fenced_off() {
    let mut fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let former = register(&mut client, "a-svc", "1").await;
    register(&mut client, "a-svc", "1").await;
    fixture.restart().await;
    let error = fixture
        .client()
        .await
        .renew(renewal(&former))
        .await
        .expect_err("succeeded by another");
    assert_eq!(crate::support::reason(&error), "STALE_EPOCH");
}

#[tokio::test]
async fn the_history_stays_as_long_as_it_was_told_to_be() {
    let mut fixture = Fixture::with(|config| config.history_len = 2).await;
    let mut client = fixture.client().await;
    for id in ["1", "2", "3", "4"] {
        register(&mut client, "a-svc", id).await;
    }
    fixture.restart().await;
    let mut client = fixture.client().await;
    let mut watch = Watch::open(&mut client, "a-svc", 2).await;
    assert_eq!(watch.delta().await.0, 3);
    let mut watch = Watch::open(&mut client, "a-svc", 1).await;
    assert_eq!(watch.snapshot().await.1, Cause::Compacted);
}

/// What a kill leaves is the file as the kernel sees it at that moment: a copy of it, taken while nothing is being written but
/// the registry has closed nothing, must open and hold every registration that was acknowledged before. That it survives a
/// power cut, at any moment, is shown on a disk that loses what was not synced, by the store's own tests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_killed_leaves_all_that_it_acknowledged() {
    let fixture = Fixture::start().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let mut client = fixture.client().await;
        writers.spawn(async move {
            for n in 0..25 {
                register(&mut client, "a-svc", &format!("w{writer}-{n}")).await;
            }
        });
    }
    writers.join_all().await;
    let mut client = fixture.client().await;
    let last = register(&mut client, "a-svc", "last").await;

    let crashed = tempfile::TempDir::new().expect("a directory");
    for file in std::fs::read_dir(fixture.data_dir())
        .expect("reads")
        .map(|entry| entry.expect("an entry"))
    {
        std::fs::copy(file.path(), crashed.path().join(file.file_name())).expect("copies");
    }
    let running = registry_svc::Registry::start(config(crashed.path().to_owned(), |_| {}))
        .await
        .expect("opens");
    let mut client = crate::support::Client::connect(format!("http://{}", running.local_addr()))
        .await
        .expect("listens");
    let list = wire::ListInstancesRequest {
        page_size: 1_000,
        ..Default::default()
    };
    let list = client.list_instances(list).await.expect("lists").into_inner();
    assert_eq!(list.instances.len(), 201);
    assert!(
        list.revision >= last.revision,
        "a revision that was told is never taken back"
    );
    client.renew(renewal(&last)).await.expect("its lease too");
    running.stop().await;
}

#[tokio::test]
async fn expiries_survive_a_restart_too() {
    let mut fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    client
        .register(fleeting([instance("a-svc", "1")]))
        .await
        .expect("registers");
    client
        .register(registration([instance("a-svc", "2")]))
        .await
        .expect("registers");
    until_ids(&mut client, "a-svc", &["2"]).await;
    fixture.restart().await;
    assert_eq!(ids(&mut fixture.client().await, "a-svc").await, ["2"]);
}

/// The data directory was wiped, the registry began anew, and others registered until it had grown past the revision that a
/// client resumed from: it was told the deltas since and kept, for ever, an instance of the former life.
#[tokio::test]
async fn a_resume_from_another_history_gets_a_snapshot() {
    let mut fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    register(&mut client, "a-svc", "former").await;
    let mut watch = Watch::open(&mut client, "a-svc", 0).await;
    let first = watch.next().await;
    assert!(!first.history_id.is_empty());
    let resume = |revision: i64| wire::WatchRequest {
        service: "a-svc".into(),
        start_after_revision: revision,
        history_id: first.history_id.clone(),
        ..Default::default()
    };

    fixture.restart().await;
    let mut client = fixture.client().await;
    let mut watch = Watch::request(&mut client, resume(1)).await;
    let resumed = watch.next().await;
    assert_eq!(
        resumed.history_id, first.history_id,
        "a restart goes on with its history"
    );
    assert!(
        matches!(resumed.change, Some(wire::watch_response::Change::Bookmark(_))),
        "nothing was missed: {resumed:?}"
    );

    fixture.wipe().await;
    let mut client = fixture.client().await;
    for id in ["1", "2"] {
        register(&mut client, "a-svc", id).await;
    }
    // Below the revision of the new history, at it, and in its future.
    for revision in [1, 2, 100] {
        let mut watch = Watch::request(&mut client, resume(revision)).await;
        let all = vec!["1".to_owned(), "2".to_owned()];
        assert_eq!(
            watch.snapshot().await,
            (2, Cause::HistoryChanged, all),
            "from {revision}"
        );
    }
    let mut watch = Watch::open(&mut client, "a-svc", 1).await;
    let unchecked = watch.next().await;
    assert_eq!(unchecked.revision, 2, "who does not say is not checked");
    assert_ne!(unchecked.history_id, first.history_id);
    // Without a revision there is nothing that could be of another history.
    let mut watch = Watch::request(&mut client, resume(0)).await;
    assert_eq!(watch.snapshot().await.1, Cause::Initial);
}
