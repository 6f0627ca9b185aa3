//! Leases that are not renewed.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::support::{Fixture, Watch, fleeting, ids, instance, register, renewal, until_ids};

#[tokio::test]
async fn silence_ends_a_lease_and_says_why() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let mut watch = Watch::open(&mut client, "a-svc", 0).await;
    watch.snapshot().await;
    client
        .register(fleeting([instance("a-svc", "1"), instance("a-svc", "2")]))
        .await
        .expect("registers");
    register(&mut client, "a-svc", "other").await;
    watch.delta().await;
    watch.delta().await;
    let (_, events) = watch.delta().await;
    assert_eq!(
        events,
        ["removed 1 EXPIRED", "removed 2 EXPIRED"],
        "all of a lease in one revision"
    );
    assert_eq!(ids(&mut client, "a-svc").await, ["other"]);
}

/// The renewals have a task of their own, as an owner's have. They once took turns with the lists of the test, so that a slow
/// list cost the lease its life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_keep_a_lease_for_many_times_its_time_to_live() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let kept = client
        .register(fleeting([instance("a-svc", "kept")]))
        .await
        .expect("registers")
        .into_inner();
    let stop = CancellationToken::new();
    let renewing = tokio::spawn({
        let (mut client, stop) = (fixture.client().await, stop.clone());
        async move {
            let mut beat = tokio::time::interval(Duration::from_millis(50));
            while stop.run_until_cancelled(beat.tick()).await.is_some() {
                client.renew(renewal(&kept)).await.expect("lives");
            }
        }
    });
    // Three others that are left alone one after the other show that well over one time to live has passed.
    // Each of a service of its own, or self-preservation would hold the third back.
    for service in ["b-svc", "c-svc", "d-svc"] {
        client
            .register(fleeting([instance(service, "silent")]))
            .await
            .expect("registers");
        until_ids(&mut client, service, &[]).await;
    }
    assert_eq!(ids(&mut client, "a-svc").await, ["kept"]);
    stop.cancel();
    renewing.await.expect("each was answered");
    until_ids(&mut client, "a-svc", &[]).await;
}
