//! Instances that are called with TLS: who is believed, and what becomes of calls when one is not who it says.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use lb::Channel;
use registry_client::{Discovery, Endpoint, Instance, Protocol, Snapshot};
use tempfile::TempDir;
use tls::{
    ClientAuth, Listener, Settings, SpiffeId, Tls,
    issue::{Authority, Leaf},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{PATIENCE, TestServer, eventually, in_time};

struct World {
    folder: TempDir,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        let authority = Authority::generate("test", Duration::from_secs(3_600)).expect("a key");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.crt"), authority.certificate_pem()).expect("written");
        Self { folder, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn load(&self, name: Option<&str>, client_auth: ClientAuth) -> Tls {
        Tls::load(Settings {
            certificate: name.map(|name| self.path(name)),
            key: name.map(|name| self.path(name)),
            authorities: Some(self.path("ca.crt")),
            client_auth,
        })
        .expect("good files")
    }

    /// A certificate of that service, good for 127.0.0.1.
    fn service(&self, service: &str, client_auth: ClientAuth) -> Tls {
        let leaf = Leaf {
            spiffe: Some(SpiffeId::of_service("example", "default", service).expect("an id")),
            addresses: vec!["127.0.0.1".parse().expect("an address")],
            lifetime: Duration::from_secs(3_600),
            ..Leaf::default()
        };
        let issued = self.authority.issue(&leaf).expect("issued");
        let both = issued.certificate_pem + &issued.key_pem;
        std::fs::write(self.path(service), both).expect("written");
        self.load(Some(service), client_auth)
    }
}

/// Speaks TLS in front of `server`; its address.
async fn front(tls: &Tls, server: &TestServer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (acceptor, behind) = (
        tls.server().expect("a certificate").acceptor(Listener::Grpc),
        server.address,
    );
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut accepted) = acceptor.accept(socket).await else {
                    return;
                };
                let mut plain = TcpStream::connect(behind).await.expect("listening");
                let _ = tokio::io::copy_bidirectional(&mut accepted.stream, &mut plain).await;
            });
        }
    });
    address
}

fn instance(id: &str, address: SocketAddr, protocol: Protocol) -> Instance {
    let mut instance = Instance::new("ticket-svc", id, "");
    instance.endpoints = vec![Endpoint::grpc(&address.to_string()).with_protocol(protocol)];
    instance
}

fn discovery(instances: impl IntoIterator<Item = Instance>) -> (Discovery, watch::Sender<Arc<Snapshot>>) {
    let (feed, snapshots) = watch::channel(Arc::new(Snapshot::fresh(1, instances)));
    (Discovery::fed_by("ticket-svc", snapshots), feed)
}

async fn check(channel: &Channel) -> Result<String, tonic::Status> {
    let request = HealthCheckRequest::default();
    let answer = in_time(HealthClient::new(channel.clone()).check(request)).await?;
    let picked: &lb::Picked = answer.extensions().get().expect("always there");
    Ok(picked.instance_id.to_string())
}

/// Row 53: an address that another service sits on, with a genuine certificate for the very same host, is not spoken to; the
/// other instances take the calls.
#[tokio::test]
async fn an_instance_that_is_somebody_else_gets_no_call() {
    let world = World::new();
    let (hijacker, good) = (TestServer::start(), TestServer::start());
    let user = world.service("user-svc", ClientAuth::None);
    let ticket = world.service("ticket-svc", ClientAuth::None);
    let (discovery, _feed) = discovery([
        instance("hijacked", front(&user, &hijacker).await, Protocol::Grpcs),
        instance("good", front(&ticket, &good).await, Protocol::Grpcs),
    ]);
    let caller = world.load(None, ClientAuth::None);
    let channel = Channel::builder(discovery).tls(caller.client().cloned()).build();
    channel.ready(PATIENCE).await.expect("one is good");
    for _ in 0..20 {
        assert_eq!(check(&channel).await.expect("answered"), "good");
    }
    let said = || {
        channel
            .endpoints()
            .into_iter()
            .find(|view| view.instance_id == "hijacked")
            .and_then(|view| view.last_error)
    };
    eventually("it is found out", || said().is_some()).await;
    let said = said().expect("just seen");
    assert!(
        said.contains("belongs to spiffe://example/ns/default/svc/user-svc, and /ns/default/svc/ticket-svc was called"),
        "{said}"
    );
    assert_eq!(hijacker.seen.calls(), 0);
}

/// A caller with TLS must not be talked into clear text by a registration, nor one without into dialling what it cannot verify.
#[tokio::test]
async fn nobody_is_called_in_the_other_way() {
    let world = World::new();
    let server = TestServer::start();
    let ticket = world.service("ticket-svc", ClientAuth::None);
    let (plain, _feed) = discovery([instance("plain", server.address, Protocol::Grpc)]);
    let (secured, _other) = discovery([instance("secured", front(&ticket, &server).await, Protocol::Grpcs)]);
    for (discovery, tls, words) in [
        (plain, ticket.client().cloned(), "1 of them take calls without TLS only"),
        (secured, None, "1 of them take calls with TLS only"),
    ] {
        let channel = Channel::builder(discovery)
            .tls(tls)
            .ready_timeout(Duration::ZERO)
            .build();
        let status = check(&channel).await.expect_err("nobody to call");
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(status.message().contains(words), "{status}");
    }
    assert_eq!(server.seen.connections(), 0);
}

/// With TLS 1.3 a client hears only after its handshake that it should have shown a certificate: it used to look like a server
/// that speaks no HTTP/2.
#[tokio::test]
async fn a_server_that_wants_a_certificate_is_understood() {
    let world = World::new();
    let server = TestServer::start();
    let ticket = world.service("ticket-svc", ClientAuth::Required);
    let address = front(&ticket, &server).await;
    let nobody = world.load(None, ClientAuth::None);
    let target = lb::Target::fixed([format!("https://{address}")]).expect("an address");
    let channel = Channel::builder(target.clone()).tls(nobody.client().cloned()).build();
    channel.ready(Duration::from_secs(1)).await.expect_err("it shows none");
    let said = channel.endpoints()[0].last_error.clone().expect("it was tried");
    assert!(said.contains("it requires one, and we have none to show"), "{said}");

    let user = world.service("user-svc", ClientAuth::None);
    let channel = Channel::builder(target).tls(user.client().cloned()).build();
    check(&channel).await.expect("it shows one");
}
