//! The layer and the service it makes.

use std::{
    borrow::Cow,
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{self, Poll},
    time::{Duration, Instant},
};

use http::{HeaderMap, Request, Response};
use opentelemetry::{Context, KeyValue, trace::SpanKind};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    body::{Call, Durations, TraceBody},
    future::TraceFuture,
};
use crate::{
    deadline::{GRPC_TIMEOUT, parse_grpc_timeout},
    metrics, propagation, rpc, semconv,
    span::{self, Started},
    stats,
};

/// Request extension: the caller's address, if the listener knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Response extension: the stream has no end of its own. Its span ends when the stream is open, so that there is none that lasts
/// for days and is seen after that; its duration is measured as ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endless;

/// Request extension of calls whose span is recorded: whoever reads the request tells here how many messages came.
#[derive(Debug, Clone, Default)]
pub struct ReceivedMessages(Arc<AtomicU64>);

impl ReceivedMessages {
    /// There were so many as yet.
    pub fn set(&self, messages: u64) {
        self.0.store(messages, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Makes [`ServerTrace`].
#[derive(Debug, Clone, Default)]
pub struct ServerTraceLayer {
    methods: Option<Arc<HashSet<String>>>,
    quiet: &'static [&'static str],
}

impl ServerTraceLayer {
    /// A layer that takes every method for known until the service says UNIMPLEMENTED.
    pub fn new() -> Self {
        Self::default()
    }

    /// A layer that knows the methods (`pkg.Service/Method`) that are served; all others become `_OTHER`, so that a caller
    /// who invents method names cannot invent time series.
    #[must_use]
    pub fn with_methods(mut self, methods: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.methods = Some(Arc::new(methods.into_iter().map(Into::into).collect()));
        self
    }

    /// Calls of these methods (`pkg.Service/Method`) are measured and make no span: heartbeats, of which there are more than of all
    /// the rest, and which tell nothing one by one.
    #[must_use]
    pub fn with_quiet(mut self, methods: &'static [&'static str]) -> Self {
        self.quiet = methods;
        self
    }
}

impl<S> Layer<S> for ServerTraceLayer {
    type Service = ServerTrace<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ServerTrace {
            inner,
            methods: self.methods.clone(),
            quiet: self.quiet,
        }
    }
}

/// A service whose calls are traced and measured.
#[derive(Debug, Clone)]
pub struct ServerTrace<S> {
    inner: S,
    methods: Option<Arc<HashSet<String>>>,
    quiet: &'static [&'static str],
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for ServerTrace<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: http_body::Body,
{
    type Response = Response<TraceBody<ResBody>>;
    type Error = S::Error;
    type Future = TraceFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let path_method = rpc::method_of(request.uri().path());
        if rpc::is_infrastructure(path_method) {
            return TraceFuture::untraced(self.inner.call(request));
        }
        let known = self
            .methods
            .as_ref()
            .is_none_or(|methods| methods.contains(path_method));
        let method = if known { path_method } else { semconv::OTHER };
        let durations = if self.methods.is_some() {
            Durations::Known(metrics::rpc::SERVER.of("", method))
        } else {
            Durations::ByStatus(method.into())
        };
        let counted = match durations {
            Durations::Known(_) => stats::Handle::provider(method, request.headers()),
            // Known at the end.
            Durations::ByStatus(_) => stats::Handle::default(),
        };
        // The parent first, then the span: the other order makes every span a root.
        let parent = propagation::extract(request.headers());
        if self.quiet.contains(&path_method) {
            // What is done for it makes no spans either, and its log lines still have an id.
            let passing = Started::passing(propagation::ensure_unsampled(&parent));
            let call = Call::new(passing, durations, counted);
            let _entered = call.context().clone().attach();
            return TraceFuture::traced(self.inner.call(request), call);
        }
        let name: Cow<'static, str> = match &durations {
            Durations::Known(durations) => durations.method().into(),
            Durations::ByStatus(method) => method.to_string().into(),
        };
        let started = start(&parent, name, known, path_method, &request);
        let mut call = Call::new(started, durations, counted);
        call.comes_from(request.extensions().get().map(|PeerAddr(peer)| *peer));
        if call.is_recorded() {
            let received = ReceivedMessages::default();
            request.extensions_mut().insert(received.clone());
            call.reads(received, until(request.headers()));
        }
        let _entered = call.context().clone().attach();
        TraceFuture::traced(self.inner.call(request), call)
    }
}

fn start<B>(parent: &Context, method: Cow<'static, str>, known: bool, original: &str, request: &Request<B>) -> Started {
    span::start(parent, SpanKind::Server, || {
        let caller = request.extensions().get().map(|PeerAddr(peer)| *peer);
        let mut attributes = described(method.clone(), caller);
        if !known {
            attributes.push(KeyValue::new(semconv::RPC_METHOD_ORIGINAL, original.to_owned()));
        }
        if let Some(budget) = budget(request.headers()) {
            attributes.push(KeyValue::new(semconv::DEADLINE_BUDGET_MS, span::millis(budget)));
        }
        (method, attributes)
    })
}

/// What every span of a call says, also one that is made at its end.
pub(super) fn described(method: Cow<'static, str>, caller: Option<SocketAddr>) -> Vec<KeyValue> {
    // With room for what is said at the end.
    let mut attributes = Vec::with_capacity(10);
    attributes.push(KeyValue::new(semconv::RPC_SYSTEM_NAME, semconv::RPC_SYSTEM_GRPC));
    attributes.push(KeyValue::new(semconv::RPC_METHOD, method));
    if let Some(peer) = caller {
        attributes.push(KeyValue::new(semconv::NETWORK_PEER_ADDRESS, peer.ip().to_string()));
        attributes.push(KeyValue::new(semconv::NETWORK_PEER_PORT, i64::from(peer.port())));
    }
    attributes
}

/// What the caller gives it; a value that cannot be read is for the deadline's layer to refuse.
fn budget(headers: &HeaderMap) -> Option<Duration> {
    parse_grpc_timeout(headers.get(GRPC_TIMEOUT)?.to_str().ok()?).ok()
}

fn until(headers: &HeaderMap) -> Option<Instant> {
    Instant::now().checked_add(budget(headers)?)
}
