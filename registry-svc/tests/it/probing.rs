//! Probing by the registry: what watchers are told of it, and that it dials nobody whom it may not (row 52 of the fault plan).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proto::registry::v1::{self as wire, watch_response::Change};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::support::{Client, Fixture, Watch, fields, instance, lasting, reason};

/// Something that answers grpc.health.v1.
struct Service {
    address: SocketAddr,
    health: HealthReporter,
    task: JoinHandle<()>,
}

impl Service {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (health, server) = tonic_health::server::health_reporter();
        let serve = tonic::transport::Server::builder().add_service(server);
        let serve = serve.serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { serve.await.expect("serves") });
        Self { address, health, task }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An instance that wants to be probed as often as may be.
fn probed(id: &str, host: &str, port: u16) -> wire::Instance {
    wire::Instance {
        endpoints: vec![wire::Endpoint {
            host: host.to_owned(),
            port: port.into(),
            ..Default::default()
        }],
        probe: Some(wire::HealthProbe {
            interval: Some(Duration::from_secs(1).try_into().expect("a duration")),
            misses: 1,
            ..Default::default()
        }),
        ..instance("a-svc", id)
    }
}

/// The health that the next event tells.
async fn told(watch: &mut Watch) -> wire::Health {
    loop {
        match watch.next().await.change {
            Some(Change::Delta(delta)) => match delta.events.into_iter().next().and_then(|event| event.event) {
                Some(wire::instance_event::Event::Put(instance)) => return instance.health(),
                other => panic!("{other:?}"),
            },
            // It is quiet for a while.
            Some(Change::Bookmark(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn callable(client: &mut Client) -> Vec<(u32, u32)> {
    let answer = client.list_services(wire::ListServicesRequest::default()).await;
    let services = answer.expect("lists").into_inner().services;
    let numbers = |service: wire::ServiceSummary| (service.instances, service.callable);
    services.into_iter().map(numbers).collect()
}

#[tokio::test]
async fn what_probes_say_is_a_change_like_any_other() {
    let mut fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let service = Service::start().await;
    let mut watch = Watch::open(&mut client, "a-svc", 0).await;
    watch.snapshot().await;
    let registered = client
        .register(lasting([probed("1", "127.0.0.1", service.address.port())]))
        .await;
    let registered = registered.expect("registers").into_inner();
    assert_eq!(told(&mut watch).await, wire::Health::Unspecified);
    assert_eq!(told(&mut watch).await, wire::Health::Passing);
    assert_eq!(callable(&mut client).await, [(1, 1)]);
    service.health.set_service_status("", ServingStatus::NotServing).await;
    assert_eq!(told(&mut watch).await, wire::Health::Failing);
    assert_eq!(callable(&mut client).await, [(1, 0)], "one that fails takes no calls");

    // It is durable, and so is where the registration came from: after a restart it is probed as before.
    fixture.restart().await;
    let mut client = fixture.client().await;
    assert_eq!(callable(&mut client).await, [(1, 0)]);
    let mut watch = Watch::open(&mut client, "a-svc", registered.revision + 2).await;
    service.health.set_service_status("", ServingStatus::Serving).await;
    assert_eq!(told(&mut watch).await, wire::Health::Passing);

    // A process that is gone is found as well, and what the owner changes meanwhile changes nothing of it.
    drop(service);
    assert_eq!(told(&mut watch).await, wire::Health::Failing);
    let update = wire::UpdateInstanceRequest {
        lease_id: registered.lease_id,
        lease_secret: registered.lease_secret,
        instance: Some(wire::Instance {
            weight: Some(7),
            ..instance("a-svc", "1")
        }),
        epoch: registered.epoch,
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["weight".to_owned()],
        }),
    };
    client.update_instance(update).await.expect("updates");
    assert_eq!(told(&mut watch).await, wire::Health::Failing);
    fixture.stop().await;
}

/// A listener on all addresses of this machine that counts who connects.
struct Counting {
    port: u16,
    hits: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Counting {
    async fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let hits = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&hits);
        let task = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { port, hits, task }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn nobody_makes_the_registry_dial_where_it_may_not() {
    let mut fixture = Fixture::with(|config| {
        config.admin_listen = Some("127.0.0.1:0".parse().expect("an address"));
        // The widest that an operator can say: what is never allowed stays so.
        config.probe_allow = vec![
            "169.254.0.0/16".parse().expect("a range"),
            "::/0".parse().expect("a range"),
        ];
    })
    .await;
    let mut client = fixture.client().await;
    let counting = Counting::start().await;
    let own = fixture.running().local_addr().port();
    let admin = fixture.running().admin_addr().expect("an administration port").port();
    let port = counting.port;
    for (host, port) in [
        ("127.0.0.1", own),
        ("127.0.0.1", admin),
        ("127.3.2.1", own),
        ("::ffff:127.0.0.1", own),
        ("::1", own),
        ("localhost", own),
        ("169.254.169.254", port),
        ("::ffff:169.254.169.254", port),
        ("64:ff9b::a9fe:a9fe", port),
        ("fe80::1", port),
        ("224.0.0.1", port),
        ("::ffff:0.0.0.0", port),
        ("127.0.0.2", port),
        ("192.0.2.1", port),
    ] {
        let answer = client.register(lasting([probed("evil", host, port)])).await;
        let status = answer.expect_err(host);
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::PermissionDenied, "PROBE_TARGET_REFUSED"),
            "{host}"
        );
        assert!(
            !status.message().contains("127.0.0.1"),
            "what a name stands for is not told: {status}"
        );
    }
    let unspecified = client.register(lasting([probed("evil", "0.0.0.0", port)])).await;
    assert_eq!(
        fields(&unspecified.expect_err("is no address")),
        ["instances[0].endpoints[0].host"]
    );
    assert_eq!(counting.hits.load(Ordering::Relaxed), 0);

    // The listener does count, and by now whatever had been let through would have come before this.
    let mut watch = Watch::open(&mut client, "a-svc", 0).await;
    watch.snapshot().await;
    client
        .register(lasting([probed("good", "127.0.0.1", port)]))
        .await
        .expect("registers");
    assert_eq!(told(&mut watch).await, wire::Health::Unspecified);
    assert_eq!(
        told(&mut watch).await,
        wire::Health::Failing,
        "it accepts, and does not answer"
    );
    assert!(counting.hits.load(Ordering::Relaxed) > 0);
    assert_eq!(callable(&mut client).await, [(1, 0)], "nothing of the others is kept");
    drop(watch);
    fixture.stop().await;
}

#[tokio::test]
async fn probes_that_make_no_sense_are_refused() {
    let mut fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let seconds = |seconds| prost_types::Duration { seconds, nanos: 0 };
    let changes: [fn(&mut wire::Instance); 2] = [
        |instance| instance.endpoints[0].protocol = wire::Protocol::Http.into(),
        |instance| instance.endpoints[0].protocol = wire::Protocol::Grpcs.into(),
    ];
    for change in changes {
        let mut instance = probed("1", "127.0.0.1", 7101);
        change(&mut instance);
        let refused = client.register(lasting([instance])).await.expect_err("is refused");
        assert_eq!(fields(&refused), ["instances[0].probe"]);
    }
    let cases = [
        (Some(seconds(0)), None, 1),
        (Some(seconds(3_601)), None, 1),
        (None, Some(seconds(31)), 1),
        (None, None, 11),
    ];
    for (interval, timeout, misses) in cases {
        let mut instance = probed("1", "127.0.0.1", 7101);
        instance.probe = Some(wire::HealthProbe {
            interval,
            timeout,
            misses,
            grpc_service: String::new(),
        });
        let refused = client.register(lasting([instance])).await.expect_err("is refused");
        assert_eq!(fields(&refused), ["instances[0].probe"]);
    }
    let mut instance = probed("1", "127.0.0.1", 7101);
    instance.health = wire::Health::Passing.into();
    let refused = client.register(lasting([instance])).await.expect_err("is refused");
    assert_eq!(fields(&refused), ["instances[0].health"]);
    fixture.stop().await;
}
