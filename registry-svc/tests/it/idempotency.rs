//! Register's request_id.

use proto::registry::v1 as wire;
use tonic::Code;

use crate::support::{Fixture, ids, instance, reason, registration};

const ID: &str = "0b9c1c2e-6b7e-4a39-9d4c-0a4d3a1f3c11";

#[tokio::test]
async fn a_repeat_gets_the_same_answer_and_registers_nothing() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let mut nameless = instance("a-svc", "");
    nameless.metadata = (0..20).map(|n| (format!("k{n}"), n.to_string())).collect();
    let request = wire::RegisterRequest {
        request_id: ID.into(),
        ..registration([nameless])
    };
    let first = client.register(request.clone()).await.expect("registers").into_inner();
    // The id is a UUID, not a text: its spelling does not matter.
    let repeat = wire::RegisterRequest {
        request_id: ID.to_uppercase(),
        ..request.clone()
    };
    for again in [request, repeat] {
        assert_eq!(client.register(again).await.expect("the same").into_inner(), first);
    }
    assert_eq!(ids(&mut client, "a-svc").await, first.instance_ids);
}

#[tokio::test]
async fn the_same_id_for_something_else_is_refused() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let request = wire::RegisterRequest {
        request_id: ID.into(),
        ..registration([instance("a-svc", "1")])
    };
    client.register(request.clone()).await.expect("registers");
    let mut other_body = request.clone();
    other_body.instances[0].weight = Some(1);
    let mut other_terms = request;
    other_terms.misses_allowed = 4;
    for other in [other_body, other_terms] {
        let error = client.register(other).await.expect_err("another body");
        assert_eq!(
            (error.code(), reason(&error).as_str()),
            (Code::AlreadyExists, "REQUEST_ID_REUSED")
        );
    }
}

#[tokio::test]
async fn repeats_that_race_register_once() {
    let fixture = Fixture::start().await;
    let request = wire::RegisterRequest {
        request_id: ID.into(),
        ..registration([instance("a-svc", "")])
    };
    let mut racing = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (mut client, request) = (fixture.client().await, request.clone());
        racing.spawn(async move { client.register(request).await.expect("registers").into_inner() });
    }
    let answers = racing.join_all().await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}
