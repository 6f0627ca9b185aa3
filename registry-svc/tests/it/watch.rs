//! Watch: snapshot, deltas, bookmarks, and where one may resume.

use std::time::Duration;

use proto::registry::v1::{self as wire, snapshot::Cause};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    Client, Fixture, Watch, deregistration, fields, instance, lasting, reason, register, registration,
};

#[tokio::test]
async fn tells_a_snapshot_and_then_each_revision() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    register(&mut client, "a-svc", "old").await;
    let mut watch = Watch::open(&mut client, "a-svc", 0).await;
    assert_eq!(watch.snapshot().await, (1, Cause::Initial, vec!["old".to_owned()]));

    let both = client
        .register(registration([instance("a-svc", "1"), instance("a-svc", "2")]))
        .await
        .expect("registers")
        .into_inner();
    assert_eq!(
        watch.delta().await,
        (2, vec!["put 1".into(), "put 2".into()]),
        "a revision is never split"
    );
    register(&mut client, "other-svc", "1").await;
    let mut drained = deregistration(&both);
    drained.set_reason(wire::RemovalReason::Drained);
    client.deregister(drained).await.expect("deregisters");
    assert_eq!(
        watch.delta().await,
        (4, vec!["removed 1 DRAINED".into(), "removed 2 DRAINED".into()])
    );
}

#[tokio::test]
async fn a_replacement_is_one_leaving_and_one_coming() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    register(&mut client, "a-svc", "1").await;
    let mut watch = Watch::open(&mut client, "a-svc", 0).await;
    watch.snapshot().await;
    register(&mut client, "a-svc", "1").await;
    assert_eq!(
        watch.delta().await,
        (2, vec!["removed 1 REPLACED".into(), "put 1".into()])
    );
}

#[tokio::test]
async fn without_a_service_all_of_the_namespace_is_watched() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let mut watch = Watch::open(&mut client, "", 0).await;
    assert_eq!(watch.snapshot().await, (0, Cause::Initial, vec![]));
    let mut elsewhere = instance("a-svc", "hidden");
    elsewhere.namespace = "staging".into();
    client.register(registration([elsewhere])).await.expect("registers");
    register(&mut client, "a-svc", "1").await;
    register(&mut client, "b-svc", "2").await;
    assert_eq!(watch.delta().await, (2, vec!["put 1".into()]));
    assert_eq!(watch.delta().await, (3, vec!["put 2".into()]));
}

/// An instance that is registered anew outside of the selection has left it, and a watcher that is not told calls it for ever.
#[tokio::test]
async fn an_instance_that_leaves_the_selection_is_told_as_removed() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let zoned = |zone: &str| wire::Instance {
        zone: zone.to_owned(),
        ..instance("a-svc", "1")
    };
    let lease = client
        .register(registration([zoned("z1")]))
        .await
        .expect("registers")
        .into_inner();
    let request = wire::WatchRequest {
        service: "a-svc".into(),
        selector: Some(wire::Selector {
            zone: "z1".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut watch = Watch::request(&mut client, request).await;
    assert_eq!(watch.snapshot().await.2, ["1"]);
    let again = |zone: &str| wire::RegisterRequest {
        lease_id: lease.lease_id.clone(),
        lease_secret: lease.lease_secret.clone(),
        ..registration([zoned(zone)])
    };
    client.register(again("z2")).await.expect("moves away");
    assert_eq!(watch.delta().await, (2, vec!["removed 1 REPLACED".into()]));
    client
        .register(again("z3"))
        .await
        .expect("moves, which is nothing to us");
    client.register(again("z1")).await.expect("moves back");
    assert_eq!(watch.delta().await, (4, vec!["put 1".into()]));
    // By another process: gone for good, so one event and not two.
    client.register(registration([zoned("z2")])).await.expect("replaces");
    assert_eq!(watch.delta().await, (5, vec!["removed 1 REPLACED".into()]));
}

#[tokio::test]
async fn resumes_after_a_revision_without_a_snapshot() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    for id in ["1", "2", "3"] {
        register(&mut client, "a-svc", id).await;
    }
    let mut watch = Watch::open(&mut client, "a-svc", 1).await;
    assert_eq!(watch.delta().await, (2, vec!["put 2".into()]));
    assert_eq!(watch.delta().await, (3, vec!["put 3".into()]));
    let mut watch = Watch::open(&mut client, "a-svc", 3).await;
    assert_eq!(watch.bookmark().await, 3, "who has missed nothing is told so at once");
}

#[tokio::test]
async fn the_future_cannot_be_watched() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    register(&mut client, "a-svc", "1").await;
    let future = wire::WatchRequest {
        start_after_revision: 2,
        ..Default::default()
    };
    let error = client.watch(future).await.expect_err("not yet");
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::OutOfRange, "REVISION_IN_FUTURE")
    );
    let negative = wire::WatchRequest {
        start_after_revision: -1,
        ..Default::default()
    };
    assert_eq!(
        fields(&client.watch(negative).await.expect_err("never")),
        ["start_after_revision"]
    );
}

#[tokio::test]
async fn a_revision_that_the_history_has_lost_gets_a_snapshot() {
    let fixture = Fixture::with(|config| config.history_len = 3).await;
    let mut client = fixture.client().await;
    for id in ["1", "2", "3", "4", "5"] {
        register(&mut client, "a-svc", id).await;
    }
    // The history holds 3, 4 and 5: whoever has seen 2 can go on, whoever has only seen 1 cannot.
    let mut watch = Watch::open(&mut client, "a-svc", 2).await;
    assert_eq!(watch.delta().await.0, 3);
    let mut watch = Watch::open(&mut client, "a-svc", 1).await;
    let (revision, cause, ids) = watch.snapshot().await;
    assert_eq!((revision, cause, ids.len()), (5, Cause::Compacted, 5));
}

/// A snapshot beyond 4 MiB could not be read by a stock client, which is what the generated one is.
#[tokio::test]
async fn a_snapshot_of_any_size_can_be_read_by_a_stock_client() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let metadata: std::collections::HashMap<_, _> = (0..15).map(|n| (format!("k{n}"), "v".repeat(1_000))).collect();
    for hundred in 0..6 {
        let large = (0..64).map(|n| wire::Instance {
            metadata: metadata.clone(),
            ..instance("a-svc", &format!("{hundred}-{n:02}"))
        });
        client.register(lasting(large)).await.expect("registers");
    }
    let mut watch = Watch::open(&mut client, "a-svc", 0).await;
    let first = watch.next().await;
    assert!(
        matches!(&first.change, Some(wire::watch_response::Change::Snapshot(part)) if part.more && part.instances.len() < 3),
        "a part"
    );
    let (revision, cause, ids) = watch.snapshot_from(first).await;
    assert_eq!((revision, cause), (6, Cause::Initial));
    assert_eq!(ids.len(), 6 * 64);
    assert!(ids.is_sorted());
    register(&mut client, "a-svc", "last").await;
    assert_eq!(watch.delta().await, (7, vec!["put last".into()]));
}

/// A client that does not read costs its send window and nothing else; when it reads again it is told the truth at once.
#[tokio::test]
async fn a_slow_watcher_is_coalesced_and_holds_nobody_up() {
    let fixture = Fixture::with(|config| config.history_len = 50).await;
    let mut writer = fixture.client().await;
    let mut slow = Watch::open(&mut fixture.client().await, "a-svc", 0).await;
    let mut quick = Watch::open(&mut fixture.client().await, "a-svc", 0).await;
    assert_eq!((slow.snapshot().await.0, quick.snapshot().await.0), (0, 0));

    let bulky = |n: usize| {
        let mut bulky = instance("a-svc", &format!("i{}", n % 8));
        bulky.metadata = (0..15).map(|key| (format!("k{key}"), "v".repeat(1_024))).collect();
        bulky
    };
    // 64 KiB of window, 16 KiB of send buffer, and two that are on their way: 16 KiB each, 400 of them do not fit.
    let owner = writer
        .register(registration([bulky(0)]))
        .await
        .expect("registers")
        .into_inner();
    assert_eq!(quick.delta().await.0, 1);
    for n in 1..400 {
        let again = wire::RegisterRequest {
            lease_id: owner.lease_id.clone(),
            lease_secret: owner.lease_secret.clone(),
            ..registration([bulky(n)])
        };
        let revision = writer.register(again).await.expect("registers").into_inner().revision;
        assert_eq!(quick.delta().await.0, revision, "the quick one is told each");
    }
    let mut last = 0;
    let coalesced = loop {
        let response = slow.next().await;
        match response.change.as_ref().expect("a change") {
            wire::watch_response::Change::Delta(_) => {
                assert_eq!(response.revision, last + 1, "until the gap nothing is skipped");
                last = response.revision;
            }
            wire::watch_response::Change::Snapshot(_) => break slow.snapshot_from(response).await,
            wire::watch_response::Change::Bookmark(_) => panic!("there was something to tell"),
        }
    };
    let (revision, cause, ids) = coalesced;
    assert!(revision > last + 50, "from {last} to {revision}");
    assert_eq!((cause, ids.len()), (Cause::Coalesced, 8));
}

#[tokio::test]
async fn silence_is_broken_by_bookmarks_that_are_safe_to_resume_from() {
    let fixture = Fixture::with(|config| config.bookmark_interval = Duration::from_millis(50)).await;
    let mut client = fixture.client().await;
    let mut watch = Watch::open(&mut client, "a-svc", 0).await;
    watch.snapshot().await;
    watch.bookmark().await;
    let elsewhere = register(&mut client, "other-svc", "1").await;
    while watch.bookmark().await < elsewhere.revision {}
    let mut resumed = Watch::open(&mut client, "a-svc", elsewhere.revision).await;
    assert_eq!(resumed.bookmark().await, elsewhere.revision);
}

#[tokio::test]
async fn ends_when_the_registry_drains_so_that_clients_go_elsewhere() {
    let mut fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let mut watch = Watch::open(&mut client, "a-svc", 0).await;
    watch.snapshot().await;
    fixture.stop().await;
    let error = watch.message().await.expect_err("ends");
    assert_eq!((error.code(), reason(&error).as_str()), (Code::Unavailable, "DRAINING"));
    assert!(error.get_details_retry_info().is_some());
}

/// Row of the contract: ordered, unique, reliable, atomic, for watchers that come and go while others write.
///
/// The leases last, however slow the machine: one that has lost its instance to a later round would lapse after its time, in
/// a revision without anything to tell, and the follower counts revisions.
#[tokio::test]
async fn watchers_that_keep_resuming_end_up_with_the_list() {
    let fixture = Fixture::with(|config| config.history_len = 20).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let mut client = fixture.client().await;
        writers.spawn(async move {
            for round in 0..40 {
                let lease = register(&mut client, "a-svc", &format!("w{writer}-{}", round % 3)).await;
                if round % 3 == 1 {
                    client.deregister(deregistration(&lease)).await.expect("deregisters");
                }
            }
        });
    }
    let mut follower = Follower {
        client: fixture.client().await,
        known: Vec::new(),
        at: 0,
    };
    let mut done = false;
    while !done {
        // Each round resumes where the last one ended, with some responses in between.
        done = tokio::select! {
            biased;
            () = follower.follow(7) => false,
            () = async {
                while let Some(written) = writers.join_next().await {
                    written.expect("all was written");
                }
            } => true,
        };
    }
    let list = wire::ListInstancesRequest {
        service: "a-svc".into(),
        page_size: 1_000,
        ..Default::default()
    };
    let list = follower.client.list_instances(list).await.expect("lists").into_inner();
    while follower.at < list.revision {
        follower.follow(1).await;
    }
    let expected: Vec<(String, i64)> = list.instances.into_iter().map(|i| (i.id, i.revision)).collect();
    follower.known.sort();
    assert_eq!(follower.known, expected);
}

/// Applies what it is told, as a client does.
struct Follower {
    client: Client,
    known: Vec<(String, i64)>,
    at: i64,
}

impl Follower {
    async fn follow(&mut self, responses: usize) {
        use wire::{instance_event::Event, watch_response::Change};
        let mut watch = Watch::open(&mut self.client, "a-svc", self.at).await;
        for _ in 0..responses {
            let response = watch.next().await;
            match response.change.expect("a change") {
                Change::Snapshot(snapshot) => {
                    assert!(response.revision >= self.at, "no travel in time");
                    self.known = snapshot.instances.into_iter().map(|i| (i.id, i.revision)).collect();
                }
                Change::Delta(delta) => {
                    assert_eq!(response.revision, self.at + 1, "all revisions are of this service");
                    for event in delta.events {
                        match event.event.expect("an event") {
                            Event::Put(put) => {
                                self.known.retain(|(id, _)| *id != put.id);
                                self.known.push((put.id, put.revision));
                            }
                            Event::Removed(removed) => {
                                let before = self.known.len();
                                self.known.retain(|(id, _)| *id != removed.id);
                                assert_eq!(self.known.len() + 1, before, "{} was known", removed.id);
                            }
                        }
                    }
                }
                Change::Bookmark(_) => assert_eq!(response.revision, self.at),
            }
            self.at = response.revision;
        }
    }
}
