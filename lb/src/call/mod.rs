//! The way of one call: deadline, pick, send, and elsewhere if it provably was not taken. What else is done about one that
//! fails is its method's [`Mode`](crate::Mode): one file each.
//!
//! It runs in the caller's task from end to end; there is no queue of ours between a caller and its connection.

mod answer;
mod attempt;
mod attempts;
mod broadcast;
mod deadline;
mod failback;
mod failover;
mod failsafe;
mod fallback;
mod forking;
pub(crate) mod gate;
mod head;
mod hedging;
mod race;
mod refused;
mod replay;
mod request;
mod response;
mod retries;

use std::{sync::Arc, task::Poll};

use http::{HeaderMap, Request, Response};
use rand::Rng as _;
use telemetry::{client::CallSpan, deadline::Deadline, propagation::current_baggage};
use tonic::{Status, body::Body};

pub use broadcast::{BroadcastResult, BroadcastResults};
pub(crate) use failback::Failback;
pub use failsafe::Swallowed;
pub(crate) use replay::Streaming;
pub(crate) use request::RequestBody;
pub use response::ResponseBody;
pub use retries::FaultCounts;
pub(crate) use retries::Retries;

pub(crate) use self::head::Head;
use self::{attempts::Attempts, gate::Gate};
use crate::{
    Explanation,
    load::Report,
    pool::{Keeper, Pool},
    route::{Route, Tag},
    settings::Governed,
};

/// What a channel's calls have in common. Each holds it until its response's head has arrived: before that a call needs the
/// pool, and so whoever keeps it, even if the channel itself is gone.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) service: Arc<str>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) keeper: Keeper,
    pub(crate) settings: Arc<Governed>,
    pub(crate) retries: Arc<Retries>,
    pub(crate) failback: Failback,
    pub(crate) gate: Arc<Gate>,
}

impl Shared {
    /// Whom a call of that route would go to.
    pub(crate) fn explain(&self, route: Option<&Route>) -> Explanation {
        self.pool.explain(&self.service, route)
    }

    pub(crate) fn explain_call(&self, path: &str, headers: &HeaderMap) -> Explanation {
        self.explain(Some(&self.route(path, headers)))
    }

    fn route(&self, path: &str, headers: &HeaderMap) -> Route {
        let tag = Tag::of(headers, current_baggage);
        self.pool.route(tag, path, headers, || rand::rng().next_u64())
    }
}

/// Performs one call.
pub(crate) async fn run(shared: Arc<Shared>, request: Request<Body>) -> Result<Response<ResponseBody>, Status> {
    let span = CallSpan::start(request.uri().path(), &shared.service);
    let (mut head, body) = request.into_parts();
    if shared.pool.asks_for_reports() {
        Report::ask(&mut head.headers);
    }
    let mut settings = Arc::clone(shared.settings.load().of(head.uri.path()));
    if settings.fallback.is_some() && fallback::is_standin(&head) {
        Arc::make_mut(&mut settings).fallback = None;
    }
    let deadline = deadline::of(&head.headers, Deadline::current(), settings.call_timeout);
    let mut body = Some(body);
    let read = std::future::poll_fn(|cx| {
        // Ready at once, so this runs once; the options keep the compiler content.
        Poll::Ready(
            body.take()
                .map_or(Ok(RequestBody::Whole(None)), |body| RequestBody::read_ahead(body, cx)),
        )
    });
    match read.await {
        Ok(body) => {
            let key = shared.pool.key_of(&head.headers, &body);
            let route = shared.route(head.uri.path(), &head.headers);
            let attempts = Attempts::new(&shared, &settings, span, deadline, key, &route);
            match &settings.fallback {
                // Boxed, so that the usual call need not be as large as one that may be degraded.
                Some(fallback) => {
                    Box::pin(fallback::run(
                        fallback, &shared, &settings, attempts, deadline, head, body,
                    ))
                    .await
                }
                None => gate::through(&shared, &settings, attempts, head, body).await,
            }
        }
        Err(status) => {
            span.finish(status.code().into());
            Err(status)
        }
    }
}
