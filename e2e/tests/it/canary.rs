//! Row 55 of the fault plan: known secrets go through a whole cluster that is guarded, and are looked for wherever they could
//! come out: logs at debug, traces over HTTP and gRPC, statistics, answers, command lines, metrics, disks. And row 54: what a stranger
//! is shown of it.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
};

use e2e::{Cluster, ClusterOptions, Ended, Process, otlp, run, wait};
use serde_json::{Value, json};

const PASSWORD: &str = "canary-password-fb1c";
const WRONG: &str = "canary-mistyped-77aa";
/// Sixteen digits, where a careless caller may put them.
const CARD: &str = "4929123456781234";

/// Issues a token as an operator does: its secret is on stdout and in its file, and nowhere else.
async fn issue(folder: &Path, name: &str, scopes: &[&str]) -> (String, String) {
    let file = folder.join("tokens.json").display().to_string();
    let mut args = vec!["token", "issue", "--file", &file, "--name", name];
    for scope in scopes {
        args.extend(["--scope", scope]);
    }
    let issued = run(args).await.success();
    let secret = issued.stdout.trim().to_owned();
    assert!(!issued.stderr.contains(&secret));
    let kept = folder.join(format!("{name}.token"));
    fs::write(&kept, &issued.stdout).expect("written");
    (secret, format!("@{}", kept.display()))
}

/// What was seen, by the place where.
#[derive(Default)]
struct Seen(BTreeMap<String, Vec<u8>>);

impl Seen {
    fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.entry(place.into()).or_default().extend(bytes.into());
    }

    fn ended(&mut self, place: &str, ended: &Ended) {
        self.add(format!("stderr of {place}"), ended.stderr.as_bytes());
        self.add(format!("stdout of {place}"), ended.stdout.as_bytes());
    }

    /// Every file below a folder.
    fn files(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.files(&path);
            } else if let Ok(bytes) = fs::read(&path) {
                self.add(path.display().to_string(), bytes);
            }
        }
    }

    /// The places that have one of these.
    fn find(&self, secrets: &BTreeMap<&str, String>) -> Vec<String> {
        let mut found = Vec::new();
        for (place, bytes) in &self.0 {
            for (name, secret) in secrets {
                if bytes.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                    found.push(format!("the {name} is in {place}"));
                }
            }
        }
        found
    }
}

/// In Prometheus' plain text, or with exemplars.
fn metrics(address: &str, accept: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("listens");
    write!(
        socket,
        "GET /metrics HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
    )
    .expect("written");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("answered");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_comes_out_anywhere_and_a_stranger_is_shown_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let scopes = [
        "read",
        "register:default/ticket-svc",
        "register:default/user-svc",
        "register:default/console",
        "operate:*",
    ];
    let (token, token_file) = issue(folder.path(), "everything", &scopes).await;
    let (reader, reader_file) = issue(folder.path(), "reader", &["read:elsewhere"]).await;
    let receiver = otlp::Receiver::start().await;
    let env = vec![
        (
            "TESSERA_TOKENS",
            folder.path().join("tokens.json").display().to_string(),
        ),
        ("TESSERA_TOKEN", token_file.clone()),
        // As much as anybody switches on who does not look for bytes on the wire.
        ("RUST_LOG", "debug,sqlx=debug".to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint.clone()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
        ("TESSERA_MONITOR_INTERVAL", "1s".to_owned()),
    ];
    let over_grpc: Vec<_> = env
        .iter()
        .filter(|(name, _)| *name != "OTEL_EXPORTER_OTLP_PROTOCOL")
        .cloned()
        .collect();
    let mut cluster = Cluster::with(ClusterOptions {
        tickets: 1,
        env,
        ..ClusterOptions::default()
    })
    .await;
    cluster.start_console().await;
    let mut seen = Seen::default();

    // The command's own spans go over gRPC, those of the processes over HTTP.
    let args = ["demo", "--output", "json", "--registry", &cluster.registry];
    let demo = Process::spawn("demo", args, &over_grpc).end().await.success();
    let trace_id = demo.json()["orders"][0]["trace_id"]
        .as_str()
        .expect("a trace")
        .to_owned();
    seen.ended("demo", &demo);

    // Requests go by files: whatever is on a command line is public by that alone.
    let request = folder.path().join("request.json");
    let bearer_file = folder.path().join("bearer.token");
    let call = async |method: &str, message: Value| {
        fs::write(&request, message.to_string()).expect("written");
        let data = format!("@{}", request.display());
        let method = format!("tessera.user.v1.UserService/{method}");
        let mut args = vec!["call", &cluster.user, &method, "-d", &data, "--output", "json"];
        let bearer = format!("@{}", bearer_file.display());
        if bearer_file.exists() {
            args.extend(["--bearer", &bearer]);
        }
        cluster.tessera(&args).await
    };
    let id = |number: u32| format!("00000000-0000-4000-8000-{number:012}");
    let account = json!({
        "requestId": id(1), "email": "ada@example.com", "displayName": "Ada", "password": PASSWORD,
    });
    let created = call("CreateUser", account).await.success();
    let user = created.json()["user"]["id"].as_str().expect("an id").to_owned();
    seen.ended("CreateUser", &created);
    let sign_in = call("SignIn", json!({ "email": "ada@example.com", "password": PASSWORD }))
        .await
        .success();
    let session = sign_in.json()["sessionToken"].as_str().expect("a session").to_owned();
    // Its answer is the one place where it belongs.
    seen.add("stderr of SignIn", sign_in.stderr.as_bytes());
    let refresh = sign_in.json()["refreshToken"].as_str().expect("a token").to_owned();
    fs::write(&bearer_file, &session).expect("written");
    let own = call("GetUser", json!({ "userId": user })).await.success();
    seen.ended("GetUser", &own);
    for (what, message) in [
        ("SignIn", json!({ "email": "ada@example.com", "password": WRONG })),
        ("GetOrder", json!({ "orderId": CARD })),
        (
            "TopUp",
            json!({ "requestId": CARD, "userId": user, "amount": { "currencyCode": "EUR", "units": 1 } }),
        ),
    ] {
        let refused = call(what, message).await;
        assert_ne!(refused.code(), 0, "{refused:?}");
        // What a caller sent in a field that is no secret may be named to that caller.
        if what == "SignIn" {
            seen.ended("a wrong SignIn", &refused);
        }
    }

    let renewed = call("RefreshSession", json!({ "refreshToken": refresh }))
        .await
        .success();
    seen.add("stderr of RefreshSession", renewed.stderr.as_bytes());
    // Used up, and said so; and then a token that has ended.
    for (what, message) in [
        ("RefreshSession", json!({ "refreshToken": refresh })),
        ("GetUser", json!({ "userId": user })),
    ] {
        let refused = call(what, message).await;
        assert_eq!(refused.code(), 80, "{refused:?}");
        seen.ended(what, &refused);
    }

    // Row 54: a stranger, and somebody of another namespace.
    let registry = cluster.registry.as_str();
    let list = "tessera.registry.v1.RegistryService/ListServices";
    let stranger = run(["call", registry, list]).await;
    assert_eq!(stranger.code(), 80, "{stranger:?}");
    let other = run(["services", "--registry", registry, "--token", &reader_file]).await;
    assert!(other.stderr.contains("SCOPE_MISSING"), "{other:?}");
    let forged = format!("{}x", &token[..token.len() - 1]);
    fs::write(folder.path().join("forged.token"), &forged).expect("written");
    let forged_file = format!("@{}", folder.path().join("forged.token").display());
    let forger = run(["services", "--registry", registry, "--token", &forged_file]).await;
    assert_ne!(forger.code(), 0, "{forger:?}");
    for (place, ended) in [("a stranger", &stranger), ("another", &other), ("a forger", &forger)] {
        seen.ended(place, ended);
    }

    wait::until("the trace", || async {
        let spans = receiver.trace(&trace_id).len();
        if spans > 5 {
            Ok(())
        } else {
            Err(format!("{spans} spans"))
        }
    })
    .await;
    let traces = receiver.all();
    for service in ["tessera-cli", "user-svc", "ticket-svc", "registry-svc"] {
        let is_there = traces.iter().any(|span| span.resource["service.name"] == service);
        assert!(is_there, "spans of {service} have come");
    }
    seen.add("the traces", format!("{traces:?}"));

    // What was counted has reached the monitor, whose file is below the cluster's data.
    let statistics = wait::until("statistics of the failed SignIn", || async {
        let args = [
            "stats", "user-svc", "--since", "10m", "--by", "method", "--by", "caller", "--output", "json",
        ];
        let told = cluster.tessera(&args).await.success();
        if told.stdout.contains("UserService/SignIn") && told.stdout.contains("UserService/TopUp") {
            Ok(told)
        } else {
            Err(told.stdout)
        }
    })
    .await;
    seen.ended("stats as JSON", &statistics);
    for args in [
        &["stats", "user-svc", "--since", "10m", "--by", "method"][..],
        &["stats", "registry-svc", "--since", "10m", "--by", "caller"],
        &["top", "--once", "--window", "10m"],
        &["top", "--once", "--window", "10m", "--output", "json"],
    ] {
        seen.ended(&args.join(" "), &cluster.tessera(args).await.success());
    }
    let mut peers = Vec::new();
    for (name, process) in cluster.processes() {
        seen.add(format!("the log of {name}"), process.stderr());
        seen.add(format!("stdout of {name}"), process.stdout());
        let line = fs::read(format!("/proc/{}/cmdline", process.pid().as_raw_nonzero())).expect("its command line");
        seen.add(format!("the command line of {name}"), line);
        let text = metrics(&cluster.admins[name], "application/openmetrics-text; version=1.0.0");
        seen.add(format!("the exemplars of {name}"), text);
        let text = metrics(&cluster.admins[name], "text/plain");
        peers.extend(
            text.lines()
                .filter(|line| line.contains("127.0.0.1"))
                .map(str::to_owned),
        );
        seen.add(format!("the metrics of {name}"), text);
    }
    assert!(peers.is_empty(), "addresses in metrics: {peers:?}");
    seen.files(cluster.data());
    seen.add(
        "tokens.json",
        fs::read(folder.path().join("tokens.json")).expect("read"),
    );

    let half = |token: &str| token[20..].to_owned();
    let secrets = BTreeMap::from([
        ("token", half(&token)),
        ("other token", half(&reader)),
        ("forged token", half(&forged)),
        ("password", PASSWORD.to_owned()),
        ("mistyped password", WRONG.to_owned()),
        ("session", session[session.len() - 60..].to_owned()),
        ("refresh token", refresh[22..].to_owned()),
        ("card", CARD.to_owned()),
    ]);
    // The search itself finds what is there.
    let mut control = Seen::default();
    control.add("a control", format!("x{token}x"));
    assert_eq!(control.find(&secrets).len(), 1);
    for place in ["the exemplars of console", "stats as JSON", "console.db"] {
        assert!(seen.0.keys().any(|seen| seen.contains(place)), "{place} was looked at");
    }
    assert!(seen.0.len() > 20, "{} places", seen.0.len());
    let logged: usize = seen
        .0
        .iter()
        .filter(|(place, _)| place.starts_with("the log"))
        .map(|(_, log)| log.len())
        .sum();
    assert!(logged > 10_000, "{logged} bytes of logs");
    let found = seen.find(&secrets);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
