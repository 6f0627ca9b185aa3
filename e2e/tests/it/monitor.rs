//! The monitor centre over real processes: what was called is what it tells, whatever becomes of it meanwhile.

use e2e::{Cluster, ClusterOptions, scrape, wait};
use proto::ticket::v1::{GetEventRequest, ListEventsRequest, ticket_service_client::TicketServiceClient};
use serde_json::Value;
use tonic::Code;

const LIST: &str = "tessera.ticket.v1.TicketService/ListEvents";
const GET: &str = "tessera.ticket.v1.TicketService/GetEvent";

/// Two ticket services, a user service and a monitor; all report every second.
async fn start() -> Cluster {
    let mut cluster = Cluster::with(ClusterOptions {
        tickets: 2,
        env: vec![("TESSERA_MONITOR_INTERVAL", "1s".to_owned())],
        ..ClusterOptions::default()
    })
    .await;
    cluster.start_console().await;
    cluster
}

fn client(cluster: &Cluster) -> TicketServiceClient<lb::Channel> {
    let target = lb::Target::fixed(cluster.tickets.values()).expect("addresses");
    TicketServiceClient::new(lb::Channel::builder(target).build())
}

async fn list(client: &mut TicketServiceClient<lb::Channel>, times: usize) {
    for _ in 0..times {
        client
            .list_events(ListEventsRequest::default())
            .await
            .expect("answered");
    }
}

/// What `tessera stats` tells in total of the selected calls of ticket-svc.
async fn stats(cluster: &Cluster, more: &[&str]) -> Vec<Value> {
    let args = ["stats", "ticket-svc", "--since", "10m", "--output", "json"];
    let args: Vec<&str> = args.iter().chain(more).copied().collect();
    let told = cluster.tessera(&args).await.success().json();
    told["series"].as_array().expect("series").clone()
}

async fn calls(cluster: &Cluster, more: &[&str]) -> u64 {
    let series = stats(cluster, more).await;
    series
        .iter()
        .filter_map(|series| series["total"]["calls"].as_u64())
        .sum()
}

async fn until_calls(cluster: &Cluster, more: &[&str], expected: u64) {
    wait::until("the exact count", || async {
        match calls(cluster, more).await {
            calls if calls == expected => Ok(()),
            calls => Err(format!("{calls} instead of {expected} of {more:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_called_is_what_is_told() {
    let cluster = start().await;
    let mut client = client(&cluster);
    list(&mut client, 300).await;
    for _ in 0..20 {
        let unknown = GetEventRequest {
            event_id: "00000000-0000-4000-8000-000000000000".to_owned(),
        };
        let refused = client.get_event(unknown).await.expect_err("there is none");
        assert_eq!(refused.code(), Code::NotFound);
    }
    until_calls(&cluster, &["--method", LIST], 300).await;
    until_calls(&cluster, &["--method", GET], 20).await;

    let get = stats(&cluster, &["--method", GET]).await.remove(0);
    assert_eq!(get["total"]["codes"], serde_json::json!({ "NOT_FOUND": 20 }), "{get:#}");
    assert_eq!(get["total"]["errors"], 0, "a provider is not to blame for it: {get:#}");
    let points = get["points"].as_array().expect("points");
    let summed: u64 = points.iter().filter_map(|point| point["calls"].as_u64()).sum();
    assert_eq!(summed, 20);
    let by_instance = stats(&cluster, &["--method", LIST, "--by", "instance"]).await;
    let names: Vec<&str> = by_instance
        .iter()
        .filter_map(|series| series["instance"].as_str())
        .collect();
    assert_eq!(names, ["ticket-1", "ticket-2"]);
    for series in &by_instance {
        let latency = &series["total"]["latency_ms"];
        let (p50, p99) = (latency["p50"].as_f64(), latency["p99"].as_f64());
        assert!(p50 > Some(0.0) && p50 <= p99, "{series:#}");
    }

    // A purchase: who calls whom, and both ends tell the same.
    cluster.tessera(&["demo"]).await.success();
    let bought = wait::until("both ends to agree", || async {
        let attempts = calls(&cluster, &["--side", "attempt", "--caller", "user-svc"]).await;
        let answered = calls(&cluster, &["--caller", "user-svc"]).await;
        match attempts == answered && answered > 0 {
            true => Ok(answered),
            false => Err(format!("{attempts} attempts, {answered} answered")),
        }
    })
    .await;
    // The demo has looked at events as well.
    let got = calls_of_metric(&cluster, GET).await;
    let top = ["top", "--once", "--window", "10m", "--output", "json"];
    wait::until("the top of all methods", || async {
        let told = cluster.tessera(&top).await.success().json();
        let calls = |kind: &str, names: &[(&str, &str)]| {
            let rows = told[kind].as_array().cloned().unwrap_or_default();
            let row = rows
                .into_iter()
                .find(|row| names.iter().all(|(key, name)| row[*key] == *name));
            row.and_then(|row| row["calls"].as_u64()).unwrap_or(0)
        };
        let method = calls("methods", &[("service", "ticket-svc"), ("method", GET)]);
        let edge = calls(
            "dependencies",
            &[("caller", "user-svc"), ("callee", "ticket-svc"), ("side", "caller")],
        );
        // Whoever reports nothing has a name all the same: a command, and a service that calls the registry.
        let named = [("tessera-cli", "user-svc"), ("user-svc", "registry-svc")].map(|(caller, callee)| {
            let names = [("caller", caller), ("callee", callee), ("side", "provider")];
            calls("dependencies", &names)
        });
        match (method, edge) {
            (method, edge) if method == got && edge == bought && !named.contains(&0) => Ok(()),
            _ => Err(format!(
                "{method} of {got} of {GET}, {edge} of {bought} purchases' calls, named {named:?}: {told}"
            )),
        }
    })
    .await;
    let people = cluster
        .tessera(&["top", "--once", "--window", "10m"])
        .await
        .success()
        .stdout;
    assert!(
        people.contains("TicketService/ListEvents") && people.contains('→'),
        "{people}"
    );
    let people = cluster
        .tessera(&["stats", "ticket-svc", "--by", "method"])
        .await
        .success()
        .stdout;
    assert!(people.contains(LIST), "{people}");
}

/// Nothing that it had answered is lost by a kill, what it missed waits for it, and no call notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_is_killed_loses_nothing_and_nobody_waits_for_it() {
    let mut cluster = start().await;
    let mut client = client(&cluster);
    list(&mut client, 100).await;
    until_calls(&cluster, &["--method", LIST], 100).await;

    cluster.kill("console").await;
    list(&mut client, 100).await;
    cluster.tessera(&["demo"]).await.success();
    let said = |cluster: &Cluster, words: &str| {
        let stderr = cluster.process("ticket-1").stderr();
        stderr.lines().filter(|line| line.contains(words)).count()
    };
    wait::until("the loss to be told", || async {
        list(&mut client.clone(), 1).await;
        match said(&cluster, "the monitor is away") {
            1 => Ok(()),
            times => Err(format!("told {times} times")),
        }
    })
    .await;
    let before = calls_of_metric(&cluster, LIST).await;
    cluster.start_console().await;
    until_calls(&cluster, &["--method", LIST], before).await;
    assert_eq!(said(&cluster, "the monitor is back"), 1);
    assert_eq!(said(&cluster, "the monitor is away"), 1);
}

/// How many calls of a method both ticket services have answered, by their own metrics.
async fn calls_of_metric(cluster: &Cluster, method: &str) -> u64 {
    let mut sum = 0;
    for name in ["ticket-1", "ticket-2"] {
        let text = scrape(&cluster.admins[name]).await;
        let wanted = format!("rpc_server_call_duration_seconds_count{{rpc_method=\"{method}\"");
        let counts = text.lines().filter(|line| line.starts_with(&wanted));
        sum += counts
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    sum
}
