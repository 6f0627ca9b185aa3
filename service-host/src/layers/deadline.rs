//! Deadlines as the gRPC specification means them.
//!
//! tonic 0.14 answers a passed deadline with CANCELLED and stops counting once headers are sent, so that a stream outlives
//! its caller. Here the answer is DEADLINE_EXCEEDED; it covers the response to its last frame; what arrives too late is
//! refused without running the handler; and the handler, also while it streams, finds the rest of the time in
//! [`Deadline::current`], to pass on.
//!
//! One gap is left to HTTP/2: a body that waits for a peer who does not read is not polled, so that its trailers are due
//! only when the peer reads again. What it holds meanwhile is what `Limits::max_send_buffer` says of one stream.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use telemetry::deadline::{Deadline, GRPC_TIMEOUT, InvalidTimeout, parse_grpc_timeout};
use tokio::time::{Sleep, sleep_until};
use tonic::{Code, Status};
use tower_service::Service;

use super::trailers;
use crate::status;

/// A service whose calls end at their deadlines.
#[derive(Debug, Clone)]
pub(super) struct Deadlines<S> {
    inner: S,
    default: Option<Duration>,
}

impl<S> Deadlines<S> {
    pub(super) fn new(inner: S, default: Option<Duration>) -> Self {
        Self { inner, default }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Deadlines<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error = Infallible>,
    ResBody: Body<Error = Status>,
{
    type Response = Response<DeadlineBody<ResBody>>;
    type Error = Infallible;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let timeout = match requested(request.headers()) {
            Ok(Some(timeout)) => Some(timeout),
            Ok(None) if telemetry::rpc::is_infrastructure(telemetry::rpc::method_of(request.uri().path())) => None,
            Ok(None) => self.default,
            Err(error) => {
                return DeadlineFuture::Refused {
                    status: Some(malformed(error)),
                };
            }
        };
        let Some(timeout) = timeout else {
            return DeadlineFuture::Running {
                inner: self.inner.call(request),
                timer: None,
            };
        };
        if timeout.is_zero() {
            return DeadlineFuture::Refused {
                status: Some(exceeded(timeout)),
            };
        }
        let deadline = Deadline::after(timeout);
        let inner = deadline.sync_scope(|| self.inner.call(request));
        DeadlineFuture::Running {
            inner,
            timer: Some(Timer::new(deadline, timeout)),
        }
    }
}

fn requested(headers: &HeaderMap) -> Result<Option<Duration>, InvalidTimeout> {
    match headers.get(GRPC_TIMEOUT) {
        Some(value) => parse_grpc_timeout(value.to_str().map_err(|_| InvalidTimeout::Digits)?).map(Some),
        None => Ok(None),
    }
}

fn malformed(error: InvalidTimeout) -> Status {
    // Running without a deadline instead, as tonic does, would be the opposite of what the caller asked for.
    status::invalid([("grpc-timeout", format!("{error}, for example 1500m"))])
}

fn exceeded(timeout: Duration) -> Status {
    status::error_with(
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        if timeout.is_zero() {
            "the deadline had passed when the call arrived".to_owned()
        } else {
            format!("the call was not done within its deadline of {timeout:?}")
        },
        [("timeout_ms", timeout.as_millis().to_string())],
    )
}

pin_project! {
    /// The moment, and what was asked for, to say so.
    struct Timer {
        deadline: Deadline,
        timeout: Duration,
        #[pin]
        sleep: Sleep,
    }
}

impl Timer {
    fn new(deadline: Deadline, timeout: Duration) -> Self {
        Self {
            deadline,
            timeout,
            sleep: sleep_until(deadline.instant()),
        }
    }
}

pin_project! {
    /// Future of [`Deadlines`].
    #[project = DeadlineFutureProj]
    pub(super) enum DeadlineFuture<F> {
        Refused { status: Option<Status> },
        Running {
            #[pin]
            inner: F,
            #[pin]
            timer: Option<Timer>,
        },
    }
}

impl<F, B> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<DeadlineBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (inner, timer) = match self.project() {
            DeadlineFutureProj::Refused { status } => {
                let status = status.take().unwrap_or_else(|| exceeded(Duration::ZERO));
                return Poll::Ready(Ok(refusal(status)));
            }
            DeadlineFutureProj::Running { inner, timer } => (inner, timer.as_pin_mut()),
        };
        let Some(timer) = timer else {
            return inner
                .poll(cx)
                .map_ok(|response| response.map(|body| DeadlineBody::new(body, None)));
        };
        let timer = timer.project();
        // The handler first: what is ready at the last moment is still an answer.
        if let Poll::Ready(Ok(response)) = timer.deadline.sync_scope(|| inner.poll(cx)) {
            let timer = Timer::new(*timer.deadline, *timer.timeout);
            return Poll::Ready(Ok(response.map(|body| DeadlineBody::new(body, Some(timer)))));
        }
        timer.sleep.poll(cx).map(|()| Ok(refusal(exceeded(*timer.timeout))))
    }
}

fn refusal<B>(status: Status) -> Response<DeadlineBody<B>> {
    status.into_http::<()>().map(|()| DeadlineBody {
        inner: None,
        timer: None,
    })
}

pin_project! {
    /// Response body of [`Deadlines`].
    pub(super) struct DeadlineBody<B> {
        // None when there is nothing (more) to send.
        #[pin]
        inner: Option<B>,
        #[pin]
        timer: Option<Timer>,
    }
}

impl<B> DeadlineBody<B> {
    fn new(inner: B, timer: Option<Timer>) -> Self {
        Self {
            inner: Some(inner),
            timer,
        }
    }
}

impl<B: Body<Error = Status>> Body for DeadlineBody<B> {
    type Data = B::Data;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, Status>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let Some(timer) = this.timer.as_pin_mut() else {
            return inner.poll_frame(cx);
        };
        let timer = timer.project();
        // The clock first: a stream that always has something would never look at it.
        if timer.sleep.poll(cx).is_pending() {
            return timer.deadline.sync_scope(|| inner.poll_frame(cx));
        }
        let frame = trailers::frame(&exceeded(*timer.timeout));
        // Dropping the stream tells the handler's side that it is over.
        this.inner.set(None);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, &self.timer) {
            (None, _) => SizeHint::with_exact(0),
            (Some(inner), None) => inner.size_hint(),
            // It may end sooner than it says.
            (Some(_), Some(_)) => SizeHint::default(),
        }
    }
}
