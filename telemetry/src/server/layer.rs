//! The layer and the service it makes.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::Arc,
    task::{self, Poll},
};

use http::{Request, Response};
use opentelemetry::{KeyValue, trace::SpanKind};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    body::{Call, Durations, TraceBody},
    future::TraceFuture,
};
use crate::{metrics, propagation, rpc, semconv, span, stats};

/// Request extension: the caller's address, if the listener knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Makes [`ServerTrace`].
#[derive(Debug, Clone, Default)]
pub struct ServerTraceLayer {
    methods: Option<Arc<HashSet<String>>>,
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
}

impl<S> Layer<S> for ServerTraceLayer {
    type Service = ServerTrace<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ServerTrace {
            inner,
            methods: self.methods.clone(),
        }
    }
}

/// A service whose calls are traced and measured.
#[derive(Debug, Clone)]
pub struct ServerTrace<S> {
    inner: S,
    methods: Option<Arc<HashSet<String>>>,
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

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let path_method = rpc::method_of(request.uri().path());
        if rpc::is_infrastructure(path_method) {
            return TraceFuture::untraced(self.inner.call(request));
        }
        let known = self
            .methods
            .as_ref()
            .is_none_or(|methods| methods.contains(path_method));
        let method = if known { path_method } else { semconv::OTHER };
        // The parent first, then the span: the other order makes every span a root.
        let parent = propagation::extract(request.headers());
        let cx = span::start(&parent, SpanKind::Server, || {
            let mut attributes = vec![
                KeyValue::new(semconv::RPC_SYSTEM_NAME, semconv::RPC_SYSTEM_GRPC),
                KeyValue::new(semconv::RPC_METHOD, method.to_owned()),
            ];
            if !known {
                attributes.push(KeyValue::new(semconv::RPC_METHOD_ORIGINAL, path_method.to_owned()));
            }
            if let Some(PeerAddr(peer)) = request.extensions().get() {
                attributes.push(KeyValue::new(semconv::NETWORK_PEER_ADDRESS, peer.ip().to_string()));
                attributes.push(KeyValue::new(semconv::NETWORK_PEER_PORT, i64::from(peer.port())));
            }
            (method.to_owned().into(), attributes)
        });
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
        let call = Call::new(cx.clone(), durations, counted);
        let _entered = cx.attach();
        TraceFuture::traced(self.inner.call(request), call)
    }
}
