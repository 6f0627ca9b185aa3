//! Leases that are not renewed.

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

#[tokio::test]
async fn heartbeats_keep_a_lease_for_many_times_its_time_to_live() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let kept = client
        .register(fleeting([instance("a-svc", "kept")]))
        .await
        .expect("registers")
        .into_inner();
    // Two others that are left alone one after the other show that well over one time to live has passed.
    for round in ["first", "second"] {
        client
            .register(fleeting([instance("a-svc", round)]))
            .await
            .expect("registers");
        while ids(&mut client, "a-svc").await.len() > 1 {
            client.renew(renewal(&kept)).await.expect("lives");
        }
    }
    assert_eq!(ids(&mut client, "a-svc").await, ["kept"]);
    until_ids(&mut client, "a-svc", &[]).await;
}
