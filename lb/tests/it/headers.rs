//! What a call looks like on the wire.

use std::sync::{Arc, Mutex};

use crate::support::{ScriptedServer, TestServer, answer, ask, channel_to, client, reason};

#[tokio::test]
async fn authority_path_and_end_of_stream() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let server = {
        let seen = Arc::clone(&seen);
        ScriptedServer::start(move |_, mut connection| {
            let seen = Arc::clone(&seen);
            async move {
                while let Some(Ok((request, respond))) = connection.accept().await {
                    seen.lock()
                        .expect("not poisoned")
                        .push((request.uri().clone(), request.headers().clone()));
                    answer(respond);
                }
            }
        })
        .await
    };
    let channel = channel_to(&[server.addr()]).await;
    client(&channel).check(ask("")).await.expect("answered");
    let seen = seen.lock().expect("not poisoned");
    let (uri, headers) = seen.first().expect("one call");
    assert_eq!(
        uri.to_string(),
        format!("http://{}/grpc.health.v1.Health/Check", server.addr())
    );
    assert_eq!(headers.get("te").expect("there"), "trailers");
    assert!(headers.get("content-length").is_none(), "gRPC has no use for it");
}

#[tokio::test]
async fn the_applications_own_name_comes_first_in_the_user_agent() {
    let server = TestServer::start();
    let channel = channel_to(&[server.addr()]).await;
    client(&channel).check(ask("")).await.expect("answered");
    let ours = server.seen.metadata("user-agent").expect("there");
    assert!(ours.starts_with("tessera-lb/"), "{ours}");

    let mut request = tonic::Request::new(ask(""));
    request
        .metadata_mut()
        .insert("user-agent", "shop/1.0".parse().expect("a value"));
    client(&channel).check(request).await.expect("answered");
    assert_eq!(
        server.seen.metadata("user-agent").expect("there"),
        format!("shop/1.0 {ours}")
    );
}

#[tokio::test]
async fn a_response_says_who_answered() {
    let server = TestServer::start();
    let channel = channel_to(&[server.addr()]).await;
    let response = client(&channel).check(ask("")).await.expect("answered");
    let picked = response.extensions().get::<lb::Picked>().expect("on every response");
    assert_eq!(
        (&*picked.address, &*picked.instance_id),
        (server.addr().as_str(), server.addr().as_str())
    );
}

#[tokio::test]
async fn a_header_that_http2_forbids_is_the_callers_error_and_harms_nobody() {
    let server = TestServer::start();
    let channel = channel_to(&[server.addr()]).await;
    let mut request = tonic::Request::new(ask(""));
    request
        .metadata_mut()
        .insert("connection", "close".parse().expect("a value"));
    let status = client(&channel)
        .check(request)
        .await
        .expect_err("forbidden by RFC 9113 section 8.2.2");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (tonic::Code::Internal, "MALFORMED"),
        "{status}"
    );
    client(&channel)
        .check(ask(""))
        .await
        .expect("the connection is as good as before");
    assert_eq!((server.seen.calls(), server.seen.connections()), (1, 1));
}
