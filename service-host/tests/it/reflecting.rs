//! Reflection and health as tools use them.

use tokio_stream::StreamExt as _;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::{config, server_and_client};

#[tokio::test]
async fn both_versions_list_what_is_served_and_nothing_else() {
    let (_running, client) = server_and_client(config()).await;
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "tessera.test.v1.Test",
    ];

    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut reflection = v1::server_reflection_client::ServerReflectionClient::new(client.channel.clone());
    let mut answers = reflection
        .server_reflection_info(tokio_stream::once(request))
        .await
        .expect("answered")
        .into_inner();
    let answer = answers.next().await.expect("one").expect("ok").message_response;
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}");
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(names, expected);

    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut reflection = v1alpha::server_reflection_client::ServerReflectionClient::new(client.channel.clone());
    let mut answers = reflection
        .server_reflection_info(tokio_stream::once(request))
        .await
        .expect("answered")
        .into_inner();
    let answer = answers.next().await.expect("one").expect("ok").message_response;
    let Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}");
    };
    assert!(
        list.service
            .iter()
            .any(|service| service.name == "tessera.test.v1.Test"),
        "{list:?}"
    );
}

/// Without these, grpcurl shows the details of an error as an unreadable Any.
#[tokio::test]
async fn error_details_can_be_described() {
    let (_running, client) = server_and_client(config()).await;
    let mut reflection = v1::server_reflection_client::ServerReflectionClient::new(client.channel.clone());
    for symbol in [
        "google.rpc.ErrorInfo",
        "google.rpc.BadRequest",
        "google.rpc.RetryInfo",
        "tessera.test.v1.Text",
    ] {
        let request = v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(v1::server_reflection_request::MessageRequest::FileContainingSymbol(
                symbol.into(),
            )),
        };
        let mut answers = reflection
            .server_reflection_info(tokio_stream::once(request))
            .await
            .expect("answered")
            .into_inner();
        let answer = answers.next().await.expect("one").expect("ok").message_response;
        let described = matches!(
            answer,
            Some(v1::server_reflection_response::MessageResponse::FileDescriptorResponse(
                _
            ))
        );
        assert!(described, "{symbol}: {answer:?}");
    }
}

#[tokio::test]
async fn health_starts_out_not_serving() {
    let host = service_host::Host::bind(config()).await.expect("a free port");
    let routes = tonic::service::Routes::new(crate::support::service::Test {
        drain: host.drain_signal(),
    });
    let running = host.serve(routes, &[crate::support::service::descriptors()]);
    let client = crate::support::client::Client::connect(running.local_addr()).await;
    let mut health = HealthClient::new(client.channel);
    let mut check = async |service: &str| {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        health.check(request).await.map(|answer| answer.into_inner().status())
    };
    assert_eq!(check("").await.expect("known"), ServingStatus::NotServing);
    assert_eq!(
        check("tessera.test.v1.Test").await.expect("known"),
        ServingStatus::NotServing
    );
    let unknown = check("tessera.test.v1.Elsewhere")
        .await
        .expect_err("described, but not served here");
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    running.set_serving("tessera.test.v1.Test");
    assert_eq!(check("").await.expect("known"), ServingStatus::Serving);
    assert_eq!(
        check("tessera.test.v1.Test").await.expect("known"),
        ServingStatus::Serving
    );
}

/// A watch keeps the name it was asked for: with tonic's limit of 4 MiB a hundred of them held 400 MB. A check sent the name
/// back, in a header.
#[tokio::test]
async fn long_names_are_neither_kept_nor_sent_back() {
    let (_running, client) = server_and_client(config()).await;
    let mut health = HealthClient::new(client.channel.clone());
    let named = |length: usize| HealthCheckRequest {
        service: "x".repeat(length),
    };
    let status = health.watch(named(5_000)).await.expect_err("too large");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    let status = health.check(named(5_000)).await.expect_err("too large");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    let status = health.check(named(4_000)).await.expect_err("unknown");
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert!(status.message().len() < 300, "{}", status.message());
    assert!(status.details().len() < 300);

    let mut reflection = v1::server_reflection_client::ServerReflectionClient::new(client.channel.clone());
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::FileContainingSymbol(
            "x".repeat(5_000),
        )),
    };
    let answers = reflection.server_reflection_info(tokio_stream::once(request)).await;
    // tonic-reflection ends the stream without a word when it cannot read a request.
    let answer = answers.expect("started").into_inner().message().await;
    assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
}
