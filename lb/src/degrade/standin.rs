//! What answers in a service's place, and what it is asked. It does not decide whether.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use tonic::{Code, Status};

use super::{
    reply::{framed, unframed},
    rule::{FallbackRule, FallbackWhen},
};
use crate::{Channel, ResponseBody};

/// A rule, and what it names.
#[derive(Clone, Debug)]
pub(crate) struct Fallback {
    rule: FallbackRule,
    act: Act,
    /// What it is called in traces and responses.
    name: Arc<str>,
}

/// How it answers.
#[derive(Clone)]
pub(crate) enum Act {
    /// With this frame.
    Reply(Bytes),
    /// With what a function says.
    Handler(Arc<HandlerFn>),
    /// By calling somebody else.
    Call(Channel),
}

pub(crate) type HandlerFn = dyn Fn(&FallbackRequest<'_>) -> Result<Bytes, Status> + Send + Sync;

/// The call that a fallback answers.
#[derive(Debug)]
pub struct FallbackRequest<'a> {
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Option<&'a Bytes>,
    pub(crate) failure: Option<&'a Status>,
}

/// An extension of every response that a fallback gave.
///
/// ```
/// fn is_the_real_thing<T>(response: &tonic::Response<T>) -> bool {
///     response.extensions().get::<lb::Degraded>().is_none()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Degraded {
    /// By which rule.
    pub when: FallbackWhen,
    /// How the call had failed; nothing by `force`, which does not call.
    pub failure: Option<Code>,
    /// What answered: `reply`, `handler NAME` or `service NAME VERSION`.
    pub by: Arc<str>,
}

impl Fallback {
    pub(crate) fn new(rule: FallbackRule, act: Act) -> Self {
        let name = rule.with.to_string().into();
        Self { rule, act, name }
    }

    pub(crate) fn rule(&self) -> &FallbackRule {
        &self.rule
    }

    pub(crate) fn act(&self) -> &Act {
        &self.act
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }
}

impl FallbackRequest<'_> {
    /// `/package.Service/Method`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path
    }

    /// What the caller sent along.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.headers
    }

    /// The encoded request; nothing for a stream of requests, and for one that is compressed.
    #[must_use]
    pub fn message(&self) -> Option<Bytes> {
        match self.body {
            None => None,
            Some(body) => unframed(body),
        }
    }

    /// How the call failed; nothing by `force`.
    #[must_use]
    pub fn failure(&self) -> Option<&Status> {
        self.failure
    }
}

/// A response of one message. `frame` is as it travels.
pub(crate) fn replied(frame: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::replied(frame));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The answer of a handler.
pub(crate) fn handled(handler: &HandlerFn, request: &FallbackRequest<'_>) -> Result<Response<ResponseBody>, Status> {
    handler(request).map(|message| replied(framed(&message)))
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reply(_) => "Reply",
            Self::Handler(_) => "Handler",
            Self::Call(_) => "Call",
        })
    }
}
