//! A registry that follows a script. By default it grants every lease, knows the leases that it granted, and hands every watch
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
}

/// What the next call of a kind meets instead of the default.
pub(crate) enum Fate {
    /// This error.
    Refuse(Status),
    /// It takes effect, and then this error.
    Lose(Status),
    /// Nothing, ever.
    Hang,
}

#[derive(Default)]
struct State {
    calls: Vec<(Instant, Call)>,
    script: VecDeque<Fate>,
    /// How long a call takes.
    round_trip: Duration,
    leases: Vec<String>,
    answered: Vec<(v1::RegisterRequest, v1::RegisterResponse)>,
    revision: i64,
    service_pages: VecDeque<v1::ListServicesResponse>,
    instance_pages: VecDeque<v1::ListInstancesResponse>,
    instance: Option<v1::Instance>,
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

/// A watch that a client has opened.
pub(crate) struct OpenWatch {
    pub(crate) request: v1::WatchRequest,
    /// Told with every step.
    pub(crate) history: String,
    steps: mpsc::Sender<Result<v1::WatchResponse, Status>>,
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
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State::default()));
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

    /// The next calls, of whatever kind, meet these fates, in this order.
    pub(crate) fn script(&self, fates: impl IntoIterator<Item = Fate>) {
        self.state().script.extend(fates);
    }

    /// From now on every call takes so long.
    pub(crate) fn answer_after(&self, round_trip: Duration) {
        self.state().round_trip = round_trip;
    }

    /// Forgets all leases, as after a restart on an empty disk.
    pub(crate) fn forget_leases(&self) {
        self.state().leases.clear();
    }

    pub(crate) fn leases(&self) -> Vec<String> {
        self.state().leases.clone()
    }

    pub(crate) fn serve_service_pages(&self, pages: impl IntoIterator<Item = v1::ListServicesResponse>) {
        self.state().service_pages.extend(pages);
    }

    pub(crate) fn serve_instance_pages(&self, pages: impl IntoIterator<Item = v1::ListInstancesResponse>) {
        self.state().instance_pages.extend(pages);
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

impl OpenWatch {
    pub(crate) async fn send(&self, revision: i64, change: v1::watch_response::Change) {
        let step = v1::WatchResponse {
            revision,
            confidence: None,
            change: Some(change),
            watch_id: "w".into(),
            history_id: self.history.clone(),
        };
        self.steps.send(Ok(step)).await.expect("the client still listens");
    }

    pub(crate) async fn snapshot(&self, revision: i64, ids: &[&str]) {
        self.snapshot_because(v1::snapshot::Cause::Initial, revision, ids).await;
    }

    pub(crate) async fn snapshot_because(&self, cause: v1::snapshot::Cause, revision: i64, ids: &[&str]) {
        let snapshot = v1::Snapshot {
            instances: ids.iter().map(|id| instance(id)).collect(),
            cause: cause.into(),
        };
        self.send(revision, v1::watch_response::Change::Snapshot(snapshot))
            .await;
    }

    pub(crate) async fn put(&self, revision: i64, id: &str) {
        self.event(revision, v1::instance_event::Event::Put(instance(id))).await;
    }

    pub(crate) async fn removed(&self, revision: i64, id: &str, reason: v1::RemovalReason) {
        let removal = v1::Removal {
            service: "ticket-svc".into(),
            id: id.into(),
            reason: reason.into(),
            detail: "because".into(),
            removed_at: None,
        };
        self.event(revision, v1::instance_event::Event::Removed(removal)).await;
    }

    pub(crate) async fn bookmark(&self, revision: i64) {
        self.send(revision, v1::watch_response::Change::Bookmark(v1::Bookmark {}))
            .await;
    }

    async fn event(&self, revision: i64, event: v1::instance_event::Event) {
        let delta = v1::Delta {
            events: vec![v1::InstanceEvent { event: Some(event) }],
        };
        self.send(revision, v1::watch_response::Change::Delta(delta)).await;
    }

    /// Ends the watch with an error.
    pub(crate) async fn fail(self, status: Status) {
        self.steps.send(Err(status)).await.expect("the client still listens");
    }

    /// Ends the watch in order.
    pub(crate) fn end(self) {}

    /// Resolves when the client has gone.
    pub(crate) async fn abandoned(&self) {
        crate::soon("the end of a watch", self.steps.closed()).await;
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

    /// Notes a call; then an error to give at once, or one to give after the effect.
    async fn arrive(&self, call: Call) -> Result<Option<Status>, Status> {
        let (answer, round_trip) = {
            let mut state = self.state();
            state.calls.push((Instant::now(), call));
            (state.script.pop_front(), state.round_trip)
        };
        self.arrived.send_modify(|n| *n += 1);
        if !round_trip.is_zero() {
            tokio::time::sleep(round_trip).await;
        }
        match answer {
            None => Ok(None),
            Some(Fate::Refuse(status)) => Err(status),
            Some(Fate::Lose(status)) => Ok(Some(status)),
            Some(Fate::Hang) => std::future::pending().await,
        }
    }

    fn owned(&self, lease: &str) -> Result<(), Status> {
        if self.state().leases.iter().any(|known| known == lease) {
            Ok(())
        } else {
            Err(refusal(Code::NotFound, "LEASE_UNKNOWN", Some(Duration::from_secs(3))))
        }
    }
}

fn answer<T>(lost: Option<Status>, message: T) -> Result<Response<T>, Status> {
    lost.map_or_else(|| Ok(Response::new(message)), Err)
}

#[tonic::async_trait]
impl RegistryService for Service {
    async fn register(&self, request: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterResponse>, Status> {
        let request = request.into_inner();
        let lost = self.arrive(Call::Register(request.clone())).await?;
        let mut state = self.state();
        let repeated = state
            .answered
            .iter()
            .find(|(known, _)| known.request_id == request.request_id);
        let response = match repeated {
            Some((known, response)) if *known == request => response.clone(),
            Some(_) => return Err(refusal(Code::AlreadyExists, "REQUEST_ID_REUSED", None)),
            None => {
                state.revision += 1;
                let response = v1::RegisterResponse {
                    lease_id: format!("lease-{}", state.revision),
                    lease_secret: "secret".into(),
                    instance_ids: request.instances.iter().map(|i| i.id.clone()).collect(),
                    epoch: state.revision,
                    ttl: Some(prost_types::Duration { seconds: 15, nanos: 0 }),
                    revision: state.revision,
                };
                state.leases.push(response.lease_id.clone());
                state.answered.push((request, response.clone()));
                response
            }
        };
        answer(lost, response)
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let request = request.into_inner();
        let lost = self.arrive(Call::Renew).await?;
        self.owned(&request.lease_id)?;
        let ttl = Some(prost_types::Duration { seconds: 15, nanos: 0 });
        answer(lost, v1::RenewResponse { ttl })
    }

    async fn update_instance(
        &self,
        request: Request<v1::UpdateInstanceRequest>,
    ) -> Result<Response<v1::UpdateInstanceResponse>, Status> {
        let request = request.into_inner();
        let lost = self.arrive(Call::Update(Box::new(request.clone()))).await?;
        self.owned(&request.lease_id)?;
        let mut state = self.state();
        state.revision += 1;
        let revision = state.revision;
        answer(
            lost,
            v1::UpdateInstanceResponse {
                instance: request.instance,
                revision,
            },
        )
    }

    async fn deregister(
        &self,
        request: Request<v1::DeregisterRequest>,
    ) -> Result<Response<v1::DeregisterResponse>, Status> {
        let request = request.into_inner();
        let lost = self.arrive(Call::Deregister(request.clone())).await?;
        self.owned(&request.lease_id)?;
        let mut state = self.state();
        state.leases.retain(|lease| *lease != request.lease_id);
        state.revision += 1;
        let revision = state.revision;
        answer(lost, v1::DeregisterResponse { revision })
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        let lost = self.arrive(Call::ListServices(request.into_inner())).await?;
        let page = self.state().service_pages.pop_front();
        answer(lost, page.unwrap_or_default())
    }

    async fn list_instances(
        &self,
        request: Request<v1::ListInstancesRequest>,
    ) -> Result<Response<v1::ListInstancesResponse>, Status> {
        let lost = self.arrive(Call::ListInstances(request.into_inner())).await?;
        let page = self.state().instance_pages.pop_front();
        answer(lost, page.unwrap_or_default())
    }

    async fn get_instance(
        &self,
        _: Request<v1::GetInstanceRequest>,
    ) -> Result<Response<v1::GetInstanceResponse>, Status> {
        let lost = self.arrive(Call::Get).await?;
        let instance = self.state().instance.clone();
        if instance.is_none() {
            return Err(refusal(Code::NotFound, "INSTANCE_UNKNOWN", None));
        }
        answer(
            lost,
            v1::GetInstanceResponse {
                instance,
                ..v1::GetInstanceResponse::default()
            },
        )
    }

    type WatchStream = ReceiverStream<Result<v1::WatchResponse, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // More steps than any test sends without the client reading.
        let (steps, told) = mpsc::channel(64);
        let request = request.into_inner();
        let watch = OpenWatch {
            request,
            history: String::new(),
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

    async fn ack_watch(&self, _: Request<v1::AckWatchRequest>) -> Result<Response<v1::AckWatchResponse>, Status> {
        Err(Status::unimplemented("not used by this client"))
    }
}
