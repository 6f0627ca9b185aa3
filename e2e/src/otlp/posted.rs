//! OTLP over HTTP: protobuf, posted to `/v1/traces`.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use tonic::{body::Body, server::NamedService};
use tower_service::Service;

use super::{Spans, keep};

/// Takes what is posted. tonic routes by the first part of a path, which is `v1` here.
#[derive(Clone)]
pub(super) struct Posted(pub(super) Spans);

impl NamedService for Posted {
    const NAME: &'static str = "v1";
}

impl Service<Request<Body>> for Posted {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let spans = self.0.clone();
        Box::pin(async move {
            let is_post = request.method() == Method::POST && request.uri().path() == "/v1/traces";
            let body = request.into_body().collect().await.map(|body| body.to_bytes());
            let decoded = body.ok().and_then(|body| ExportTraceServiceRequest::decode(body).ok());
            let mut answer = Response::new(Body::empty());
            match decoded.filter(|_| is_post) {
                Some(request) => keep(&spans, request),
                None => *answer.status_mut() = StatusCode::BAD_REQUEST,
            }
            Ok(answer)
        })
    }
}
