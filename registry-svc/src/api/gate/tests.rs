//! Row 47 of the fault plan: every RPC of the descriptor set as every kind of caller, against a registry that serves; and what
//! becomes of open streams when a token goes.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use proto::registry::v1::{self as wire, registry_service_client::RegistryServiceClient};
use tempfile::TempDir;
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_types::StatusExt as _;

mod audit;
mod leases;

use super::*;
use crate::{
    Access, Config, Registry, Running,
    access::{
        rules::{self, Rule},
        scope::Kind,
    },
    fixtures::descriptors,
    tokens::{self, Wanted},
};

/// No wait is longer; reached by a failure alone.
const PATIENCE: Duration = Duration::from_secs(20);

struct Guarded {
    directory: TempDir,
    running: Running,
}

impl Guarded {
    async fn start() -> Self {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("tokens.json");
        std::fs::write(&file, r#"{"version":1,"tokens":[]}"#).expect("written");
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: directory.path().join("registry"),
            drain_grace: Duration::from_secs(5),
            access: Access::Guarded {
                tokens: Some(file),
                identities: false,
            },
            ..Config::default()
        };
        let running = Registry::start(config).await.expect("starts");
        Self { directory, running }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("tokens.json")
    }

    /// A token that the registry knows already.
    async fn token(&self, scopes: &[&str]) -> (String, String) {
        let wanted = Wanted {
            name: "test".into(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ttl: None,
        };
        let (listed, secret) = tokens::issue(&self.file(), &wanted).expect("issued");
        let token = secret.reveal().to_owned();
        let channel = self.channel().await;
        until("the registry has read the file", async || {
            // Of a namespace that nobody has: known or not is all that is asked.
            let asked = call(channel.clone(), "/no.such/Method", Some(&token), Bytes::new()).await;
            asked == Code::Unimplemented
        })
        .await;
        (listed.id, token)
    }

    async fn channel(&self) -> Channel {
        let address = format!("http://{}", self.running.local_addr());
        Channel::from_shared(address)
            .expect("an address")
            .connect()
            .await
            .expect("listens")
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "never happened: {what}");
}

/// Bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// What a call is answered with, up to its first message: what comes after is let go.
async fn call(channel: Channel, path: &str, token: Option<&str>, message: Bytes) -> Code {
    let mut request = Request::new(tokio_stream::once(message));
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
    }
    let mut client = Grpc::new(channel);
    client.ready().await.expect("ready");
    let is_keep_alive = path.ends_with("/KeepAlive");
    let path = path.parse().expect("a path");
    let answered = async {
        let answer = client.streaming(request, path, Raw).await?;
        answer.into_inner().message().await
    };
    let answered = tokio::time::timeout(PATIENCE, answered).await.expect("an answer");
    match answered {
        Err(status) => status.code(),
        Ok(Some(answer)) if is_keep_alive && is_refused(answer.clone()) => Code::PermissionDenied,
        Ok(_) => Code::Ok,
    }
}

/// Whether a round of heartbeats tells the owner of the one lease to register again, where it would be told why.
fn is_refused(round: Bytes) -> bool {
    let round = wire::KeepAliveResponse::decode(round).expect("a round");
    let outcome = round.results[0].outcome.as_ref();
    matches!(outcome, Some(wire::keep_alive_result::Outcome::RegisterAgainAfter(_)))
}

/// A good request of each method, about the instance `$id` of the service `app` in the namespace `team`.
fn sample(method: &str) -> &'static str {
    const INSTANCE: &str = r#"{"instance": {"namespace": "team", "service": "app", "id": "$id"}, "who": "test"}"#;
    match method {
        "Register" => {
            r#"{"instances": [
                {"namespace": "team", "service": "app", "id": "$id", "endpoints": [{"host": "127.0.0.1", "port": 1}]}
            ]}"#
        }
        "Renew" | "Deregister" => r#"{"lease_id": "$lease", "lease_secret": "$secret"}"#,
        "KeepAlive" => r#"{"renewals": [{"lease_id": "$lease", "lease_secret": "$secret"}]}"#,
        "UpdateInstance" => {
            r#"{"lease_id": "00000000000000000000000000000000", "lease_secret": "x", "epoch": 1, "update_mask": "weight",
                "instance": {"namespace": "team", "service": "app", "id": "$id", "weight": 1}}"#
        }
        "ListServices" => r#"{"namespace": "team"}"#,
        "ListInstances" | "Watch" => r#"{"namespace": "team", "service": ""}"#,
        "GetInstance" => r#"{"namespace": "team", "service": "app", "id": "$id"}"#,
        "AwaitWatchers" => r#"{"namespace": "team", "service": "app", "id": "$id", "revision": 1, "timeout": "0s"}"#,
        "AckWatch" => r#"{"watch_id": "x", "revision": 1}"#,
        "Drain" => {
            r#"{"instance": {"namespace": "team", "service": "app", "id": "$id"}, "who": "test", "ack_timeout": "0s"}"#
        }
        "Undrain" => INSTANCE,
        "ExplainInstance" => r#"{"instance": {"namespace": "team", "service": "app", "id": "$id"}}"#,
        "SetWeight" => {
            r#"{"instance": {"namespace": "team", "service": "app", "id": "$id"}, "who": "test", "weight": 1}"#
        }
        "Backup" => "{}",
        // Health and reflection: nothing of theirs matters here.
        "Check" | "ServerReflectionInfo" => "{}",
        other => panic!("give a good request of {other} here: it is called as every kind of caller"),
    }
}

fn request(method: &MethodDescriptor, caller: &str, lease: &wire::RegisterResponse) -> Bytes {
    let name = if method.parent_service().name() == "Health" {
        "Check"
    } else {
        method.name()
    };
    let json = sample(name)
        .replace("$id", caller)
        .replace("$lease", &lease.lease_id)
        .replace("$secret", &lease.lease_secret);
    let message = DynamicMessage::deserialize(method.input(), &mut serde_json::Deserializer::from_str(&json));
    message.expect(&json).encode_to_vec().into()
}

/// A caller, the scopes it holds, and which rules let it in.
type Holder = (&'static str, &'static [&'static str], fn(Rule) -> bool);

/// Who calls, for what `team` and `app` have.
const CALLERS: &[Holder] = &[
    ("reader", &["read:team"], |rule| {
        matches!(rule, Rule::Any(Kind::Read) | Rule::Named(Kind::Read, _))
    }),
    ("writer", &["register:team/app"], |rule| {
        matches!(
            rule,
            Rule::Lease(_) | Rule::Any(Kind::Register) | Rule::Named(Kind::Register, _)
        )
    }),
    (
        "operator",
        &["operate:team"],
        |rule| matches!(rule, Rule::Any(kind) | Rule::Named(kind, _) if kind != Kind::Register),
    ),
    ("root", &["operate:*", "register:*/*"], |_| true),
    // Names that begin as the right ones do, or that the right ones begin with; and all of another namespace.
    (
        "neighbour",
        &[
            "read:te",
            "read:team-2",
            "register:te/app",
            "register:team-2/*",
            "register:team/ap",
            "register:team/app-2",
            "operate:te",
            "operate:team-2",
        ],
        |rule| matches!(rule, Rule::Any(_)),
    ),
    // What names nothing is let in by the kind of scope alone; what it is about then needs a watch's id.
    (
        "stranger",
        &["read:other", "register:other/*", "operate:other"],
        |rule| matches!(rule, Rule::Any(_)),
    ),
];

#[tokio::test]
async fn every_rpc_as_every_kind_of_caller() {
    let guarded = Guarded::start().await;
    let channel = guarded.channel().await;
    let mut held = BTreeMap::new();
    for (caller, scopes, _) in CALLERS {
        held.insert(*caller, guarded.token(scopes).await.1);
    }
    let mut client = RegistryServiceClient::new(channel.clone());
    let mut wrong = Vec::new();
    let mut calls = 0;
    let mut kept = vec!["root".to_owned(), "writer".to_owned()];
    for method in descriptors::methods() {
        let path = descriptors::path(&method);
        let rule = rules::of(&path).expect("the table has it");
        let forged = format!("tsr_abcdefghijkl_{}", "A".repeat(43));
        // Somebody else's, whose secret all of them have.
        let mut lease = wire::RegisterResponse::default();
        if matches!(rule, Rule::Lease(_)) {
            let id = format!("leased-{}", method.name().to_lowercase());
            lease = leases::register(&mut client, &held["root"], "app", &id).await;
            kept.push(id);
        }
        for (caller, token) in [("nobody", None), ("forger", Some(&forged))] {
            let message = if rule == Rule::Elsewhere {
                Bytes::new()
            } else {
                request(&method, caller, &lease)
            };
            let found = call(channel.clone(), &path, token.map(String::as_str), message).await;
            let is_right = match rule {
                Rule::Public => found != Code::Unauthenticated && found != Code::PermissionDenied,
                _ => found == Code::Unauthenticated,
            };
            if !is_right {
                wrong.push(format!("{path} as {caller}: {found:?}"));
            }
        }
        for (caller, _, may) in CALLERS {
            calls += 1;
            if matches!(rule, Rule::Lease(_)) {
                // The one before may have ended it.
                let id = format!("leased-{}-{caller}", method.name().to_lowercase());
                lease = leases::register(&mut client, &held["root"], "app", &id).await;
                kept.extend((method.name() != "Deregister" || !may(rule)).then_some(id));
            }
            let message = if rule == Rule::Elsewhere {
                Bytes::new()
            } else {
                request(&method, caller, &lease)
            };
            let found = call(channel.clone(), &path, Some(&held[caller]), message).await;
            let is_right = match rule {
                Rule::Elsewhere => found == Code::Unimplemented,
                Rule::Public => found != Code::Unauthenticated && found != Code::PermissionDenied,
                rule if may(rule) => found != Code::Unauthenticated && found != Code::PermissionDenied,
                _ => found == Code::PermissionDenied,
            };
            if !is_right {
                wrong.push(format!("{path} as {caller}: {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(calls > 150, "{calls} calls");

    // Nothing is stored of what was refused, and nothing has ended by it.
    let request = bearing(
        &held["root"],
        wire::ListInstancesRequest {
            namespace: "team".into(),
            ..Default::default()
        },
    );
    let stored = client.list_instances(request).await.expect("root reads").into_inner();
    let stored: Vec<_> = stored.instances.into_iter().map(|instance| instance.id).collect();
    kept.sort_unstable();
    assert_eq!(stored, kept);
}

fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("a header");
    request.metadata_mut().insert("authorization", value);
    request
}

fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

#[tokio::test]
async fn whoever_is_refused_is_told_what_is_missing_and_a_guesser_nothing() {
    let guarded = Guarded::start().await;
    let (id, token) = guarded.token(&["read:te", "register:team/app"]).await;
    let mut client = RegistryServiceClient::new(guarded.channel().await);
    let mut watch = async |token: &str| {
        let request = wire::WatchRequest {
            namespace: "team".into(),
            ..Default::default()
        };
        client.watch(bearing(token, request)).await.expect_err("refused")
    };
    let denied = watch(&token).await;
    assert_eq!(
        (denied.code(), reason(&denied).as_str()),
        (Code::PermissionDenied, "SCOPE_MISSING")
    );
    let info = denied.get_details_error_info().expect("details");
    assert_eq!(info.metadata["scope"], "read:team");
    assert!(
        denied.message().contains(&id) && denied.message().contains("read:team"),
        "{denied}"
    );
    assert!(!denied.message().contains(&token), "{denied}");

    let mut told = Vec::new();
    tokens::revoke(&guarded.file(), &id).expect("revoked");
    until("the token is gone", async || {
        call(guarded.channel().await, "/no.such/Method", Some(&token), Bytes::new()).await == Code::Unauthenticated
    })
    .await;
    for wrong in [&token, "", "garbage", &format!("tsr_{id}_{}", "A".repeat(43))] {
        let status = watch(wrong).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{wrong}");
        told.push((status.message().to_owned(), status.details().to_vec()));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "the same to all of them");
}

async fn ended<T>(mut stream: Streaming<T>) -> Status {
    let end = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended well"),
                Err(status) => return status,
            }
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("it ends")
}

/// Whoever had a stream open when the token was revoked went on hearing everything, until they went away by themselves.
#[tokio::test]
async fn open_streams_end_when_their_token_is_revoked_and_others_live() {
    let guarded = Guarded::start().await;
    let (id, token) = guarded.token(&["read:team", "register:team/app"]).await;
    let (_, other) = guarded.token(&["read:team"]).await;
    let mut client = RegistryServiceClient::new(guarded.channel().await);
    let request = wire::WatchRequest {
        namespace: "team".into(),
        ..Default::default()
    };
    let watch = client
        .watch(bearing(&token, request.clone()))
        .await
        .expect("open")
        .into_inner();
    let mut lives = client.watch(bearing(&other, request)).await.expect("open").into_inner();
    let (beats, rounds) = tokio::sync::mpsc::channel(1);
    let rounds = tokio_stream::wrappers::ReceiverStream::new(rounds);
    let keep_alive = client
        .keep_alive(bearing(&token, rounds))
        .await
        .expect("open")
        .into_inner();
    lives.message().await.expect("lives").expect("a snapshot");

    tokens::revoke(&guarded.file(), &id).expect("revoked");
    for status in [ended(watch).await, ended(keep_alive).await] {
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unauthenticated, "TOKEN_REVOKED")
        );
    }
    drop(beats);
    let silent = tokio::time::timeout(Duration::from_millis(200), lives.message()).await;
    assert!(silent.is_err(), "{silent:?}");
}

#[tokio::test]
async fn a_token_that_expires_ends_its_streams() {
    let guarded = Guarded::start().await;
    let wanted = Wanted {
        name: "short".into(),
        scopes: vec!["read:team".into()],
        ttl: Some(Duration::from_secs(4)),
    };
    let (_, secret) = tokens::issue(&guarded.file(), &wanted).expect("issued");
    let mut client = RegistryServiceClient::new(guarded.channel().await);
    let mut open = None;
    until("it is known", async || {
        let request = wire::WatchRequest {
            namespace: "team".into(),
            ..Default::default()
        };
        open = client.watch(bearing(secret.reveal(), request)).await.ok();
        open.is_some()
    })
    .await;
    let status = ended(open.expect("open").into_inner()).await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unauthenticated, "TOKEN_REVOKED")
    );
}

/// The certificate of an open connection was good for ever.
#[test]
fn streams_are_admitted_until_their_certificate_ends_and_nothing_after() {
    let access = Access::Guarded {
        tokens: None,
        identities: true,
    };
    let gate = ApiGate(Gatekeeper::open(&access).expect("no file").expect("guarded"));
    let admit = |path: &str, not_after: u64| {
        let peer = Peer {
            identity: Some(Arc::new(tls::Identity {
                spiffe: Some("spiffe://acme/operator/ada".parse().expect("an id")),
                not_after: Some(not_after),
                ..tls::Identity::default()
            })),
            ..Peer::at(([127, 0, 0, 1], 1).into())
        };
        let ended = peer.ended.clone();
        let mut extensions = http::Extensions::new();
        extensions.insert(peer);
        let pass = gate.admit(path, Credentials::None, &mut extensions);
        ended.revoke();
        pass.map_err(|status| status.code())
    };
    let [watch, list] = ["Watch", "ListServices"].map(|rpc| format!("/tessera.registry.v1.RegistryService/{rpc}"));
    assert!(matches!(admit(&watch, u64::MAX), Ok(Pass::Until(until)) if until.is_revoked()));
    assert!(matches!(admit(&list, u64::MAX), Ok(Pass::ToItsEnd)));
    for path in [watch, list] {
        assert_eq!(admit(&path, 1).map(|_| ()), Err(Code::Unauthenticated), "{path}");
    }
}

/// An editor that writes half a file, or a disk that is full, must not lock everybody out, nor let anybody in.
#[tokio::test]
async fn a_broken_file_changes_nothing_until_it_is_whole_again() {
    let guarded = Guarded::start().await;
    let (_, token) = guarded.token(&["read:team"]).await;
    let good = std::fs::read(guarded.file()).expect("read");
    let channel = guarded.channel().await;
    let list = async |token: &str| {
        let mut client = RegistryServiceClient::new(channel.clone());
        let request = wire::ListServicesRequest {
            namespace: "team".into(),
            ..Default::default()
        };
        client
            .list_services(bearing(token, request))
            .await
            .map_err(|status| status.code())
    };
    std::fs::write(guarded.file(), &good[..good.len() / 2]).expect("written");
    // Longer than a look takes; that nothing happens cannot be waited for.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    list(&token).await.expect("still good");
    std::fs::remove_file(guarded.file()).expect("removed");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    list(&token).await.expect("still good");
    std::fs::write(guarded.file(), r#"{"version":1,"tokens":[]}"#).expect("written");
    until("nobody is known", async || list(&token).await.is_err()).await;
}

#[tokio::test]
async fn a_registry_without_its_token_file_does_not_start() {
    let directory = TempDir::new().expect("a directory");
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        data_dir: directory.path().join("registry"),
        access: Access::Guarded {
            tokens: Some(directory.path().join("tokens.json")),
            identities: false,
        },
        ..Config::default()
    };
    let error = Registry::start(config).await.expect_err("refuses").to_string();
    assert!(error.contains("tessera token issue"), "{error}");
    assert!(!directory.path().join("registry").exists(), "nothing was touched");
}
