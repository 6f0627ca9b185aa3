//! `grpc.health.v1` for every service of a server, and for `""`, which stands for the whole of it.
//!
//! Our own service over tonic-health's generated types: its reporter has to be awaited, starts out SERVING and refuses to
//! watch a service that is not there yet, where the protocol wants SERVICE_UNKNOWN followed by what becomes of it.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{self, HealthServer},
};

use crate::status;

/// Largest request, in bytes. It is one service name, and a watch keeps it for as long as it lasts; tonic's 4 MiB would let
/// a peer leave that much behind with each stream.
const MAX_REQUEST: usize = 4 << 10;

/// Who is serving. Starts with nobody.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    ready: Arc<watch::Sender<Readiness>>,
}

/// Each service that is served, and whether it is ready.
type Readiness = BTreeMap<String, bool>;

impl Health {
    /// All of `services` not serving.
    pub(crate) fn new<'a>(services: impl IntoIterator<Item = &'a str>) -> Self {
        let ready = services.into_iter().map(|name| (name.to_owned(), false)).collect();
        Self {
            ready: Arc::new(watch::Sender::new(ready)),
        }
    }

    /// Marks one service, or all of them for `""`.
    pub(crate) fn set(&self, service: &str, is_ready: bool) {
        self.ready.send_if_modified(|ready| {
            let mut changed = false;
            if service.is_empty() {
                for known in ready.values_mut() {
                    changed |= std::mem::replace(known, is_ready) != is_ready;
                }
            } else {
                changed = ready.insert(service.to_owned(), is_ready) != Some(is_ready);
            }
            changed
        });
    }

    /// Whether anything is served: what `/healthz` and the service `""` say.
    pub(crate) fn is_serving(&self) -> bool {
        check(&self.ready.borrow(), "") == Some(ServingStatus::Serving)
    }

    /// The gRPC service.
    pub(crate) fn service(&self) -> HealthServer<Service> {
        HealthServer::new(Service(self.clone())).max_decoding_message_size(MAX_REQUEST)
    }
}

fn check(ready: &Readiness, service: &str) -> Option<ServingStatus> {
    let is_ready = if service.is_empty() {
        ready.values().any(|ready| *ready)
    } else {
        *ready.get(service)?
    };
    Some(if is_ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    })
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// Answers checks and watches.
#[derive(Debug)]
pub(crate) struct Service(Health);

#[tonic::async_trait]
impl health_server::Health for Service {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        match check(&self.0.ready.borrow(), service) {
            Some(status) => Ok(Response::new(response(status))),
            None => {
                let service = status::excerpt(service);
                let message = format!("no service {service} here; the empty name asks for the whole server");
                Err(status::error(Code::NotFound, "UNKNOWN_SERVICE", message))
            }
        }
    }

    type WatchStream = WatchStream;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<WatchStream>, Status> {
        Ok(Response::new(WatchStream::new(
            request.into_inner().service,
            self.0.ready.subscribe(),
        )))
    }
}

/// The status of one service and each change of it. The layer that ends infrastructure streams ends it on drain.
pub(crate) struct WatchStream(Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>);

impl WatchStream {
    fn new(service: String, ready: watch::Receiver<Readiness>) -> Self {
        let start = (service, ready, None);
        Self(Box::pin(futures_util::stream::unfold(
            start,
            |(service, mut ready, told)| async move {
                loop {
                    let now = check(&ready.borrow_and_update(), &service).unwrap_or(ServingStatus::ServiceUnknown);
                    if told != Some(now) {
                        return Some((Ok(response(now)), (service, ready, Some(now))));
                    }
                    // Fails when the server is gone, and the stream ends with it.
                    ready.changed().await.ok()?;
                }
            },
        )))
    }
}

impl Stream for WatchStream {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;

    #[test]
    fn the_whole_serves_when_any_part_does() {
        let health = Health::new(["a.A", "b.B"]);
        let status = |service| check(&health.ready.borrow(), service);
        assert_eq!(status(""), Some(ServingStatus::NotServing));
        assert_eq!(status("a.A"), Some(ServingStatus::NotServing));
        assert_eq!(status("c.C"), None);
        health.set("a.A", true);
        assert_eq!(status(""), Some(ServingStatus::Serving));
        assert_eq!(status("b.B"), Some(ServingStatus::NotServing));
        health.set("", false);
        assert_eq!(status(""), Some(ServingStatus::NotServing));
        health.set("", true);
        assert_eq!(status("b.B"), Some(ServingStatus::Serving));
        assert!(health.is_serving());
    }

    #[test]
    fn a_watch_tells_each_change_once_and_knows_the_unknown() {
        let health = Health::new(["a.A"]);
        let mut watch = WatchStream::new("c.C".into(), health.ready.subscribe());
        let mut next = || {
            watch
                .next()
                .now_or_never()
                .map(|item| item.expect("open").expect("ok").status())
        };
        assert_eq!(next(), Some(ServingStatus::ServiceUnknown));
        assert_eq!(next(), None);
        health.set("a.A", true);
        assert_eq!(next(), None, "another service's change");
        health.set("c.C", true);
        assert_eq!(next(), Some(ServingStatus::Serving));
        health.set("", false);
        assert_eq!(next(), Some(ServingStatus::NotServing));
        assert_eq!(next(), None);
    }
}
