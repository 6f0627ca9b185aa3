//! A cluster whose every connection is mutual TLS, with the certificates that `tessera certs` issues: what a new user gets from the
//! five commands of docs/security.md.

use std::{path::PathBuf, time::Duration};

use e2e::{Ended, Process, wait};
use registry_client::{Endpoint, Protocol, Registration, Registry};
use rustix::process::Signal;
use tempfile::TempDir;
use tls::{ClientAuth, Expected, Settings, Tls};
use tokio::net::TcpStream;

struct Cluster {
    folder: TempDir,
    registry: String,
    processes: Vec<Process>,
}

impl Cluster {
    async fn start() -> Self {
        let mut cluster = Self {
            folder: tempfile::tempdir().expect("a folder"),
            registry: String::new(),
            processes: Vec::new(),
        };
        cluster.issue().await;
        let data = cluster.folder.path().join("registry").display().to_string();
        cluster.registry = cluster.run("registry", &["registry", "--data-dir", &data]).await;
        let url = cluster.url();
        for (role, more) in [("ticket", &["--seed"][..]), ("user", &[])] {
            let store = cluster.folder.path().join(format!("{role}.db")).display().to_string();
            let args = [
                &[
                    role,
                    "--registry",
                    &url,
                    "--store",
                    &store,
                    "--heartbeat-interval",
                    "500ms",
                ],
                more,
            ]
            .concat();
            cluster.run(role, &args).await;
        }
        cluster
    }

    fn url(&self) -> String {
        format!("https://{}", self.registry)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join("certs").join(name).display().to_string()
    }

    async fn issue(&self) {
        let out = self.folder.path().join("certs").display().to_string();
        e2e::run(["certs", "--out", &out, "--service", "thief-svc"])
            .await
            .success();
    }

    fn files(&self, name: &str) -> Vec<(&'static str, String)> {
        vec![
            ("TESSERA_TLS_CERT", self.path(&format!("{name}.crt"))),
            ("TESSERA_TLS_KEY", self.path(&format!("{name}.key"))),
            ("TESSERA_TLS_CA", self.path("ca.crt")),
        ]
    }

    /// Starts a role with its certificate; its address.
    async fn run(&mut self, name: &str, args: &[&str]) -> String {
        let any_port = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let mut process = Process::spawn(name, [args, &any_port].concat(), &self.files(name));
        let (address, _) = process.addresses().await;
        self.processes.push(process);
        address
    }

    fn command(&self, with: &str, args: &[&str]) -> Process {
        let url = self.url();
        Process::spawn("tessera", [args, &["--registry", &url]].concat(), &self.files(with))
    }

    async fn tessera(&self, args: &[&str]) -> Ended {
        self.command("operator", args).end().await
    }

    fn tls(&self, name: &str) -> Tls {
        let file = |ending: &str| Some(PathBuf::from(self.path(&format!("{name}.{ending}"))));
        let settings = Settings {
            certificate: file("crt"),
            key: file("key"),
            authorities: Some(PathBuf::from(self.path("ca.crt"))),
            client_auth: ClientAuth::None,
        };
        Tls::load(settings).expect("good files")
    }

    /// The certificate that a new connection to the registry is shown.
    async fn shown(&self) -> Vec<u8> {
        let socket = TcpStream::connect(&self.registry).await.expect("listening");
        let tls = self.tls("operator");
        let connected = tls
            .client()
            .expect("a bundle")
            .connect(socket, "127.0.0.1", &Expected::Host);
        let stream = connected.await.expect("a handshake");
        let chain = stream.get_ref().1.peer_certificates();
        chain.and_then(|chain| chain.first()).expect("shown").to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_mutual_tls_sells_tickets_and_nobody_without_a_certificate_gets_in() {
    let cluster = Cluster::start().await;
    let demo = cluster.tessera(&["demo", "--output", "json"]).await.success().json();
    assert_eq!(demo["orders"][0]["state"], "SUCCEEDED", "{demo:#}");
    let instances = cluster
        .tessera(&["instances", "--output", "json"])
        .await
        .success()
        .stdout;
    assert!(instances.contains("ticket-svc"), "{instances}");
    let registry = cluster.url();
    cluster
        .tessera(&[
            "call",
            &registry,
            "tessera.registry.v1.RegistryService/ListServices",
            "{}",
        ])
        .await
        .success();
    let args = ["healthcheck", &registry];
    Process::spawn("tessera", args, &cluster.files("operator"))
        .end()
        .await
        .success();

    // Without a certificate, without knowing the authority, and without TLS at all.
    let only_ca = vec![("TESSERA_TLS_CA", cluster.path("ca.crt"))];
    let plain = format!("http://{}", cluster.registry);
    for (url, env, words) in [
        (&registry, only_ca, "requires one, and we have none to show"),
        (&registry, Vec::new(), "--tls-ca"),
        (&plain, Vec::new(), "cannot be reached"),
    ] {
        let refused = Process::spawn("tessera", ["services", "--registry", url], &env)
            .end()
            .await;
        assert_ne!(refused.code(), 0);
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    for process in &cluster.processes {
        for secret in ["PRIVATE KEY", "BEGIN"] {
            assert!(!process.stderr().contains(secret), "key material in a log");
        }
    }
}

/// Row 53: a service with a genuine certificate of its own registers as another one, or at somebody else's address. Nothing is
/// stored, and the other's record stays as it was.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_registers_as_somebody_else() {
    let cluster = Cluster::start().await;
    let before = cluster
        .tessera(&["instances", "ticket-svc", "--output", "json"])
        .await
        .success()
        .json();
    let id = before["instances"][0]["id"].as_str().expect("registered").to_owned();
    let thief = cluster.tls("thief-svc");
    let registry = Registry::connect_with([cluster.url()], thief.client()).expect("an address");
    let elsewhere = Endpoint::grpc("10.9.9.9:7101").with_protocol(Protocol::Grpcs);
    for (registration, words) in [
        (
            Registration::new("ticket-svc", "127.0.0.1:1").id(id.as_str()),
            "may register default/thief-svc only",
        ),
        (
            Registration::new("ticket-svc", "127.0.0.1:1"),
            "may register default/thief-svc only",
        ),
        (
            Registration::new("thief-svc", "127.0.0.1:1").endpoint(elsewhere),
            "is at 10.9.9.9",
        ),
        (
            Registration::new("thief-svc", "169.254.169.254:80"),
            "is at 169.254.169.254",
        ),
    ] {
        let registrar = registry.register(registration);
        let error = registrar
            .registered(Duration::from_secs(10))
            .await
            .expect_err("refused")
            .to_string();
        assert!(error.contains("IDENTITY_MISMATCH") && error.contains(words), "{error}");
    }
    let after = cluster
        .tessera(&["instances", "ticket-svc", "--output", "json"])
        .await
        .success()
        .json();
    assert_eq!(after["instances"], before["instances"]);
    let all = cluster
        .tessera(&["services", "--output", "json"])
        .await
        .success()
        .stdout;
    assert!(!all.contains("thief-svc"), "{all}");
    let mine = registry.register(Registration::new("thief-svc", "127.0.0.1:1").secured());
    mine.registered(Duration::from_secs(10))
        .await
        .expect("as itself it may");
}

/// Row 45: every certificate of a running cluster is replaced while tickets are sold and a watch is open. New connections show the
/// new one, the old stream lives on, and no call is lost.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_while_the_cluster_works() {
    let cluster = Cluster::start().await;
    let mut watch = cluster.command("operator", &["watch", "ticket-svc", "--output", "json"]);
    watch
        .line("the first set", |line| line.contains("ticket-svc").then_some(()))
        .await;
    let buyers = cluster.command(
        "operator",
        &["demo", "--buyers", "150", "--concurrency", "4", "--output", "json"],
    );
    let before = cluster.shown().await;
    cluster.issue().await;
    for process in &cluster.processes {
        process.signal(Signal::HUP);
    }
    wait::until("the new certificate", || async {
        if cluster.shown().await == before {
            Err("still the old one")
        } else {
            Ok(())
        }
    })
    .await;
    let demo = buyers.end().await.success().json();
    assert_eq!((&demo["sold"], &demo["failed"]), (&150.into(), &0.into()), "{demo:#}");

    // A change that only a watch that is still open can tell.
    let lines = watch.stdout().lines().count();
    let ticket = cluster.tls("ticket");
    let registry = Registry::connect_with([cluster.url()], ticket.client()).expect("an address");
    let registrar = registry.register(Registration::new("ticket-svc", "127.0.0.1:1").id("late").secured());
    registrar.registered(Duration::from_secs(10)).await.expect("registered");
    wait::until("the watch tells it", || async {
        let said = watch.stdout();
        let new: Vec<&str> = said.lines().skip(lines).collect();
        if new.iter().any(|line| line.contains("late")) {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
    assert!(
        !watch.stderr().contains("registry"),
        "it was never away: {}",
        watch.stderr()
    );
}
