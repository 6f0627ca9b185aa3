//! Servers that say they will not take a call: it goes elsewhere, once, and nobody notices.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use registry_client::{Discovery, Instance, Snapshot};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;

use crate::support::{
    GoingAway, ScriptedServer, TestServer, all_ready, answer, ask, channel_to, check, client, eventually, in_time,
    ready, reason,
};

#[tokio::test]
async fn a_graceful_shutdown_loses_no_call_and_ends_no_stream() {
    let (mut leaving, staying) = (TestServer::start(), TestServer::start());
    let channel = channel_to(&[leaving.addr(), staying.addr()]).await;
    // A watch on each: one on the leaving server alone would make it the busier of the two, which no call ever meets.
    let mut watches = HashMap::new();
    for _ in 0..2 {
        let response = client(&channel).watch(ask("")).await.expect("answered");
        let picked = response.extensions().get::<lb::Picked>().expect("on every response");
        watches.insert(picked.address.to_string(), response.into_inner());
    }
    assert_eq!((leaving.seen.calls(), staying.seen.calls()), (1, 1));
    // Calls before, during and after.
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (channel, stop) = (channel.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    check(&channel).await.expect("no call is lost");
                }
            })
        })
        .collect();
    eventually("it is in the middle of calls", || leaving.seen.calls() > 50).await;
    leaving.drain();
    eventually("it is out of the set", || ready(&channel) == 1).await;
    let (left, stayed) = (leaving.seen.calls(), staying.seen.calls());
    eventually("calls go on", || staying.seen.calls() > stayed + 200).await;
    // What had been sent before may have been counted since; each caller has one call under way.
    assert!(leaving.seen.calls() <= left + callers.len(), "no new calls go there");
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.expect("no call is lost");
    }

    let mut stream = watches.remove(&leaving.addr()).expect("one on each");
    leaving.seen.tell_watchers().await;
    stream.next().await.expect("the stream goes on").expect("not an error");
    leaving.seen.end_watches();
    assert!(stream.next().await.is_none(), "and ends as it should");
}

/// Refuses every stream, in the way that `refuse` has; counts them.
async fn refusing(count: Arc<AtomicUsize>) -> ScriptedServer {
    ScriptedServer::start(move |_, mut connection| {
        let count = Arc::clone(&count);
        async move {
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_refused_stream_goes_elsewhere() {
    let refused = Arc::new(AtomicUsize::new(0));
    let (refuser, taker) = (refusing(Arc::clone(&refused)).await, TestServer::start());
    let target = lb::Target::fixed([refuser.addr(), taker.addr()]).expect("good addresses");
    // By default calls would keep away from the refuser.
    let channel = lb::Channel::builder(target)
        .policy(lb::Policy::RoundRobin)
        .outlier_detection(None)
        .build();
    all_ready(&channel, 2).await;
    for _ in 0..100 {
        assert_eq!(check(&channel).await.expect("answered"), taker.addr());
    }
    let refused = refused.load(Ordering::SeqCst);
    assert!(refused > 10, "only {refused} calls met the refuser");
    assert_eq!(taker.seen.calls(), 100, "each call was processed once");
}

#[tokio::test]
async fn a_call_that_everybody_refuses_fails_after_two_attempts() {
    let refused = Arc::new(AtomicUsize::new(0));
    let (one, other) = (
        refusing(Arc::clone(&refused)).await,
        refusing(Arc::clone(&refused)).await,
    );
    let channel = channel_to(&[one.addr(), other.addr()]).await;
    let status = check(&channel).await.expect_err("nobody takes it");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (tonic::Code::Unavailable, "NOT_TAKEN"),
        "{status}"
    );
    assert_eq!(refused.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_stream_above_the_last_of_a_goaway_goes_elsewhere() {
    let (going, taker) = (GoingAway::start(0).await, TestServer::start());
    // The call must meet it: nothing else is there at first.
    let (told, snapshots) = watch::channel(Arc::new(Snapshot::fresh(
        1,
        [Instance::new("s", "going", &going.addr())],
    )));
    let channel = lb::Channel::builder(Discovery::fed_by("s", snapshots)).build();
    all_ready(&channel, 1).await;
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { check(&channel).await }
    });
    eventually("the call has met it", || going.met() == 1).await;
    told.send(Arc::new(Snapshot::fresh(
        2,
        [
            Instance::new("s", "going", &going.addr()),
            Instance::new("s", "taker", &taker.addr()),
        ],
    )))
    .expect("watched");
    all_ready(&channel, 2).await;
    going.leave();
    let answered = in_time(call).await.expect("did not panic");
    assert_eq!(answered.expect("answered"), taker.addr());
    assert_eq!((going.met(), taker.seen.calls()), (1, 1), "once each");
}

#[tokio::test]
async fn a_stream_that_a_goaway_includes_is_not_sent_again_when_it_breaks() {
    let (one, other) = (GoingAway::start(1).await, GoingAway::start(1).await);
    let channel = channel_to(&[one.addr(), other.addr()]).await;
    one.leave();
    other.leave();
    let status = in_time(check(&channel)).await.expect_err("it broke off");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (tonic::Code::Unavailable, "BROKEN_OFF"),
        "{status}"
    );
    assert_eq!(one.met() + other.met(), 1, "sent once");
}

#[tokio::test]
async fn a_call_goes_to_the_new_connection_of_the_same_instance_when_the_old_one_goes_away() {
    let server = ScriptedServer::start(|number, mut connection| async move {
        let mut answered = 0;
        while let Some(Ok((_request, respond))) = connection.accept().await {
            answer(respond);
            answered += 1;
            if number == 0 && answered == 3 {
                connection.graceful_shutdown();
            }
        }
    })
    .await;
    let channel = channel_to(&[server.addr()]).await;
    for _ in 0..20 {
        assert_eq!(check(&channel).await.expect("answered"), server.addr());
    }
}
