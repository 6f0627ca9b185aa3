//! Both ends count: a call, its attempts, and what is answered, with what was said of the caller on the way.

use http::HeaderMap;
use http_body_util::BodyExt as _;
use telemetry::{
    client::{AttemptKind, CallSpan, Peer},
    server::ServerTraceLayer,
    stats::{self, Delta, Side},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{Frames, answer, new_trace, request, status};

/// What a series counted, by code.
fn counted(deltas: &[Delta], side: Side, service: &str, method: &str, peer: &str) -> Vec<(u32, u64)> {
    let is_it = |delta: &&Delta| {
        let key = &delta.key;
        (key.side, &*key.service, &*key.method, &*key.peer) == (side, service, method, peer)
    };
    deltas
        .iter()
        .find(is_it)
        .map(|delta| delta.codes.clone())
        .unwrap_or_default()
}

/// One test, since only one can take; the other tests of this binary call other methods meanwhile.
#[tokio::test]
async fn calls_are_counted_at_both_ends_and_by_who_calls() {
    let (parent, _, _) = new_trace();
    let before = CallSpan::start_in(&parent, "/stats.Svc/Before", "counted");
    let taker = stats::install("user-svc").expect("nobody takes");
    assert!(stats::install("user-svc").is_none(), "twice would count by halves");
    before.finish(0);

    let call = CallSpan::start_in(&parent, "/stats.Svc/Do", "counted");
    call.attempt(
        1,
        AttemptKind::default(),
        Peer {
            address: "10.0.0.1:7101",
            instance_id: "t-1",
            ..Peer::default()
        },
    )
    .finish(14);
    let second = call.attempt(
        2,
        AttemptKind::default(),
        Peer {
            address: "10.0.0.2:7102",
            ..Peer::default()
        },
    );
    let mut headers = HeaderMap::new();
    second.inject(&mut headers);
    second.finish(0);
    call.finish(0);
    // A caller that goes away has cancelled.
    drop(CallSpan::start_in(&parent, "/stats.Svc/Do", "counted"));
    CallSpan::start_in(&parent, "/grpc.health.v1.Health/Check", "counted").finish(0);

    for known in [true, false] {
        let handler = service_fn(|_| answer(HeaderMap::new(), Frames::messages(1).then(status(5))));
        let mut request = request(&parent, "/stats.Svc/Do");
        request.headers_mut().extend(headers.clone());
        let layer = match known {
            true => ServerTraceLayer::new().with_methods(["stats.Svc/Do"]),
            false => ServerTraceLayer::new(),
        };
        let response = layer.layer(handler).oneshot(request).await.expect("infallible");
        response.into_body().collect().await.expect("infallible");
    }

    let deltas = taker.take();
    let of = |side, service, method, peer| counted(&deltas, side, service, method, peer);
    assert_eq!(of(Side::Caller, "counted", "stats.Svc/Do", ""), [(0, 1), (1, 1)]);
    assert_eq!(of(Side::Attempt, "counted", "stats.Svc/Do", "t-1"), [(14, 1)]);
    assert_eq!(of(Side::Attempt, "counted", "stats.Svc/Do", "10.0.0.2:7102"), [(0, 1)]);
    assert_eq!(of(Side::Provider, "", "stats.Svc/Do", "user-svc"), [(5, 1)]);
    // Without a list of methods the name counts once the service has answered, and nobody remembers who called.
    assert_eq!(of(Side::Provider, "", "stats.Svc/Do", ""), [(5, 1)]);
    assert_eq!(of(Side::Caller, "counted", "stats.Svc/Before", ""), []);
    assert!(deltas.iter().all(|delta| !delta.key.method.starts_with("grpc.")));
    drop(taker);

    let mut headers = HeaderMap::new();
    let call = CallSpan::start_in(&parent, "/stats.Svc/Do", "counted");
    call.attempt(
        1,
        AttemptKind::default(),
        Peer {
            address: "10.0.0.1:7101",
            instance_id: "t-1",
            ..Peer::default()
        },
    )
    .inject(&mut headers);
    assert!(!headers.contains_key(stats::CALLER_HEADER), "nobody takes any more");
}
