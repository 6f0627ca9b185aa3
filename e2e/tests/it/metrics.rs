//! What the real processes offer on `/metrics`, beside what is said of it: docs/observability.md has every metric, the alert rules name
//! none that is not there, and both formats are what Prometheus reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use e2e::{Cluster, ClusterOptions, otlp::Receiver};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Metrics that come into being with what they count, with TLS, an exporter, a broker or the monitor, which a quiet cluster without them has
/// not: their type, and where.
const RARE: [(&str, &str, &str); 20] = [
    ("tessera_outbox_broker_away", "gauge", "outbox/src/metrics.rs"),
    (
        "otel_sdk_exporter_span_exported_total",
        "counter",
        "telemetry/src/export/otlp.rs",
    ),
    (
        "otel_sdk_processor_span_processed_total",
        "counter",
        "telemetry/src/export/batch.rs",
    ),
    (
        "tessera_monitor_dropped_reports_total",
        "counter",
        "monitor-client/src/reporter.rs",
    ),
    ("tessera_monitor_point_bytes", "gauge", "console/src/driver.rs"),
    ("tessera_monitor_reports_total", "counter", "console/src/driver.rs"),
    (
        "tessera_monitor_reports_missed_total",
        "counter",
        "console/src/driver.rs",
    ),
    (
        "tessera_monitor_sent_reports_total",
        "counter",
        "monitor-client/src/reporter.rs",
    ),
    ("tessera_monitor_series", "gauge", "console/src/driver.rs"),
    ("tessera_monitor_up", "gauge", "monitor-client/src/reporter.rs"),
    (
        "tessera_monitor_waiting_reports",
        "gauge",
        "monitor-client/src/reporter.rs",
    ),
    (
        "tessera_lb_further_attempts_total",
        "counter",
        "lb/src/explain/metrics.rs",
    ),
    ("tessera_lb_breaker_state", "gauge", "lb/src/explain/metrics.rs"),
    ("tessera_lb_ejections_total", "counter", "lb/src/explain/metrics.rs"),
    (
        "tessera_lb_ready_wait_seconds",
        "histogram",
        "lb/src/explain/metrics.rs",
    ),
    ("tessera_lb_retries_total", "counter", "lb/src/explain/metrics.rs"),
    ("tessera_lb_fallbacks_total", "counter", "lb/src/call/fallback.rs"),
    (
        "tessera_lb_service_config_changes_total",
        "counter",
        "lb/src/settings/governed.rs",
    ),
    (
        "tessera_server_handshakes_refused_total",
        "counter",
        "service-host/src/listener/secured.rs",
    ),
    (
        "tessera_tls_certificate_not_after_seconds",
        "gauge",
        "service-host/src/host.rs",
    ),
];

/// What `up` is made of; Prometheus says it of each target.
const OF_PROMETHEUS: [&str; 1] = ["up"];

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

async fn page(admin: &str, accept: &str) -> String {
    let mut socket = TcpStream::connect(admin).await.expect("listening");
    let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    answer
}

/// Names and types of all metrics of every role, of a cluster that has sold something.
async fn offered() -> BTreeMap<String, String> {
    let cluster = Cluster::start().await;
    cluster.tessera(&["demo"]).await.success();
    let mut pages = Vec::new();
    for admin in cluster.admins.values() {
        pages.push(page(admin, "text/plain").await);
    }
    let types = pages.iter().flat_map(|page| page.lines());
    let types = types.filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut all: BTreeMap<String, String> = types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
    for (name, kind, source) in RARE {
        let counted = name.trim_end_matches("_total");
        assert!(
            read(source).contains(&format!("\"{counted}\"")),
            "{counted} is no longer in {source}"
        );
        all.insert(name.to_owned(), kind.to_owned());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_every_documented_one_is_offered() {
    let offered = offered().await;
    let text = read("docs/observability.md");
    let (_, metrics) = text.split_once("\n## Metrics\n").expect("a section of metrics");
    let metrics = metrics.split("\n## ").next().unwrap_or_default();
    let documented: BTreeMap<String, String> = metrics
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let name = cells.next()?.trim_end_matches('`');
            Some((name.to_owned(), cells.next()?.trim().to_owned()))
        })
        .collect();
    assert_eq!(documented, offered, "docs/observability.md beside what there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn alert_rules_name_only_metrics_that_are_offered() {
    let offered = offered().await;
    let mut known: BTreeSet<String> = OF_PROMETHEUS.map(String::from).into();
    for (name, kind) in &offered {
        if kind == "histogram" {
            known.extend(["_bucket", "_count", "_sum"].map(|series| format!("{name}{series}")));
        } else {
            known.insert(name.clone());
        }
    }
    let rules = read("deploy/prometheus/alerts.yml");
    let expressions: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
        .collect();
    assert_eq!(
        expressions.len(),
        rules.matches("- alert: ").count(),
        "one line for each"
    );
    assert!(expressions.len() > 20);
    for expression in expressions {
        let names = names(expression);
        assert!(!names.is_empty(), "{expression}");
        let unknown: Vec<&String> = names.difference(&known).collect();
        assert!(unknown.is_empty(), "{unknown:?} of {expression}");
    }
    // What is scraped is where compose has it.
    let (scrape, compose) = (read("deploy/prometheus/prometheus.yml"), read("docker-compose.yml"));
    for (job, port) in [
        ("registry", 9000),
        ("ticket-svc", 9101),
        ("user-svc", 9200),
        ("console", 10_090),
    ] {
        assert!(
            compose.contains(&format!("\n  {job}:\n")),
            "{job} in docker-compose.yml"
        );
        assert!(
            compose.contains(&format!("TESSERA_ADMIN_LISTEN: 0.0.0.0:{port}")),
            "{port}"
        );
        assert!(
            scrape.contains(&format!("job_name: {job}\n")) && scrape.contains(&format!("port: {port},")),
            "{job}"
        );
    }
}

/// The metric names of an expression: words that are no function, label, keyword or part of a text.
fn names(expression: &str) -> BTreeSet<String> {
    const WORDS: [&str; 4] = ["and", "or", "unless", "bool"];
    let mut bare = String::new();
    let mut depth = 0_u32;
    for char in expression.chars() {
        match char {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ if depth == 0 => bare.push(char),
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    let mut rest = bare.as_str();
    while let Some(start) = rest.find(|char: char| char.is_ascii_alphabetic() || char == '_') {
        let is_number = rest[..start].ends_with(|char: char| char.is_ascii_digit());
        let word = &rest[start..];
        let end = word.find(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        let (word, after) = word.split_at(end.unwrap_or(word.len()));
        rest = after;
        if word == "by" || word == "without" || word == "on" {
            // Labels, in parentheses.
            rest = after.split_once(')').map_or("", |(_, rest)| rest);
        } else if !is_number && !after.trim_start().starts_with('(') && !WORDS.contains(&word) && !is_aggregation(word)
        {
            names.insert(word.to_owned());
        }
    }
    names
}

/// These may be followed by `by` instead of a parenthesis.
fn is_aggregation(word: &str) -> bool {
    ["sum", "max", "min", "avg", "count"].contains(&word)
}

#[test]
fn names_are_found_in_expressions() {
    for (expression, expected) in [
        ("a_b > 1", vec!["a_b"]),
        (
            "sum by (le, x) (rate(a_bucket{m!~\"b_c\"}[5m])) / max(d_total) > 2e9",
            vec!["a_bucket", "d_total"],
        ),
        ("absent(up{job=\"r\"} == 1)", vec!["up"]),
        ("a_x - time() < 7 * 86400 and b_y == 0", vec!["a_x", "b_y"]),
    ] {
        let expected: BTreeSet<String> = expected.into_iter().map(String::from).collect();
        assert_eq!(names(expression), expected, "{expression}");
    }
}

/// OpenMetrics as Prometheus asks for it: exemplars that are traces, a name that ends in its unit, an end.
#[tokio::test(flavor = "multi_thread")]
async fn exemplars_lead_to_traces_that_were_exported() {
    let receiver = Receiver::start().await;
    let options = ClusterOptions {
        env: vec![("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint.clone())],
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::with(options).await;
    cluster.tessera(&["demo"]).await.success();
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let text = page(&cluster.admins["user-1"], accept).await;
    assert!(text.ends_with("# EOF\n"), "{text}");
    let exemplars: BTreeSet<String> = text
        .lines()
        .filter(|line| line.starts_with("rpc_server_call_duration_seconds_bucket"))
        .filter_map(|line| Some(line.split_once("# {trace_id=\"")?.1.split_once('"')?.0.to_owned()))
        .collect();
    assert!(!exemplars.is_empty(), "{text}");
    assert!(
        !page(&cluster.admins["user-1"], "*/*").await.contains("trace_id"),
        "plain text has none"
    );
    // Its spans leave with it at the latest.
    cluster.stop("user-1").await.success();
    for trace in exemplars {
        assert!(!receiver.trace(&trace).is_empty(), "{trace} was never exported");
    }
}
