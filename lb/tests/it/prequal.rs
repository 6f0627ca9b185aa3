//! Prequal over real connections: reports with responses, probes beside calls.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::support::{ScriptedServer, TestServer, all_ready, ask, check, client, eventually, in_time};

/// What a server was asked for.
#[derive(Debug, Default)]
struct Met {
    calls: AtomicUsize,
    probes: AtomicUsize,
}

/// `xds.data.orca.v3.OrcaLoadReport` with the named metrics `rif` and `latency` (in milliseconds).
fn report(rif: f64, latency: f64) -> Vec<u8> {
    let mut report = Vec::new();
    for (name, value) in [("rif", rif), ("latency", latency)] {
        let mut entry = vec![0x0a, name.len() as u8];
        entry.extend(name.as_bytes());
        entry.push(0x11);
        entry.extend(value.to_le_bytes());
        report.extend([0x42, entry.len() as u8]);
        report.extend(entry);
    }
    report
}

/// Answers at once, and says that it is as loaded as that: nothing that a caller could see by itself.
async fn reporting(rif: f64, latency: f64, met: Arc<Met>) -> ScriptedServer {
    ScriptedServer::start(move |_, mut connection| {
        let met = Arc::clone(&met);
        async move {
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert!(request.headers().contains_key("tessera-load-report"), "everybody asks");
                let is_call = request.headers().contains_key("is-call");
                let count = if is_call { &met.calls } else { &met.probes };
                count.fetch_add(1, Ordering::SeqCst);
                let head = http::Response::builder()
                    .header("content-type", "application/grpc")
                    .body(())
                    .expect("a head");
                // A probe may be dropped by its caller at any time.
                let Ok(mut body) = respond.send_response(head, false) else {
                    continue;
                };
                let _ = body.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]), false);
                let mut metadata = MetadataMap::new();
                let value = MetadataValue::from_bytes(&report(rif, latency));
                metadata.insert_bin("endpoint-load-metrics-bin", value);
                let mut trailers: HeaderMap = metadata.into_headers();
                trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
                let _ = body.send_trailers(trailers);
            }
        }
    })
    .await
}

async fn channel(addresses: &[String]) -> lb::Channel {
    let target = lb::Target::fixed(addresses).expect("good addresses");
    let policy = lb::Policy::Prequal(lb::Prequal::default());
    let channel = lb::Channel::builder(target).policy(policy).build();
    all_ready(&channel, addresses.len()).await;
    channel
}

/// A call that is known as one: probes ask for the same method.
async fn call(channel: &lb::Channel) {
    let mut request = tonic::Request::new(ask(""));
    let value = "1".parse().expect("ASCII");
    request.metadata_mut().insert("is-call", value);
    client(channel).check(request).await.expect("answered");
}

#[tokio::test]
async fn who_says_that_it_is_loaded_is_left_alone() {
    let met: Vec<Arc<Met>> = (0..6).map(|_| Arc::default()).collect();
    let mut servers = Vec::new();
    for (at, met) in met.iter().enumerate() {
        // The first one has others to serve.
        let (rif, latency) = if at == 0 { (40.0, 80.0) } else { (1.0, 5.0) };
        servers.push(reporting(rif, latency, Arc::clone(met)).await);
    }
    let channel = channel(&servers.iter().map(ScriptedServer::addr).collect::<Vec<_>>()).await;
    for _ in 0..600 {
        in_time(call(&channel)).await;
    }
    // Its even share were 100. What it gets is random: at first, and whenever there are too few reports.
    let calls: Vec<usize> = met.iter().map(|met| met.calls.load(Ordering::SeqCst)).collect();
    assert!(calls[0] <= 40, "{calls:?}");
    assert_eq!(calls.iter().sum::<usize>(), 600, "a probe is no call");
    // Everybody is asked in the end, also who gets no calls; and nobody more than a call is worth.
    in_time(async {
        while met.iter().any(|met| met.probes.load(Ordering::SeqCst) == 0) {
            call(&channel).await;
        }
    })
    .await;
    let (calls, probes) = met.iter().fold((0, 0), |(calls, probes), met| {
        (
            calls + met.calls.load(Ordering::SeqCst),
            probes + met.probes.load(Ordering::SeqCst),
        )
    });
    assert!(probes <= calls, "{probes} probes for {calls} calls");
}

#[tokio::test]
async fn instances_that_report_nothing_are_judged_from_here() {
    let servers: Vec<TestServer> = (0..4).map(|_| TestServer::start()).collect();
    let channel = channel(&servers.iter().map(TestServer::addr).collect::<Vec<_>>()).await;
    for _ in 0..100 {
        in_time(check(&channel)).await.expect("answered");
    }
    eventually("no call is left behind", || {
        channel.endpoints().iter().all(|endpoint| endpoint.in_flight == 0)
    })
    .await;
    let met: usize = servers.iter().map(|server| server.seen.calls()).sum();
    assert!(met > 100, "probes come on top");
}
