//! What a running process logs is looked at and changed at its admin port.

use std::path::Path;

use e2e::{Cluster, ClusterOptions, wait};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A request as somebody else than our command would make it.
async fn raw(address: &str, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("listening");
    socket.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_of_a_running_process_is_shown_changed_and_taken_back() {
    let options = ClusterOptions {
        tickets: 0,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::with(options).await;
    let admin = &*cluster.registry_admin;
    let tessera = async |args: &[&str]| e2e::run(["log-level", admin].iter().chain(args)).await;
    assert_eq!(tessera(&[]).await.success().stdout, "info\n");

    // At info nobody hears of a caller that speaks something else.
    let said = || cluster.process("registry").stderr();
    let noise = async || {
        let mut socket = TcpStream::connect(&cluster.registry).await.expect("listening");
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
        // Until it is closed, which is when it is logged.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    };
    noise().await;
    let shown = tessera(&["info,service_host=debug", "--for", "1h", "--output", "json"]).await;
    let shown = shown.success().json();
    assert_eq!(shown["filter"], "info,service_host=debug");
    assert_eq!(
        (&shown["then"], &shown["started_with"]),
        (&"info".into(), &"info".into())
    );
    assert!(!said().contains("connection ended"), "{}", said());
    assert!(said().contains("the log filter was changed"), "{}", said());
    noise().await;
    wait::until("a line at debug", || async {
        if said().contains("connection ended") {
            Ok(())
        } else {
            Err(said())
        }
    })
    .await;

    for (wrong, why) in [
        ("debgu", "is no level"),
        ("info,a b=debug", "TARGET=LEVEL"),
        ("", "at least a level"),
    ] {
        let refused = tessera(&[wrong]).await;
        assert_eq!(refused.code(), 2, "{wrong:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(why), "{wrong:?}: {}", refused.stderr);
    }
    let refused = tessera(&["info", "--for", "30d"]).await;
    assert!(refused.stderr.contains("at most 24h"), "{}", refused.stderr);
    let put = |headers: &str, query: &str| {
        format!(
            "PUT /log-level{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: 5\r\n\r\ntrace"
        )
    };
    // A page in a browser on this machine is not whoever works on it.
    let page = raw(admin, &put("origin: http://attacker.test\r\n", "")).await;
    assert!(page.starts_with("HTTP/1.1 403"), "{page}");
    let mistaken = raw(admin, &put("", "?for=soon")).await;
    assert!(mistaken.starts_with("HTTP/1.1 400"), "{mistaken}");
    let still = tessera(&[]).await.success().stdout;
    assert!(still.starts_with("info,service_host=debug for another "), "{still}");

    assert_eq!(tessera(&["--reset"]).await.success().stdout, "info\n");
}

/// A filter that ends goes back by itself, with nobody asking.
#[tokio::test(flavor = "multi_thread")]
async fn a_passing_log_level_ends_by_itself() {
    let options = ClusterOptions {
        tickets: 0,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::with(options).await;
    let admin = &*cluster.registry_admin;
    e2e::run(["log-level", admin, "error,telemetry=warn", "--for", "1ms"])
        .await
        .success();
    wait::until("the end of the filter", || async {
        let said = cluster.process("registry").stderr();
        if said.contains("the log filter's time is over") {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
    let shown = e2e::run(["log-level", admin]).await.success().stdout;
    assert_eq!(shown, "info\n");
}

/// The rows of the table in docs/observability.md, by their cells.
fn table() -> Vec<Vec<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/observability.md");
    let text = std::fs::read_to_string(file).expect("the document");
    let (_, rest) = text.split_once("| field | in JSON | in text |").expect("the table");
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    })
    .collect()
}

/// The words in backticks of a cell.
fn words(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn is_time(text: &str) -> bool {
    text.len() == "2026-11-20T11:25:03.123456Z".len() && text.ends_with('Z') && text.as_bytes()[10] == b'T'
}

/// Every line of every process, with as much logged as anybody switches on, in one form.
async fn lines(format: &str) -> Vec<String> {
    let env = vec![
        // Statements are what is logged within calls when all is well.
        ("RUST_LOG", "debug,sqlx=debug".to_owned()),
        ("TESSERA_LOG_FORMAT", format.to_owned()),
    ];
    let options = ClusterOptions {
        tickets: 1,
        env,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::with(options).await;
    cluster.tessera(&["demo"]).await.success();
    let logs = cluster.processes().map(|(_, process)| process.stderr());
    let lines: Vec<String> = logs
        .flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(lines.len() > 100, "{lines:#?}");
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_have_the_fields_that_the_document_names() {
    let table = table();
    let fixed: Vec<&str> = table.iter().flat_map(|row| words(&row[1])).collect();
    let (always, in_calls) = fixed.split_at(4);
    assert_eq!(always, ["timestamp", "level", "target", "message"], "{table:#?}");
    assert_eq!(in_calls, ["trace_id", "span_id"]);
    let levels = words(&table[1][3]);

    let mut calls = 0;
    for line in lines("json").await {
        let object: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = |name: &str| object[name].as_str().unwrap_or_else(|| panic!("no {name} in {line}"));
        assert!(is_time(text("timestamp")) && levels.contains(&text("level")), "{line}");
        // sqlx says all that it has to say in fields.
        let has_message = object.get("message").is_some();
        assert!(has_message || text("target").starts_with("sqlx"), "{line}");
        let is_in_call = object.get("trace_id").is_some();
        if is_in_call {
            calls += 1;
            assert!(is_hex(text("trace_id"), 32) && is_hex(text("span_id"), 16), "{line}");
        }
        // First, and in the order of the table, so that a person can read the start of a line.
        let mut at = 0;
        let there = always.iter().filter(|name| has_message || **name != "message");
        for name in there.chain(in_calls.iter().filter(|_| is_in_call)) {
            let found = line[at..]
                .find(&format!("\"{name}\":"))
                .unwrap_or_else(|| panic!("{name} is not in its place: {line}"));
            at += found + 1;
        }
    }
    assert!(calls > 0, "no line of a call");

    let as_text: Vec<&str> = table[4..].iter().flat_map(|row| words(&row[2])).collect();
    assert_eq!(as_text, ["name=value", "trace_id=", "span_id="]);
    let mut calls = 0;
    for line in lines("text").await {
        let mut words = line.split_whitespace();
        let (time, level, target) = (words.next(), words.next(), words.next());
        assert!(
            time.is_some_and(is_time) && level.is_some_and(|level| levels.contains(&level)),
            "{line}"
        );
        assert!(
            target.is_some_and(|target| target.ends_with(':')) && words.next().is_some(),
            "{line}"
        );
        if let Some((_, ids)) = line.rsplit_once(" trace_id=") {
            calls += 1;
            let (trace, span) = ids.split_once(" span_id=").expect("both");
            assert!(is_hex(trace, 32) && is_hex(span, 16), "{line}");
        }
    }
    assert!(calls > 0, "no line of a call");
}
