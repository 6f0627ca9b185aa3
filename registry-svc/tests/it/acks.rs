//! AckWatch and AwaitWatchers: who drains learns when every watcher has applied it, or who has not.

use proto::registry::v1 as wire;
use tonic::{Code, Status};

use crate::support::{Client, Fixture, PATIENCE, Watch, fields, ids, instance, lasting, reason, register};

/// So many seconds.
fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

async fn ack(client: &mut Client, watch_id: &str, revision: i64) -> Result<(), Status> {
    let watch_id = watch_id.to_owned();
    let answer = client.ack_watch(wire::AckWatchRequest { watch_id, revision }).await;
    answer.map(drop)
}

/// Waits for the watchers of `a-svc/1`; those who are late, by name.
async fn wait(client: &mut Client, revision: i64, timeout: i64) -> Result<Vec<String>, Status> {
    let request = wire::AwaitWatchersRequest {
        service: "a-svc".into(),
        id: "1".into(),
        revision,
        timeout: Some(seconds(timeout)),
        ..Default::default()
    };
    let answer = client.await_watchers(request).await?.into_inner();
    assert!(answer.unheard_replicas.is_empty(), "it is alone");
    Ok(answer.unacknowledged_watch_ids)
}

/// Tells DRAINING; the revision.
async fn drain(client: &mut Client, owner: &wire::RegisterResponse) -> i64 {
    let mut said = instance("a-svc", "1");
    said.set_status(wire::InstanceStatus::Draining);
    let request = wire::UpdateInstanceRequest {
        lease_id: owner.lease_id.clone(),
        lease_secret: owner.lease_secret.clone(),
        instance: Some(said),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["status".into()],
        }),
        epoch: owner.epoch,
    };
    client
        .update_instance(request)
        .await
        .expect("updates")
        .into_inner()
        .revision
}

#[tokio::test]
async fn a_drain_is_answered_when_the_last_watcher_has_acknowledged_it() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let owner = register(&mut client, "a-svc", "1").await;
    let mut watches = [
        Watch::open(&mut client, "a-svc", 0).await,
        Watch::open(&mut client, "", 0).await,
        Watch::open(&mut client, "b-svc", 0).await,
    ];
    for watch in &mut watches {
        watch.snapshot().await;
    }
    let revision = drain(&mut client, &owner).await;
    let mut waiter = fixture.client().await;
    let waiting = tokio::spawn(async move { wait(&mut waiter, revision, 200).await });
    for watch in &mut watches[..2] {
        assert_eq!(watch.delta().await, (revision, vec!["put 1".into()]));
        assert!(!waiting.is_finished(), "not before all have");
        ack(&mut client, &watch.id(), revision).await.expect("takes it");
    }
    let late = tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("at once")
        .expect("no panic");
    assert_eq!(late.expect("answers"), Vec::<String>::new());
    assert_eq!(
        wait(&mut client, revision, 200).await.expect("answers"),
        Vec::<String>::new(),
        "and ever after"
    );
}

/// grpcurl never acknowledges; nothing is made up for it.
#[tokio::test]
async fn a_watch_that_never_acknowledges_is_named_and_one_that_ends_is_not_waited_for() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let owner = register(&mut client, "a-svc", "1").await;
    let mut silent = Watch::open(&mut client, "a-svc", 0).await;
    silent.snapshot().await;
    let revision = drain(&mut client, &owner).await;
    silent.delta().await;
    assert_eq!(wait(&mut client, revision, 0).await.expect("answers"), [silent.id()]);

    let mut waiter = fixture.client().await;
    let waiting = tokio::spawn(async move { wait(&mut waiter, revision, 200).await });
    // Whether the wait has begun or not, it ends with the watch.
    tokio::task::yield_now().await;
    drop(silent);
    let late = tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("with the watch")
        .expect("no panic");
    assert_eq!(late.expect("answers"), Vec::<String>::new());
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    register(&mut client, "a-svc", "1").await;
    let mut watch = Watch::open(&mut client, "a-svc", 0).await;
    watch.snapshot().await;
    let refused = |status: Status| (status.code(), reason(&status));

    let beyond = ack(&mut client, &watch.id(), 2).await.expect_err("was not told");
    assert_eq!(refused(beyond), (Code::OutOfRange, "REVISION_NOT_SENT".into()));
    for unknown in ["00000000000000000000000000000000", "w", "\u{1b}[31m"] {
        let status = ack(&mut client, unknown, 1).await.expect_err("is unknown");
        assert_eq!(refused(status), (Code::NotFound, "WATCH_UNKNOWN".into()), "{unknown}");
    }
    ack(&mut client, &watch.id(), 1).await.expect("was told");
    ack(&mut client, &watch.id(), 0).await.expect("a lower one is harmless");
    let malformed = ack(&mut client, "", -1).await.expect_err("is nothing");
    assert_eq!(fields(&malformed), ["watch_id", "revision"]);

    let future = wait(&mut client, 9, 1).await.expect_err("has not happened");
    assert_eq!(refused(future), (Code::OutOfRange, "REVISION_IN_FUTURE".into()));
    let nobody = wire::AwaitWatchersRequest {
        service: "a-svc".into(),
        id: "2".into(),
        revision: 1,
        ..Default::default()
    };
    let nobody = client.await_watchers(nobody).await.expect_err("is not registered");
    assert_eq!(refused(nobody), (Code::NotFound, "INSTANCE_UNKNOWN".into()));
    let malformed = wire::AwaitWatchersRequest {
        timeout: Some(seconds(301)),
        ..Default::default()
    };
    let malformed = client.await_watchers(malformed).await.expect_err("says nothing");
    assert_eq!(fields(&malformed), ["service", "id", "revision", "timeout"]);
}

/// Its watches end with it, and the end of the last one was taken for the last acknowledgement: whoever drained was told that
/// every caller knew, and the callers were on their way to another replica.
#[tokio::test]
async fn a_registry_that_stops_sends_those_who_wait_elsewhere() {
    let mut fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    client
        .register(lasting([instance("a-svc", "1")]))
        .await
        .expect("registers");
    let mut silent = Watch::open(&mut client, "a-svc", 0).await;
    silent.snapshot().await;
    let mut waiter = client.clone();
    let mut waiting = std::pin::pin!(wait(&mut waiter, 1, 200));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    // On the same connection: when this is answered, the call before it has come.
    assert_eq!(ids(&mut client, "a-svc").await, ["1"]);
    let (status, ()) = tokio::join!(waiting, fixture.stop());
    let status = status.expect_err("is going away");
    assert_eq!((status.code(), reason(&status)), (Code::Unavailable, "DRAINING".into()));
}

/// Somebody who knows the name of a watch, from the answer to a drain for example, acknowledged for its client.
#[tokio::test]
async fn only_the_connection_of_a_watch_acknowledges_for_it() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let registered = register(&mut client, "a-svc", "1").await;
    let mut watch = Watch::open(&mut client, "a-svc", 0).await;
    watch.snapshot().await;
    let mut other = fixture.client().await;
    let status = ack(&mut other, &watch.id(), registered.revision)
        .await
        .expect_err("is not theirs");
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::NotFound, "WATCH_UNKNOWN".into())
    );
    assert_eq!(
        wait(&mut other, registered.revision, 0).await.expect("answers"),
        [watch.id()]
    );
    ack(&mut client, &watch.id(), registered.revision)
        .await
        .expect("is its own");
}

/// For the registry that had come back a second ago everybody had acknowledged, since nobody was there yet.
#[tokio::test]
async fn after_a_restart_it_is_not_claimed_that_all_know() {
    let mut fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let registered = client
        .register(lasting([instance("a-svc", "1")]))
        .await
        .expect("registers")
        .into_inner();
    let ask = async |client: &mut Client| {
        let request = wire::AwaitWatchersRequest {
            service: "a-svc".into(),
            id: "1".into(),
            revision: registered.revision,
            timeout: Some(seconds(0)),
            ..Default::default()
        };
        let answer = client.await_watchers(request).await.expect("answers").into_inner();
        (answer.unacknowledged_watch_ids, answer.watchers_may_return)
    };
    assert_eq!(ask(&mut client).await, (vec![], false), "there was nobody before it");
    fixture.restart().await;
    let mut client = fixture.client().await;
    assert_eq!(ask(&mut client).await, (vec![], true));
    // One that is back is waited for by name.
    let mut watch = Watch::open(&mut client, "a-svc", registered.revision).await;
    watch.bookmark().await;
    assert_eq!(ask(&mut client).await, (vec![watch.id()], true));
}
