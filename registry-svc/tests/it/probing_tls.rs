//! Probing by the registry where TLS is spoken: whoever is there has to be whom a balancer would call, and no more is told of the
//! others than that they are not well.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use proto::registry::v1 as wire;
use registry_svc::{Config, Registry, Running, StoreLocation};
use tls::{
    ClientAuth, Settings, SpiffeId, Tls,
    issue::{Authority, Leaf},
};
use tokio::time::Instant;
use tonic::service::Routes;

use crate::support::{Client, PATIENCE, config, fields, instance, lasting};

const DAY: Duration = Duration::from_secs(86_400);

/// An authority and the folder of its files, which is the registry's too.
struct World {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().expect("a folder"),
            authority: Authority::generate("test", DAY).expect("a key"),
        };
        std::fs::write(world.path("ca.crt"), world.authority.certificate_pem()).expect("written");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Of a service, where there is one, at an address.
    fn tls(&self, name: &str, service: Option<&str>, address: &str) -> Tls {
        let leaf = Leaf {
            spiffe: service.map(|service| SpiffeId::of_service("example", "default", service).expect("an id")),
            addresses: vec![address.parse().expect("an address")],
            lifetime: DAY,
            ..Leaf::default()
        };
        let issued = self.authority.issue(&leaf).expect("issued");
        let (certificate, key) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        std::fs::write(&certificate, issued.certificate_pem).expect("written");
        std::fs::write(&key, issued.key_pem).expect("written");
        let settings = Settings {
            certificate: Some(certificate),
            key: Some(key),
            authorities: Some(self.path("ca.crt")),
            client_auth: ClientAuth::Required,
        };
        Tls::load(settings).expect("good files")
    }

    async fn registry(&self, probe_tls: Option<tls::Client>) -> Running {
        let config = Config {
            probe_tls,
            store: StoreLocation::Embedded,
            ..config(self.path("registry"), |_| {})
        };
        Registry::start(config).await.expect("the registry starts")
    }
}

/// Something that answers grpc.health.v1, with or without TLS, and asks for certificates as we do.
async fn service(tls: Option<&Tls>) -> service_host::Running {
    let listen = "127.0.0.1:0".parse().expect("an address");
    let config = service_host::Config::new("a-svc", listen).tls(tls.and_then(Tls::server).cloned());
    let running = service_host::Host::bind(config)
        .await
        .expect("a port")
        .serve(Routes::default(), &[]);
    // What is called something is SERVING, and with it the server as a whole.
    running.set_serving("a.B");
    running
}

/// An instance of `a-svc` with TLS that wants to be probed as often as may be.
fn probed(id: &str, protocol: wire::Protocol, port: u16) -> wire::Instance {
    wire::Instance {
        endpoints: vec![wire::Endpoint {
            protocol: protocol.into(),
            host: "127.0.0.1".to_owned(),
            port: port.into(),
        }],
        probe: Some(wire::HealthProbe {
            interval: Some(Duration::from_secs(1).try_into().expect("a duration")),
            misses: 1,
            ..Default::default()
        }),
        ..instance("a-svc", id)
    }
}

async fn client(running: &Running) -> Client {
    Client::connect(format!("http://{}", running.local_addr()))
        .await
        .expect("it listens")
}

async fn list(client: &mut Client) -> Vec<wire::Instance> {
    let request = wire::ListInstancesRequest {
        service: "a-svc".to_owned(),
        ..Default::default()
    };
    client
        .list_instances(request)
        .await
        .expect("lists")
        .into_inner()
        .instances
}

/// Waits until this is what is told.
async fn until(client: &mut Client, expected: &[(&str, wire::Health)]) -> Vec<wire::Instance> {
    let deadline = Instant::now() + PATIENCE;
    let expected: BTreeMap<_, _> = expected.iter().copied().collect();
    loop {
        let listed = list(client).await;
        let told: BTreeMap<_, _> = listed
            .iter()
            .map(|instance| (instance.id.as_str(), instance.health()))
            .collect();
        if told == expected {
            return listed;
        }
        assert!(Instant::now() < deadline, "{told:?} instead of {expected:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn with_tls_whoever_answers_has_to_be_the_service() {
    use wire::Health::{Failing, Passing};
    let world = World::new();
    let own = world.tls("registry", Some("registry-svc"), "127.0.0.1");
    let registry = world.registry(own.client().cloned()).await;
    let mut client = client(&registry).await;
    let services = [
        (
            "right",
            service(Some(&world.tls("a", Some("a-svc"), "192.0.2.1"))).await,
        ),
        (
            "other",
            service(Some(&world.tls("b", Some("b-svc"), "127.0.0.1"))).await,
        ),
        // Without an id the host decides, as it does for callers.
        ("here", service(Some(&world.tls("here", None, "127.0.0.1"))).await),
        ("there", service(Some(&world.tls("there", None, "192.0.2.1"))).await),
        (
            "foreign",
            service(Some(&World::new().tls("a", Some("a-svc"), "127.0.0.1"))).await,
        ),
        ("plain", service(None).await),
    ];
    let instances = services
        .iter()
        .map(|(id, running)| probed(id, wire::Protocol::Grpcs, running.local_addr().port()));
    client.register(lasting(instances)).await.expect("registers");
    let listed = until(
        &mut client,
        &[
            ("right", Passing),
            ("other", Failing),
            ("here", Passing),
            ("there", Failing),
            ("foreign", Failing),
            ("plain", Failing),
        ],
    )
    .await;
    // One bit is told of those that are not well: whether it was the certificate, or that there is no TLS, is nobody's.
    let mut failing = listed
        .into_iter()
        .filter(|instance| instance.health() == Failing)
        .map(|instance| wire::Instance {
            id: String::new(),
            endpoints: Vec::new(),
            revision: 0,
            ..instance
        });
    let first = failing.next().expect("there are some");
    assert!(failing.all(|other| other == first));

    for (_, running) in services {
        running.drain(Duration::ZERO).await;
    }
    registry.stop().await;
}

/// A registry that was started again without its CA bundle took every such instance out, of none of which it could know anything.
#[tokio::test]
async fn without_a_ca_bundle_tls_is_not_probed_and_nothing_is_said_of_it() {
    use wire::Health::{Failing, Passing};
    let world = World::new();
    let own = world.tls("registry", Some("registry-svc"), "127.0.0.1");
    let registry = world.registry(own.client().cloned()).await;
    let mut asking = client(&registry).await;
    let secured = service(Some(&world.tls("a", Some("a-svc"), "127.0.0.1"))).await;
    let instances = [probed("secured", wire::Protocol::Grpcs, secured.local_addr().port())];
    asking.register(lasting(instances)).await.expect("registers");
    until(&mut asking, &[("secured", Passing)]).await;
    registry.stop().await;
    secured.drain(Duration::ZERO).await;

    let registry = world.registry(None).await;
    let mut asking = client(&registry).await;
    let refused = asking
        .register(lasting([probed("new", wire::Protocol::Grpcs, 7101)]))
        .await;
    let refused = refused.expect_err("it cannot");
    assert_eq!(fields(&refused), ["instances[0].probe"]);
    assert!(format!("{:?}", refused).contains("--tls-ca"), "{refused:?}");
    // Some rounds of the prober later.
    let plain = service(None).await;
    let instances = [probed("plain", wire::Protocol::Grpc, plain.local_addr().port())];
    asking.register(lasting(instances)).await.expect("registers");
    until(&mut asking, &[("secured", Passing), ("plain", Passing)]).await;
    plain.drain(Duration::ZERO).await;
    until(&mut asking, &[("secured", Passing), ("plain", Failing)]).await;
    registry.stop().await;
}
