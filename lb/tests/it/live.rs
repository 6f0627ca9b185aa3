//! What a service config says of a channel as a whole takes effect while it runs: policy, protection, routes, subsets.

use std::{collections::BTreeMap, sync::Arc};

use registry_client::{Discovery, Instance, Snapshot};
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::support::{TestServer, all_ready, ask, check, client, eventually, in_time, ready, reason};

fn config(text: &str) -> lb::ServiceConfig {
    text.parse().expect("a good config")
}

fn additions(text: &str) -> lb::ServiceConfig {
    config(&format!("{{\"tessera\": {{{text}}}}}"))
}

fn policy(name: &str) -> lb::ServiceConfig {
    config(&format!("{{\"loadBalancingConfig\": [{{\"{name}\": {{}}}}]}}"))
}

async fn channel_to(servers: &[TestServer]) -> lb::Channel {
    let addresses: Vec<String> = servers.iter().map(TestServer::addr).collect();
    let channel = lb::Channel::builder(lb::Target::fixed(&addresses).expect("good addresses")).build();
    all_ready(&channel, servers.len()).await;
    channel
}

/// Who answered so many calls with that key.
async fn shares(channel: &lb::Channel, calls: usize, key: &str) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..calls {
        let mut request = tonic::Request::new(ask(""));
        let value = key.parse().expect("a value");
        request.metadata_mut().insert("request-hash-key", value);
        let response = in_time(client(channel).check(request)).await.expect("answered");
        let by = response.extensions().get::<lb::Picked>().expect("said").clone();
        *shares.entry(by.instance_id.to_string()).or_default() += 1;
    }
    shares
}

/// A changed `loadBalancingConfig` used to be logged, and to wait for the next start.
#[tokio::test]
async fn another_policy_counts_at_once() {
    let servers: Vec<TestServer> = (0..3).map(|_| TestServer::start()).collect();
    let channel = channel_to(&servers).await;
    assert_eq!(channel.explain().policy, "peak_ewma");

    channel.configure(&policy("round_robin")).expect("usable");
    assert_eq!(channel.explain().policy, "round_robin");
    let even = shares(&channel, 30, "k").await;
    assert_eq!(even.values().copied().collect::<Vec<_>>(), [10, 10, 10]);

    // Bounded load counts calls in flight on all: those that began before it did must not be missed in the end.
    let open = client(&channel).watch(ask("")).await.expect("a stream");
    channel.configure(&policy("ring_hash")).expect("usable");
    drop(open);
    let mut owners = Vec::new();
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let kept = shares(&channel, 5, key).await;
        assert_eq!(kept.len(), 1, "{key}: {kept:?}");
        owners.extend(kept.into_keys());
    }
    owners.sort_unstable();
    owners.dedup();
    assert!(owners.len() > 1, "keys are spread: {owners:?}");

    let before: usize = servers.iter().map(|server| server.seen.calls()).sum();
    channel.configure(&policy("prequal")).expect("usable");
    let channel_of_calls = channel.clone();
    let calls = tokio::spawn(async move { shares(&channel_of_calls, 60, "k").await });
    assert_eq!(calls.await.expect("no panic").values().sum::<usize>(), 60);
    eventually("instances are probed beside the calls", || {
        servers.iter().map(|server| server.seen.calls()).sum::<usize>() > before + 60
    })
    .await;

    channel.configure(&lb::ServiceConfig::default()).expect("usable");
    assert_eq!(channel.explain().policy, "peak_ewma");
    shares(&channel, 10, "k").await;
    let measured = |instance: &lb::InstanceView| instance.expected_latency_us.is_some();
    assert!(channel.explain().instances.iter().any(measured));
    assert!(
        servers.iter().all(|server| server.seen.connections() == 1),
        "nothing was dialled anew"
    );
}

#[tokio::test]
async fn breakers_are_switched_on_and_off() {
    let servers = [TestServer::start()];
    let channel = channel_to(&servers).await;
    servers[0].seen.fail(Status::internal("broken"));
    let breaker = r#""circuitBreaker": {"minimumCalls": 2}"#;
    let of_method = format!(
        r#"{{"methodConfig": [{{"name": [{{"service": "grpc.health.v1.Health"}}], "tessera": {{{breaker}}}}}]}}"#
    );
    for guarded in [additions(breaker), config(&of_method)] {
        channel.configure(&guarded).expect("usable");
        for _ in 0..2 {
            assert_eq!(check(&channel).await.expect_err("broken").code(), Code::Internal);
        }
        let status = check(&channel).await.expect_err("open");
        assert_eq!(reason(&status), "CIRCUIT_OPEN", "{status}");
        channel
            .configure(&additions("\"circuitBreaker\": false"))
            .expect("usable");
        assert_eq!(check(&channel).await.expect_err("broken").code(), Code::Internal);
    }
}

#[tokio::test]
async fn ejection_goes_by_what_is_said_now() {
    let servers: Vec<TestServer> = (0..3).map(|_| TestServer::start()).collect();
    let channel = channel_to(&servers).await;
    let config = r#""outlierDetection": {"consecutiveFailures": 1, "baseEjectionTime": "100s"}"#;
    channel.configure(&additions(config)).expect("usable");
    servers[0].seen.fail(Status::unavailable("broken"));
    let ejected = || {
        let views = channel.endpoints();
        views
            .iter()
            .filter(|view| view.state == lb::EndpointState::Ejected)
            .count()
    };
    while ejected() == 0 {
        let _ = in_time(check(&channel)).await;
    }
    channel
        .configure(&additions("\"outlierDetection\": false"))
        .expect("usable");
    assert_eq!(ejected(), 0);
}

#[tokio::test]
async fn a_subset_is_made_and_given_up() {
    let servers: Vec<TestServer> = (0..5).map(|_| TestServer::start()).collect();
    let channel = channel_to(&servers).await;
    channel
        .configure(&additions("\"subset\": {\"size\": 2}"))
        .expect("usable");
    eventually("two are kept", || ready(&channel) == 2).await;
    assert_eq!(in_time(shares(&channel, 20, "k")).await.values().sum::<usize>(), 20);
    channel.configure(&additions("\"subset\": false")).expect("usable");
    all_ready(&channel, 5).await;
}

fn instances(servers: &[TestServer], announced: &str) -> Vec<Instance> {
    let versions = ["1.0.0", "2.0.0"].iter().zip(servers);
    let instances = versions.map(|(version, server)| {
        let mut instance = Instance::new("s", *version, &server.addr());
        instance.version = (*version).to_owned();
        if !announced.is_empty() {
            instance
                .metadata
                .insert("tessera.service-config".to_owned(), announced.to_owned());
        }
        instance
    });
    instances.collect()
}

#[tokio::test]
async fn routes_of_a_config_lead_and_those_of_code_come_back() {
    let servers: Vec<TestServer> = (0..2).map(|_| TestServer::start()).collect();
    let (_registry, told) = watch::channel(Arc::new(Snapshot::fresh(1, instances(&servers, ""))));
    let to = |range: &str| lb::Subset::every().version(range).expect("a range");
    let code = lb::Routes::try_new([lb::RouteRule::new("code", to("^1"))]).expect("good");
    let channel = lb::Channel::builder(Discovery::fed_by("s", told)).routes(code).build();
    all_ready(&channel, 2).await;
    let only = async |id: &str| assert_eq!(shares(&channel, 10, "k").await.into_keys().collect::<Vec<_>>(), [id]);
    only("1.0.0").await;
    let live = r#""routes": [{"name": "live", "method": "/grpc.health.v1.Health/Check", "to": {"version": "^2"}}]"#;
    channel.configure(&additions(live)).expect("usable");
    only("2.0.0").await;
    channel.set_routes(&lb::Routes::try_new([lb::RouteRule::new("set", to("^1"))]).expect("good"));
    only("1.0.0").await;
    channel.configure(&additions(live)).expect("usable");
    only("2.0.0").await;
    channel.configure(&lb::ServiceConfig::default()).expect("usable");
    only("1.0.0").await;
}

#[tokio::test]
async fn instances_say_what_they_can_bear_where_the_caller_does_not() {
    let servers: Vec<TestServer> = (0..2).map(|_| TestServer::start()).collect();
    let announced = r#"{"loadBalancingConfig": [{"least_request": {}}], "tessera": {"outlierDetection": false}}"#;
    let (registry, told) = watch::channel(Arc::new(Snapshot::fresh(1, instances(&servers, announced))));
    let channel = lb::Channel::builder(Discovery::fed_by("s", told)).build();
    all_ready(&channel, 2).await;
    assert_eq!(channel.explain().policy, "least_request");
    channel.configure(&policy("random")).expect("usable");
    assert_eq!(channel.explain().policy, "random");
    channel.configure(&lb::ServiceConfig::default()).expect("usable");
    registry.send_replace(Arc::new(Snapshot::fresh(2, instances(&servers, ""))));
    eventually("nobody says anything", || channel.explain().policy == "peak_ewma").await;
}
