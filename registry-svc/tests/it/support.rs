//! Fixtures: a registry, a client, what a test registers, and bounded waits.

use std::{path::PathBuf, time::Duration};

use proto::registry::v1::{self as wire, registry_service_client::RegistryServiceClient, watch_response::Change};
use registry_svc::{Config, Registry, Running};
use tempfile::TempDir;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_types::StatusExt as _;

/// The generated client.
pub(crate) type Client = RegistryServiceClient<Channel>;

/// No wait of a test is longer. Far above what anything takes, so that only a hang fails, not a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A registry with a data directory that outlives its restarts.
pub(crate) struct Fixture {
    directory: TempDir,
    running: Option<Running>,
    change: fn(&mut Config),
}

impl Fixture {
    /// With defaults.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With some settings changed, now and after each restart.
    pub(crate) async fn with(change: fn(&mut Config)) -> Self {
        let mut fixture = Self {
            directory: TempDir::new().expect("a directory"),
            running: None,
            change,
        };
        fixture.begin().await;
        fixture
    }

    /// A configuration on this fixture's directory.
    pub(crate) fn config(&self) -> Config {
        config(self.data_dir(), self.change)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("registry")
    }

    pub(crate) fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("it runs")
    }

    /// Starts it again on the same directory.
    pub(crate) async fn begin(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        self.running = Some(Registry::start(self.config()).await.expect("the registry starts"));
    }

    /// Stops it as SIGTERM does.
    pub(crate) async fn stop(&mut self) {
        let report = self.running.take().expect("it runs").stop().await;
        assert!(report.failure.is_none(), "{report:?}");
    }

    /// Stop and start.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.begin().await;
    }

    /// Stop, lose everything, and start.
    pub(crate) async fn wipe(&mut self) {
        self.stop().await;
        std::fs::remove_dir_all(self.data_dir()).expect("there was something to lose");
        self.begin().await;
    }

    /// A client with a connection of its own.
    pub(crate) async fn client(&self) -> Client {
        RegistryServiceClient::new(self.channel().await)
    }

    /// A connection, for what the generated client does not say.
    pub(crate) async fn channel(&self) -> Channel {
        let address = self.running.as_ref().expect("it runs").local_addr();
        let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
        endpoint.connect().await.expect("it listens")
    }
}

/// A configuration on port 0.
pub(crate) fn config(data_dir: PathBuf, change: fn(&mut Config)) -> Config {
    let mut config = Config {
        listen: "127.0.0.1:0".parse().expect("an address"),
        data_dir,
        // Tests that keep a watch open must not wait for it when they stop.
        drain_grace: Duration::from_secs(5),
        ..Config::default()
    };
    change(&mut config);
    config
}

/// An instance as small as it may be.
pub(crate) fn instance(service: &str, id: &str) -> wire::Instance {
    wire::Instance {
        service: service.to_owned(),
        id: id.to_owned(),
        endpoints: vec![wire::Endpoint {
            host: "127.0.0.1".into(),
            port: 7101,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A registration of instances under a new lease of 15 s.
pub(crate) fn registration(instances: impl IntoIterator<Item = wire::Instance>) -> wire::RegisterRequest {
    wire::RegisterRequest {
        instances: instances.into_iter().collect(),
        ..Default::default()
    }
}

/// The same with the shortest time to live, 500 ms.
pub(crate) fn fleeting(instances: impl IntoIterator<Item = wire::Instance>) -> wire::RegisterRequest {
    wire::RegisterRequest {
        heartbeat_interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 100_000_000,
        }),
        misses_allowed: 5,
        ..registration(instances)
    }
}

/// The same with a time to live of 3 hours, for tests that a busy machine may slow down at will.
pub(crate) fn lasting(instances: impl IntoIterator<Item = wire::Instance>) -> wire::RegisterRequest {
    wire::RegisterRequest {
        heartbeat_interval: Some(prost_types::Duration {
            seconds: 3_600,
            nanos: 0,
        }),
        ..registration(instances)
    }
}

/// Registers one instance of `service` under a lasting lease and expects it to work.
pub(crate) async fn register(client: &mut Client, service: &str, id: &str) -> wire::RegisterResponse {
    let request = lasting([instance(service, id)]);
    client.register(request).await.expect("registers").into_inner()
}

pub(crate) fn deregistration(lease: &wire::RegisterResponse) -> wire::DeregisterRequest {
    wire::DeregisterRequest {
        lease_id: lease.lease_id.clone(),
        lease_secret: lease.lease_secret.clone(),
        ..Default::default()
    }
}

pub(crate) fn renewal(lease: &wire::RegisterResponse) -> wire::RenewRequest {
    wire::RenewRequest {
        lease_id: lease.lease_id.clone(),
        lease_secret: lease.lease_secret.clone(),
    }
}

/// A lease that is renewed ten times a second by a task of its own, whatever its test waits for. That a replica cannot be asked for
/// a moment, as on a busy machine, is no end of the lease.
pub(crate) struct Renewing {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Renewing {
    pub(crate) fn begin(client: &Client, lease: &wire::RegisterResponse) -> Self {
        let (mut client, renewal) = (client.clone(), renewal(lease));
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = &mut stopped => return,
                }
                match client.renew(renewal.clone()).await {
                    Err(status) if status.code() != Code::Unavailable => panic!("it does not live: {status:?}"),
                    _ => {}
                }
            }
        });
        Self { stop, task }
    }

    /// Expects that it has lived until now.
    pub(crate) async fn end(self) {
        let _ = self.stop.send(());
        self.task.await.expect("it was renewed all the time");
    }
}

/// The ids of a service's instances, or of the namespace's for "".
pub(crate) async fn ids(client: &mut Client, service: &str) -> Vec<String> {
    let request = wire::ListInstancesRequest {
        service: service.to_owned(),
        ..Default::default()
    };
    let list = client.list_instances(request).await.expect("lists").into_inner();
    list.instances.into_iter().map(|instance| instance.id).collect()
}

/// Polls until the service has exactly these instances.
pub(crate) async fn until_ids(client: &mut Client, service: &str, expected: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = ids(client, service).await;
        if found == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "waited for {expected:?}, there are {found:?}"
        );
        tokio::task::yield_now().await;
    }
}

/// The reason of an error's `ErrorInfo`.
pub(crate) fn reason(status: &Status) -> String {
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("an ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "tessera");
    info.reason
}

/// The fields of an error's `BadRequest`.
pub(crate) fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    let details = status
        .get_details_bad_request()
        .unwrap_or_else(|| panic!("a BadRequest in {status:?}"));
    details
        .field_violations
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

/// A watch that is read with patience.
pub(crate) struct Watch {
    stream: Streaming<wire::WatchResponse>,
    watch_id: Option<String>,
}

impl Watch {
    /// Of a service, or of the default namespace for "", after a revision or from a snapshot.
    pub(crate) async fn open(client: &mut Client, service: &str, after: i64) -> Self {
        let request = wire::WatchRequest {
            service: service.to_owned(),
            start_after_revision: after,
            ..Default::default()
        };
        Self::request(client, request).await
    }

    pub(crate) async fn request(client: &mut Client, request: wire::WatchRequest) -> Self {
        let stream = client.watch(request).await.expect("watches").into_inner();
        Self { stream, watch_id: None }
    }

    /// Its name. Known from the first response on.
    pub(crate) fn id(&self) -> String {
        self.watch_id.clone().expect("it has said something")
    }

    /// The next response.
    pub(crate) async fn next(&mut self) -> wire::WatchResponse {
        let response = self.message().await.expect("no error").expect("the stream goes on");
        let id = self.watch_id.get_or_insert_with(|| response.watch_id.clone());
        assert_eq!(*id, response.watch_id, "one id for all of a watch");
        assert!(!response.watch_id.is_empty() && response.confidence.is_some() && !response.history_id.is_empty());
        response
    }

    /// The next response or the end.
    pub(crate) async fn message(&mut self) -> Result<Option<wire::WatchResponse>, Status> {
        let message = tokio::time::timeout(PATIENCE, self.stream.message()).await;
        message.expect("the watch says something in time")
    }

    /// Expects a snapshot, all parts of it; its revision, cause and ids.
    pub(crate) async fn snapshot(&mut self) -> (i64, wire::snapshot::Cause, Vec<String>) {
        let first = self.next().await;
        self.snapshot_from(first).await
    }

    /// The same, when its first part has been read.
    pub(crate) async fn snapshot_from(
        &mut self,
        mut response: wire::WatchResponse,
    ) -> (i64, wire::snapshot::Cause, Vec<String>) {
        let mut ids = Vec::new();
        loop {
            let Some(Change::Snapshot(snapshot)) = response.change else {
                panic!("not a snapshot: {response:?}")
            };
            let (cause, more) = (snapshot.cause(), snapshot.more);
            ids.extend(snapshot.instances.into_iter().map(|instance| instance.id));
            if !more {
                return (response.revision, cause, ids);
            }
            let revision = response.revision;
            response = self.next().await;
            assert_eq!(response.revision, revision, "all of one revision");
        }
    }

    /// Expects a delta; its revision and its events as text, such as `put a` or `removed a EXPIRED`.
    pub(crate) async fn delta(&mut self) -> (i64, Vec<String>) {
        let response = self.next().await;
        (response.revision, events(&response))
    }

    /// Expects a bookmark; its revision.
    pub(crate) async fn bookmark(&mut self) -> i64 {
        let response = self.next().await;
        let Some(Change::Bookmark(_)) = &response.change else {
            panic!("not a bookmark: {response:?}")
        };
        response.revision
    }
}

/// The events of a delta as text.
pub(crate) fn events(response: &wire::WatchResponse) -> Vec<String> {
    let Some(Change::Delta(delta)) = &response.change else {
        panic!("not a delta: {response:?}")
    };
    delta.events.iter().map(tell).collect()
}

fn tell(event: &wire::InstanceEvent) -> String {
    use wire::instance_event::Event;
    match event.event.as_ref().expect("an event") {
        Event::Put(instance) => format!("put {}", instance.id),
        Event::Removed(removal) => {
            assert!(removal.removed_at.is_some());
            let reason = removal.reason().as_str_name().trim_start_matches("REMOVAL_REASON_");
            format!("removed {} {reason}", removal.id)
        }
    }
}
