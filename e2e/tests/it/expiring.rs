//! Certificates of seconds: a registry, a provider and a caller whose certificates end and are replaced before they do go on working
//! past the end of what they began with, on connections and streams that did not.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use lb::Channel;
use registry_client::{RegistrarStatus, Registration, Registry};
use service_host::Host;
use tempfile::TempDir;
use tls::{
    ClientAuth, Expected, Settings, SpiffeId, Tls, Watching,
    issue::{Authority, Leaf, Purpose},
};
use tokio::net::TcpStream;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// Of a certificate. It is replaced every 3 s, and files are looked at every 2 s or sooner: what is shown has 10 s left, so that a
/// machine that stands still for a while fails nobody.
const LIFE: Duration = Duration::from_secs(15);
const REPLACED_EVERY: Duration = Duration::from_secs(3);
/// No wait is longer; reached by a failure alone.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    folder: TempDir,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        let authority = Authority::generate("test", LIFE * 1_000).expect("a key");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.crt"), authority.certificate_pem()).expect("written");
        Self { folder, authority }
    }

    fn path(&self, name: &str, ending: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.{ending}"))
    }

    /// Writes a pair for that service under a name.
    fn issue(&self, name: &str, service: &str) {
        let leaf = Leaf {
            spiffe: Some(SpiffeId::of_service("example", "default", service).expect("an id")),
            dns_names: vec!["localhost".to_owned()],
            addresses: vec!["127.0.0.1".parse().expect("an address")],
            purpose: Purpose::Both,
            lifetime: LIFE,
        };
        let issued = self.authority.issue(&leaf).expect("issued");
        replace(&self.path(name, "key"), &issued.key_pem);
        replace(&self.path(name, "crt"), &issued.certificate_pem);
    }

    fn load(&self, name: &str) -> Tls {
        let settings = Settings {
            certificate: Some(self.path(name, "crt")),
            key: Some(self.path(name, "key")),
            authorities: Some(self.path("ca", "crt")),
            client_auth: ClientAuth::Required,
        };
        Tls::load(settings).expect("good files")
    }

    /// That service's certificate, which follows its files.
    fn member(&self, service: &str) -> (Tls, Watching) {
        self.issue(service, service);
        let tls = self.load(service);
        let watching = tls.watch().expect("a signal handler");
        (tls, watching)
    }
}

/// As a whole: half a file is no certificate.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).expect("written");
    std::fs::rename(&new, path).expect("in its place");
}

async fn call(channel: &Channel) -> Result<(), tonic::Status> {
    let mut health = HealthClient::new(channel.clone());
    let check = health.check(HealthCheckRequest::default());
    let answer = tokio::time::timeout(PATIENCE, check).await.expect("in time");
    answer.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_end_are_followed_by_their_successors_while_everything_works() {
    let world = Arc::new(World::new());
    let ((registry_tls, _one), (ticket_tls, _two), (user_tls, _three)) = (
        world.member("registry-svc"),
        world.member("ticket-svc"),
        world.member("user-svc"),
    );
    // Somebody whose files nobody replaces.
    world.issue("late", "user-svc");
    let late = world.load("late");
    let issued = SystemTime::now();

    let config = registry_svc::Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: world.folder.path().join("registry"),
        tls: registry_tls.server().cloned(),
        access: registry_svc::Access::Guarded {
            tokens: None,
            identities: true,
        },
        ..Default::default()
    };
    let running = registry_svc::Registry::start(config).await.expect("starts");
    let url = format!("https://{}", running.local_addr());
    let config = service_host::Config::new("ticket-svc", ([127, 0, 0, 1], 0).into());
    let host = Host::bind(config.tls(ticket_tls.server().cloned()))
        .await
        .expect("a free port");
    let address = host.local_addr();
    let served = host.serve(tonic::service::Routes::default(), &[]);
    served.set_serving("");

    let provider = Registry::connect_with([&url], ticket_tls.client()).expect("an address");
    let registration = Registration::new("ticket-svc", address.to_string()).secured();
    let registrar = provider.register(registration.heartbeat(Duration::from_millis(500), 3));
    registrar.registered(PATIENCE).await.expect("registers");
    let first = registrar.status();
    let caller = Registry::connect_with([&url], user_tls.client()).expect("an address");
    let channel = Channel::builder(caller.discover("ticket-svc"))
        .tls(user_tls.client().cloned())
        .build();
    channel.ready(PATIENCE).await.expect("found and connected");

    let replacing = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(REPLACED_EVERY);
            loop {
                ticks.tick().await;
                for service in ["registry-svc", "ticket-svc", "user-svc"] {
                    world.issue(service, service);
                }
            }
        })
    };
    // Past the end of the first ones; whoever holds on to one is sent away within 5 s of it.
    let until = issued + LIFE + Duration::from_secs(8);
    while SystemTime::now() < until {
        call(&channel).await.expect("answered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    call(&channel).await.expect("answered by what is there now");
    // The same registration all along: its lease was renewed on one stream after the other.
    assert!(matches!(first, RegistrarStatus::Registered { .. }), "{first:?}");
    assert_eq!(format!("{:?}", registrar.status()), format!("{first:?}"));

    // A watch that is new lives on what is there now, and whoever kept the old files does not.
    let again = Registry::connect_with([&url], user_tls.client()).expect("an address");
    let found = Channel::builder(again.discover("ticket-svc"))
        .tls(user_tls.client().cloned())
        .build();
    found.ready(PATIENCE).await.expect("found");
    let socket = TcpStream::connect(address).await.expect("listening");
    let dialled = late.client().expect("a bundle");
    let expected = Expected::service("default", "ticket-svc");
    let refused = dialled.connect(socket, "127.0.0.1", &expected).await;
    let refused = refused.expect_err("it has ended").to_string();
    assert!(refused.contains("certificate"), "{refused}");

    replacing.abort();
    assert!(replacing.await.expect_err("aborted").is_cancelled());
    drop(registrar);
    served.drain(Duration::from_secs(5)).await;
    running.stop().await;
}
