//! What a trace shows of an instance that is gone: the attempt that was in its hands and the one that took its place, or nothing at
//! all of one that was drained. All of a purchase's calls are written down here; what stores do below them is left out, since how
//! often a step writes is the store's business.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use e2e::{
    Cluster, ClusterOptions, Process,
    otlp::{self, CLIENT, INTERNAL, Line, SERVER, Span, Tree, of, tree},
    wait,
};
use rustix::process::Signal;
use serde_json::json;

const BUY: &str = "tessera.user.v1.UserService/BuyTicket";
const HOLD: &str = "tessera.ticket.v1.TicketService/HoldSeats";
const CONFIRM: &str = "tessera.ticket.v1.TicketService/ConfirmHold";

pub(super) async fn cluster(receiver: &otlp::Receiver, more: Vec<(&'static str, String)>) -> Cluster {
    let mut env = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint.clone()),
        // What is killed takes little with it.
        ("OTEL_BSP_SCHEDULE_DELAY", "10".to_owned()),
    ];
    env.extend(more);
    let options = ClusterOptions {
        tickets: 2,
        env,
        ..ClusterOptions::default()
    };
    Cluster::with(options).await
}

fn attempt(service: &str, method: &str) -> Line {
    of(service, CLIENT, &format!("Attempt.{method}"))
}

/// A call of `caller`, below `parent`: its span, so many attempts, and one that answers, below one of those.
fn called(caller: &str, parent: &Line, method: &str, attempts: usize, callee: &str) -> Tree {
    let call = of(caller, CLIENT, method);
    let mut tree = vec![(call.clone(), Some(parent.clone()))];
    tree.extend(vec![(attempt(caller, method), Some(call)); attempts]);
    tree.push((of(callee, SERVER, method), Some(attempt(caller, method))));
    tree
}

/// All calls of one purchase, of which HoldSeats took so many attempts and ConfirmHold so many.
fn purchase(holding: usize, confirming: usize) -> Tree {
    let root = of("tessera-cli", INTERNAL, "purchase");
    let mut expected = called("tessera-cli", &root, BUY, 1, "user-svc");
    expected.push((root, None));
    let bought = of("user-svc", SERVER, BUY);
    expected.extend(called("user-svc", &bought, HOLD, holding, "ticket-svc"));
    expected.extend(called("user-svc", &bought, CONFIRM, confirming, "ticket-svc"));
    expected.sort();
    expected
}

/// The spans of a trace's calls.
fn calls(spans: &[Span], trace_id: &str) -> Vec<Span> {
    let of_trace = spans.iter().filter(|span| span.trace_id == trace_id);
    let calls = of_trace.filter(|span| !span.attributes.contains_key("db.system.name"));
    calls.cloned().collect()
}

/// The calls of that trace, once they are these.
async fn has_calls(receiver: &otlp::Receiver, trace_id: &str, expected: &Tree) -> Vec<Span> {
    wait::until("the whole trace", || async {
        let spans = calls(&receiver.all(), trace_id);
        let found = tree(&spans);
        if found == *expected {
            Ok(spans)
        } else {
            Err(format!("{found:#?}"))
        }
    })
    .await
}

/// All calls of a purchase that has lost this attempt.
fn purchase_of(lost: &Span) -> Tree {
    match lost.name.trim_start_matches("Attempt.") {
        HOLD => purchase(2, 1),
        _ => purchase(1, 2),
    }
}

/// How many calls user-svc has under way with that instance.
async fn under_way(cluster: &Cluster, instance: &str) -> f64 {
    let metrics = e2e::scrape(&cluster.admins["user-1"]).await;
    let wanted = format!("instance=\"{instance}\"");
    let line = metrics
        .lines()
        .find(|line| line.starts_with("tessera_lb_in_flight{") && line.contains(&wanted));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0.0)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_nanos()).expect("before 2554")
}

/// Stops a process where it is, which takes a moment.
async fn freeze(process: &Process) {
    process.signal(Signal::STOP);
    let status = format!("/proc/{}/status", process.pid().as_raw_nonzero());
    wait::until("it to stand still", || async {
        let status = fs::read_to_string(&status).map_err(|error| error.to_string())?;
        if status.contains("State:\tT") {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
}

/// A cluster whose buyers were not disturbed by the death of ticket-1, and the attempt of user-svc that died with it.
pub(super) async fn killed_with_a_call_in_its_hands(receiver: &otlp::Receiver) -> (Cluster, Span) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("calls.json");
    let again = json!({ "methodConfig": [{
        "name": [{ "service": "tessera.ticket.v1.TicketService" }],
        "retryPolicy": {
            "maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    }]});
    fs::write(&config, again.to_string()).expect("written");
    let config = ("TESSERA_SERVICE_CONFIG", config.display().to_string());
    let mut cluster = cluster(receiver, vec![config]).await;

    // It hangs with a purchase in its hands, and then it dies: the one call that was certainly sent and never answered.
    let buyers = cluster.command(&["demo", "--buyers", "200", "--concurrency", "6", "--output", "json"]);
    wait::until("the first purchase", || async {
        let answered = receiver.all();
        match answered.iter().any(|span| span.kind == SERVER && span.name == CONFIRM) {
            true => Ok(()),
            false => Err("none yet"),
        }
    })
    .await;
    freeze(cluster.process("ticket-1")).await;
    wait::until("a call in its hands", || async {
        if under_way(&cluster, "ticket-1").await > 0.0 {
            Ok(())
        } else {
            Err("none yet")
        }
    })
    .await;
    cluster.kill("ticket-1").await;
    let demo = buyers.end().await.success().json();
    assert_eq!((&demo["sold"], &demo["failed"]), (&200.into(), &0.into()), "{demo:#}");

    let lost = wait::until("the attempt that was lost", || async {
        let spans = receiver.all();
        let is_lost = |span: &&Span| {
            span.name.starts_with("Attempt.")
                && span.resource["service.name"] == "user-svc"
                && span
                    .attributes
                    .get("tessera.peer.instance_id")
                    .is_some_and(|id| id == "ticket-1")
                && span.attributes["rpc.response.status_code"] == "UNAVAILABLE"
                // Not one that was given up before the kill, nor of a purchase of which ticket-1 took the spans with it.
                && tree(&calls(&spans, &span.trace_id)) == purchase_of(span)
        };
        spans.iter().find(is_lost).cloned().ok_or("none yet")
    })
    .await;
    (cluster, lost)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_instance_is_killed_shows_both_attempts_and_one_answer() {
    let receiver = otlp::Receiver::start().await;
    let (_cluster, lost) = killed_with_a_call_in_its_hands(&receiver).await;
    let spans = has_calls(&receiver, &lost.trace_id, &purchase_of(&lost)).await;
    let call = spans
        .iter()
        .find(|span| span.span_id == lost.parent_id)
        .expect("its call");
    assert_eq!(call.attributes["tessera.attempts"], "2", "{call:?}");
    assert_eq!(call.attributes["rpc.response.status_code"], "OK", "{call:?}");
    assert_ne!(call.status, 2, "it went well in the end: {call:?}");

    assert_eq!(lost.status, 2, "an error: {lost:?}");
    assert_eq!(lost.attributes["error.type"], "UNAVAILABLE", "{lost:?}");
    assert_eq!(lost.attributes["tessera.attempt"], "1", "{lost:?}");
    assert!(!lost.attributes.contains_key("tessera.attempt.kind"), "{lost:?}");
    assert!(
        spans.iter().all(|span| span.parent_id != lost.span_id),
        "whoever was killed tells nothing"
    );

    let second = spans
        .iter()
        .find(|span| span.parent_id == call.span_id && span.span_id != lost.span_id)
        .expect("a second attempt");
    assert_eq!(second.attributes["tessera.attempt"], "2", "{second:?}");
    assert_eq!(second.attributes["tessera.attempt.kind"], "retry", "{second:?}");
    assert_eq!(second.attributes["tessera.peer.instance_id"], "ticket-2", "{second:?}");
    assert_eq!(second.attributes["rpc.response.status_code"], "OK", "{second:?}");
    let answered: Vec<_> = spans.iter().filter(|span| span.parent_id == second.span_id).collect();
    assert_eq!(answered.len(), 1);
    assert_eq!(answered[0].resource["service.instance.id"], "ticket-2");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_purchase_is_at_an_instance_that_was_drained() {
    let receiver = otlp::Receiver::start().await;
    let cluster = cluster(&receiver, Vec::new()).await;
    // Both have been called, so that a connection and habit are not missing.
    cluster
        .tessera(&["demo", "--buyers", "20", "--concurrency", "4"])
        .await
        .success();
    let drained = cluster
        .tessera(&["drain", "ticket-svc/ticket-1", "--why", "a disk"])
        .await;
    drained.success();
    let since = now();
    let args = ["demo", "--buyers", "10", "--concurrency", "2", "--output", "json"];
    let demo = cluster.tessera(&args).await.success().json();
    let orders = demo["orders"].as_array().expect("orders");
    assert_eq!(orders.len(), 10, "{demo:#}");
    for order in orders {
        let trace_id = order["trace_id"].as_str().expect("a trace");
        let spans = has_calls(&receiver, trace_id, &purchase(1, 1)).await;
        for span in spans.iter().filter(|span| span.name.contains("TicketService/")) {
            let at = match span.kind {
                SERVER => &span.resource["service.instance.id"],
                // The balancer's span of a call names no instance, but the address of one.
                _ if !span.name.starts_with("Attempt.") => continue,
                _ => &span.attributes["tessera.peer.instance_id"],
            };
            assert_eq!(at, "ticket-2", "{span:?}");
        }
    }
    let late: Vec<_> = receiver
        .all()
        .into_iter()
        .filter(|span| {
            span.resource
                .get("service.instance.id")
                .is_some_and(|id| id == "ticket-1")
        })
        .filter(|span| span.kind == SERVER && span.began > since)
        .collect();
    assert!(late.is_empty(), "{late:#?}");
}
