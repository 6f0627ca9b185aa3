//! The reporter beside a monitor that comes, goes, hangs and forgets to answer. One process counts once, so it is one test.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lb::{Channel, Target};
use monitor_client::{Reporter, Settings};
use proto::monitor::v1::{
    DependenciesRequest, DependenciesResponse, QueryRequest, QueryResponse, ReportRequest, ReportResponse, TopRequest,
    TopResponse,
    monitor_service_server::{MonitorService, MonitorServiceServer},
};
use telemetry::{Context, client::CallSpan};
use tokio::{net::TcpListener, runtime::Runtime, time::Instant};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A monitor that counts as the contract says: each sequence once.
#[derive(Debug, Clone, Default)]
struct Fake {
    /// Calls by method, of reports that were new.
    calls: Arc<Mutex<HashMap<String, u64>>>,
    /// The last sequence, how many reports came, and how many of them again.
    heard: Arc<Mutex<(u64, u64, u64)>>,
    /// Counts what comes, and does not answer.
    hangs: Arc<AtomicBool>,
}

impl Fake {
    fn calls(&self, method: &str) -> u64 {
        self.calls
            .lock()
            .expect("not poisoned")
            .get(method)
            .copied()
            .unwrap_or(0)
    }

    /// On a runtime of its own: with it, the connections end as well.
    fn serve(&self, address: SocketAddr) -> (SocketAddr, Runtime) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = std::net::TcpListener::bind(address).expect("bound");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let server = Server::builder().add_service(MonitorServiceServer::new(self.clone()));
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a socket");
            drop(server.serve_with_incoming(TcpListenerStream::new(listener)).await);
        });
        (address, runtime)
    }
}

#[tonic::async_trait]
impl MonitorService for Fake {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let report = request.into_inner();
        assert_eq!(
            (report.service.as_str(), report.instance_id.as_str()),
            ("shop", "shop-1")
        );
        let duplicate = {
            let mut heard = self.heard.lock().expect("not poisoned");
            heard.1 += 1;
            let duplicate = report.sequence <= heard.0;
            heard.2 += u64::from(duplicate);
            heard.0 = heard.0.max(report.sequence);
            duplicate
        };
        if !duplicate {
            let mut calls = self.calls.lock().expect("not poisoned");
            for series in report.series {
                let counted: u64 = series.codes.iter().map(|code| code.calls).sum();
                *calls.entry(series.method).or_default() += counted;
            }
        }
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(ReportResponse { duplicate }))
    }

    async fn query(&self, _: Request<QueryRequest>) -> Result<Response<QueryResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn dependencies(&self, _: Request<DependenciesRequest>) -> Result<Response<DependenciesResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn top(&self, _: Request<TopRequest>) -> Result<Response<TopResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

/// Calls that this process makes; what they cost does not matter.
fn call(method: &str, times: u64) {
    for _ in 0..times {
        CallSpan::start_in(&Context::new(), &format!("/{method}"), "somebody").finish(0);
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn every_call_is_counted_once_whatever_the_monitor_does() {
    let fake = Fake::default();
    let (address, serving) = fake.serve(([127, 0, 0, 1], 0).into());
    let channel = || {
        let target = Target::fixed([address.to_string()]).expect("an address");
        Channel::builder(target)
            .ready_timeout(Duration::from_millis(200))
            .build()
    };
    let settings = || Settings::new("shop", "shop-1").interval(Duration::from_millis(100));
    let reporter = Reporter::to(channel(), settings()).expect("nobody else reports");
    assert!(Reporter::to(channel(), settings()).is_none(), "a process reports once");

    call("a.B/First", 7);
    eventually("the first calls", || fake.calls("a.B/First") == 7).await;

    // It is gone: calls go on, and wait.
    serving.shutdown_background();
    for _ in 0..5 {
        call("a.B/Away", 3);
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    assert_eq!(fake.calls("a.B/Away"), 0);
    let (_, serving) = fake.serve(address);
    eventually("what waited", || fake.calls("a.B/Away") == 15).await;

    // It counts, and its answers are lost: the same report comes again, and counts once.
    fake.hangs.store(true, Ordering::SeqCst);
    call("a.B/Unanswered", 4);
    let again = || fake.heard.lock().expect("not poisoned").2;
    eventually("a report that comes again", || again() >= 1).await;
    fake.hangs.store(false, Ordering::SeqCst);
    call("a.B/Last", 2);
    reporter.stop(Duration::from_secs(5)).await;
    assert_eq!(fake.calls("a.B/Unanswered"), 4);
    assert_eq!(fake.calls("a.B/Last"), 2, "the end reports what is left");
    assert_eq!(fake.calls("tessera.monitor.v1.MonitorService/Report"), 0);
    let (last, came, again) = *fake.heard.lock().expect("not poisoned");
    assert_eq!(last, came - again, "no sequence was left out");

    // Nobody counts any more, and somebody may again.
    let reporter = Reporter::to(channel(), settings()).expect("the other one has ended");
    serving.shutdown_background();
    reporter.stop(Duration::from_millis(50)).await;
}
