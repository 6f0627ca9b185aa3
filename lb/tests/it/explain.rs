//! Whom a channel calls, and why not the others: asked, on a call's span, and as metrics.

use std::sync::Arc;

use registry_client::{Discovery, Endpoint, Instance, InstanceStatus, Snapshot};
use telemetry::testing::SpanData;
use tokio::sync::watch;

use crate::support::{ScriptedServer, TestServer, ask, channel_to, check, client, eventually, in_time, ready};

fn fed(service: &str, instances: impl IntoIterator<Item = Instance>) -> (watch::Sender<Arc<Snapshot>>, lb::Channel) {
    let (told, snapshots) = watch::channel(Arc::new(Snapshot::fresh(1, instances)));
    let channel = lb::Channel::builder(Discovery::fed_by(service, snapshots)).max_connections(1);
    (told, channel.build())
}

fn instance(id: &str, address: &str) -> Instance {
    Instance::new("s", id, address)
}

fn of(channel: &lb::Channel, id: &str) -> lb::InstanceView {
    let explanation = channel.explain();
    let found = explanation.instances.iter().find(|found| found.instance_id == id);
    found.unwrap_or_else(|| panic!("no {id} in\n{explanation}")).clone()
}

/// An address where nobody listens.
async fn nowhere() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound").to_string()
}

#[tokio::test]
async fn every_known_instance_is_a_candidate_or_has_a_reason() {
    let (server, narrow) = (TestServer::start(), TestServer::narrow(1));
    let secured = Instance {
        endpoints: vec![Endpoint {
            protocol: registry_client::Protocol::Grpcs,
            ..Endpoint::grpc("127.0.0.1:1")
        }],
        ..instance("secured", "127.0.0.1:1")
    };
    let (told, channel) = fed(
        "explained",
        [
            Instance {
                version: "1.2.3".to_owned(),
                zone: "a".to_owned(),
                weight: 70,
                ..instance("well", &server.addr())
            },
            Instance {
                tag: "gray".to_owned(),
                ..instance("gray", &server.addr())
            },
            instance("full", &narrow.addr()),
            instance("away", &nowhere().await),
            Instance {
                drained: true,
                tag: "blue".to_owned(),
                ..instance("drained", &server.addr())
            },
            Instance {
                status: InstanceStatus::Starting,
                ..instance("starting", &server.addr())
            },
            Instance {
                weight: 0,
                ..instance("weightless", &server.addr())
            },
            secured,
        ],
    );
    eventually("three are ready and one was tried", || {
        let tried = |id| of(&channel, id).last_error.is_some();
        ready(&channel) == 3 && tried("away")
    })
    .await;
    // Fills the one that allows one call at a time: whoever comes first goes to either, so both have one in the end.
    let mut streams = Vec::new();
    while of(&channel, "full").is_candidate() {
        streams.push(in_time(client(&channel).watch(ask(""))).await.expect("opened"));
    }

    let explanation = channel.explain();
    assert_eq!((explanation.known, explanation.candidates), (8, 1), "{explanation}");
    assert_eq!((&*explanation.target, &*explanation.policy), ("explained", "peak_ewma"));
    assert_eq!(explanation.discovery.revision, Some(1));
    let first = &explanation.instances[0];
    assert_eq!(
        (
            &*first.instance_id,
            &*first.version,
            &*first.zone,
            first.effective_weight
        ),
        ("well", "1.2.3", "a", Some(70))
    );
    assert_eq!((first.connections, first.weight), (1, 70));
    assert_eq!(of(&channel, "drained").tag, "blue");
    for (id, by, why) in [
        ("gray", lb::Filter::Route, "tagged \"gray\""),
        ("full", lb::Filter::Room, "1 calls under way"),
        ("away", lb::Filter::Connection, "refused"),
        ("drained", lb::Filter::Drain, "an operator"),
        ("starting", lb::Filter::Status, "STARTING"),
        ("weightless", lb::Filter::Weight, "no share"),
        ("secured", lb::Filter::Protocol, "with TLS only"),
    ] {
        let removed = of(&channel, id)
            .removed
            .unwrap_or_else(|| panic!("{id} is a candidate"));
        assert_eq!(removed.by, by, "{id}");
        assert!(removed.why.contains(why), "{id}: {}", removed.why);
    }

    // A call with the tag goes there and nowhere else.
    let mut headers = http::HeaderMap::new();
    headers.insert(lb::TAG_HEADER, http::HeaderValue::from_static("gray"));
    let tagged = channel.explain_call("/grpc.health.v1.Health/Check", &headers);
    let candidates = tagged.instances.iter().filter(|instance| instance.is_candidate());
    let candidates: Vec<&str> = candidates.map(|instance| &*instance.instance_id).collect();
    assert_eq!((candidates, &*tagged.route), (vec!["gray"], "the tag \"gray\""));

    // The page has the same, read as anybody would.
    let page: serde_json::Value = serde_json::from_str(&lb::live_page()).expect("JSON");
    let channels = page["channels"].as_array().expect("channels");
    let shown = channels.iter().find(|shown| shown["target"] == "explained");
    let shown: lb::Explanation = serde_json::from_value(shown.expect("it is open").clone()).expect("an explanation");
    assert_eq!(shown.instances.len(), 8);

    // One that goes finishes its calls, and says so.
    let gone = Snapshot::fresh(2, [instance("well", &server.addr())]);
    told.send(Arc::new(gone)).expect("watched");
    eventually("it leaves", || {
        of(&channel, "full")
            .removed
            .is_some_and(|removed| removed.by == lb::Filter::Removal)
    })
    .await;
    drop(streams);
    channel.close().await;
    drop(channel);
    assert!(
        !lb::live_page().contains("\"explained\""),
        "a channel that is gone is not shown"
    );
}

fn event<'a>(span: &'a SpanData, key: &str) -> Vec<&'a telemetry::KeyValue> {
    let picks = span.events.iter().filter(|event| event.name == "lb.pick");
    picks
        .flat_map(|event| {
            event
                .attributes
                .iter()
                .filter(|attribute| attribute.key.as_str() == key)
        })
        .collect()
}

#[tokio::test]
async fn a_recorded_call_says_why_it_went_where_it_went() {
    let spans = telemetry::testing::install_in_memory();
    let server = TestServer::start();
    let (_told, channel) = fed(
        "noted",
        [
            instance("chosen", &server.addr()),
            Instance {
                drained: true,
                ..instance("drained", &server.addr())
            },
        ],
    );
    channel.ready(crate::support::PATIENCE).await.expect("ready");
    check(&channel).await.expect("answered");
    let parent = server.seen.metadata("traceparent").expect("traced");
    let trace = spans.of_trace(parent.split('-').nth(1).expect("a trace id"));
    let call = trace.iter().find(|span| span.name == "grpc.health.v1.Health/Check");
    let call = call.expect("the call's span");
    let said = |key| -> Vec<String> { event(call, key).iter().map(|found| found.value.to_string()).collect() };
    assert_eq!(said("tessera.lb.chosen"), ["chosen"]);
    assert_eq!(said("tessera.lb.policy"), ["peak_ewma"]);
    assert_eq!(said("tessera.lb.candidates"), ["1"]);
    let considered = said("tessera.lb.considered");
    assert!(
        considered[0].starts_with("chosen weight 100, 0 in flight"),
        "{considered:?}"
    );
    assert_eq!(said("tessera.lb.compared"), [""], "there was no choice");
    assert_eq!(said("tessera.lb.removed"), ["1 drained (drained)"]);
}

#[tokio::test]
async fn a_recorded_call_says_what_it_would_have_cost_elsewhere() {
    let spans = telemetry::testing::install_in_memory();
    let servers = [TestServer::start(), TestServer::start()];
    let (_told, channel) = fed(
        "compared",
        [
            instance("one", &servers[0].addr()),
            instance("other", &servers[1].addr()),
        ],
    );
    eventually("both are ready", || ready(&channel) == 2).await;
    let mut compared = Vec::new();
    for _ in 0..6 {
        let by = check(&channel).await.expect("answered");
        let server = servers.iter().find(|server| server.addr() == by).expect("one of them");
        let parent = server.seen.metadata("traceparent").expect("traced");
        let trace = spans.of_trace(parent.split('-').nth(1).expect("a trace id"));
        let call = trace.iter().find(|span| span.name == "grpc.health.v1.Health/Check");
        let found = event(call.expect("the call's span"), "tessera.lb.compared");
        compared.extend(found.iter().map(|found| found.value.to_string()));
    }
    assert_eq!(compared.len(), 6);
    for text in compared {
        let parts: Vec<&str> = text.split("; ").collect();
        assert!(
            parts.len() == 2 && parts.iter().all(|part| part.ends_with(" ms")),
            "{text}"
        );
        assert!(text.contains("one ") && text.contains("other "), "{text}");
    }
}

#[tokio::test]
async fn a_scrape_shows_each_instance_and_forgets_who_is_gone() {
    let (refuser, server) = (
        ScriptedServer::start(|_, mut connection| async move {
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
        })
        .await,
        TestServer::start(),
    );
    let drained = Instance {
        drained: true,
        ..instance("drained", "127.0.0.1:1")
    };
    let (told, channel) = fed(
        "scraped",
        [
            instance("refuser", &refuser.addr()),
            instance("server", &server.addr()),
            drained,
        ],
    );
    eventually("both are ready", || ready(&channel) == 2).await;
    let retried = r#"tessera_lb_retries_total{target="scraped",instance="refuser",reason="refused"} "#;
    eventually_async("a call has met the refuser", || async {
        check(&channel).await.expect("answered");
        telemetry::metrics::encode().contains(retried)
    })
    .await;
    let calls = server.seen.calls();
    let refused: usize = value(retried);
    let served = r#"tessera_lb_attempts_total{target="scraped",instance="server",outcome="served"} "#;
    eventually("every call is counted once, however often it is scraped", || {
        value::<usize>(served) == calls
    })
    .await;
    let requests = |id: &str| {
        value::<usize>(&format!(
            r#"tessera_lb_requests_total{{target="scraped",instance="{id}"}} "#
        ))
    };
    assert_eq!(requests("server"), calls - refused, "the others came from the refuser");
    assert_eq!(requests("refuser"), refused);
    let size = |state: &str| value::<f64>(&format!(r#"tessera_lb_pool_size{{target="scraped",state="{state}"}} "#));
    assert_eq!((size("ready"), size("passed_over"), size("draining")), (2.0, 1.0, 0.0));
    assert_eq!(
        value::<f64>(r#"tessera_lb_in_flight{target="scraped",instance="server"} "#),
        0.0
    );

    let left = Snapshot::fresh(2, [instance("server", &server.addr())]);
    told.send(Arc::new(left)).expect("watched");
    eventually("the refuser is gone", || channel.endpoints().len() == 1).await;
    let text = telemetry::metrics::encode();
    assert!(!text.contains(r#"target="scraped",instance="refuser""#), "{text}");
    assert!(text.contains(served), "{text}");
}

#[tokio::test]
async fn how_long_calls_wait_for_somebody_is_measured() {
    let channel = lb::Channel::builder(lb::Target::fixed([nowhere().await]).expect("an address"))
        .ready_timeout(std::time::Duration::from_millis(1))
        .build();
    check(&channel).await.expect_err("nobody is there");
    let target = channel.service();
    let waits = format!(r#"tessera_lb_ready_wait_seconds_count{{target="{target}"}} "#);
    assert_eq!(value::<usize>(&waits), 1);
    // Of who is there at once, nobody waits.
    let server = TestServer::start();
    let channel = channel_to(&[server.addr()]).await;
    check(&channel).await.expect("answered");
    let waits = format!(
        r#"tessera_lb_ready_wait_seconds_count{{target="{}"}} "#,
        channel.service()
    );
    assert!(!telemetry::metrics::encode().contains(&waits));
}

/// The number of a series, as a scrape shows it.
fn value<T: std::str::FromStr>(series: &str) -> T {
    let text = telemetry::metrics::encode();
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    let value = line.and_then(|value| value.split(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

async fn eventually_async<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + crate::support::PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
    }
}
