//! The response future: polls the handler with the call's context attached.

use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;

use super::{
    body::{Call, TraceBody},
    layer::Endless,
};
use crate::rpc;

pin_project! {
    /// Future of [`super::ServerTrace`].
    #[derive(Debug)]
    pub struct TraceFuture<F> {
        #[pin]
        inner: F,
        // None for calls that are not traced, and once the call has moved on to the body.
        call: Option<Call>,
    }
}

impl<F> TraceFuture<F> {
    pub(super) fn untraced(inner: F) -> Self {
        Self { inner, call: None }
    }

    pub(super) fn traced(inner: F, call: Call) -> Self {
        Self {
            inner,
            call: Some(call),
        }
    }
}

impl<F, B, E> Future for TraceFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: http_body::Body,
{
    type Output = Result<Response<TraceBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let entered = this.call.as_ref().map(|call| call.context().clone().attach());
        let result = ready!(this.inner.poll(cx));
        drop(entered);
        let mut call = this.call.take();
        Poll::Ready(match result {
            Ok(response) => {
                // A status in the headers means that no message and no trailers follow ("Trailers-Only").
                if let Some(code) = rpc::code_in(response.headers())
                    && let Some(call) = call.take()
                {
                    call.end(code);
                }
                if response.extensions().get::<Endless>().is_some()
                    && let Some(call) = &mut call
                {
                    call.is_endless();
                }
                Ok(response.map(|body| TraceBody::new(body, call)))
            }
            Err(error) => {
                if let Some(call) = call {
                    call.end(rpc::UNKNOWN);
                }
                Err(error)
            }
        })
    }
}
