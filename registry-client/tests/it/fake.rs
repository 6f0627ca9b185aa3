//! A registry that follows a script. By default it grants every lease, knows those that it granted until they
//! lapse, and hands every watch
//! to the test, which drives it step by step.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use proto::registry::v1::{
    self,
    registry_service_server::{RegistryService, RegistryServiceServer},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming, transport::server::TcpIncoming};
use tonic_types::{ErrorDetails, StatusExt as _};

pub(crate) use open_watch::OpenWatch;
use store::Store;

mod open_watch;
mod store;

/// A call that arrived, and when.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Register(v1::RegisterRequest),
    Renew,
    Update(Box<v1::UpdateInstanceRequest>),
    Deregister(v1::DeregisterRequest),
    Get,
    ListServices(v1::ListServicesRequest),
    ListInstances(v1::ListInstancesRequest),
    Await(v1::AwaitWatchersRequest),
    Ack(v1::AckWatchRequest),
}

/// What the next call of a kind meets instead of the default.
pub(crate) enum Fate {
    /// This error.
    Refuse(Status),
    /// It takes effect, and then this error.
    Lose(Status),
    /// Nothing, ever.
    Hang,
    /// It takes effect, and then nothing, ever.
    Swallow,
}

#[derive(Default)]
struct State {
    calls: Vec<(Instant, Call)>,
    script: VecDeque<Fate>,
    /// How long a call takes.
    round_trip: Duration,
    /// Every call is refused so.
    refusal: Option<Status>,
    /// What the next watches meet, after so long.
    watches_refused: VecDeque<(Duration, Status)>,
    store: Arc<Mutex<Store>>,
    service_pages: VecDeque<v1::ListServicesResponse>,
    instance_pages: VecDeque<v1::ListInstancesResponse>,
    instance: Option<v1::Instance>,
    late: v1::AwaitWatchersResponse,
}

/// What comes after the effect of a call.
enum Then {
    Answer,
    Fail(Status),
    Hang,
}

/// The registry under the test's control.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Counts calls, so that tests can wait for them.
    arrivals: watch::Receiver<usize>,
    watches: mpsc::Receiver<OpenWatch>,
    server: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        // As our servers do.
        Self::start_with_streams(100).await
    }

    /// One that allows so many streams a connection.
    pub(crate) async fn start_with_streams(most: u32) -> Self {
        Self::start_over(Arc::default(), most).await
    }

    /// One that knows the leases of this one.
    pub(crate) async fn replica(&self) -> Self {
        let store = self.state().store.clone();
        Self::start_over(store, 100).await
    }

    async fn start_over(store: Arc<Mutex<Store>>, most: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State {
            store,
            ..State::default()
        }));
        let (arrived, arrivals) = watch::channel(0);
        // No test opens more watches at once than this.
        let (opened, watches) = mpsc::channel(256);
        let service = Service {
            state: state.clone(),
            arrived,
            opened,
        };
        // With Nagle's algorithm a step may wait for an acknowledgement: 40 ms of a real clock, hours of a paused one.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .max_concurrent_streams(most)
                .add_service(RegistryServiceServer::new(service))
                .serve_with_incoming(incoming)
                .await
                .expect("serves");
        });
        Self {
            address,
            state,
            arrivals,
            watches,
            server,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }

    fn with_store<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        let store = self.state().store.clone();
        let mut store = store.lock().expect("no test panics with it");
        act(&mut store)
    }

    /// The next calls, of whatever kind, meet these fates, in this order.
    pub(crate) fn script(&self, fates: impl IntoIterator<Item = Fate>) {
        self.state().script.extend(fates);
    }

    /// From now on every call is refused so; or none any more.
    pub(crate) fn refuse(&self, refusal: Option<Status>) {
        self.state().refusal = refusal;
    }

    /// The next watches are refused, after so long, in this order.
    pub(crate) fn refuse_watches(&self, refusals: impl IntoIterator<Item = (Duration, Status)>) {
        self.state().watches_refused.extend(refusals);
    }

    /// From now on every call takes so long.
    pub(crate) fn answer_after(&self, round_trip: Duration) {
        self.state().round_trip = round_trip;
    }

    /// Forgets all leases, as after a restart on an empty disk.
    pub(crate) fn forget_leases(&self) {
        self.with_store(Store::forget_leases);
    }

    /// Those that live.
    pub(crate) fn leases(&self) -> Vec<String> {
        self.with_store(|store| store.leases().map(str::to_owned).collect())
    }

    pub(crate) fn serve_service_pages(&self, pages: impl IntoIterator<Item = v1::ListServicesResponse>) {
        self.state().service_pages.extend(pages);
    }

    pub(crate) fn serve_instance_pages(&self, pages: impl IntoIterator<Item = v1::ListInstancesResponse>) {
        self.state().instance_pages.extend(pages);
    }

    /// Who has not acknowledged, whenever it is asked.
    pub(crate) fn serve_late(&self, watches: &[&str]) {
        self.state().late.unacknowledged_watch_ids = watches.iter().map(|watch| (*watch).to_owned()).collect();
    }

    /// What it is called among replicas, and who else there is.
    pub(crate) fn serve_replica(&self, name: &str, others: &[&str]) {
        let mut state = self.state();
        name.clone_into(&mut state.late.replica);
        state.late.unheard_replicas = others.iter().map(|other| (*other).to_owned()).collect();
    }

    /// It was restarted a moment ago, or not.
    pub(crate) fn serve_restarted(&self, watchers_may_return: bool) {
        self.state().late.watchers_may_return = watchers_may_return;
    }

    pub(crate) fn serve_instance(&self, instance: v1::Instance) {
        self.state().instance = Some(instance);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state().calls.iter().map(|(_, call)| call.clone()).collect()
    }

    pub(crate) fn timed_calls(&self) -> Vec<(Instant, Call)> {
        self.state().calls.clone()
    }

    pub(crate) fn registrations(&self) -> Vec<v1::RegisterRequest> {
        self.calls()
            .into_iter()
            .filter_map(|call| match call {
                Call::Register(request) => Some(request),
                _ => None,
            })
            .collect()
    }

    /// Waits until the calls that have arrived satisfy `condition`.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&[Call]) -> bool) {
        let mut arrivals = self.arrivals.clone();
        crate::soon(what, arrivals.wait_for(|_| condition(&self.calls())))
            .await
            .expect("the fake lives");
    }

    /// The next watch that a client opens.
    pub(crate) async fn watch(&mut self) -> OpenWatch {
        crate::soon("a watch", self.watches.recv())
            .await
            .expect("the fake lives")
    }

    pub(crate) fn no_watch_waits(&mut self) -> bool {
        self.watches.try_recv().is_err()
    }
}

pub(crate) fn instance(id: &str) -> v1::Instance {
    v1::Instance {
        namespace: "default".into(),
        service: "ticket-svc".into(),
        id: id.into(),
        endpoints: vec![v1::Endpoint {
            protocol: 1,
            host: "127.0.0.1".into(),
            port: 7101,
        }],
        ..v1::Instance::default()
    }
}

/// An error as the registry makes it.
pub(crate) fn refusal(code: Code, reason: &str, retry_after: Option<Duration>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, "tessera", std::collections::HashMap::new());
    if let Some(delay) = retry_after {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code, "refused by the script", details)
}

struct Service {
    state: Arc<Mutex<State>>,
    arrived: watch::Sender<usize>,
    opened: mpsc::Sender<OpenWatch>,
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }

    fn with_store<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        let store = self.state().store.clone();
        let mut store = store.lock().expect("no test panics with it");
        act(&mut store)
    }

    /// Notes a call; then an error to give at once, or what is to come after the effect.
    async fn arrive(&self, call: Call) -> Result<Then, Status> {
        let (answer, round_trip) = {
            let mut state = self.state();
            state.calls.push((Instant::now(), call));
            let scripted = state.script.pop_front();
            let fate = scripted.or_else(|| state.refusal.clone().map(Fate::Refuse));
            (fate, state.round_trip)
        };
        self.arrived.send_modify(|n| *n += 1);
        if !round_trip.is_zero() {
            tokio::time::sleep(round_trip).await;
        }
        match answer {
            None => Ok(Then::Answer),
            Some(Fate::Refuse(status)) => Err(status),
            Some(Fate::Lose(status)) => Ok(Then::Fail(status)),
            Some(Fate::Swallow) => Ok(Then::Hang),
            Some(Fate::Hang) => std::future::pending().await,
        }
    }

    fn owned(&self, lease: &str) -> Result<(), Status> {
        let knows = self.with_store(|store| store.knows(lease));
        knows.then_some(()).ok_or_else(lease_unknown)
    }
}

pub(crate) fn lease_unknown() -> Status {
    refusal(Code::NotFound, "LEASE_UNKNOWN", Some(Duration::from_secs(3)))
}

async fn answer<T>(then: Then, message: T) -> Result<Response<T>, Status> {
    match then {
        Then::Answer => Ok(Response::new(message)),
        Then::Fail(status) => Err(status),
        Then::Hang => std::future::pending().await,
    }
}

#[tonic::async_trait]
impl RegistryService for Service {
    async fn register(&self, request: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterResponse>, Status> {
        let request = request.into_inner();
        let then = self.arrive(Call::Register(request.clone())).await?;
        let response = self
            .with_store(|store| store.register(&request))
            .ok_or_else(|| refusal(Code::AlreadyExists, "REQUEST_ID_REUSED", None))?;
        answer(then, response).await
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let request = request.into_inner();
        let then = self.arrive(Call::Renew).await?;
        let renewed = self.with_store(|store| store.renew(&request.lease_id));
        let ttl = renewed.ok_or_else(lease_unknown)?;
        let ttl = prost_types::Duration::try_from(ttl).ok();
        answer(then, v1::RenewResponse { ttl }).await
    }

    async fn update_instance(
        &self,
        request: Request<v1::UpdateInstanceRequest>,
    ) -> Result<Response<v1::UpdateInstanceResponse>, Status> {
        let request = request.into_inner();
        let then = self.arrive(Call::Update(Box::new(request.clone()))).await?;
        self.owned(&request.lease_id)?;
        let response = v1::UpdateInstanceResponse {
            instance: request.instance,
            revision: self.with_store(Store::next_revision),
        };
        answer(then, response).await
    }

    async fn deregister(
        &self,
        request: Request<v1::DeregisterRequest>,
    ) -> Result<Response<v1::DeregisterResponse>, Status> {
        let request = request.into_inner();
        let then = self.arrive(Call::Deregister(request.clone())).await?;
        self.owned(&request.lease_id)?;
        let revision = self.with_store(|store| {
            store.end(&request.lease_id);
            store.next_revision()
        });
        answer(then, v1::DeregisterResponse { revision }).await
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        let then = self.arrive(Call::ListServices(request.into_inner())).await?;
        let page = self.state().service_pages.pop_front();
        answer(then, page.unwrap_or_default()).await
    }

    async fn list_instances(
        &self,
        request: Request<v1::ListInstancesRequest>,
    ) -> Result<Response<v1::ListInstancesResponse>, Status> {
        let then = self.arrive(Call::ListInstances(request.into_inner())).await?;
        let page = self.state().instance_pages.pop_front();
        answer(then, page.unwrap_or_default()).await
    }

    async fn get_instance(
        &self,
        _: Request<v1::GetInstanceRequest>,
    ) -> Result<Response<v1::GetInstanceResponse>, Status> {
        let then = self.arrive(Call::Get).await?;
        let instance = self.state().instance.clone();
        if instance.is_none() {
            return Err(refusal(Code::NotFound, "INSTANCE_UNKNOWN", None));
        }
        answer(
            then,
            v1::GetInstanceResponse {
                instance,
                ..v1::GetInstanceResponse::default()
            },
        )
        .await
    }

    type WatchStream = ReceiverStream<Result<v1::WatchResponse, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let refused = self.state().watches_refused.pop_front();
        if let Some((after, status)) = refused {
            tokio::time::sleep(after).await;
            return Err(status);
        }
        // More steps than any test sends without the client reading.
        let (steps, told) = mpsc::channel(64);
        let request = request.into_inner();
        let watch = OpenWatch {
            request,
            history: String::new(),
            confidence: None,
            steps,
        };
        self.opened.send(watch).await.expect("the test listens");
        Ok(Response::new(ReceiverStream::new(told)))
    }

    type KeepAliveStream = ReceiverStream<Result<v1::KeepAliveResponse, Status>>;

    async fn keep_alive(
        &self,
        _: Request<Streaming<v1::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        Err(Status::unimplemented("not used by this client"))
    }

    async fn await_watchers(
        &self,
        request: Request<v1::AwaitWatchersRequest>,
    ) -> Result<Response<v1::AwaitWatchersResponse>, Status> {
        let request = request.into_inner();
        let timeout = request.timeout.and_then(|timeout| Duration::try_from(timeout).ok());
        let then = self.arrive(Call::Await(request)).await?;
        let late = self.state().late.clone();
        if !late.unacknowledged_watch_ids.is_empty() {
            tokio::time::sleep(timeout.expect("is told")).await;
        }
        answer(then, late).await
    }

    async fn ack_watch(&self, request: Request<v1::AckWatchRequest>) -> Result<Response<v1::AckWatchResponse>, Status> {
        let then = self.arrive(Call::Ack(request.into_inner())).await?;
        answer(then, v1::AckWatchResponse {}).await
    }
}
