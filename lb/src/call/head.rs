//! The head of a request: what the caller gave, and what every attempt adds.

use http::{
    HeaderName, HeaderValue, Method, Request, Uri, Version, header,
    request::Parts,
    uri::{self, Authority, PathAndQuery, Scheme},
};
use telemetry::{
    client::AttemptSpan,
    deadline::{Deadline, GRPC_TIMEOUT, format_grpc_timeout},
};

/// What we call ourselves in the user-agent header.
const USER_AGENT: &str = concat!("tessera-lb/", env!("CARGO_PKG_VERSION"));

/// How many attempts preceded this one (gRFC A6). What never reached a server is not counted.
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// A head from which each attempt makes its own.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    method: Method,
    path: PathAndQuery,
    headers: http::HeaderMap,
}

impl Head {
    /// The caller's extensions are dropped: they are notes to its own layers and mean nothing on the wire.
    pub(crate) fn new(parts: Parts) -> Self {
        let mut headers = parts.headers;
        // gRPC asks that the application's own name comes first.
        let agent = match headers.get(header::USER_AGENT) {
            None => HeaderValue::from_static(USER_AGENT),
            Some(theirs) => [theirs.as_bytes(), b" ", USER_AGENT.as_bytes()]
                .concat()
                .try_into()
                .unwrap_or_else(|_| HeaderValue::from_static(USER_AGENT)),
        };
        headers.insert(header::USER_AGENT, agent);
        let path = parts.uri.into_parts().path_and_query;
        Self {
            method: parts.method,
            path: path.unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers,
        }
    }

    /// Sets what differs between attempts: whose child the server is, how much time is left, and how many attempts there were.
    pub(crate) fn prepare(&mut self, attempt: &AttemptSpan, deadline: Option<Deadline>, previous: u32) {
        attempt.inject(&mut self.headers);
        if previous > 0 {
            self.headers.insert(PREVIOUS_ATTEMPTS, previous.into());
        }
        if let Some(deadline) = deadline
            && let Ok(value) = HeaderValue::try_from(format_grpc_timeout(deadline.remaining()))
        {
            self.headers.insert(GRPC_TIMEOUT, value);
        }
    }

    /// Whether the caller says that this is one of several attempts of its own.
    pub(crate) fn is_repeated_by_caller(&self) -> bool {
        self.headers.contains_key(PREVIOUS_ATTEMPTS)
    }

    /// The method's path.
    pub(crate) fn path(&self) -> &str {
        self.path.path()
    }

    /// The head as it goes to that endpoint.
    pub(crate) fn addressed_to(&self, scheme: Scheme, authority: &Authority) -> Request<()> {
        let mut parts = uri::Parts::default();
        parts.scheme = Some(scheme);
        parts.authority = Some(authority.clone());
        parts.path_and_query = Some(self.path.clone());
        let mut head = Request::new(());
        *head.method_mut() = self.method.clone();
        // Scheme, authority and path are all there, so they do make a URI.
        *head.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *head.version_mut() = Version::HTTP_2;
        *head.headers_mut() = self.headers.clone();
        head
    }
}
