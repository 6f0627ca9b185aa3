//! Servers that say they will not take a call: it goes elsewhere, once, and nobody notices.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use registry_client::{Discovery, Instance, Snapshot};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;

use crate::support::{
    ScriptedServer, TestServer, all_ready, answer, ask, channel_to, check, client, goaway_on_request, reason,
};

#[tokio::test]
async fn a_graceful_shutdown_loses_no_call_and_ends_no_stream() {
    let (mut leaving, staying) = (TestServer::start(), TestServer::start());
    let channel = channel_to(&[leaving.addr(), staying.addr()]).await;
    // A stream on the one that will leave.
    let mut streams = Vec::new();
    while leaving.seen.calls() == 0 {
        streams.push(client(&channel).watch(ask("")).await.expect("answered").into_inner());
    }
    let mut stream = streams.pop().expect("opened");
    leaving.drain();
    for _ in 0..200 {
        check(&channel).await.expect("no call is lost");
    }
    for _ in 0..50 {
        assert_eq!(
            check(&channel).await.expect("answered"),
            staying.addr(),
            "the leaving one is out of the set by now"
        );
    }
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
    let channel = channel_to(&[refuser.addr(), taker.addr()]).await;
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
    let (going, task) = goaway_on_request(0).await;
    let taker = TestServer::start();
    // Every call must meet it: nothing else is there at first.
    for _ in 0..5 {
        let (told, snapshots) = watch::channel(Arc::new(Snapshot::fresh(1, [Instance::new("s", "going", &going)])));
        let channel = lb::Channel::builder(Discovery::fed_by("s", snapshots)).build();
        all_ready(&channel, 1).await;
        let call = tokio::spawn({
            let channel = channel.clone();
            async move { check(&channel).await }
        });
        told.send(Arc::new(Snapshot::fresh(
            2,
            [Instance::new("s", "taker", &taker.addr())],
        )))
        .expect("watched");
        assert_eq!(call.await.expect("did not panic").expect("answered"), taker.addr());
    }
    assert_eq!(taker.seen.calls(), 5, "each call was processed once");
    task.abort();
}

#[tokio::test]
async fn a_stream_that_a_goaway_includes_is_not_sent_again_when_it_breaks() {
    let (going, task) = goaway_on_request(1).await;
    let (other, other_task) = goaway_on_request(1).await;
    let channel = channel_to(&[going, other]).await;
    let status = check(&channel).await.expect_err("it broke off");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (tonic::Code::Unavailable, "BROKEN_OFF"),
        "{status}"
    );
    task.abort();
    other_task.abort();
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
