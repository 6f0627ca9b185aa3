//! Asks the [`Gate`] before anything of a call is read, and ends the streams of those whose credentials are revoked.
//!
//! Around all routes, so that no service can be added beside it. The `authorization` header goes no further where a gate has
//! read it; elsewhere it is the service's, and marked sensitive, so that no `{:?}` of a request shows it.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Code, Status};
use tower_service::Service;

use super::trailers;
use crate::gate::{self, Credentials, Gate, Pass};

/// A service that only those reach who are admitted; without a gate everybody is.
#[derive(Debug, Clone)]
pub(super) struct Admission<S> {
    inner: S,
    gate: Option<Arc<dyn Gate>>,
}

impl<S> Admission<S> {
    pub(super) fn new(inner: S, gate: Option<Arc<dyn Gate>>) -> Self {
        Self { inner, gate }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Admission<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error = Infallible>,
    ResBody: Body<Error = Status>,
{
    type Response = Response<AdmissionBody<ResBody>>;
    type Error = Infallible;
    type Future = AdmissionFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let Some(gate) = &self.gate else {
            conceal(request.headers_mut());
            return AdmissionFuture::admitted(self.inner.call(request), Pass::ToItsEnd);
        };
        // Apart from the request: the path and the header are read while its extensions are written.
        let mut extensions = std::mem::take(request.extensions_mut());
        let credentials = Credentials::of(request.headers());
        let decision = gate.admit(request.uri().path(), credentials, &mut extensions);
        match decision {
            Ok(pass) => {
                *request.extensions_mut() = extensions;
                request.headers_mut().remove(header::AUTHORIZATION);
                AdmissionFuture::admitted(self.inner.call(request), pass)
            }
            Err(status) => AdmissionFuture {
                inner: None,
                refusal: Some(refusal(&status)),
                pass: None,
            },
        }
    }
}

fn conceal(headers: &mut HeaderMap) {
    if let header::Entry::Occupied(mut values) = headers.entry(header::AUTHORIZATION) {
        for value in values.iter_mut() {
            value.set_sensitive(true);
        }
    }
}

fn refusal(status: &Status) -> Response<()> {
    let mut response = status.clone().into_http::<()>();
    if status.code() == Code::Unauthenticated {
        // RFC 9110, 11.6.1: says what would be accepted; also to proxies, which know no gRPC.
        let bearer = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
    }
    response
}

pin_project! {
    /// Future of [`Admission`].
    pub(super) struct AdmissionFuture<F> {
        // None for a refusal.
        #[pin]
        inner: Option<F>,
        refusal: Option<Response<()>>,
        pass: Option<Pass>,
    }
}

impl<F> AdmissionFuture<F> {
    fn admitted(inner: F, pass: Pass) -> Self {
        Self {
            inner: Some(inner),
            refusal: None,
            pass: Some(pass),
        }
    }
}

impl<F, B> Future for AdmissionFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Body,
{
    type Output = Result<Response<AdmissionBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            let response = this.refusal.take().unwrap_or_default();
            return Poll::Ready(Ok(response.map(|()| AdmissionBody {
                inner: None,
                revoked: None,
            })));
        };
        let Ok(response) = ready!(inner.poll(cx));
        let pass = this.pass.take();
        Poll::Ready(Ok(response.map(|inner| AdmissionBody {
            // One that has ended already has nothing to be taken away.
            revoked: match pass {
                Some(Pass::Until(revocation)) if !inner.is_end_stream() => Some(Box::pin(revocation.into_wait())),
                _ => None,
            },
            inner: Some(inner),
        })))
    }
}

pin_project! {
    /// Response body of [`Admission`].
    pub(super) struct AdmissionBody<B> {
        // None for a refusal, and after a revocation: what the stream held is let go at once.
        #[pin]
        inner: Option<B>,
        revoked: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    }
}

impl<B: Body<Error = Status>> Body for AdmissionBody<B> {
    type Data = B::Data;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, Status>>> {
        let mut this = self.project();
        // First, and not when the stream is silent: who is shut out is told nothing more.
        if let Some(revoked) = this.revoked
            && revoked.as_mut().poll(cx).is_ready()
        {
            *this.revoked = None;
            this.inner.set(None);
            return Poll::Ready(Some(Ok(trailers::frame(&gate::revoked()))));
        }
        match this.inner.as_mut().as_pin_mut() {
            Some(inner) => inner.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, &self.revoked) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Some(_)) => SizeHint::default(),
            (Some(inner), None) => inner.size_hint(),
        }
    }
}
