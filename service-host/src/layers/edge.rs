//! The outermost layer: who answered, how many calls are open, and the end of streams that nobody else would end. And what is no
//! gRPC at all: it is told so in HTTP's words, which whoever sends it understands (gRPC over HTTP/2, "Requests").
//!
//! A call is open until its last byte of data is with the kernel. The end of its body is too early: hyper hands a body over
//! as soon as HTTP/2 has taken it, which then holds it for as long as the peer's window is closed.
//!
//! A health watch or a reflection stream stays open for as long as its caller likes. On drain they are ended here, with
//! UNAVAILABLE, so that they never hold up a shutdown.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{self, HeaderName},
};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Code, Status};
use tower_service::Service;

use super::{INSTANCE_HEADER, trailers};
use crate::{
    connection::{CallGuard, InFlight},
    drain::DrainSignal,
    status,
};

/// A service whose responses name the instance and whose calls are counted.
#[derive(Debug, Clone)]
pub(super) struct Edge<S> {
    inner: S,
    instance: Option<HeaderValue>,
    drain: DrainSignal,
    in_flight: InFlight,
}

impl<S> Edge<S> {
    pub(super) fn new(inner: S, instance: Option<HeaderValue>, drain: DrainSignal, in_flight: InFlight) -> Self {
        Self {
            inner,
            instance,
            drain,
            in_flight,
        }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Edge<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error = Infallible>,
    ResBody: Body<Data = Bytes, Error = Status>,
{
    type Response = Response<EdgeBody<ResBody>>;
    type Error = Infallible;
    type Future = EdgeFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        if let Some(refusal) = refusal(&request) {
            return EdgeFuture {
                inner: None,
                refusal: Some(refusal),
                instance: self.instance.clone(),
                kind: None,
            };
        }
        let kind = if telemetry::rpc::is_infrastructure(telemetry::rpc::method_of(request.uri().path())) {
            Kind::Infrastructure(Box::pin(self.drain.token().cancelled_owned()))
        } else {
            Kind::Counted {
                guard: Arc::new(self.in_flight.enter()),
            }
        };
        EdgeFuture {
            inner: Some(self.inner.call(request)),
            refusal: None,
            instance: self.instance.clone(),
            kind: Some(kind),
        }
    }
}

/// The answer to what is no gRPC.
fn refusal<B>(request: &Request<B>) -> Option<Response<()>> {
    let mut response = Response::new(());
    if request.method() != Method::POST {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        let post = HeaderValue::from_static("POST");
        response.headers_mut().insert(header::ALLOW, post);
        return Some(response);
    }
    let content = request.headers().get(header::CONTENT_TYPE);
    let rest = content.and_then(|content| content.as_bytes().strip_prefix(b"application/grpc"));
    // `application/grpc+proto`, but not `application/grpc-web`, which frames its trailers in another way.
    if matches!(rest, Some([] | [b'+' | b';', ..])) {
        return None;
    }
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Some(response)
}

/// What has to happen to a call besides being answered.
enum Kind {
    /// Counted until its body has ended, or is dropped, and what it gave is sent.
    Counted { guard: Arc<CallGuard> },
    /// Ended when the server drains.
    Infrastructure(Pin<Box<WaitForCancellationFutureOwned>>),
}

pin_project! {
    /// Future of [`Edge`].
    pub(super) struct EdgeFuture<F> {
        // None for a refusal.
        #[pin]
        inner: Option<F>,
        refusal: Option<Response<()>>,
        instance: Option<HeaderValue>,
        kind: Option<Kind>,
    }
}

impl<F, B> Future for EdgeFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<EdgeBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        static NAME: HeaderName = HeaderName::from_static(INSTANCE_HEADER);
        let this = self.project();
        let mut response = match this.inner.as_pin_mut() {
            Some(inner) => {
                let Ok(response) = ready!(inner.poll(cx));
                response.map(Some)
            }
            None => this.refusal.take().unwrap_or_default().map(|()| None),
        };
        if let Some(instance) = this.instance.take() {
            response.headers_mut().insert(NAME.clone(), instance);
        }
        let kind = this.kind.take();
        Poll::Ready(Ok(response.map(|inner| EdgeBody { inner, kind })))
    }
}

pin_project! {
    /// Response body of [`Edge`].
    pub(super) struct EdgeBody<B> {
        #[pin]
        inner: Option<B>,
        kind: Option<Kind>,
    }
}

impl<B: Body<Data = Bytes, Error = Status>> Body for EdgeBody<B> {
    type Data = Sending;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Sending>, Status>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        // What there is to say goes first: a health watch hears NOT_SERVING before it ends.
        if let Poll::Ready(frame) = inner.poll_frame(cx) {
            let guard = match this.kind {
                Some(Kind::Counted { guard }) => Some(&*guard),
                _ => None,
            };
            let sending = |bytes| Sending {
                bytes,
                _guard: guard.map(Arc::clone),
            };
            return Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(sending))));
        }
        if let Some(Kind::Infrastructure(drained)) = this.kind {
            ready!(drained.as_mut().poll(cx));
            this.inner.set(None);
            let status = status::error(Code::Unavailable, "DRAINING", "this server is shutting down");
            return Poll::Ready(Some(Ok(trailers::frame(&status))));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, &self.kind) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Some(Kind::Infrastructure(_))) => SizeHint::default(),
            (Some(inner), _) => inner.size_hint(),
        }
    }
}

/// Data on its way out, which keeps its call open until HTTP/2 has written it and drops it.
#[derive(Debug)]
pub(crate) struct Sending {
    bytes: Bytes,
    _guard: Option<Arc<CallGuard>>,
}

impl Buf for Sending {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        // Shares the memory where the default would copy it.
        self.bytes.copy_to_bytes(length)
    }
}
