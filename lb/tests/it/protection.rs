//! Instances and services that fail, are slow, new or overloaded: who is left out, who comes back, and what is not even tried.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lb::{EjectionReason, EndpointState};
use registry_client::{Discovery, Instance, Snapshot};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_server::{Health, HealthServer},
};
use tonic_types::StatusExt as _;

use crate::support::{all_ready, ask, check, client, eventually, in_time, reason};

/// What a server does with calls: answer, or fail with that code.
#[derive(Debug, Default)]
struct Mood {
    code: AtomicUsize,
    calls: AtomicUsize,
}

/// A server in the test's own runtime, so that there can be many; its connections are never cut.
struct Moody {
    address: SocketAddr,
    mood: Arc<Mood>,
    task: JoinHandle<()>,
}

struct Handler(Arc<Mood>);

#[tonic::async_trait]
impl Health for Handler {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        if request.get_ref().service == "hang" {
            std::future::pending::<()>().await;
        }
        match Code::from_i32(self.0.code.load(Ordering::SeqCst) as i32) {
            Code::Ok => Ok(Response::new(HealthCheckResponse { status: 1 })),
            code => Err(Status::new(code, "in a bad mood")),
        }
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("nobody watches here"))
    }
}

impl Moody {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (address, mood) = (listener.local_addr().expect("bound"), Arc::new(Mood::default()));
        let handler = HealthServer::new(Handler(Arc::clone(&mood)));
        let task = tokio::spawn(async move {
            let serving = Server::builder()
                .add_service(handler)
                .serve_with_incoming(TcpListenerStream::new(listener));
            serving.await.expect("serves");
        });
        Self { address, mood, task }
    }

    async fn fleet(count: usize) -> Vec<Self> {
        let mut fleet = Vec::new();
        for _ in 0..count {
            fleet.push(Self::start().await);
        }
        fleet
    }

    fn answers_with(&self, code: Code) {
        self.mood.code.store(i32::from(code) as usize, Ordering::SeqCst);
    }

    fn calls(&self) -> usize {
        self.mood.calls.load(Ordering::SeqCst)
    }

    fn addr(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Moody {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Of a policy that tries to keep away from nobody, so that what is seen is the ejections' doing.
fn to(fleet: &[Moody]) -> lb::Builder {
    let target = lb::Target::fixed(fleet.iter().map(Moody::addr)).expect("good addresses");
    lb::Channel::builder(target).policy(lb::Policy::RoundRobin)
}

fn view(channel: &lb::Channel, server: &Moody) -> lb::EndpointView {
    let views = channel.endpoints();
    let view = views.into_iter().find(|view| view.address == server.addr());
    view.expect("it is known")
}

/// Makes calls until `condition` holds. How many failed.
async fn call_until(channel: &lb::Channel, what: &str, mut condition: impl FnMut() -> bool) -> usize {
    let mut failed = 0;
    let calls = async {
        while !condition() {
            failed += usize::from(check(channel).await.is_err());
            tokio::task::yield_now().await;
        }
    };
    let calls = tokio::time::timeout(crate::support::PATIENCE, calls).await;
    assert!(calls.is_ok(), "not in time: {what}");
    failed
}

#[tokio::test]
async fn two_of_twenty_that_begin_to_fail_are_out_after_five_failures_each() {
    const CALLS: usize = 10_000;
    let fleet = Moody::fleet(20).await;
    // Longer than this takes on a busy machine: nobody is to be tried again meanwhile.
    let out = Duration::from_secs(3600);
    let outlier = lb::OutlierDetection::default().base_ejection(out).expect("valid");
    let channel = to(&fleet).outlier_detection(outlier).build();
    all_ready(&channel, 20).await;
    for _ in 0..100 {
        check(&channel).await.expect("all are well");
    }
    let bad = &fleet[3..5];
    bad.iter().for_each(|server| server.answers_with(Code::Unavailable));
    let mut failed = 0;
    for _ in 0..CALLS {
        failed += usize::from(check(&channel).await.is_err());
    }
    // A tenth of them would have failed; so 99 % are avoided.
    assert_eq!(failed, 10);
    for server in bad {
        let view = view(&channel, server);
        let ejection = view.ejection.expect("it is ejected");
        assert_eq!(
            (view.state, ejection.why),
            (EndpointState::Ejected, EjectionReason::ConsecutiveFailures)
        );
        assert!(ejection.times == 1 && ejection.remaining <= out, "{ejection:?}");
        // It says why when it is asked, and is counted.
        let explained = channel.explain();
        let address = server.address.to_string();
        let found = explained.instances.iter().find(|instance| instance.address == address);
        let removed = found.and_then(|found| found.removed.as_ref()).expect("no candidate");
        assert_eq!(removed.by, lb::Filter::Ejection);
        assert!(removed.why.contains("several times in a row"), "{}", removed.why);
        let id = &found.expect("known").instance_id;
        let service = channel.service();
        let counted = format!(
            r#"tessera_lb_ejections_total{{target="{service}",instance="{id}",reason="consecutive_failures"}} "#
        );
        let text = telemetry::metrics::encode();
        assert!(text.contains(&counted), "{counted} in\n{text}");
    }
}

#[tokio::test]
async fn callers_own_mistakes_and_overload_eject_nobody() {
    let fleet = Moody::fleet(2).await;
    let channel = to(&fleet).build();
    all_ready(&channel, 2).await;
    for code in [Code::NotFound, Code::ResourceExhausted] {
        fleet[0].answers_with(code);
        for _ in 0..40 {
            let _ = check(&channel).await;
        }
        assert_eq!(view(&channel, &fleet[0]).ejection, None, "{code:?}");
    }
}

#[tokio::test]
async fn who_was_ejected_comes_back_by_one_call_that_goes_well() {
    let fleet = Moody::fleet(3).await;
    let outlier = lb::OutlierDetection::default().base_ejection(Duration::from_millis(100));
    let channel = to(&fleet).outlier_detection(outlier.expect("valid")).build();
    all_ready(&channel, 3).await;
    let bad = &fleet[1];
    bad.answers_with(Code::Internal);
    let mut failed = call_until(&channel, "it is ejected", || view(&channel, bad).ejection.is_some()).await;
    assert_eq!((failed, bad.calls()), (5, 5));
    // One call at a time finds out that it still fails, and each time it is out for longer.
    failed += call_until(&channel, "it is tried twice more", || bad.calls() == 7).await;
    assert_eq!(failed, 7);
    let ejection = view(&channel, bad).ejection.expect("still ejected");
    assert_eq!((ejection.why, ejection.times), (EjectionReason::ProbeFailed, 3));

    bad.answers_with(Code::Ok);
    let failed = call_until(&channel, "it is back", || view(&channel, bad).ejection.is_none()).await;
    assert_eq!((failed, view(&channel, bad).state), (0, EndpointState::Ready));
    let before = bad.calls();
    for _ in 0..30 {
        check(&channel).await.expect("all are well");
    }
    assert_eq!(bad.calls(), before + 10);
}

#[tokio::test]
async fn when_everybody_fails_everybody_is_called() {
    let fleet = Moody::fleet(4).await;
    let outlier = lb::OutlierDetection::default().max_ejection_percent(100);
    let channel = to(&fleet).outlier_detection(outlier.expect("valid")).build();
    all_ready(&channel, 4).await;
    fleet.iter().for_each(|server| server.answers_with(Code::Unavailable));
    let failed = call_until(&channel, "most are ejected", || {
        channel
            .endpoints()
            .iter()
            .filter(|view| view.ejection.is_some())
            .count()
            >= 3
    })
    .await;
    assert!(failed >= 15, "{failed}");
    let before: Vec<usize> = fleet.iter().map(Moody::calls).collect();
    for _ in 0..40 {
        let status = check(&channel).await.expect_err("nobody is well");
        assert_eq!(status.message(), "in a bad mood", "it is the server that says so");
    }
    for (server, before) in fleet.iter().zip(before) {
        assert_eq!(server.calls(), before + 10);
    }
}

#[tokio::test]
async fn the_only_instance_is_never_left_out() {
    let fleet = Moody::fleet(1).await;
    let channel = to(&fleet).build();
    all_ready(&channel, 1).await;
    fleet[0].answers_with(Code::Unavailable);
    for _ in 0..50 {
        let status = check(&channel).await.expect_err("it fails");
        assert_eq!(status.message(), "in a bad mood");
    }
    fleet[0].answers_with(Code::Ok);
    check(&channel).await.expect("answered");
}

#[tokio::test]
async fn a_method_that_fails_is_left_alone_for_a_while_and_then_tried() {
    let fleet = Moody::fleet(3).await;
    let open = lb::Backoff::try_new(Duration::from_millis(200), Duration::from_secs(1), 0.0).expect("valid");
    let breaker = lb::CircuitBreaker::default()
        .minimum_calls(6)
        .expect("valid")
        .open(open);
    let channel = to(&fleet).outlier_detection(None).method_breaker(breaker).build();
    all_ready(&channel, 3).await;
    let calls = || fleet.iter().map(Moody::calls).sum::<usize>();
    fleet.iter().for_each(|server| server.answers_with(Code::Internal));
    // closed -> open
    for _ in 0..6 {
        assert_eq!(check(&channel).await.expect_err("fails").code(), Code::Internal);
    }
    let status = check(&channel).await.expect_err("open");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "CIRCUIT_OPEN"),
        "{status}"
    );
    let retry = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay)
        .expect("says when");
    assert!(retry <= Duration::from_millis(200), "{retry:?}");
    assert_eq!(calls(), 6, "nobody was asked");
    let shown = format!(
        r#"tessera_lb_breaker_state{{target="{}",method="/grpc.health.v1.Health/Check"}} 2"#,
        channel.service()
    );
    let text = telemetry::metrics::encode();
    assert!(text.contains(&shown), "{shown} in\n{text}");
    // open -> half-open -> open
    call_until(&channel, "it is tried again", || calls() == 7).await;
    assert_eq!(reason(&check(&channel).await.expect_err("open again")), "CIRCUIT_OPEN");
    assert_eq!(calls(), 7, "by one call");
    // open -> half-open -> closed
    fleet.iter().for_each(|server| server.answers_with(Code::Ok));
    call_until(&channel, "three went well", || calls() == 10).await;
    for _ in 0..30 {
        check(&channel).await.expect("closed");
    }
}

#[tokio::test]
async fn a_newcomer_begins_with_little_and_gets_its_share_in_the_end() {
    const CALLS: usize = 4000;
    const FAIR: usize = CALLS / 5;
    let fleet = Moody::fleet(5).await;
    let instance = |n: usize| Instance::new("s", format!("i{n}"), &fleet[n].addr());
    // In the end by calls in flight: by latency, an instance that a busy machine has held up once gets less for seconds.
    let in_the_end = lb::Policy::LeastRequest(lb::LeastRequest::default());
    for (begins, ends) in [
        (lb::Policy::default(), in_the_end),
        (lb::Policy::WeightedRandom, lb::Policy::WeightedRandom),
    ] {
        // It stays at the beginning for as long as the test takes.
        for (window, policy, few) in [
            (Duration::from_secs(3600), begins, true),
            (Duration::from_millis(50), ends, false),
        ] {
            let (told, snapshots) = watch::channel(Arc::new(Snapshot::fresh(1, (0..4).map(instance))));
            let channel = lb::Channel::builder(Discovery::fed_by("s", snapshots))
                .policy(policy.clone())
                .slow_start(lb::SlowStart::default().window(window).expect("valid"))
                .build();
            all_ready(&channel, 4).await;
            told.send(Arc::new(Snapshot::fresh(2, (0..5).map(instance))))
                .expect("watched");
            all_ready(&channel, 5).await;
            // One to begin with, as nothing is known of it yet: policies may give a call to find out.
            let (newcomer, before) = (&fleet[4], fleet[4].calls());
            for _ in 0..CALLS {
                check(&channel).await.expect("answered");
            }
            let got = newcomer.calls() - before;
            if few {
                assert!((1..=FAIR / 10).contains(&got), "{got} calls, by {policy:?}");
            } else {
                assert!(got >= FAIR / 3, "{got} calls, by {policy:?}");
            }
        }
    }
}

#[tokio::test]
async fn those_that_a_caller_finds_at_its_start_share_evenly() {
    let fleet = Moody::fleet(3).await;
    let channel = to(&fleet).build();
    all_ready(&channel, 3).await;
    for _ in 0..30 {
        check(&channel).await.expect("answered");
    }
    let calls: Vec<usize> = fleet.iter().map(Moody::calls).collect();
    assert_eq!(calls, [10, 10, 10]);
}

#[tokio::test]
async fn beyond_the_limit_of_concurrency_calls_fail_at_once_and_not_for_longer() {
    let fleet = Moody::fleet(2).await;
    let limit = lb::ConcurrencyLimit::default().bounds(2, 2).expect("valid");
    let channel = to(&fleet).concurrency_limit(limit).build();
    all_ready(&channel, 2).await;
    let hang = || {
        let mut client = client(&channel);
        tokio::spawn(async move { client.check(ask("hang")).await })
    };
    let (one, other) = (hang(), hang());
    eventually("both are under way", || {
        fleet.iter().map(Moody::calls).sum::<usize>() == 2
    })
    .await;
    let status = in_time(check(&channel)).await.expect_err("full");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "CONCURRENCY_LIMIT"),
        "{status}"
    );
    one.abort();
    assert!(one.await.is_err_and(|error| error.is_cancelled()));
    check(&channel).await.expect("there is room again");
    other.abort();
}

#[tokio::test]
async fn a_service_that_is_overloaded_is_asked_less_and_asked_again() {
    let fleet = Moody::fleet(2).await;
    let throttling = lb::Throttling::default()
        .window(Duration::from_millis(500))
        .expect("valid");
    let channel = to(&fleet).throttling(throttling).build();
    all_ready(&channel, 2).await;
    fleet
        .iter()
        .for_each(|server| server.answers_with(Code::ResourceExhausted));
    let mut throttled = 0;
    call_until(&channel, "some calls are not sent", || {
        throttled += 1;
        fleet.iter().map(Moody::calls).sum::<usize>() + 20 < throttled
    })
    .await;
    // Many at once, so that there is one among them that was not sent.
    let mut reasons = Vec::new();
    for _ in 0..20 {
        reasons.push(reason(&check(&channel).await.expect_err("overloaded")));
    }
    assert!(reasons.iter().any(|reason| reason == "THROTTLED"), "{reasons:?}");

    fleet.iter().for_each(|server| server.answers_with(Code::Ok));
    let mut in_row = 0;
    in_time(async {
        while in_row < 100 {
            in_row = if check(&channel).await.is_ok() { in_row + 1 } else { 0 };
        }
    })
    .await;
}
