//! Watch: from the request to a body that streams.
//!
//! Served beside the generated service and not by it: what that one sends are messages of the generated types, one for each
//! watcher, and ours are bytes that watchers share (see `message`). So is ListInstances, by [`served`].

mod body;
mod message;

use std::{
    convert::Infallible,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task,
    time::Duration,
};

use http::{Request, Response, header};
use proto::registry::v1::{self as wire, registry_service_server::RegistryServiceServer};
use service_host::{DrainSignal, status};
use telemetry::server::Endless;
use tonic::{Code, Status, Streaming, body::Body, server::NamedService};
use tonic_prost::ProstDecoder;
use tower_service::Service;

use self::{
    body::{Instruments, WatchBody},
    message::Names,
};
use super::{Api, acks, caller::Caller, error::ApiError, lists, served, validate::Violations};
use crate::{
    access::scope::Need,
    driver::Clock,
    hub::{FutureRevision, Hub, Selection, WatchFrom, Watcher},
    model::{Revision, WatchId},
};

const PATH: &str = "/tessera.registry.v1.RegistryService/Watch";

/// How long a replica that is behind the revision to resume from may take to get there. It follows the store's own watch, so
/// milliseconds are usual; a client that failed over to a replica which takes seconds is better off at the next one than with
/// a registry that only says nothing.
const CATCH_UP: Duration = Duration::from_secs(5);

/// `RegistryService`, all of it: what is served by hand, and the rest.
#[derive(Debug, Clone)]
pub(super) struct WithWatch {
    api: Arc<Api>,
    instruments: Arc<Instruments>,
    generated: RegistryServiceServer<Api>,
}

impl WithWatch {
    /// What the generated service serves, Watch and ListInstances.
    pub(super) fn new(api: Api, generated: RegistryServiceServer<Api>) -> Self {
        let instruments = Instruments::new(api.clock, api.metrics.clone());
        Self {
            api: Arc::new(api),
            instruments: Arc::new(instruments),
            generated,
        }
    }
}

impl NamedService for WithWatch {
    const NAME: &'static str = <RegistryServiceServer<Api> as NamedService>::NAME;
}

impl Service<Request<Body>> for WithWatch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let api = Arc::clone(&self.api);
        match request.uri().path() {
            PATH => {
                let instruments = Arc::clone(&self.instruments);
                Box::pin(async move {
                    let served = serve(&api, instruments, request).await;
                    Ok(served.unwrap_or_else(Status::into_http))
                })
            }
            served::LIST_INSTANCES => Box::pin(async move { Ok(served::list_instances(api, request).await) }),
            _ => self.generated.call(request),
        }
    }
}

async fn serve(api: &Api, instruments: Arc<Instruments>, request: Request<Body>) -> Result<Response<Body>, Status> {
    let holder = acks::holder(request.extensions());
    let peer = holder.address;
    let caller = Caller::of(request.extensions(), api.is_guarded);
    let request = read(request).await?;
    let watch_id = WatchId::from_random(rand::random());
    let watcher = watcher(api, &caller, &request).await?.on_connection(number(peer));
    let watcher = watcher.named(watch_id, holder, Clock::wall());
    // Those who began in the same moment shall not all be told "nothing" in the same moment.
    let idle = api.bookmark_interval.mul_f64(rand::random_range(0.9..1.1));
    let names = Names::new(watch_id.to_string(), api.hub.history_id().to_string());
    let (share, drained) = (api.backlog.join(peer), api.drain.clone().into_wait());
    let body = WatchBody::new(instruments, watcher, names, share, idle, drained);
    let mut response = Response::new(Body::new(body));
    response.extensions_mut().insert(Endless);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
    Ok(response)
}

/// Reads the one message of a request. What is wrong with its framing is said in tonic's words, which service-host makes clearer.
async fn read(request: Request<Body>) -> Result<wire::WatchRequest, Status> {
    let encoding = request.headers().get("grpc-encoding");
    if encoding.is_some_and(|encoding| encoding != "identity") {
        let text = "the request is compressed, which this registry does not read: send it as it is";
        return Err(status::error(Code::Unimplemented, "COMPRESSED", text));
    }
    let limit = Some(service_host::MAX_REQUEST_MESSAGE);
    let mut stream = Streaming::new_request(ProstDecoder::default(), request.into_body(), None, limit);
    let message = stream.message().await?;
    // The request ends after it.
    stream.trailers().await?;
    message.ok_or_else(|| Status::internal("Missing request message."))
}

/// Validates a request and begins to watch.
async fn watcher(api: &Api, caller: &Caller, request: &wire::WatchRequest) -> Result<Watcher, ApiError> {
    let mut violations = Violations::default();
    let selection = lists::selection(
        &mut violations,
        &request.namespace,
        &request.service,
        request.selector.as_ref(),
    );
    let after = u64::try_from(request.start_after_revision).map_err(|_| "must be 0 or a revision that was told");
    let after = violations.check("start_after_revision", after);
    let (Some(selection), Some(after)) = (selection, after) else {
        return Err(violations.into_error());
    };
    // Of one service or of all, a watch is told what its namespace has: it may be neither without reading that.
    caller.needs(Need::Read(&selection.scope.namespace))?;
    let from = from(&api.hub, after, &request.history_id);
    begin(&api.hub, &api.drain, &selection, from).await
}

/// A revision of another history may be lower than ours or higher; either way it says nothing about this one.
fn from(hub: &Hub, after: u64, history_id: &str) -> WatchFrom {
    if after == 0 {
        WatchFrom::Nothing
    } else if history_id.is_empty() || history_id == hub.history_id().to_string() {
        WatchFrom::Revision(Revision::new(after))
    } else {
        WatchFrom::OtherHistory
    }
}

/// Tells connections apart, nearly always, which is enough for the order in which watchers are woken.
fn number(peer: Option<SocketAddr>) -> u64 {
    let mut hasher = DefaultHasher::new();
    peer.hash(&mut hasher);
    hasher.finish()
}

/// Begins at once, or when a revision that other replicas may have told has come here too.
async fn begin(
    hub: &Arc<Hub>,
    drain: &DrainSignal,
    selection: &Selection,
    from: WatchFrom,
) -> Result<Watcher, ApiError> {
    let FutureRevision { asked, .. } = match hub.watch(selection, from) {
        Err(future) if hub.is_replicated() => future,
        begun => return Ok(begun?),
    };
    tokio::select! {
        // Whether it came or not is asked below.
        _ = tokio::time::timeout(CATCH_UP, hub.reached(asked)) => {}
        () = drain.wait() => return Err(ApiError::Draining),
    }
    Ok(hub.watch(selection, from)?)
}

#[cfg(test)]
mod tests;
