//! What every call passes through between the connection and the service.
//!
//! ```text
//! edge      counts calls, names the instance, ends health and reflection streams on drain
//! reports   how loaded the instance is, for callers that ask
//! trace     span and duration (telemetry)
//! panics    a panic in a handler is INTERNAL, not a dead stream
//! admission whoever the gate does not admit gets no further; revoked streams end
//! uploads   a request message that does not arrive ends its call
//! errors    what tonic answers by itself, in words that help
//! deadline  DEADLINE_EXCEEDED, to the end of the body; the rest of the time for the handler
//! routes    the services
//! ```
//!
//! The order matters: trace is outside of everything that changes a status, so that a span shows what the caller got. The gate
//! is outside of everything that reads a request's body.

mod admission;
mod deadline;
mod edge;
mod errors;
mod panics;
mod reports;
mod trailers;
mod uploads;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Buf;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use telemetry::server::ServerTraceLayer;
use tonic::service::Routes;
use tower_layer::Layer as _;
use tower_service::Service;

use crate::{catalogue::Catalogue, connection::InFlight, drain::DrainSignal, gate::Gate};

/// The response header that names the instance that answered.
pub const INSTANCE_HEADER: &str = "tessera-instance";

/// What the layers need to know.
pub(crate) struct Settings {
    pub(crate) instance_id: String,
    pub(crate) default_deadline: Option<Duration>,
    pub(crate) message_timeout: Duration,
    pub(crate) drain: DrainSignal,
    pub(crate) in_flight: InFlight,
    pub(crate) gate: Option<Arc<dyn Gate>>,
    pub(crate) quiet: &'static [&'static str],
}

/// The routes with everything around them.
pub(crate) fn stack(
    routes: Routes,
    catalogue: Arc<Catalogue>,
    settings: Settings,
) -> impl Service<
    Request<Incoming>,
    Response = Response<impl http_body::Body<Data = impl Buf + Send, Error = tonic::Status> + Send + 'static>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ 'static {
    let trace = if catalogue.is_empty() {
        // Nothing is described: then every method may exist.
        ServerTraceLayer::new()
    } else {
        ServerTraceLayer::new().with_methods(catalogue.methods())
    };
    let trace = trace.with_quiet(settings.quiet);
    let instance = HeaderValue::from_str(&settings.instance_id).ok();
    if instance.is_none() {
        tracing::warn!(
            instance_id = settings.instance_id,
            "the instance id cannot be a header; responses do not carry it"
        );
    }
    let deadline = deadline::Deadlines::new(routes, settings.default_deadline);
    let errors = errors::Errors::new(deadline, Arc::clone(&catalogue));
    let uploads = uploads::Uploads::new(errors, catalogue, settings.message_timeout);
    let admission = admission::Admission::new(uploads, settings.gate);
    let panics = panics::Panics::new(admission);
    let reports = reports::Reports::new(trace.layer(panics));
    edge::Edge::new(reports, instance, settings.drain, settings.in_flight)
}
