//! Calls of the registry as spans: what carries the trace of a registration or a drain to the registry, and an acknowledgement
//! back into the trace of the change.
//!
//! Not heartbeats, of which there are too many to tell anything, and not watches, which have no end: each change that one of them
//! brings has a span of its own (`watcher`).

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use telemetry::{client::CallSpan, propagation, rpc, stats};
use tonic::body::Body;
use tower_service::Service;

/// `server.address` of these calls: the registry as such, not one of its replicas.
const REGISTRY: &str = "registry";

/// Makes no spans of these.
const QUIET: [&str; 3] = [
    "/tessera.registry.v1.RegistryService/Renew",
    "/tessera.registry.v1.RegistryService/KeepAlive",
    "/tessera.registry.v1.RegistryService/Watch",
];

/// A connection whose calls are traced.
#[derive(Debug, Clone)]
pub(crate) struct Traced<S> {
    inner: S,
}

impl<S> Traced<S> {
    /// Around a connection.
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S> Service<Request<Body>> for Traced<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        stats::say_caller(request.headers_mut());
        let path = request.uri().path();
        if QUIET.contains(&path) {
            return Box::pin(self.inner.call(request));
        }
        let span = CallSpan::start(path, REGISTRY);
        propagation::inject(span.context(), request.headers_mut());
        let answer = self.inner.call(request);
        Box::pin(async move {
            match answer.await {
                Ok(response) if rpc::code_in(response.headers()).is_some() => {
                    span.finish_with(response.headers());
                    Ok(response)
                }
                Ok(response) => Ok(response.map(|inner| {
                    Body::new(Answer {
                        inner,
                        span: Some(span),
                    })
                })),
                Err(error) => {
                    span.finish(tonic::Code::Unavailable.into());
                    Err(error)
                }
            }
        })
    }
}

/// Ends the span with the trailers; dropped before them it was cancelled.
struct Answer {
    inner: Body,
    span: Option<CallSpan>,
}

impl http_body::Body for Answer {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let over = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().cloned(),
            Some(Err(_)) | None => Some(HeaderMap::new()),
        };
        if let Some(trailers) = over
            && let Some(span) = self.span.take()
        {
            span.finish_with(&trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
