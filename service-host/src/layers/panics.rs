//! A panic in a handler ends its call, and only that.
//!
//! Without this the task of the stream dies and the caller sees a reset without a reason. The panic's own message stays
//! in the log (the panic hook writes it): it may contain anything, and a caller can do nothing with it.

use std::{
    any::Any,
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tower_service::Service;

use super::trailers;
use crate::status;

/// A service whose panics are INTERNAL.
#[derive(Debug, Clone)]
pub(super) struct Panics<S> {
    inner: S,
}

impl<S> Panics<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Panics<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error = Infallible>,
    ResBody: Body<Error = Status>,
{
    type Response = Response<PanicsBody<ResBody>>;
    type Error = Infallible;
    type Future = PanicsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // tonic's services do their work in the future, not in `call`.
        PanicsFuture {
            inner: Some(self.inner.call(request)),
        }
    }
}

fn internal(panic: &(dyn Any + Send)) -> Status {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(panic = message, "a handler panicked");
    status::error(
        Code::Internal,
        "PANIC",
        "the server failed while answering; its log says why",
    )
}

pin_project! {
    /// Future of [`Panics`].
    pub(super) struct PanicsFuture<F> {
        // None after a panic: what it left behind is not polled again.
        #[pin]
        inner: Option<F>,
    }
}

impl<F, B> Future for PanicsFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<PanicsBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        // Unwind safe: after a panic the future is dropped and nothing of it is seen again.
        match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
            Ok(poll) => poll.map_ok(|response| response.map(|body| PanicsBody { inner: Some(body) })),
            Err(panic) => {
                this.inner.set(None);
                let response = internal(&*panic).into_http::<()>();
                Poll::Ready(Ok(response.map(|()| PanicsBody { inner: None })))
            }
        }
    }
}

pin_project! {
    /// Response body of [`Panics`].
    pub(super) struct PanicsBody<B> {
        #[pin]
        inner: Option<B>,
    }
}

impl<B: Body<Error = Status>> Body for PanicsBody<B> {
    type Data = B::Data;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, Status>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        match catch_unwind(AssertUnwindSafe(|| inner.poll_frame(cx))) {
            Ok(poll) => poll,
            Err(panic) => {
                this.inner.set(None);
                Poll::Ready(Some(Ok(trailers::frame(&internal(&*panic)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
