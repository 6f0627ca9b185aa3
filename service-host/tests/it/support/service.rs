//! `tessera.test.v1.Test`, written by hand: what it does is said in the request.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use http::{Request, Response};
use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use service_host::DrainSignal;
use telemetry::deadline::Deadline;
use tonic::{Status, body::Body, server::NamedService};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

/// Bytes produced by "counted flood", which one test uses.
pub(crate) static FLOODED: AtomicUsize = AtomicUsize::new(0);

/// Handlers that "let me in" reached, which one test counts.
pub(crate) static LET_IN: AtomicUsize = AtomicUsize::new(0);

/// Length of the answer to "large".
pub(crate) const LARGE: usize = 2 << 20;

/// The only message.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Text {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned() }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Test {
    pub(crate) drain: DrainSignal,
}

impl NamedService for Test {
    const NAME: &'static str = "tessera.test.v1.Test";
}

type Texts = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

impl Test {
    async fn say(request: tonic::Request<Text>) -> Result<tonic::Response<Text>, Status> {
        if request.get_ref().text == "let me in" {
            LET_IN.fetch_add(1, Ordering::SeqCst);
        }
        let text = match request.get_ref().text.as_str() {
            "hang" => std::future::pending().await,
            "panic" => panic!("secret words"),
            // Many times what a peer's windows hold at first.
            "large" => "x".repeat(LARGE),
            // As a handler does that answers with `?` on a call of its own.
            "pass on garbage" => {
                return Err(Status::internal(
                    "failed to decode Protobuf message: invalid tag value: 0",
                ));
            }
            "pass on size" => {
                let words = "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
                return Err(Status::out_of_range(words));
            }
            "not found" => return Err(Status::not_found("nothing here")),
            "remaining" => {
                Deadline::current().map_or("none".into(), |deadline| deadline.remaining().as_millis().to_string())
            }
            "peer" => request
                .remote_addr()
                .map_or("unknown".into(), |address| address.to_string()),
            "who" => {
                let peer = request.extensions().get::<service_host::Peer>().expect("always there");
                let identity = peer.identity.as_ref();
                identity.map_or("nobody".into(), |identity| identity.name())
            }
            "trace" => telemetry::Context::map_current(telemetry::propagation::trace_id).unwrap_or_default(),
            other => other.to_owned(),
        };
        Ok(tonic::Response::new(Text { text }))
    }

    /// Says everything back, until the caller ends or fails.
    async fn talk(request: tonic::Request<tonic::Streaming<Text>>) -> Result<tonic::Response<Texts>, Status> {
        Ok(tonic::Response::new(request.into_inner().boxed()))
    }

    async fn watch(self, request: tonic::Request<Text>) -> Result<tonic::Response<Texts>, Status> {
        let first = stream::iter([Ok(Text::from("first"))]);
        Ok(tonic::Response::new(match request.get_ref().text.as_str() {
            "hang" => first.chain(stream::pending()).boxed(),
            "panic" => first
                .chain(stream::once(async {
                    // Without a pause tonic would not have sent the first message yet.
                    tokio::task::yield_now().await;
                    panic!("secret words")
                }))
                .boxed(),
            "counted flood" => stream::repeat_with(|| {
                FLOODED.fetch_add(1024, Ordering::Relaxed);
                Ok(Text { text: "x".repeat(1024) })
            })
            .boxed(),
            "flood" => stream::repeat_with(|| Ok(Text { text: "x".repeat(1024) })).boxed(),
            "until drain" => first
                .chain(stream::once(async move {
                    self.drain.wait().await;
                    Ok(Text::from("bye"))
                }))
                .boxed(),
            "remaining" => stream::repeat_with(|| {
                let remaining = Deadline::current().map_or(Duration::MAX, Deadline::remaining);
                Ok(Text {
                    text: remaining.as_millis().to_string(),
                })
            })
            .take(2)
            .boxed(),
            _ => first.boxed(),
        }))
    }
}

impl Service<Request<Body>> for Test {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Text, Text>::default());
            Ok(match request.uri().path() {
                "/tessera.test.v1.Test/Say" => grpc.unary(service_fn(Self::say), request).await,
                "/tessera.test.v1.Test/Watch" => {
                    let watch = service_fn(move |request| Self::watch(this.clone(), request));
                    grpc.server_streaming(watch, request).await
                }
                "/tessera.test.v1.Test/Talk" => grpc.streaming(service_fn(Self::talk), request).await,
                // Exactly what generated code answers.
                _ => {
                    let mut response = Response::new(Body::empty());
                    let headers = response.headers_mut();
                    headers.insert("grpc-status", i32::from(tonic::Code::Unimplemented).into());
                    headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
                    response
                }
            })
        })
    }
}

/// The service's descriptor set, which also describes a service that no host here serves.
pub(crate) fn descriptors() -> &'static [u8] {
    static ENCODED: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let message = DescriptorProto {
            name: Some("Text".into()),
            field: vec![FieldDescriptorProto {
                name: Some("text".into()),
                number: Some(1),
                label: Some(Label::Optional.into()),
                r#type: Some(Type::String.into()),
                json_name: Some("text".into()),
                ..Default::default()
            }],
            ..Default::default()
        };
        let service = |name: &str| ServiceDescriptorProto {
            name: Some(name.into()),
            method: [("Say", false, false), ("Watch", false, true), ("Talk", true, true)]
                .map(|(name, takes_stream, streams)| MethodDescriptorProto {
                    name: Some(name.into()),
                    input_type: Some(".tessera.test.v1.Text".into()),
                    output_type: Some(".tessera.test.v1.Text".into()),
                    client_streaming: Some(takes_stream),
                    server_streaming: Some(streams),
                    ..Default::default()
                })
                .into(),
            ..Default::default()
        };
        let file = FileDescriptorProto {
            name: Some("tessera/test/v1/test.proto".into()),
            package: Some("tessera.test.v1".into()),
            message_type: vec![message],
            service: vec![service("Test"), service("Elsewhere")],
            syntax: Some("proto3".into()),
            ..Default::default()
        };
        FileDescriptorSet { file: vec![file] }.encode_to_vec()
    });
    &ENCODED
}
