//! The body as HTTP/2 sees it: what is polled, what is handed over, and what is held meanwhile.

use std::net::SocketAddr;

use bytes::{Buf as _, BytesMut};
use futures_util::FutureExt as _;
use http_body::Body as _;
use prost::Message as _;
use proto::registry::v1 as wire;
use service_host::DrainSignal;
use wire::watch_response::Change;

use super::*;
use crate::{
    api::Backlog,
    catalog::{Batch, Change as Changed},
    fixtures::{WALL, draft, scope},
    history::HistoryLimits,
    hub::{Hub, Restored, Trust, View, WatchFrom},
    model::{Confidence, Instance, LeaseId, Metadata, Revision},
};

const IDLE: Duration = Duration::from_secs(3_600);

/// A registry's side of some watches.
struct Fixture {
    hub: Arc<Hub>,
    backlog: Backlog,
    drain: DrainSignal,
    instruments: Arc<Instruments>,
}

/// A client's side of one.
struct Watch<D> {
    body: Pin<Box<WatchBody<D>>>,
    received: BytesMut,
}

impl Fixture {
    fn new(instances: &[Arc<Instance>]) -> Self {
        let limits = HistoryLimits {
            revisions: 10,
            bytes: usize::MAX,
        };
        let hub = Hub::restore(Restored {
            revision: Revision::new(1),
            compacted: Revision::new(1),
            instances,
            ..Restored::empty(limits)
        });
        Self {
            hub: Arc::new(hub),
            backlog: Backlog::default(),
            drain: DrainSignal::new(),
            instruments: Arc::new(Instruments {
                clock: Clock::start(),
                metrics: Metrics::new(),
            }),
        }
    }

    /// A watch of the service `a` on a connection.
    fn watch(&self, port: u16) -> Watch<impl Future<Output = ()> + use<>> {
        let body = WatchBody::new(
            Arc::clone(&self.instruments),
            self.hub.watch(&scope("a"), WatchFrom::Nothing).expect("watches"),
            Names::new("watch".into(), "history".into()),
            self.backlog.join(Some(SocketAddr::from(([127, 0, 0, 1], port)))),
            IDLE,
            self.drain.clone().into_wait(),
        );
        Watch {
            body: Box::pin(body),
            received: BytesMut::new(),
        }
    }

    fn publish(&self, instance: Arc<Instance>) {
        let batch = Batch {
            revision: self.hub.look(View::revision).next(),
            at: WALL,
            changes: vec![Changed::Put { instance, left: None }],
            leases: Vec::new(),
        };
        self.hub.publish(&[Arc::new(batch)]);
    }
}

impl<D: Future<Output = ()>> Watch<D> {
    /// What HTTP/2 gets when it asks.
    fn poll(&mut self) -> Option<Frame<Bytes>> {
        let body = &mut self.body;
        let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).now_or_never()?;
        Some(frame.expect("it goes on").expect("no error"))
    }

    /// The next message, if there is one.
    fn next(&mut self) -> Option<wire::WatchResponse> {
        loop {
            let data = self.poll()?.into_data().expect("data");
            self.received.extend_from_slice(&data);
            let mut header = &self.received[..5];
            assert_eq!(header.get_u8(), 0, "not compressed");
            let length = usize::try_from(header.get_u32()).expect("small");
            if self.received.len() >= 5 + length {
                let message = self.received.split_to(5 + length).split_off(5);
                assert!(self.received.is_empty(), "nothing of the next one");
                return Some(wire::WatchResponse::decode(message).expect("decodes"));
            }
        }
    }

    /// Of a snapshot, the instances of the next part.
    fn part(&mut self) -> Option<usize> {
        match self.next()?.change? {
            Change::Snapshot(snapshot) => Some(snapshot.instances.len()),
            other => panic!("not a snapshot: {other:?}"),
        }
    }
}

/// One with some 15 KiB of metadata.
fn large(n: usize) -> Arc<Instance> {
    let mut draft = draft("a", &format!("{n:04}"), "");
    let pairs = (0..15).map(|key| (format!("k{key}"), "v".repeat(1_024)));
    draft.spec.metadata = Metadata::try_new(pairs).expect("fits");
    Arc::new(draft.registered(Revision::new(1), LeaseId::from_random(1), WALL))
}

fn small(n: usize) -> Arc<Instance> {
    Arc::new(draft("a", &n.to_string(), "").registered(Revision::new(2), LeaseId::from_random(1), WALL))
}

/// Watches that were opened and never read held a whole snapshot each, encoded, however many there were.
#[tokio::test]
async fn unread_watches_of_a_connection_hold_a_bounded_part_and_nobody_else_up() {
    let instances: Vec<_> = (0..64).map(large).collect();
    let fixture = Fixture::new(&instances);
    let mut unread: Vec<_> = (0..20).map(|_| fixture.watch(1)).collect();
    let told: Vec<_> = unread.iter_mut().filter_map(Watch::part).collect();
    assert_eq!(told, [64; 8], "8 MiB of 1 MiB each");
    let mut other = fixture.watch(2);
    assert_eq!(other.part(), Some(64), "another connection");

    // One that is read asks for more, which makes room for the next; so does one that hangs up.
    assert!(unread[0].poll().is_none(), "there is nothing new");
    assert_eq!(unread[8].part(), Some(64));
    assert!(unread[9].poll().is_none());
    drop(unread.remove(1));
    assert_eq!(unread[8].part(), Some(64));
    assert!(unread[9].poll().is_none());

    fixture.drain.fire();
    let trailers = unread[9].poll().expect("does not wait for room").into_trailers();
    let status = Status::from_header_map(&trailers.expect("the end")).expect("a status");
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(unread[9].body.is_end_stream());
}

/// A snapshot beyond 4 MiB could not be read by a stock client.
#[tokio::test]
async fn a_large_snapshot_comes_in_parts_and_nothing_in_between() {
    let instances: Vec<_> = (0..300).map(large).collect();
    let fixture = Fixture::new(&instances);
    let mut watch = fixture.watch(1);
    let mut told = Vec::new();
    loop {
        fixture.publish(small(told.len()));
        let response = watch.next().expect("a part");
        assert!(response.encoded_len() < 2 << 20);
        assert_eq!(response.revision, 2, "all of the same revision");
        let Some(Change::Snapshot(snapshot)) = response.change else {
            panic!("a part")
        };
        assert_eq!(snapshot.cause(), wire::snapshot::Cause::Initial);
        told.extend(snapshot.instances.into_iter().map(|instance| instance.id));
        if !snapshot.more {
            break;
        }
    }
    assert_eq!(told.len(), 301);
    assert!(told.is_sorted());
    assert_eq!(watch.next().expect("a delta").revision, 3, "then what came meanwhile");
}

/// What a watch that is not read holds, in bytes: itself, and the message that HTTP/2 has taken already. 64 KiB would be
/// allowed.
#[tokio::test]
async fn a_stalled_watch_holds_less_than_a_page() {
    let fixture = Fixture::new(&[]);
    let mut stalled = fixture.watch(1);
    stalled.next().expect("a snapshot");
    let mut healthy = fixture.watch(2);
    healthy.next().expect("a snapshot");
    for n in 0..1_000 {
        fixture.publish(small(n));
        assert_eq!(
            healthy.next().expect("a delta").revision,
            i64::try_from(n).expect("small") + 2
        );
    }
    let names = stalled.body.open.as_ref().expect("open").names.bytes();
    let held = size_of_val(&*stalled.body) + names;
    assert!(held <= 1_024, "{held} bytes");

    let response = stalled.next().expect("never cut off");
    let Some(Change::Snapshot(snapshot)) = response.change else {
        panic!("coalesced")
    };
    assert_eq!((response.revision, snapshot.instances.len()), (1_001, 1_000));
    assert_eq!(snapshot.cause(), wire::snapshot::Cause::Coalesced);
}

/// Idle watchers learn how far to trust what they know, at once and not with the next bookmark.
#[tokio::test(start_paused = true)]
async fn an_idle_watch_is_told_of_a_change_of_confidence_at_once() {
    use wire::confidence::State;
    let fixture = Fixture::new(&[]);
    let mut watch = fixture.watch(1);
    let mut told = || {
        let response = watch.next()?;
        Some((
            response.confidence?.state(),
            matches!(response.change?, Change::Bookmark(_)),
        ))
    };
    assert_eq!(told(), Some((State::Fresh, false)));
    assert_eq!(told(), None);
    fixture.hub.set_trust(Trust {
        stale_since: Some(fixture.instruments.clock.now().moment),
        ..Trust::default()
    });
    assert_eq!(told(), Some((State::Stale, true)));
    assert_eq!(told(), None);
    fixture.hub.set_trust(Trust::default());
    assert_eq!(told(), Some((State::Fresh, true)));
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_a_bookmark_that_counts_from_what_was_told_last() {
    let fixture = Fixture::new(&[]);
    let mut watch = fixture.watch(1);
    watch.next().expect("a snapshot");
    assert!(watch.poll().is_none());
    tokio::time::advance(IDLE / 2).await;
    fixture.publish(small(1));
    assert_eq!(watch.next().expect("a delta").revision, 2);
    tokio::time::advance(IDLE * 9 / 10).await;
    assert!(watch.poll().is_none(), "not since it began");
    tokio::time::advance(IDLE / 10).await;
    let bookmark = watch.next().expect("a bookmark");
    assert_eq!(
        (bookmark.revision, bookmark.change),
        (2, Some(Change::Bookmark(wire::Bookmark {})))
    );
    assert!(watch.poll().is_none());
    tokio::time::advance(IDLE).await;
    assert_eq!(watch.next().expect("and again").revision, 2);
    assert_eq!(
        fixture
            .hub
            .confidence(&scope("a").scope, Moment::after_start(Duration::ZERO)),
        Confidence::Fresh
    );
}
