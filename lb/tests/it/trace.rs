//! A call is a span, each attempt a child of it, and the server hears of the attempt.

use crate::support::{ScriptedServer, TestServer, channel_to, check};

#[tokio::test]
async fn each_attempt_is_a_child_of_its_call_and_the_server_hears_of_the_last() {
    let spans = telemetry::testing::install_in_memory();
    let refuser = ScriptedServer::start(|_, mut connection| async move {
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
    })
    .await;
    let taker = TestServer::start();
    let channel = channel_to(&[refuser.addr(), taker.addr()]).await;
    // Some calls meet the refuser first; look for one of those.
    for _ in 0..200 {
        check(&channel).await.expect("answered");
        let parent = taker.seen.metadata("traceparent").expect("every call is traced");
        let fields: Vec<&str> = parent.split('-').collect();
        let trace = spans.of_trace(fields[1]);
        let call = trace
            .iter()
            .find(|span| span.name == "grpc.health.v1.Health/Check")
            .expect("the call's span");
        let attempts: Vec<_> = trace.iter().filter(|span| span.name.starts_with("Attempt.")).collect();
        assert!(
            attempts
                .iter()
                .all(|attempt| attempt.parent_span_id == call.span_context.span_id())
        );
        let last = attempts.last().expect("one at least");
        assert_eq!(
            last.span_context.span_id().to_string(),
            fields[2],
            "the server is a child of the attempt"
        );
        if attempts.len() == 2 {
            return;
        }
    }
    panic!("no call met the refuser");
}
