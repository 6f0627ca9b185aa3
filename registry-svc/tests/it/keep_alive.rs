//! KeepAlive: heartbeats for many leases on one stream.

use std::time::Duration;

use proto::registry::v1::{self as wire, keep_alive_result::Outcome};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::support::{Fixture, PATIENCE, fields, instance, reason, register, registration, renewal};

#[tokio::test]
async fn answers_each_renewal_in_order() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let a = register(&mut client, "a-svc", "1").await;
    let b = register(&mut client, "b-svc", "1").await;
    let mut wrong = renewal(&a);
    wrong.lease_secret = "guess".into();
    let unknown = wire::RenewRequest {
        lease_id: "f".repeat(32),
        lease_secret: "x".into(),
    };

    let (send, requests) = mpsc::channel(4);
    let mut answers = client
        .keep_alive(ReceiverStream::new(requests))
        .await
        .expect("opens")
        .into_inner();
    for _ in 0..3 {
        let renewals = vec![
            renewal(&a),
            wrong.clone(),
            unknown.clone(),
            wire::RenewRequest::default(),
            renewal(&b),
        ];
        send.send(wire::KeepAliveRequest { renewals }).await.expect("sent");
        let answer = tokio::time::timeout(PATIENCE, answers.message())
            .await
            .expect("in time");
        let results = answer.expect("no error").expect("an answer").results;
        let lives: Vec<bool> = results
            .iter()
            .map(|r| matches!(r.outcome, Some(Outcome::Ttl(_))))
            .collect();
        assert_eq!(lives, [true, false, false, false, true]);
        assert_eq!((&results[0].lease_id, &results[4].lease_id), (&a.lease_id, &b.lease_id));
        for result in &results[1..4] {
            let Some(Outcome::RegisterAgainAfter(delay)) = &result.outcome else {
                panic!("{result:?}")
            };
            assert!(delay.seconds == 0 && delay.nanos >= 100_000_000, "jittered: {delay:?}");
        }
    }
    drop(send);
    assert!(answers.message().await.expect("ends well").is_none());
}

#[tokio::test]
async fn a_lease_whose_instances_were_taken_is_sent_to_register_again() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let former = register(&mut client, "a-svc", "1").await;
    register(&mut client, "a-svc", "1").await;
    let request = wire::KeepAliveRequest {
        renewals: vec![renewal(&former)],
    };
    let mut answers = client
        .keep_alive(tokio_stream::iter([request]))
        .await
        .expect("opens")
        .into_inner();
    let results = answers.message().await.expect("no error").expect("an answer").results;
    assert!(
        matches!(results[0].outcome, Some(Outcome::RegisterAgainAfter(_))),
        "{results:?}"
    );
}

#[tokio::test]
async fn rounds_are_bounded() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let lease = client
        .register(registration([instance("a-svc", "1")]))
        .await
        .expect("registers")
        .into_inner();
    for (size, fits) in [(0, false), (1_000, true), (1_001, false)] {
        let request = wire::KeepAliveRequest {
            renewals: vec![renewal(&lease); size],
        };
        let mut answers = client
            .keep_alive(tokio_stream::iter([request]))
            .await
            .expect("opens")
            .into_inner();
        match answers.message().await {
            Ok(answer) => assert!(fits && answer.expect("an answer").results.len() == size, "{size}"),
            Err(error) => assert!(!fits && fields(&error) == ["renewals"], "{size}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn ends_when_the_registry_drains() {
    let mut fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let (_send, requests) = mpsc::channel::<wire::KeepAliveRequest>(1);
    let mut answers = client
        .keep_alive(ReceiverStream::new(requests))
        .await
        .expect("opens")
        .into_inner();
    fixture.stop().await;
    let error = answers.message().await.expect_err("ends");
    assert_eq!((error.code(), reason(&error).as_str()), (Code::Unavailable, "DRAINING"));
}

/// The process at the other end of a stream is gone: its leases need not be waited for as long as if nothing had been heard. One
/// that ends its side in order, and one that is renewed by another way, keep their time.
#[tokio::test]
async fn a_stream_that_breaks_makes_its_leases_suspect() {
    let fixture = Fixture::with(|config| config.suspect_after = Some(Duration::from_millis(100))).await;
    let mut client = fixture.client().await;
    let mut leases = Vec::new();
    for id in ["broken", "closed", "elsewhere"] {
        let mut request = registration([instance("a-svc", id)]);
        request.heartbeat_interval = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        request.misses_allowed = 60;
        leases.push(client.register(request).await.expect("registers").into_inner());
    }
    let mut open = Vec::new();
    for lease in &leases {
        let (send, requests) = mpsc::channel(1);
        let renewals = vec![renewal(lease)];
        send.send(wire::KeepAliveRequest { renewals }).await.expect("sent");
        let mut client = fixture.client().await;
        let answers = client.keep_alive(ReceiverStream::new(requests)).await;
        let mut answers = answers.expect("opens").into_inner();
        answers.message().await.expect("no error").expect("an answer");
        open.push((client, send, answers));
    }
    let renewed = client.renew(renewal(&leases[2])).await;
    renewed.expect("lives");
    let (_client, send, mut answers) = open.remove(1);
    drop(send);
    assert!(answers.message().await.expect("ends well").is_none());
    drop(open);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = wire::ListInstancesRequest {
            service: "a-svc".into(),
            ..Default::default()
        };
        let listed = client.list_instances(request).await.expect("lists").into_inner();
        let ids: Vec<String> = listed.instances.into_iter().map(|instance| instance.id).collect();
        if ids == ["closed", "elsewhere"] {
            break;
        }
        assert_eq!(ids, ["broken", "closed", "elsewhere"], "nobody else goes");
        assert!(Instant::now() < deadline, "a minute is not waited for");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
