//! Servers that can be killed, drained and told to misbehave; a bounded wait. No test is in here.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_stream::{
    StreamExt as _,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, metadata::MetadataMap, transport::Server};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

/// Longer than anything here takes on a busy machine, shorter than a person's patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds; it is looked at again and again, so nothing is missed by being late.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What `future` comes to, which is not waited for for ever.
pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// What the servers' handlers do, and what they have seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    pub(crate) calls: AtomicUsize,
    pub(crate) last_metadata: Mutex<MetadataMap>,
    /// What checks end with, instead of an answer.
    failure: Mutex<Option<Status>>,
    hangs: AtomicBool,
    /// Checks that were cancelled before they had an answer.
    cancelled: AtomicUsize,
    watchers: Mutex<Vec<mpsc::Sender<Result<HealthCheckResponse, Status>>>>,
}

impl Seen {
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// From now on checks fail so.
    pub(crate) fn fail(&self, status: Status) {
        *self.failure.lock().expect("not poisoned") = Some(status);
    }

    /// From now on checks are answered.
    pub(crate) fn recover(&self) {
        *self.failure.lock().expect("not poisoned") = None;
    }

    /// From now on checks are never answered.
    pub(crate) fn hang(&self) {
        self.hangs.store(true, Ordering::SeqCst);
    }

    pub(crate) fn cancelled(&self) -> usize {
        self.cancelled.load(Ordering::SeqCst)
    }

    pub(crate) fn metadata(&self, key: &str) -> Option<String> {
        let metadata = self.last_metadata.lock().expect("not poisoned");
        metadata
            .get(key)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    }

    /// Sends a message to all watchers.
    pub(crate) async fn tell_watchers(&self) {
        let watchers = self.watchers.lock().expect("not poisoned").clone();
        for watcher in watchers {
            watcher
                .send(Ok(HealthCheckResponse { status: 1 }))
                .await
                .expect("still watching");
        }
    }

    /// How many watch.
    pub(crate) fn watchers(&self) -> usize {
        let watchers = self.watchers.lock().expect("not poisoned");
        watchers.iter().filter(|watcher| !watcher.is_closed()).count()
    }

    /// Ends all watches with OK.
    pub(crate) fn end_watches(&self) {
        self.watchers.lock().expect("not poisoned").clear();
    }
}

/// Counts when it is dropped.
struct Cancelled<'a>(&'a AtomicUsize);

impl Drop for Cancelled<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// `service` of a request says what to do: `"hang"` never answers.
struct Handler(Arc<Seen>);

#[tonic::async_trait]
impl Health for Handler {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        *self.0.last_metadata.lock().expect("not poisoned") = request.metadata().clone();
        let failure = self.0.failure.lock().expect("not poisoned").clone();
        if let Some(failure) = failure {
            return Err(failure);
        }
        if request.get_ref().service == "hang" || self.0.hangs.load(Ordering::SeqCst) {
            let _cancelled = Cancelled(&self.0.cancelled);
            std::future::pending::<()>().await;
        }
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        let (send, receive) = mpsc::channel(16);
        self.0.watchers.lock().expect("not poisoned").push(send);
        Ok(Response::new(ReceiverStream::new(receive)))
    }
}

/// A tonic server in a runtime of its own, so that it can be killed as a whole: listener, connections, handlers.
#[derive(Debug)]
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    runtime: Option<Runtime>,
    shutdown: Option<oneshot::Sender<()>>,
}

impl TestServer {
    pub(crate) fn start() -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(crate) fn start_on(address: SocketAddr) -> Self {
        Self::start_with(address, None)
    }

    /// One that allows only so many streams at a time on a connection.
    pub(crate) fn narrow(streams: u32) -> Self {
        Self::start_with(SocketAddr::from(([127, 0, 0, 1], 0)), Some(streams))
    }

    fn start_with(address: SocketAddr, streams: Option<u32>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        // Bound synchronously, so that the caller knows the port; tokio's own bind needs its runtime.
        let listener = std::net::TcpListener::bind(address).expect("a free port");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Seen::default());
        let (shutdown, drained) = oneshot::channel::<()>();
        let (handler, count) = (Handler(Arc::clone(&seen)), Arc::clone(&seen));
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("in a runtime");
            let incoming = TcpListenerStream::new(listener).map(move |stream| {
                count.connections.fetch_add(1, Ordering::SeqCst);
                stream
            });
            Server::builder()
                .max_concurrent_streams(streams)
                .add_service(HealthServer::new(handler))
                .serve_with_incoming_shutdown(incoming, async {
                    // Only a signal drains; a server that is dropped was killed.
                    if drained.await.is_err() {
                        std::future::pending::<()>().await;
                    }
                })
                .await
                .expect("serves");
        });
        Self {
            address,
            seen,
            runtime: Some(runtime),
            shutdown: Some(shutdown),
        }
    }

    pub(crate) fn addr(&self) -> String {
        self.address.to_string()
    }

    /// As `kill -9`: every connection is cut, nothing is said.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// GOAWAY on every connection, no new ones; streams go on.
    pub(crate) fn drain(&mut self) {
        self.shutdown.take().expect("drained once").send(()).expect("it runs");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server that speaks bare HTTP/2, frame by frame as its script wants.
#[derive(Debug)]
pub(crate) struct ScriptedServer {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl ScriptedServer {
    /// Runs `script` once for every connection, numbered from 0.
    pub(crate) async fn start<F, S>(script: S) -> Self
    where
        S: Fn(usize, h2::server::Connection<TcpStream, Bytes>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.expect("accepts");
                // Or a test of many small exchanges waits 40 ms for each.
                stream.set_nodelay(true).expect("a socket");
                let Ok(connection) = h2::server::handshake(stream).await else {
                    continue;
                };
                connections.spawn(script(number, connection));
            }
        });
        Self { address, task }
    }

    pub(crate) fn addr(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server that answers the first stream of every connection with a GOAWAY frame, and hangs up. h2's server has no way to
/// choose which streams that includes.
#[derive(Debug)]
pub(crate) struct GoingAway {
    address: SocketAddr,
    met: Arc<AtomicUsize>,
    leave: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl GoingAway {
    /// Names `last` as the last stream that it will process, once it is told to [`GoingAway::leave`].
    pub(crate) async fn start(last: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let met = Arc::new(AtomicUsize::new(0));
        let (leave, told) = watch::channel(false);
        let count = Arc::clone(&met);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(go_away(stream, last, Arc::clone(&count), told.clone()));
            }
        });
        Self {
            address,
            met,
            leave,
            task,
        }
    }

    pub(crate) fn addr(&self) -> String {
        self.address.to_string()
    }

    /// How many streams it has met.
    pub(crate) fn met(&self) -> usize {
        self.met.load(Ordering::SeqCst)
    }

    /// From now on streams are answered.
    pub(crate) fn leave(&self) {
        self.leave.send(true).expect("it runs");
    }
}

impl Drop for GoingAway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn go_away(
    mut stream: TcpStream,
    last: u32,
    met: Arc<AtomicUsize>,
    mut told: watch::Receiver<bool>,
) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    stream.write_all(&SETTINGS).await?;
    stream.read_exact(&mut [0; 24]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        stream.read_exact(&mut vec![0; length]).await?;
        if head[3] == HEADERS {
            met.fetch_add(1, Ordering::SeqCst);
            told.wait_for(|leave| *leave).await.expect("the test goes on");
            let mut goaway = vec![0, 0, 8, 7, 0, 0, 0, 0, 0];
            goaway.extend(last.to_be_bytes());
            goaway.extend(0_u32.to_be_bytes());
            stream.write_all(&goaway).await?;
            return stream.shutdown().await;
        }
    }
}

/// Answers a raw stream with one message.
pub(crate) fn answer(mut respond: h2::server::SendResponse<Bytes>) {
    let head = http::Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .expect("a head");
    let mut body = respond.send_response(head, false).expect("the stream is open");
    // An uncompressed message of two bytes: status = SERVING.
    body.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]), false)
        .expect("the stream is open");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    body.send_trailers(trailers).expect("the stream is open");
}

/// A channel to fixed addresses, connected to all of them, with one connection each.
pub(crate) async fn channel_to(addresses: &[String]) -> lb::Channel {
    let target = lb::Target::fixed(addresses).expect("good addresses");
    let channel = lb::Channel::builder(target).max_connections(1).build();
    all_ready(&channel, addresses.len()).await;
    channel
}

/// A channel in that mode to those servers, connected to all of them, one after the other.
pub(crate) async fn in_mode<'a>(mode: lb::Mode, servers: impl IntoIterator<Item = &'a TestServer>) -> lb::Channel {
    let addresses: Vec<String> = servers.into_iter().map(TestServer::addr).collect();
    connected(builder_for(&addresses).mode(mode), addresses.len()).await
}

pub(crate) fn builder_for(addresses: &[String]) -> lb::Builder {
    lb::Channel::builder(lb::Target::fixed(addresses).expect("good addresses")).policy(lb::Policy::RoundRobin)
}

pub(crate) async fn connected(builder: lb::Builder, count: usize) -> lb::Channel {
    let channel = builder.build();
    all_ready(&channel, count).await;
    channel
}

pub(crate) async fn all_ready(channel: &lb::Channel, count: usize) {
    eventually("all endpoints are ready", || ready(channel) == count).await;
}

pub(crate) fn ready(channel: &lb::Channel) -> usize {
    channel
        .endpoints()
        .iter()
        .filter(|endpoint| endpoint.state == lb::EndpointState::Ready)
        .count()
}

pub(crate) fn client(channel: &lb::Channel) -> HealthClient<lb::Channel> {
    HealthClient::new(channel.clone())
}

pub(crate) fn ask(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

/// One call; the address of who answered.
pub(crate) async fn check(channel: &lb::Channel) -> Result<String, Status> {
    let response = client(channel).check(ask("")).await?;
    let picked = response
        .extensions()
        .get::<lb::Picked>()
        .expect("every response says who answered");
    Ok(picked.address.to_string())
}

/// The `ErrorInfo` reason of a status.
pub(crate) fn reason(status: &Status) -> String {
    use tonic_types::StatusExt as _;
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}
