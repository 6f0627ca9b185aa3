//! A caller in another language, with the packages that its users have: its trace goes on through ours.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use e2e::{Cluster, ClusterOptions, otlp, wait};
use tokio::process::Command;

const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// The Python that `make setup` has made; `None` with a printed reason when there is none.
fn python() -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/python/bin/python");
    if found.is_file() {
        return Some(found);
    }
    eprintln!("skipped: no Python with gRPC and OpenTelemetry (make setup installs it)");
    None
}

/// Buys a ticket in Python with these propagators on both sides, and looks at what arrived.
async fn a_purchase_in_python_is_one_trace(propagators: &str) {
    let Some(python) = python() else { return };
    let receiver = otlp::Receiver::start().await;
    let env = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint.clone()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ("OTEL_PROPAGATORS", propagators.to_owned()),
    ];
    let cluster = Cluster::with(ClusterOptions {
        tickets: 1,
        env: env.clone(),
        ..ClusterOptions::default()
    })
    .await;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python)
        .arg(here.join("tests/python/purchase.py"))
        .arg(here.join("../proto"))
        .args([&cluster.user, &cluster.tickets["ticket-1"]])
        .env("OTEL_SERVICE_NAME", "python-shop")
        .envs(env)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("Python starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    assert_eq!(answer["state"], "ORDER_STATE_SUCCEEDED", "{answer} {told}");
    let trace_id = answer["trace_id"].as_str().expect("a trace").to_owned();
    assert_eq!(answer["order_trace_id"], trace_id, "the order names the caller's trace");

    // From Python's client span to the last service behind the one that it called.
    let buy = "tessera.user.v1.UserService/BuyTicket";
    let confirm = "tessera.ticket.v1.TicketService/ConfirmHold";
    wait::until("the whole trace", || async {
        let spans = receiver.trace(&trace_id);
        let server = |name: &str| spans.iter().find(|span| span.kind == SERVER && span.name == name);
        let parent = |child: &otlp::Span| spans.iter().find(|span| span.span_id == child.parent_id);
        let (Some(bought), Some(confirmed)) = (server(buy), server(confirm)) else {
            return Err(format!("{:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>()));
        };
        let Some(asked) = parent(bought) else {
            return Err("Python's span is missing".to_owned());
        };
        assert_eq!(asked.kind, CLIENT, "{asked:?}");
        assert_eq!(asked.resource["service.name"], "python-shop", "{asked:?}");
        let mut line = vec![confirmed];
        while let Some(next) = parent(line[line.len() - 1]) {
            line.push(next);
        }
        let root = line[line.len() - 1];
        if !line.iter().any(|span| span.span_id == bought.span_id) || root.name != "python purchase" {
            return Err(format!("{:?}", line.iter().map(|span| &span.name).collect::<Vec<_>>()));
        }
        Ok(())
    })
    .await;
    // What the program said of its user went to the service and nowhere else.
    let told = format!("{:?}", receiver.all());
    for secret in ["correct horse", "@example.com", "Guido"] {
        assert!(!told.contains(secret), "{secret:?} is in a span");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_began_in_python_goes_on_through_every_service() {
    a_purchase_in_python_is_one_trace("tracecontext,baggage").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_does_by_zipkins_headers() {
    a_purchase_in_python_is_one_trace("b3multi").await;
}
