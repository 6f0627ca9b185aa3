//! The body of a response, and all that lasts as long as it does: the call counted on its endpoint, the deadline, the spans.
//!
//! A call is over when its stream is: a server stream of an hour is an hour of load, and its deadline covers the hour.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body, Frame, SizeHint};
use telemetry::client::{AttemptSpan, CallSpan};
use tokio::time::{Instant, Sleep};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::gate::Admission;
use crate::{
    Error,
    endpoint::{Ending, InFlight, stream::Incoming},
};

/// The body of every response of a [`Channel`](crate::Channel).
///
/// While it lives and has not ended, the call counts as in flight on its instance. When the call's deadline passes it fails
/// with DEADLINE_EXCEEDED, also between two messages. Dropping it cancels the call at the server.
#[derive(Default)]
pub struct ResponseBody {
    /// `None` once the call is over.
    open: Option<Open>,
    /// A message that came from no server: the call is over, and this is still to be read.
    replied: Option<Replied>,
}

enum Replied {
    Message(Bytes),
    Trailers,
}

/// What a call holds until it is over.
pub(crate) struct Open {
    pub(crate) incoming: Incoming,
    pub(crate) timer: Option<Pin<Box<Sleep>>>,
    pub(crate) service: Arc<str>,
    pub(crate) in_flight: InFlight,
    pub(crate) spans: Spans,
    /// Set once the call has its response, if anybody wants to know of its end.
    pub(crate) admission: Option<Box<Admission>>,
}

/// The spans of a call that has been answered: the call's, and that of the attempt that was.
#[derive(Debug)]
pub(crate) struct Spans {
    pub(crate) call: CallSpan,
    pub(crate) attempt: AttemptSpan,
}

impl Open {
    fn is_late(&self) -> bool {
        self.timer
            .as_ref()
            .is_some_and(|timer| timer.deadline() <= Instant::now())
    }

    fn too_late(&self) -> Error {
        let endpoint = self.in_flight.endpoint();
        Error::DeadlineExceeded {
            service: Arc::clone(&self.service),
            waiting_for: format!(
                "the rest of the response of {} ({})",
                endpoint.address, endpoint.instance_id
            ),
        }
    }
}

impl Open {
    /// The stream has ended with those trailers; without a status in them it is UNKNOWN.
    fn finish_with(mut self, trailers: &HeaderMap) {
        let code = code_in(trailers);
        let ending = Ending::of(code);
        if matches!(ending, Ending::Failed | Ending::Overloaded) {
            self.in_flight.is_pushed_back(pushback(trailers));
        }
        self.in_flight.endpoint().load().says(trailers);
        self.in_flight.ends(ending);
        if let Some(admission) = self.admission {
            admission.ends(ending);
        }
        self.spans.finish_with(trailers);
    }
}

/// How long a server that failed a call wants to be left alone: `grpc-retry-pushback-ms` (gRFC A6), or its `RetryInfo`.
pub(super) fn pushback(trailers: &HeaderMap) -> Option<Duration> {
    if let Some(asked) = trailers.get("grpc-retry-pushback-ms") {
        // A negative one says not to retry, and not for how long.
        return asked.to_str().ok()?.parse().ok().map(Duration::from_millis);
    }
    let status = Status::from_header_map(trailers)?;
    status.get_details_retry_info()?.retry_delay
}

impl Spans {
    fn finish_with(self, trailers: &HeaderMap) {
        self.attempt.finish_with(trailers);
        self.call.finish_with(trailers);
    }

    fn finish(self, status: &Status) {
        self.attempt.finish(status.code().into());
        self.call.finish(status.code().into());
    }
}

/// The call that was let through has this response: its end is the body's.
pub(crate) fn admitted(response: &mut Response<ResponseBody>, admission: Box<Admission>) {
    match &mut response.body_mut().open {
        Some(open) => open.admission = Some(admission),
        // Without a body it is over already, and the status is in the headers.
        None => admission.ends(Ending::of(code_in(response.headers()))),
    }
}

/// The status in those trailers; UNKNOWN if there is none.
fn code_in(trailers: &HeaderMap) -> Code {
    let status = trailers.get(Status::GRPC_STATUS);
    status.map_or(Code::Unknown, |status| Code::from_bytes(status.as_bytes()))
}

impl ResponseBody {
    /// `headers` are the response's: if it has no body they carry the status, and the call is over at once.
    pub(crate) fn new(open: Open, headers: &HeaderMap) -> Self {
        if open.incoming.is_end_stream() {
            open.finish_with(headers);
            return Self::default();
        }
        Self {
            open: Some(open),
            replied: None,
        }
    }

    /// One message as it travels, and OK.
    pub(crate) fn replied(frame: Bytes) -> Self {
        Self {
            open: None,
            replied: Some(Replied::Message(frame)),
        }
    }

    fn next_of_reply(&mut self) -> Option<Frame<Bytes>> {
        match self.replied.take()? {
            Replied::Message(frame) => {
                self.replied = Some(Replied::Trailers);
                Some(Frame::data(frame))
            }
            Replied::Trailers => {
                let ok = (Status::GRPC_STATUS, HeaderValue::from_static("0"));
                Some(Frame::trailers(HeaderMap::from_iter([ok])))
            }
        }
    }

    fn fail(&mut self, error: impl FnOnce(&Open) -> Error) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(mut open) = self.open.take() else {
            return Poll::Ready(None);
        };
        let status = Status::from(error(&open));
        open.in_flight.ends(Ending::of(status.code()));
        if let Some(admission) = open.admission {
            admission.ends(Ending::of(status.code()));
        }
        open.spans.finish(&status);
        Poll::Ready(Some(Err(status)))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(open) = &mut this.open else {
            return Poll::Ready(this.next_of_reply().map(Ok));
        };
        match open.incoming.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                match frame.trailers_ref() {
                    Some(trailers) => {
                        if let Some(open) = this.open.take() {
                            open.finish_with(trailers);
                        }
                    }
                    // A server that never stops talking never leaves us waiting: its time is up all the same.
                    None if open.is_late() => return this.fail(Open::too_late),
                    None => {
                        if let Some(data) = frame.data_ref() {
                            open.spans.attempt.received(data);
                        }
                        open.in_flight.speaks();
                        if let Some(admission) = &mut open.admission {
                            admission.speaks();
                        }
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(source))) => this.fail(|open| Error::broken_off(open.in_flight.endpoint(), source)),
            Poll::Ready(None) => {
                if let Some(open) = this.open.take() {
                    open.finish_with(&HeaderMap::new());
                }
                Poll::Ready(None)
            }
            Poll::Pending => match open.timer.as_mut().map(|timer| timer.as_mut().poll(cx)) {
                Some(Poll::Ready(())) => this.fail(Open::too_late),
                _ => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.replied.is_none() && self.open.as_ref().is_none_or(|open| open.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.open.is_none() && self.replied.is_none() {
            SizeHint::with_exact(0)
        } else {
            SizeHint::default()
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("open", &self.open.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_server_may_ask_to_be_left_alone_in_two_ways() {
        let mut trailers = HeaderMap::new();
        assert_eq!(pushback(&trailers), None);
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(2)));
        Status::with_error_details(Code::Unavailable, "later", details)
            .add_header(&mut trailers)
            .expect("a valid status");
        assert_eq!(pushback(&trailers), Some(Duration::from_secs(2)));
        trailers.insert("grpc-retry-pushback-ms", HeaderValue::from_static("700"));
        assert_eq!(pushback(&trailers), Some(Duration::from_millis(700)));
        trailers.insert("grpc-retry-pushback-ms", HeaderValue::from_static("-1"));
        assert_eq!(pushback(&trailers), None);
    }
}
