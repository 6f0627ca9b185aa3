//! What tonic answers by itself, in words that help: garbage, oversized messages, unknown methods.
//!
//! tonic calls all of the caller's broken messages INTERNAL, which blames the server, trips its callers' breakers and pages
//! somebody. Only statuses without details are touched, and only those whose text is tonic's own: our services give every
//! error an `ErrorInfo` ([`crate::status`]), so that nothing of theirs is rewritten.
//!
//! A handler that passes on what a client of its own met may use the same words, about somebody else's message. Where the
//! request has been read to its end in whole messages, which tonic does before it runs a handler that takes one, they are
//! not about the request and stay as they are. What is left is a handler that reads a stream of requests and fails in the
//! middle of it with a status it was given: there the two cannot be told apart, and the request is blamed.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tower_service::Service;

use super::{trailers, uploads::WasRead};
use crate::{
    catalogue::{Catalogue, NoSuchService},
    status,
};

/// A service whose errors say what to do next.
#[derive(Debug, Clone)]
pub(super) struct Errors<S> {
    inner: S,
    catalogue: Arc<Catalogue>,
}

impl<S> Errors<S> {
    pub(super) fn new(inner: S, catalogue: Arc<Catalogue>) -> Self {
        Self { inner, catalogue }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Errors<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error = Infallible>,
    ResBody: Body<Error = Status>,
{
    type Response = Response<ErrorsBody<ResBody>>;
    type Error = Infallible;
    type Future = ErrorsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // A clone of the URI shares its bytes; the path is needed only if something is wrong.
        let asked = Asked {
            uri: request.uri().clone(),
            was_read: request.extensions().get::<WasRead>().cloned().unwrap_or_default(),
            catalogue: Arc::clone(&self.catalogue),
        };
        ErrorsFuture {
            inner: self.inner.call(request),
            asked: Some(asked),
        }
    }
}

/// What a call asked for, and what there is.
#[derive(Debug)]
struct Asked {
    uri: http::Uri,
    was_read: WasRead,
    catalogue: Arc<Catalogue>,
}

impl Asked {
    fn clarify(&self, headers: &mut HeaderMap, no_such_service: bool) {
        if headers.contains_key(Status::GRPC_STATUS_DETAILS) {
            return;
        }
        // Most statuses are OK; parse only the few that tonic makes by itself.
        if !matches!(telemetry::rpc::code_in(headers), Some(11..=13)) {
            return;
        }
        let Some(status) = Status::from_header_map(headers) else {
            return;
        };
        if status.code() != Code::Unimplemented && self.was_read.get() {
            return;
        }
        if let Some(better) = clearer(
            status.code(),
            status.message(),
            self.uri.path(),
            no_such_service,
            &self.catalogue,
        ) {
            trailers::replace(headers, &better);
        }
    }
}

pin_project! {
    /// Future of [`Errors`].
    pub(super) struct ErrorsFuture<F> {
        #[pin]
        inner: F,
        asked: Option<Asked>,
    }
}

impl<F, B> Future for ErrorsFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<ErrorsBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.inner.poll(cx));
        let asked = this.asked.take();
        if let Some(asked) = &asked {
            let no_such_service = response.extensions().get::<NoSuchService>().is_some();
            asked.clarify(response.headers_mut(), no_such_service);
        }
        Poll::Ready(Ok(response.map(|inner| ErrorsBody { inner, asked })))
    }
}

pin_project! {
    /// Response body of [`Errors`].
    pub(super) struct ErrorsBody<B> {
        #[pin]
        inner: B,
        asked: Option<Asked>,
    }
}

impl<B: Body<Error = Status>> Body for ErrorsBody<B> {
    type Data = B::Data;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, Status>>> {
        let this = self.project();
        let mut frame = ready!(this.inner.poll_frame(cx));
        if let (Some(Ok(frame)), Some(asked)) = (&mut frame, this.asked)
            && let Some(trailers) = frame.trailers_mut()
        {
            asked.clarify(trailers, false);
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

/// A clearer status for one of tonic's own, or `None` for anything else.
fn clearer(code: Code, message: &str, path: &str, no_such_service: bool, catalogue: &Catalogue) -> Option<Status> {
    match code {
        Code::Internal if is_malformed(message) => Some(status::error(
            Code::InvalidArgument,
            "MALFORMED_MESSAGE",
            format!(
                "the request is not a valid message for {}: {message}",
                telemetry::rpc::method_of(path)
            ),
        )),
        Code::OutOfRange => too_large(message),
        Code::Unimplemented if message.is_empty() => Some(unknown_method(path, no_such_service, catalogue)),
        _ => None,
    }
}

/// Texts of tonic 0.14.9 (`codec/decode.rs`, `server/grpc.rs`) and prost 0.14; a test in `tests/it` fails if they change.
fn is_malformed(message: &str) -> bool {
    message.starts_with("failed to decode Protobuf message")
        || message == "Unexpected EOF decoding stream."
        || message == "Missing request message."
        || (message.starts_with("protocol error: received message with invalid compression flag")
            && message.ends_with("while sending request"))
}

fn too_large(message: &str) -> Option<Status> {
    let numbers = message
        .strip_prefix("Error, decoded message length too large: found ")?
        .strip_suffix(" bytes")?;
    let (size, limit) = numbers.split_once(" bytes, the limit is: ")?;
    // RESOURCE_EXHAUSTED is what the other gRPC libraries answer to it, and what their clients know.
    Some(status::error_with(
        Code::ResourceExhausted,
        "MESSAGE_TOO_LARGE",
        format!(
            "the request message has {size} bytes; this server takes at most {limit}: shorten its fields, or send less at once"
        ),
        [("size", size.to_owned()), ("limit", limit.to_owned())],
    ))
}

fn unknown_method(path: &str, no_such_service: bool, catalogue: &Catalogue) -> Status {
    const HINT: &str = "list what there is with server reflection, for example grpcurl -plaintext HOST:PORT list";
    let asked = telemetry::rpc::method_of(path);
    let (service, method) = asked.split_once('/').unwrap_or((asked, ""));
    let methods = catalogue.methods_of(service);
    // A path may fill the headers of its request, and would be here three times.
    let (service, method) = (status::excerpt(service), status::excerpt(method));
    let (reason, message) = match methods {
        Some(methods) => {
            let methods = methods.join(", ");
            (
                "UNKNOWN_METHOD",
                format!("{service} has no method {method:?}; it has {methods}; {HINT} {service}"),
            )
        }
        None if no_such_service => {
            let services: Vec<&str> = catalogue.services().collect();
            let services = services.join(", ");
            (
                "UNKNOWN_SERVICE",
                format!("no service {service:?} here; this server has {services}; {HINT}"),
            )
        }
        None => (
            "UNKNOWN_METHOD",
            format!("{service} has no method {method:?}; {HINT} {service}"),
        ),
    };
    status::error_with(
        Code::Unimplemented,
        reason,
        message,
        [("path", status::excerpt(path).into_owned())],
    )
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    fn check(code: Code, message: &str, expected: Option<(Code, &str)>) {
        let clearer = clearer(code, message, "/a.A/Do", false, &Catalogue::default());
        let found = clearer.map(|status| (status.code(), status.get_details_error_info().expect("info").reason));
        let expected = expected.map(|(code, reason)| (code, reason.to_owned()));
        assert_eq!(found, expected, "{code:?} {message:?}");
    }

    #[test]
    fn only_tonics_own_words_are_changed() {
        let malformed = Some((Code::InvalidArgument, "MALFORMED_MESSAGE"));
        check(
            Code::Internal,
            "failed to decode Protobuf message: invalid tag value: 0",
            malformed,
        );
        check(Code::Internal, "Unexpected EOF decoding stream.", malformed);
        check(Code::Internal, "Missing request message.", malformed);
        check(Code::Internal, "the store is corrupt", None);
        check(
            Code::OutOfRange,
            "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes",
            Some((Code::ResourceExhausted, "MESSAGE_TOO_LARGE")),
        );
        check(Code::OutOfRange, "the page is beyond the end", None);
        check(Code::Unimplemented, "", Some((Code::Unimplemented, "UNKNOWN_METHOD")));
        check(Code::Unimplemented, "not on this engine", None);
        check(Code::NotFound, "", None);
    }

    #[test]
    fn an_oversized_message_is_told_the_limit() {
        let status = too_large("Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes");
        let status = status.expect("recognised");
        assert_eq!(
            status.message(),
            "the request message has 9 bytes; this server takes at most 4: shorten its fields, or send less at once"
        );
        let info = status.get_details_error_info().expect("info");
        assert_eq!(info.metadata.get("limit").map(String::as_str), Some("4"));
    }
}
