//! A service whose answers the test writes down, and a trace to find its spans by.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use telemetry::{Context as Cx, propagation, testing::Spans};

/// A fresh trace: its context, its id and the spans exporter.
pub(crate) fn new_trace() -> (Cx, String, Spans) {
    let spans = telemetry::testing::install_in_memory();
    let cx = propagation::ensure_trace(&Cx::new());
    let id = propagation::trace_id(&cx).expect("valid");
    (cx, id, spans)
}

/// A request for that path under that parent.
pub(crate) fn request(parent: &Cx, path: &str) -> Request<()> {
    let mut request = Request::post(path).body(()).expect("a request");
    propagation::inject(parent, request.headers_mut());
    request
}

/// Trailers or headers with a status.
pub(crate) fn status(code: i32) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from(code))])
}

/// A response body of frames; after the last one it is over, or (`pending`) never moves again.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    pub(crate) frames: VecDeque<Frame<Bytes>>,
    pub(crate) pending: bool,
}

impl Frames {
    pub(crate) fn messages(count: usize) -> Self {
        // A message of three bytes behind its prefix: not compressed, length 3.
        let frame = || Frame::data(Bytes::from_static(b"\0\0\0\0\x03abc"));
        Self {
            frames: (0..count).map(|_| frame()).collect(),
            pending: false,
        }
    }

    pub(crate) fn then(mut self, trailers: HeaderMap) -> Self {
        self.frames.push_back(Frame::trailers(trailers));
        self
    }

    pub(crate) fn then_pending(mut self) -> Self {
        self.pending = true;
        self
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            None if self.pending => Poll::Pending,
            frame => Poll::Ready(frame.map(Ok)),
        }
    }
}

/// A handler that answers at once with those headers and that body.
pub(crate) fn answer(headers: HeaderMap, body: Frames) -> Ready<Result<Response<Frames>, Infallible>> {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    ready(Ok(response))
}
