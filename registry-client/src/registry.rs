//! The handle of a registry: where every use of it begins. Holds the endpoints and the namespace; keeps no state of services.

use std::{pin::Pin, sync::Arc, task, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use tonic::Code;

use crate::{
    discovery::Discovery,
    endpoints::{Endpoints, within},
    error::Error,
    model::{DEFAULT_NAMESPACE, Instance, Resume, Selector, ServiceSummary, Told, WatchStep},
    registrar::Registrar,
    registration::Registration,
    token::Token,
    watcher::takes_out,
    wire::{peer::Page, steps::Steps},
};

/// How long a unary call may take, over all endpoints, unless told otherwise.
pub const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// More pages than this are taken for a registry that goes in circles: 10 million entries.
const MAX_PAGES: usize = 10_000;

/// A registry, as its clients know it. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Registry {
    endpoints: Arc<Endpoints>,
    tls: Option<tls::Client>,
    namespace: Arc<str>,
    call_timeout: Duration,
}

impl Registry {
    /// A registry behind `endpoints`, each `http://host:port` or `host:port`. Any one of them will do; while one is away,
    /// the next is called.
    ///
    /// Nothing is dialled here, and no runtime is needed yet: connections are made when they are first used.
    ///
    /// # Errors
    ///
    /// [`Error::NoEndpoint`] for an empty list, [`Error::InvalidEndpoint`] for one that is not of that form.
    pub fn connect<E: AsRef<str>>(endpoints: impl IntoIterator<Item = E>) -> Result<Self, Error> {
        Self::connect_with(endpoints, None)
    }

    /// As [`connect`](Self::connect), with TLS to the endpoints that are `https://host:port` or `host:port`. An endpoint that is
    /// `http://` stays without.
    ///
    /// The registry's certificate has to be issued by one of the authorities of `tls`, and to name the service `registry-svc` by
    /// its SPIFFE id, in any namespace; one without such an id has to name the host.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect); and an `https://` endpoint when `tls` is `None`.
    pub fn connect_with<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        tls: Option<&tls::Client>,
    ) -> Result<Self, Error> {
        Ok(Self {
            endpoints: Arc::new(Endpoints::try_new(endpoints, tls)?),
            tls: tls.cloned(),
            namespace: DEFAULT_NAMESPACE.into(),
            call_timeout: DEFAULT_CALL_TIMEOUT,
        })
    }

    /// Everything through this handle happens in `namespace`. Default: `default`.
    #[must_use]
    pub fn with_namespace(self, namespace: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            ..self
        }
    }

    /// Shows this token to the registry, on every call and watch.
    ///
    /// # Errors
    ///
    /// [`Error::TokenInTheClear`] where an endpoint is `http://` and not on this machine: everybody on the way could take it.
    pub fn with_token(self, token: Token) -> Result<Self, Error> {
        match self.endpoints.in_the_clear() {
            Some(endpoint) => Err(Error::TokenInTheClear {
                endpoint: endpoint.to_owned(),
            }),
            None => Ok(self.with_token_in_the_clear(token)),
        }
    }

    /// As [`with_token`](Self::with_token), to any endpoint: for networks that are trusted.
    #[must_use]
    pub fn with_token_in_the_clear(self, token: Token) -> Self {
        Self {
            endpoints: Arc::new(self.endpoints.bearing(&token)),
            ..self
        }
    }

    /// Bounds every unary call, all endpoints together. 1 ms to 1 h; what is outside becomes the nearest. Default: 5 s.
    #[must_use]
    pub fn with_call_timeout(self, call_timeout: Duration) -> Self {
        Self {
            call_timeout: call_timeout.clamp(Duration::from_millis(1), Duration::from_secs(3_600)),
            ..self
        }
    }

    /// Begins with the first endpoint rather than with a random one, which spreads a fleet over the replicas.
    #[must_use]
    pub fn prefer_first(self) -> Self {
        self.endpoints.prefer_first();
        self
    }

    /// What it was connected with. Who calls the services that are found here calls them with it, too.
    #[must_use]
    pub fn tls(&self) -> Option<&tls::Client> {
        self.tls.as_ref()
    }

    /// The namespace of this handle.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The endpoints, in the order given.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.endpoints.addresses()
    }

    /// Describes the instances of `service`; nothing is watched before [`Discovery::watch`].
    #[must_use]
    pub fn discover(&self, service: impl Into<String>) -> Discovery {
        Discovery::of_registry(self.clone(), service.into())
    }

    /// Registers an instance, and keeps it registered until the registrar is told otherwise or dropped.
    ///
    /// Call it once the instance is listening. Must be called within a tokio runtime: it starts a task.
    #[must_use = "dropping the registrar ends the heartbeats"]
    pub fn register(&self, registration: Registration) -> Registrar {
        Registrar::start(self.clone(), registration)
    }

    /// The services of the namespace, by name.
    ///
    /// # Errors
    ///
    /// No endpoint answers in time, or the registry refuses.
    pub async fn list_services(&self) -> Result<Vec<ServiceSummary>, Error> {
        self.pages(|registry, token| async move {
            registry
                .endpoints
                .call(registry.call_timeout, |peer| {
                    let (namespace, token) = (registry.namespace.to_string(), token.clone());
                    async move { peer.list_services(namespace, token).await }
                })
                .await
        })
        .await
    }

    /// The instances of a service, or with `None` of all services of the namespace, ordered by service and id.
    ///
    /// # Errors
    ///
    /// No endpoint answers in time, or the registry refuses. A service that nobody has registered is an empty list.
    pub async fn list_instances(&self, service: Option<&str>) -> Result<Vec<Instance>, Error> {
        let service = service.unwrap_or_default();
        self.pages(|registry, token| async move {
            registry
                .endpoints
                .call(registry.call_timeout, |peer| {
                    let (namespace, token) = (registry.namespace.to_string(), token.clone());
                    async move { peer.list_instances(namespace, service.to_owned(), token).await }
                })
                .await
        })
        .await
    }

    /// One instance; `None` when it is not registered.
    ///
    /// # Errors
    ///
    /// No endpoint answers in time, or the registry refuses.
    pub async fn get_instance(&self, service: &str, id: &str) -> Result<Option<Instance>, Error> {
        let answer = self
            .endpoints
            .call(self.call_timeout, |peer| {
                let namespace = self.namespace.to_string();
                async move { peer.get_instance(namespace, service.to_owned(), id.to_owned()).await }
            })
            .await;
        match answer {
            Ok(instance) => Ok(Some(instance)),
            Err(Error::Answered(answer)) if answer.code == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The raw steps of a watch on one endpoint: what the registry sends, nothing kept, nothing resumed. An empty `service`
    /// watches the whole namespace; `start_after_revision` 0 begins with a snapshot.
    ///
    /// Asking for the next step says that the one before has been dealt with: where that matters to others, because it took an
    /// instance out, the registry is told ([`Watcher::applied`](crate::Watcher::applied) is the same for a set that is kept).
    ///
    /// The stream opens when it is first polled (trying each endpoint once) and ends after its first error, or when the
    /// registry ends the watch. For a set that survives reconnects use [`discover`](Self::discover).
    pub fn watch(&self, service: impl Into<String>, start_after_revision: i64) -> WatchStream {
        self.resume_watch(service, start_after_revision, "")
    }

    /// As [`watch`](Self::watch), after a revision of a history that was named by [`WatchStream::history_id`]. A registry
    /// that has begun anew since tells its snapshot with [`SnapshotCause::HistoryChanged`](crate::SnapshotCause), also when
    /// it has grown beyond that revision; without the name it could not know. An empty `history_id` is not checked.
    pub fn resume_watch(
        &self,
        service: impl Into<String>,
        start_after_revision: i64,
        history_id: impl Into<String>,
    ) -> WatchStream {
        enum State {
            Closed(Registry, String, Resume),
            /// With the revision that is to be acknowledged, and the one that it resumed from while nothing was told.
            Open(Box<Steps>, Option<i64>, Option<i64>),
            Ended,
        }
        let resume = Resume {
            after: start_after_revision,
            history: history_id.into(),
        };
        let history = resume.history.clone();
        let begin = State::Closed(self.clone(), service.into(), resume);
        let steps = stream::unfold(begin, |state| async move {
            let (mut steps, mut owed, resumed) = match state {
                State::Closed(registry, service, resume) => {
                    let resumed = Some(resume.after).filter(|after| *after > 0);
                    match registry.open_watch(&service, resume).await {
                        Ok(steps) => (Box::new(steps), None, resumed),
                        Err(error) => return Some((Err(error), State::Ended)),
                    }
                }
                State::Open(steps, owed, resumed) => (steps, owed, resumed),
                State::Ended => return None,
            };
            let heard = if let Some(revision) = owed {
                let mut acknowledged = std::pin::pin!(steps.acknowledge(revision));
                tokio::select! {
                    // Who comes first is not waited for by the other; what was not said by then is said with the next.
                    heard = steps.next() => heard,
                    // Taken or not: nobody is here to be told, and one who waits for it hears that it did not come.
                    _ = &mut acknowledged => {
                        owed = None;
                        steps.next().await
                    }
                }
            } else {
                steps.next().await
            };
            match heard {
                Ok(Some(told)) => {
                    if takes_out(&told.step) {
                        owed = Some(told.step.revision());
                    }
                    Some((Ok(told), State::Open(steps, owed.or(resumed), None)))
                }
                Ok(None) => None,
                Err(error) => Some((Err(error), State::Ended)),
            }
        });
        WatchStream {
            steps: steps.boxed(),
            history,
        }
    }

    async fn open_watch(&self, service: &str, resume: Resume) -> Result<Steps, Error> {
        self.endpoints
            .call(self.call_timeout, |peer| {
                let (namespace, service, resume) = (self.namespace.to_string(), service.to_owned(), resume.clone());
                async move { peer.watch(namespace, service, Selector::default(), resume).await }
            })
            .await
    }

    /// Opens a watch on one endpoint alone, the preferred one unless another is named, for a watcher that does its own retrying.
    /// An endpoint that fails, now or later, is to be [avoided](Self::avoid). The answer is waited for as long as for that of
    /// any call, but for `at_least` so long.
    pub(crate) async fn open_watch_once(
        &self,
        elsewhere: Option<usize>,
        at_least: Duration,
        service: &str,
        selector: Selector,
        resume: Resume,
    ) -> (usize, Result<Steps, Error>) {
        let deadline = self.call_timeout.max(at_least);
        let (index, peer) = match elsewhere {
            Some(index) => self.endpoints.at(index, deadline),
            None => self.endpoints.preferred(deadline),
        };
        let (namespace, service) = (self.namespace.to_string(), service.to_owned());
        (
            index,
            within(&peer, peer.watch(namespace, service, selector, resume)).await,
        )
    }

    pub(crate) fn avoid(&self, index: usize) {
        self.endpoints.avoid(index);
    }

    /// The endpoint that follows this one.
    pub(crate) fn after(&self, index: usize) -> usize {
        self.endpoints.after(index)
    }

    pub(crate) fn shared_endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub(crate) fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// Reads a list to its end. Pages may be of different revisions: what moves meanwhile may be missed, nothing is doubled
    /// by a registry that orders its pages.
    async fn pages<T, F>(&self, mut page: impl FnMut(Self, String) -> F) -> Result<Vec<T>, Error>
    where
        F: Future<Output = Result<Page<T>, Error>>,
    {
        let mut all = Vec::new();
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let (items, next) = page(self.clone(), token.clone()).await?;
            all.extend(items);
            if next.is_empty() {
                return Ok(all);
            }
            if next == token {
                break;
            }
            token = next;
        }
        Err(Error::Malformed {
            endpoint: self.endpoints().collect::<Vec<_>>().join(", "),
            problem: "its page tokens go in circles".to_owned(),
        })
    }
}

/// The raw steps of a watch: see [`Registry::watch`].
#[must_use = "a stream does nothing unless polled"]
pub struct WatchStream {
    steps: stream::BoxStream<'static, Result<Told, Error>>,
    history: String,
}

impl WatchStream {
    /// The history that counts the revisions told: what to resume with. Empty while no step has named it.
    #[must_use]
    pub fn history_id(&self) -> &str {
        &self.history
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchStep, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<Option<Self::Item>> {
        let told = task::ready!(self.steps.poll_next_unpin(cx));
        task::Poll::Ready(told.map(|told| {
            told.map(|told| {
                if !told.history.is_empty() {
                    self.history = told.history;
                }
                told.step
            })
        }))
    }
}

impl std::fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchStream")
            .field("history", &self.history)
            .finish_non_exhaustive()
    }
}
