//! Whoever stops waits until its callers know, and no call is lost by it.
//!
//! Real processes, called through `lb` and watched as others watch: by the user service's balancer, and by clients that never
//! acknowledge anything. The patience of the drains is five minutes, more than any test has: a drain that ends was acknowledged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use e2e::{
    Cluster, ClusterOptions,
    registry::RegistryProcess,
    trial::{Need, Trial},
    wait,
};
use proto::{
    registry::v1::{self as wire, registry_service_client::RegistryServiceClient},
    ticket::v1::{ListEventsRequest, ticket_service_client::TicketServiceClient},
};
use rustix::process::Signal;
use tokio::task::JoinSet;
use tonic::Streaming;

/// A cluster whose providers wait for so long.
async fn cluster(patience: &str) -> Cluster {
    let flags = ["--heartbeat-interval", "500ms", "--drain-linger", patience];
    Cluster::with(ClusterOptions {
        provider_flags: flags.map(String::from).to_vec(),
        ..ClusterOptions::default()
    })
    .await
}

/// Calls ticket-svc through the balancer until it is told to stop.
struct Callers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: JoinSet<Vec<String>>,
}

impl Callers {
    fn start(channel: &lb::Channel) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let mut client = TicketServiceClient::new(channel.clone());
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            tasks.spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match client.list_events(ListEventsRequest::default()).await {
                        Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(status) => failures.push(status.to_string()),
                    }
                    // The pace of the load, not a wait for anything.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                failures
            });
        }
        Self { stop, answered, tasks }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits for so many more answers.
    async fn go_on(&self, more: u64) {
        let goal = self.answered() + more;
        wait::until("answers", || async {
            match self.answered() {
                answered if answered >= goal => Ok(()),
                answered => Err(format!("{answered} of {goal}")),
            }
        })
        .await;
    }

    /// Stops; all that failed.
    async fn end(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            failures.extend(ended.expect("no panic"));
        }
        failures
    }
}

async fn ready(channel: &lb::Channel, expected: usize) {
    wait::until("ready endpoints", || async {
        let endpoints = channel.endpoints();
        let is_ready = |view: &&lb::EndpointView| view.state == lb::EndpointState::Ready;
        match endpoints.iter().filter(is_ready).count() {
            ready if ready == expected => Ok(()),
            _ => Err(format!("{endpoints:?}")),
        }
    })
    .await;
}

/// Fails unless the log has these words, in this order.
fn in_order(log: &str, words: &[&str]) {
    let mut rest = log;
    for word in words {
        let at = rest
            .find(word)
            .unwrap_or_else(|| panic!("{word:?} is not there, or not in this order:\n{log}"));
        rest = &rest[at + word.len()..];
    }
}

/// Row 30 of the fault plan. With a fixed linger instead of acknowledgements, calls were lost wherever a caller was slower than
/// somebody had guessed, and every stop took as long as the guess.
#[tokio::test(flavor = "multi_thread")]
async fn rolling_restart() {
    let mut cluster = cluster("300s").await;
    let registry = registry_client::Registry::connect([&cluster.registry]).expect("an address");
    let channel = lb::Channel::builder(registry.discover("ticket-svc")).build();
    ready(&channel, 3).await;
    let callers = Callers::start(&channel);
    callers.go_on(200).await;
    for name in ["ticket-1", "ticket-2", "ticket-3"] {
        let address = cluster.tickets[name].clone();
        let log = cluster.stop(name).await.success().stderr;
        in_order(
            &log,
            &[
                "NOT_SERVING",
                "DRAINING in the registry",
                "acknowledged: no watcher calls this instance any more",
                "GOAWAY",
                "left the registry",
                "DRAINED",
            ],
        );
        callers.go_on(100).await;
        cluster.start_ticket(name, &address).await;
        ready(&channel, 3).await;
        callers.go_on(100).await;
    }
    let answered = callers.answered();
    let failures = callers.end().await;
    assert!(
        failures.is_empty(),
        "{} of {answered}: {:?}",
        failures.len(),
        failures.first()
    );
}

/// A watch of ticket-svc by a client that reads and never acknowledges, as grpcurl does; and its name.
async fn silent_watch(cluster: &Cluster) -> (Streaming<wire::WatchResponse>, String) {
    let endpoint = format!("http://{}", cluster.registry);
    let mut client = RegistryServiceClient::connect(endpoint).await.expect("it listens");
    let request = wire::WatchRequest {
        service: "ticket-svc".into(),
        ..Default::default()
    };
    let mut watch = client.watch(request).await.expect("watches").into_inner();
    let first = watch.message().await.expect("no error").expect("a snapshot");
    (watch, first.watch_id)
}

/// Nothing is made up for a client that never acknowledges: it is waited for, and when patience ends it is named.
#[tokio::test(flavor = "multi_thread")]
async fn who_never_acknowledges_is_named_when_patience_ends() {
    let mut cluster = cluster("1s").await;
    let (_watch, watch_id) = silent_watch(&cluster).await;
    let log = cluster.stop("ticket-1").await.success().stderr;
    in_order(
        &log,
        &[
            "DRAINING in the registry",
            "not acknowledged by all",
            &watch_id,
            "GOAWAY",
        ],
    );
}

/// The end of a watch is an answer too: who has gone calls nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_ends_is_not_waited_for() {
    let mut cluster = cluster("300s").await;
    let (watch, _) = silent_watch(&cluster).await;
    cluster.process("ticket-1").signal(Signal::TERM);
    wait::until("the drain to begin", || async {
        let shown = cluster.tessera(&["instances", "ticket-svc"]).await.success().stdout;
        if shown.contains("DRAINING") { Ok(()) } else { Err(shown) }
    })
    .await;
    drop(watch);
    let log = cluster.ended("ticket-1").await.success().stderr;
    in_order(&log, &["acknowledged: no watcher", "GOAWAY"]);
}

/// A stopped process still accepts what it is sent, and HTTP/2 takes it for sent: it has applied nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_watcher_is_waited_for_and_named() {
    let mut cluster = cluster("1s").await;
    // Its balancer watches ticket-svc from its start.
    cluster.process("user-1").signal(Signal::STOP);
    let log = cluster.stop("ticket-1").await.success().stderr;
    cluster.process("user-1").signal(Signal::CONT);
    in_order(
        &log,
        &["DRAINING in the registry", "1 watches have not acknowledged", "GOAWAY"],
    );
    // It hears of it when it goes on, and calls the others.
    cluster.tessera(&["demo"]).await.success();
}

/// What `tessera drain` answers.
async fn drain(cluster: &Cluster, more: &[&str]) -> serde_json::Value {
    let args = ["drain", "ticket-svc/ticket-1", "--output", "json"];
    let args: Vec<&str> = args.iter().chain(more).copied().collect();
    cluster.tessera(&args).await.success().json()
}

/// An operator's drain is the same promise as a stop: when it is answered, nobody calls the instance.
#[tokio::test(flavor = "multi_thread")]
async fn an_operators_drain_is_answered_when_every_caller_knows() {
    let cluster = cluster("300s").await;
    let registry = registry_client::Registry::connect([&cluster.registry]).expect("an address");
    let channel = lb::Channel::builder(registry.discover("ticket-svc")).build();
    ready(&channel, 3).await;
    let callers = Callers::start(&channel);
    callers.go_on(200).await;

    let (watch, watch_id) = silent_watch(&cluster).await;
    let answer = drain(&cluster, &["--ack-timeout", "1s"]).await;
    assert_eq!(
        answer["unacknowledged_watch_ids"],
        serde_json::json!([watch_id]),
        "{answer:#}"
    );
    assert!(
        channel
            .endpoints()
            .iter()
            .all(|view| &*view.instance_id != "ticket-1" || view.state != lb::EndpointState::Ready),
        "the balancer has acknowledged it: {:?}",
        channel.endpoints()
    );
    drop(watch);
    // More patience than the test has: it ends with the last acknowledgement.
    let answer = drain(&cluster, &["--ack-timeout", "5m"]).await;
    assert_eq!(answer["unacknowledged_watch_ids"], serde_json::json!([]), "{answer:#}");
    callers.go_on(100).await;
    cluster.tessera(&["undrain", "ticket-svc/ticket-1"]).await.success();
    ready(&channel, 3).await;
    let failures = callers.end().await;
    assert!(failures.is_empty(), "{failures:?}");
}

/// Each replica knows its own watches. Asked alone, it names the other one and claims nothing for it; both together know all.
#[tokio::test(flavor = "multi_thread")]
async fn over_etcd_the_watchers_of_all_replicas_are_waited_for() {
    let name = "over_etcd_the_watchers_of_all_replicas_are_waited_for";
    let Some(_trial) = Trial::with(name, &[Need::Tool("etcd")]).await else {
        return;
    };
    let etcd = e2e::etcd::Cluster::start(1).await;
    let url = etcd.url();
    let flags = ["--store", url.as_str()];
    let (one, two) = (RegistryProcess::with(&flags).await, RegistryProcess::with(&flags).await);
    let at = |replicas: &[&RegistryProcess]| {
        let addresses = replicas.iter().map(|replica| replica.address().to_string());
        registry_client::Registry::connect(addresses)
            .expect("addresses")
            .prefer_first()
    };
    let registration = registry_client::Registration::new("ticket-svc", "127.0.0.1:1").id("ticket-1");
    let registrar = at(&[&one, &two]).register(registration);
    registrar.registered(wait::PATIENCE).await.expect("registers");
    // A balancer at the second replica.
    let _channel = lb::Channel::builder(at(&[&two]).discover("ticket-svc")).build();
    let addresses = [&one, &two].map(|replica| replica.address().to_string());
    let drain = async |registry: &str| {
        let args = [
            "drain",
            "ticket-svc/ticket-1",
            "--output",
            "json",
            "--ack-timeout",
            "100s",
            "--registry",
            registry,
        ];
        let answer = e2e::run(args).await.success().json();
        let named = |list: &str| answer[list].as_array().expect("a list").len();
        (named("unacknowledged_watch_ids"), named("unheard_replicas"))
    };
    wait::until("both to know of each other", || async {
        match drain(&addresses[0]).await {
            (0, 1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(drain(&addresses.join(",")).await, (0, 0));
    // The owner's way of the same.
    let drained = registrar.drain(Duration::from_secs(300)).await;
    assert_eq!(drained, registry_client::Drained::Acknowledged);
}
