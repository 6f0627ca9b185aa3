//! A call is in flight until its response stream is over, one way or another.

use tokio_stream::StreamExt as _;

use crate::support::{TestServer, ask, channel_to, client, eventually};

#[tokio::test]
async fn a_stream_counts_until_it_ends_or_is_dropped() {
    let server = TestServer::start();
    let channel = channel_to(&[server.addr()]).await;
    let in_flight = || channel.endpoints()[0].in_flight;

    let mut first = client(&channel).watch(ask("")).await.expect("answered").into_inner();
    let second = client(&channel).watch(ask("")).await.expect("answered").into_inner();
    server.seen.tell_watchers().await;
    first.next().await.expect("a message").expect("not an error");
    assert_eq!(in_flight(), 2, "headers and messages do not end a call");

    drop(second);
    assert_eq!(in_flight(), 1, "a dropped stream is over at once");

    server.seen.end_watches();
    assert!(first.next().await.is_none());
    assert_eq!(in_flight(), 0, "an ended stream is over, though still held");
}

#[tokio::test]
async fn unary_calls_and_errors_leave_nothing_behind() {
    let server = TestServer::start();
    let channel = channel_to(&[server.addr()]).await;
    client(&channel).check(ask("")).await.expect("answered");
    assert_eq!(channel.endpoints()[0].in_flight, 0);

    // A response without a body: the status is in the headers.
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    let path = http::uri::PathAndQuery::from_static("/no.such.Service/Method");
    let codec = tonic_health_codec();
    let status = grpc
        .unary(tonic::Request::new(ask("")), path, codec)
        .await
        .expect_err("no such service");
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    assert_eq!(channel.endpoints()[0].in_flight, 0);

    // A caller that goes away.
    let mut abandoned = client(&channel);
    let call = tokio::spawn(async move { abandoned.check(ask("hang")).await });
    eventually("it is in flight", || channel.endpoints()[0].in_flight == 1).await;
    call.abort();
    eventually("it is over", || channel.endpoints()[0].in_flight == 0).await;
}

fn tonic_health_codec()
-> impl tonic::codec::Codec<Encode = tonic_health::pb::HealthCheckRequest, Decode = tonic_health::pb::HealthCheckResponse>
{
    tonic_prost::ProstCodec::default()
}
