//! One purchase is one trace: from the command line through user-svc and the balancer to ticket-svc.

use std::collections::BTreeMap;

use e2e::{Cluster, ClusterOptions, otlp, wait};

const SERVER: i32 = 2;
const CLIENT: i32 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn one_purchase_is_one_trace_with_the_right_parents() {
    let receiver = otlp::Receiver::start().await;
    let env = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint.clone()),
        // Spans leave every 100 ms instead of 5 s: the test waits for them.
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
    ];
    let cluster = Cluster::with(ClusterOptions {
        env,
        ..ClusterOptions::default()
    })
    .await;
    let demo = cluster.tessera(&["demo", "--output", "json"]).await.success().json();
    let order = &demo["orders"][0];
    assert_eq!(order["state"], "SUCCEEDED", "{demo:#}");
    let trace_id = order["trace_id"].as_str().expect("a trace id").to_owned();
    let url = format!("http://localhost:16686/trace/{trace_id}");
    assert_eq!(order["trace_url"], url.as_str(), "where Jaeger shows it");

    let buy = "tessera.user.v1.UserService/BuyTicket";
    let steps = [
        "tessera.ticket.v1.TicketService/HoldSeats",
        "tessera.ticket.v1.TicketService/ConfirmHold",
    ];
    let spans = wait::until("the whole trace", || async {
        let spans = receiver.trace(&trace_id);
        let servers = spans.iter().filter(|span| span.kind == SERVER);
        let names: Vec<&str> = servers.map(|span| span.name.as_str()).collect();
        if names.contains(&buy) && steps.iter().all(|step| names.contains(step)) {
            Ok(spans)
        } else {
            Err(format!("{names:?}"))
        }
    })
    .await;

    let by_id: BTreeMap<&str, &otlp::Span> = spans.iter().map(|span| (span.span_id.as_str(), span)).collect();
    let ancestors = |span: &otlp::Span| {
        let mut line = Vec::new();
        let mut next = by_id.get(span.parent_id.as_str());
        while let Some(span) = next {
            line.push((span.kind, span.name.clone(), span.resource["service.name"].clone()));
            next = by_id.get(span.parent_id.as_str());
        }
        line
    };
    let is = |(kind, name, service): &(i32, String, String), wanted_kind, wanted_name: &str, wanted_service: &str| {
        // gRFC A72 puts "Attempt." before the method in the name of an attempt.
        *kind == wanted_kind && name.ends_with(wanted_name) && service == wanted_service
    };

    let server = spans
        .iter()
        .find(|span| span.kind == SERVER && span.name == buy)
        .expect("BuyTicket");
    assert_eq!(server.resource["service.name"], "user-svc");
    assert_eq!(server.resource["service.instance.id"], "user-1");
    assert!(
        ancestors(server)
            .iter()
            .any(|span| is(span, CLIENT, buy, "tessera-cli")),
        "{:?}",
        ancestors(server)
    );

    for step in steps {
        let server = spans
            .iter()
            .find(|span| span.kind == SERVER && span.name == step)
            .expect("a step of the purchase");
        assert_eq!(server.resource["service.name"], "ticket-svc");
        assert!(
            server.resource["service.instance.id"].starts_with("ticket-"),
            "{server:?}"
        );
        assert_eq!(server.attributes["rpc.response.status_code"], "OK");
        assert_ne!(server.status, 2, "no error: {server:?}");
        let line = ancestors(server);
        // Attempt and call span of the balancer, then the purchase in user-svc, then the command line.
        assert!(
            is(&line[0], CLIENT, step, "user-svc"),
            "{step} was called by an attempt: {line:?}"
        );
        assert!(
            line.iter().any(|span| is(span, SERVER, buy, "user-svc")),
            "{step} belongs to the purchase: {line:?}"
        );
        let attempt = by_id[server.parent_id.as_str()];
        assert!(attempt.attributes.contains_key("network.peer.address"), "{attempt:?}");
        let call = by_id[attempt.parent_id.as_str()];
        assert_eq!(call.attributes["server.address"], "ticket-svc", "{call:?}");
    }

    let orphans: Vec<_> = spans
        .iter()
        .filter(|span| !span.parent_id.is_empty() && !by_id.contains_key(span.parent_id.as_str()))
        .map(|span| (&span.name, span.kind, &span.resource["service.name"]))
        .collect();
    wait::until("every parent to arrive", || async {
        let spans = receiver.trace(&trace_id);
        let missing = spans
            .iter()
            .filter(|span| !span.parent_id.is_empty() && !spans.iter().any(|other| other.span_id == span.parent_id))
            .count();
        if missing == 0 {
            Ok(())
        } else {
            Err(format!("{missing} without a parent, first seen {orphans:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_endpoint_nothing_is_said_about_traces_and_ids_still_travel() {
    let cluster = Cluster::start().await;
    let demo = cluster.tessera(&["demo", "--output", "json"]).await.success();
    let trace_id = demo.json()["orders"][0]["trace_id"]
        .as_str()
        .expect("a trace id")
        .to_owned();
    assert_eq!(trace_id.len(), 32);
    assert_ne!(trace_id, "0".repeat(32));
    for name in ["registry", "user-1", "ticket-1"] {
        let said = cluster.process(name).stderr().to_lowercase();
        assert!(
            !said.contains("otlp") && !said.contains("export"),
            "{name} says: {said}"
        );
    }
}

/// A collector that is away costs nothing but its spans: no call fails, and the log says so once.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_disturbs_nobody() {
    let env = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
    ];
    let mut cluster = Cluster::with(ClusterOptions {
        env,
        ..ClusterOptions::default()
    })
    .await;
    cluster
        .tessera(&["demo", "--buyers", "20", "--concurrency", "4"])
        .await
        .success();
    let ended = cluster.stop("user-1").await.success();
    let lines = ended
        .stderr
        .lines()
        .filter(|line| line.to_lowercase().contains("export"))
        .count();
    assert!(lines <= 2, "the outage is told, not repeated:\n{}", ended.stderr);
}
