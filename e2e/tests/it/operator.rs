//! The operator's commands against a running cluster, for people and for machines.

use e2e::{Cluster, wait};

#[tokio::test(flavor = "multi_thread")]
async fn services_and_instances_are_listed_for_people_and_machines() {
    let cluster = Cluster::start().await;
    let services = cluster.tessera(&["services"]).await.success().stdout;
    assert!(
        services.contains("ticket-svc") && services.contains("user-svc"),
        "{services}"
    );

    let instances = cluster.tessera(&["instances", "ticket-svc"]).await.success().stdout;
    for (name, address) in &cluster.tickets {
        assert!(instances.contains(name) && instances.contains(address), "{instances}");
    }
    let json = cluster
        .tessera(&["instances", "ticket-svc", "--output", "json"])
        .await
        .success()
        .json();
    assert_eq!(json["instances"].as_array().map(Vec::len), Some(3), "{json:#}");

    // Of a service that nobody registered: an answer that says what there is.
    let none = cluster.tessera(&["instances", "tickets"]).await;
    assert_ne!(none.code(), 2, "a well-formed question: {}", none.stderr);
    assert!(none.stderr.contains("ticket-svc"), "{}", none.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn call_goes_through_discovery_with_reflection() {
    let cluster = Cluster::start().await;
    let list = "tessera.ticket.v1.TicketService/ListEvents";
    let events = cluster
        .tessera(&["call", "ticket-svc", list, "{}"])
        .await
        .success()
        .json();
    let event = &events["events"][0];
    assert!(event["title"].is_string(), "{events:#}");

    let body = format!(r#"{{"eventId": {}, "pageSize": 5}}"#, event["id"]);
    let seats = cluster
        .tessera(&["call", "ticket-svc", "tessera.ticket.v1.TicketService/ListSeats", &body])
        .await;
    assert_eq!(seats.success().json()["seats"].as_array().map(Vec::len), Some(5));

    // 64 + NOT_FOUND.
    let missing = r#"{"eventId":"00000000-0000-4000-8000-000000000000"}"#;
    let none = cluster
        .tessera(&[
            "call",
            "ticket-svc",
            "tessera.ticket.v1.TicketService/GetEvent",
            missing,
        ])
        .await;
    assert_eq!(none.code(), 69, "{}", none.stderr);
    assert!(none.stderr.contains("EVENT_UNKNOWN"), "{}", none.stderr);

    let typo = cluster
        .tessera(&["call", "ticket-svc", "tessera.ticket.v1.TicketService/ListEvent", "{}"])
        .await;
    assert!(
        typo.code() != 0 && typo.stderr.contains("ListEvents"),
        "what there is: {}",
        typo.stderr
    );
    let typo = cluster.tessera(&["call", "tickets", list, "{}"]).await;
    assert!(
        typo.code() != 0 && typo.stderr.contains("ticket-svc"),
        "what there is: {}",
        typo.stderr
    );
    let typo = cluster
        .tessera(&["call", "ticket-svc", list, r#"{"pageSise": 5}"#])
        .await;
    assert!(
        typo.code() != 0 && typo.stderr.contains("pageSise"),
        "which field: {}",
        typo.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_prints_a_line_for_each_change() {
    let mut cluster = Cluster::start().await;
    let mut watch = cluster.command(&["watch", "ticket-svc", "--output", "json"]);
    watch
        .line("the snapshot", |line| line.contains("snapshot").then_some(()))
        .await;
    cluster.stop("ticket-1").await.success();
    watch
        .line("the drain", |line| {
            (line.contains("ticket-1") && line.contains("DRAINING")).then_some(())
        })
        .await;
    watch
        .line("the removal", |line| {
            (line.contains("ticket-1") && line.contains("DRAINED")).then_some(())
        })
        .await;
    for line in watch.stdout().lines() {
        assert!(
            serde_json::from_str::<serde_json::Value>(line).is_ok(),
            "one document a line: {line}"
        );
    }
    watch.signal(rustix::process::Signal::INT);
    assert_eq!(watch.end().await.code(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_tells_serving_from_away() {
    let mut cluster = Cluster::start().await;
    for address in [&cluster.registry, &cluster.user] {
        e2e::run(["healthcheck", address]).await.success();
    }
    let service = ["healthcheck", &cluster.user, "--service", "tessera.user.v1.UserService"];
    e2e::run(service).await.success();
    let address = cluster.user.clone();
    cluster.stop("user-1").await.success();
    let away = e2e::run(["healthcheck", &address]).await;
    assert_eq!(away.code(), 1);
    assert_eq!(away.stderr.lines().count(), 1, "{}", away.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_ports_tell_health_and_metrics() {
    let cluster = Cluster::start().await;
    assert!(
        http_get(&cluster.registry_admin, "/healthz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let metrics = wait::until("the metrics of a registration", || async {
        let text = http_get(&cluster.registry_admin, "/metrics").await;
        if text.contains("rpc_server_call_duration") {
            Ok(text)
        } else {
            Err(text)
        }
    })
    .await;
    assert!(metrics.contains("Register"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_instance_is_called_by_nobody_until_it_is_undrained() {
    let cluster = Cluster::start().await;
    let drained = [
        "drain",
        "ticket-svc/ticket-1",
        "--why",
        "a slow disk",
        "--output",
        "json",
    ];
    let ended = cluster.tessera(&drained).await.success();
    assert!(
        ended.stdout.contains(r#""unacknowledged_watch_ids":[]"#),
        "{}",
        ended.stdout
    );
    let listed = cluster.tessera(&["instances", "ticket-svc"]).await;
    assert!(listed.stdout.contains("UP (drained by cli)"), "{}", listed.stdout);
    cluster.tessera(&["undrain", "ticket-svc/ticket-1"]).await.success();
    let listed = cluster.tessera(&["instances", "ticket-svc"]).await;
    assert!(!listed.stdout.contains("drained"), "{}", listed.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weight_is_laid_over_an_instance_and_taken_away() {
    let cluster = Cluster::start().await;
    cluster.tessera(&["weight", "ticket-svc/ticket-1", "5"]).await.success();
    let listed = cluster.tessera(&["instances", "ticket-svc"]).await;
    assert!(listed.stdout.contains("5 (by cli)"), "{}", listed.stdout);
    cluster
        .tessera(&["weight", "ticket-svc/ticket-1", "own"])
        .await
        .success();
    let told = cluster.tessera(&["explain", "ticket-svc/ticket-1"]).await;
    let steps: Vec<&str> = told.stdout.lines().filter(|line| line.contains("WEIGHT_SET")).collect();
    assert_eq!(steps.len(), 2, "{}", told.stdout);
    assert!(
        steps.iter().all(|line| line.contains("cli from 127.0.0.1:")),
        "{}",
        told.stdout
    );
    assert!(told.stdout.contains("REGISTERED"), "{}", told.stdout);
    let unknown = cluster.tessera(&["undrain", "ticket-svc/nobody"]).await;
    assert_eq!(unknown.code(), 64 + 5, "{}", unknown.stderr);
}

async fn http_get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("the admin port listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer
}
