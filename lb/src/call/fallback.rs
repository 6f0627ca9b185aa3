//! A call that has a fallback: answered by it at once, or when the call has failed (gracefully degraded, as Dubbo's `mock` does
//! with `force` and `fail`). What it answers with is in `degrade`.
//!
//! An answer that has begun is the answer: nothing stands in for a stream that breaks off in the middle.

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use telemetry::{
    WithContext as _,
    client::CallSpan,
    deadline::{Deadline, GRPC_TIMEOUT, format_grpc_timeout},
    semconv,
};
use tonic::{Code, Status, body::Body};
use tower_service::Service as _;

use super::{RequestBody, ResponseBody, Shared, attempts::Attempts, gate};
use crate::{
    Degraded, FallbackRequest, FallbackWhen,
    degrade::{Act, Fallback, handled, replied},
    settings::MethodSettings,
};

/// On the requests that fallbacks make: two services that stand in for each other would go round in circles.
#[derive(Clone, Copy, Debug)]
struct Standin;

/// Whether that request already is the work of a fallback.
pub(super) fn is_standin(parts: &Parts) -> bool {
    parts.extensions.get::<Standin>().is_some()
}

/// Tells the call's span that a fallback takes over from a failure with that code, while the span is still open.
pub(super) fn note(settings: &MethodSettings, span: &CallSpan, code: Code) {
    if let Some(fallback) = &settings.fallback
        && fallback.rule().when.covers(code)
    {
        tell(fallback, span);
    }
}

fn tell(fallback: &Fallback, span: &CallSpan) {
    let (when, name) = (fallback.rule().when.as_str(), fallback.name());
    span.event("fallback", Vec::new);
    span.set_attribute(semconv::FALLBACK, format!("{when}: {name}"));
}

/// Performs a call, and has its fallback answer where that is called for.
pub(super) async fn run(
    fallback: &Fallback,
    shared: &Shared,
    settings: &MethodSettings,
    attempts: Attempts<'_>,
    deadline: Option<Deadline>,
    head: Parts,
    body: RequestBody,
) -> Result<Response<ResponseBody>, Status> {
    let context = attempts.span().context().clone();
    if fallback.rule().when == FallbackWhen::Force {
        let span = attempts.into_span();
        tell(fallback, &span);
        let answer = answer(fallback, shared, &head, Some(body), deadline, None)
            .with_context(context)
            .await;
        span.finish(answer.as_ref().err().map_or(Code::Ok, Status::code).into());
        return answer;
    }
    let again = match &body {
        RequestBody::Whole(data) => Some(RequestBody::Whole(data.clone())),
        RequestBody::Streaming(_) => None,
    };
    let outcome = gate::through(shared, settings, attempts, head.clone(), body).await;
    let failure = match &outcome {
        Err(status) => Some(status.clone()),
        Ok(response) => Status::from_header_map(response.headers()).filter(|_| {
            // With anything but headers the answer has begun.
            http_body::Body::is_end_stream(response.body())
        }),
    };
    match failure {
        Some(failure) if fallback.rule().when.covers(failure.code()) => {
            let answer = answer(fallback, shared, &head, again, deadline, Some(&failure))
                .with_context(context)
                .await;
            // Who cannot help does not get to hide why help was needed.
            answer.or(outcome)
        }
        _ => outcome,
    }
}

async fn answer(
    fallback: &Fallback,
    shared: &Shared,
    head: &Parts,
    body: Option<RequestBody>,
    deadline: Option<Deadline>,
    failure: Option<&Status>,
) -> Result<Response<ResponseBody>, Status> {
    let answer = match fallback.act() {
        Act::Reply(frame) => Ok(replied(frame.clone())),
        Act::Handler(handler) => {
            let empty = Bytes::new();
            let whole = match &body {
                Some(RequestBody::Whole(data)) => Some(data.as_ref().unwrap_or(&empty)),
                Some(RequestBody::Streaming(_)) | None => None,
            };
            let request = FallbackRequest {
                path: head.uri.path(),
                headers: &head.headers,
                body: whole,
                failure,
            };
            handled(&**handler, &request)
        }
        Act::Call(channel) => match request_again(head, body, deadline) {
            Some(request) => channel.clone().call(request).await,
            None => Err(failure
                .cloned()
                .unwrap_or_else(|| Status::deadline_exceeded("the deadline passed before the fallback was called"))),
        },
    };
    let when = fallback.rule().when;
    let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
    counted(shared, when, code);
    tracing::debug!(service = %shared.service, path = head.uri.path(), by = %fallback.name(), ?code, "degraded");
    answer.map(|mut response| {
        response.extensions_mut().insert(Degraded {
            when,
            failure: failure.map(Status::code),
            by: fallback.name().clone(),
        });
        response
    })
}

/// The request once more, for somebody else, in what time is left; nothing if none is, or if the request is gone.
fn request_again(head: &Parts, body: Option<RequestBody>, deadline: Option<Deadline>) -> Option<Request<Body>> {
    let body = match body? {
        RequestBody::Whole(None) => Body::empty(),
        RequestBody::Whole(Some(data)) => Body::new(http_body_util::Full::new(data)),
        RequestBody::Streaming(streaming) => Body::new(streaming?),
    };
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.headers_mut() = head.headers.clone();
    if let Some(deadline) = deadline {
        if deadline.is_expired() {
            return None;
        }
        let left = format_grpc_timeout(deadline.remaining()).try_into().ok()?;
        request.headers_mut().insert(GRPC_TIMEOUT, left);
    }
    request.extensions_mut().insert(Standin);
    Some(request)
}

fn counted(shared: &Shared, when: FallbackWhen, code: Code) {
    let outcome = if code == Code::Ok { "answered" } else { "failed" };
    telemetry::metrics::counter(
        "tessera_lb_fallbacks",
        "Calls that went to a fallback, by its rule.",
        &["service", "when", "outcome"],
    )
    .with(&[&shared.service, when.as_str(), outcome])
    .inc();
}
