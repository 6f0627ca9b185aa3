//! What the policies do for calls over real connections. How each of them chooses is tested where it stands.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use registry_client::{Discovery, Instance, Snapshot};
use tokio::sync::watch;
use tonic::Request;

use crate::support::{ScriptedServer, TestServer, all_ready, answer, ask, check, client, eventually, in_time};

/// Answers after a pause, and counts.
async fn slow(pause: Duration, met: Arc<AtomicUsize>) -> ScriptedServer {
    ScriptedServer::start(move |_, mut connection| {
        let met = Arc::clone(&met);
        async move {
            while let Some(Ok((_request, respond))) = connection.accept().await {
                met.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    answer(respond);
                });
            }
        }
    })
    .await
}

/// Fails every call at once while it is `ill`, and counts those.
async fn failing(ill: Arc<AtomicBool>, met: Arc<AtomicUsize>) -> ScriptedServer {
    ScriptedServer::start(move |_, mut connection| {
        let (ill, met) = (Arc::clone(&ill), Arc::clone(&met));
        async move {
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                if !ill.load(Ordering::SeqCst) {
                    answer(respond);
                    continue;
                }
                met.fetch_add(1, Ordering::SeqCst);
                let head = http::Response::builder()
                    .header("content-type", "application/grpc")
                    .body(())
                    .expect("a head");
                let mut body = respond.send_response(head, false).expect("the stream is open");
                let trailers =
                    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("13"))]);
                body.send_trailers(trailers).expect("the stream is open");
            }
        }
    })
    .await
}

async fn channel(addresses: &[String], policy: lb::Policy) -> lb::Channel {
    let target = lb::Target::fixed(addresses).expect("good addresses");
    let channel = lb::Channel::builder(target).policy(policy).build();
    all_ready(&channel, addresses.len()).await;
    channel
}

#[tokio::test]
async fn by_default_calls_keep_away_from_a_slow_instance() {
    let met = Arc::new(AtomicUsize::new(0));
    let slow = slow(Duration::from_millis(300), Arc::clone(&met)).await;
    let others: Vec<TestServer> = (0..3).map(|_| TestServer::start()).collect();
    let mut addresses: Vec<String> = others.iter().map(TestServer::addr).collect();
    addresses.push(slow.addr());
    let channel = channel(&addresses, lb::Policy::default()).await;
    for _ in 0..300 {
        in_time(check(&channel)).await.expect("answered");
    }
    // One to find out. More only if all the others were stalled for as long meanwhile; its even share were 75.
    let met = met.load(Ordering::SeqCst);
    assert!((1..=5).contains(&met), "{met} of 300");
}

/// A dead instance was the fastest one: it drew a third of all calls and more, and failed them (measured with tower's metrics).
#[tokio::test]
async fn by_default_an_instance_that_fails_fast_is_no_sink() {
    let (ill, met) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let failing = failing(Arc::clone(&ill), Arc::clone(&met)).await;
    let others: Vec<TestServer> = (0..3).map(|_| TestServer::start()).collect();
    let mut addresses: Vec<String> = others.iter().map(TestServer::addr).collect();
    addresses.push(failing.addr());
    let channel = channel(&addresses, lb::Policy::default()).await;
    let mut failed = 0;
    for _ in 0..300 {
        failed += usize::from(in_time(check(&channel)).await.is_err());
    }
    assert_eq!(failed, met.load(Ordering::SeqCst));
    assert!((1..=5).contains(&failed), "{failed} of 300");
}

#[tokio::test]
async fn an_instance_that_has_recovered_is_called_again() {
    let (ill, met) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let recovering = failing(Arc::clone(&ill), Arc::clone(&met)).await;
    let other = TestServer::start();
    let policy = lb::PeakEwma::try_new(Duration::from_millis(100)).expect("valid");
    let policy = policy.penalty(Duration::from_millis(20)).expect("valid");
    let channel = channel(&[other.addr(), recovering.addr()], lb::Policy::PeakEwma(policy)).await;
    while met.load(Ordering::SeqCst) == 0 {
        // That it fails is what is waited for.
        let _ = in_time(check(&channel)).await;
    }
    ill.store(false, Ordering::SeqCst);
    let address = recovering.addr();
    in_time(async {
        while check(&channel).await.ok().as_ref() != Some(&address) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn instances<'a>(servers: impl IntoIterator<Item = (&'a str, &'a TestServer)>) -> Arc<Snapshot> {
    let instances = servers
        .into_iter()
        .map(|(id, server)| Instance::new("s", id, &server.addr()));
    Arc::new(Snapshot::fresh(1, instances))
}

/// The id of the instance that had the call with that key.
async fn keyed(channel: &lb::Channel, key: &'static str) -> String {
    let mut request = Request::new(ask(""));
    request.metadata_mut().insert("user-id", key.parse().expect("a value"));
    let response = in_time(client(channel).check(request)).await.expect("answered");
    let picked = response.extensions().get::<lb::Picked>().expect("on every response");
    picked.instance_id.to_string()
}

#[tokio::test]
async fn a_key_stays_with_its_instance_wherever_that_moves() {
    const IDS: [&str; 4] = ["a", "b", "c", "d"];
    const KEYS: [&str; 12] = [
        "ann", "bob", "cy", "dan", "eve", "fay", "gus", "hal", "ivy", "jo", "kim", "lee",
    ];
    let (here, there): (Vec<TestServer>, Vec<TestServer>) =
        (0..4).map(|_| (TestServer::start(), TestServer::start())).unzip();
    let (told, snapshots) = watch::channel(instances(IDS.into_iter().zip(&here)));
    let key = lb::HashKey::Header(HeaderName::from_static("user-id"));
    let channel = lb::Channel::builder(Discovery::fed_by("s", snapshots))
        .policy(lb::Policy::ConsistentHash(lb::ConsistentHash::by(key)))
        .build();
    all_ready(&channel, 4).await;
    let mut owners = HashMap::new();
    for key in KEYS {
        owners.insert(key, keyed(&channel, key).await);
        for _ in 0..3 {
            assert_eq!(owners[key], keyed(&channel, key).await);
        }
    }
    let met: HashSet<&String> = owners.values().collect();
    assert!(met.len() >= 3, "{owners:?}");

    // All of them restart somewhere else: the keys follow, since they go by what an instance is and not by where.
    told.send(instances(IDS.into_iter().zip(&there))).expect("watched");
    let addresses: HashSet<String> = there.iter().map(TestServer::addr).collect();
    eventually("they are there and the others have gone", || {
        let endpoints = channel.endpoints();
        endpoints.len() == 4
            && endpoints
                .iter()
                .all(|endpoint| endpoint.state == lb::EndpointState::Ready && addresses.contains(&endpoint.address))
    })
    .await;
    for key in KEYS {
        assert_eq!(owners[key], keyed(&channel, key).await);
    }
    assert!(there.iter().map(|server| server.seen.calls()).sum::<usize>() >= KEYS.len());

    // One leaves: its keys move, and hardly any others do.
    told.send(instances(IDS.into_iter().zip(&there).skip(1)))
        .expect("watched");
    eventually("it has gone", || channel.endpoints().len() == 3).await;
    let mut moved = 0;
    for key in KEYS {
        let owner = keyed(&channel, key).await;
        moved += usize::from(owners[key] != "a" && owners[key] != owner);
    }
    assert!(moved <= 2, "{moved} keys of others moved");
}

#[tokio::test]
async fn a_field_of_the_message_is_a_key_too() {
    let servers: Vec<TestServer> = (0..4).map(|_| TestServer::start()).collect();
    let addresses: Vec<String> = servers.iter().map(TestServer::addr).collect();
    // `service` of a HealthCheckRequest.
    let key = lb::HashKey::Field(NonZeroU32::MIN);
    let policy = lb::Policy::ConsistentHash(lb::ConsistentHash::by(key));
    let channel = channel(&addresses, policy).await;
    let mut owners = HashSet::new();
    for key in 0..12 {
        let before: Vec<usize> = servers.iter().map(|server| server.seen.calls()).collect();
        for _ in 0..4 {
            let request = ask(&format!("user-{key}"));
            in_time(client(&channel).check(request)).await.expect("answered");
        }
        let met = |at: usize| servers[at].seen.calls() - before[at];
        let owner = (0..4).find(|at| met(*at) > 0).expect("somebody answered");
        assert_eq!(met(owner), 4);
        owners.insert(owner);
    }
    assert!(owners.len() >= 3, "{owners:?}");
}

#[tokio::test]
async fn a_key_that_everybody_wants_does_not_overload_its_instance() {
    let servers: Vec<TestServer> = (0..4).map(|_| TestServer::start()).collect();
    let addresses: Vec<String> = servers.iter().map(TestServer::addr).collect();
    let policy = lb::Policy::ConsistentHash(lb::ConsistentHash::default());
    let channel = channel(&addresses, policy).await;
    let mut held = Vec::new();
    for open in 1..=24_u32 {
        let mut request = Request::new(ask(""));
        let key = "hot".parse().expect("a value");
        request.metadata_mut().insert("request-hash-key", key);
        held.push(in_time(client(&channel).watch(request)).await.expect("opened"));
        let most = channel.endpoints().iter().map(|endpoint| endpoint.in_flight).max();
        let bound = (f64::from(open) * 1.25 / 4.0).ceil() as u32;
        assert!(most.is_some_and(|most| most <= bound), "{most:?} of {open}");
    }
    // 1.25 times its share, and no less: the rest was passed on.
    let most = channel.endpoints().iter().map(|endpoint| endpoint.in_flight).max();
    assert_eq!(most, Some(8));
}
