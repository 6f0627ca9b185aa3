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
    hub::{Hub, Restored, Selection, Trust, View, WatchFrom},
    model::{Confidence, Instance, LeaseId, Metadata, Revision},
};

const IDLE: Duration = Duration::from_secs(3_600);

/// A registry's side of some watches.
pub(super) struct Fixture {
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
    pub(super) fn new(instances: &[Arc<Instance>]) -> Self {
        let limits = HistoryLimits {
            revisions: 100,
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
            instruments: Arc::new(Instruments::new(Clock::start(), Metrics::new())),
        }
    }

    /// A watch of the service `a` on a connection.
    fn watch(&self, port: u16) -> Watch<impl Future<Output = ()> + use<>> {
        Watch {
            body: Box::pin(self.body(port, &scope("a"))),
            received: BytesMut::new(),
        }
    }

    pub(super) fn body(&self, port: u16, selection: &Selection) -> WatchBody<impl Future<Output = ()> + use<>> {
        WatchBody::new(
            Arc::clone(&self.instruments),
            self.hub.watch(selection, WatchFrom::Nothing).expect("watches"),
            Names::new("watch".into(), "history".into()),
            self.backlog.join(Some(SocketAddr::from(([127, 0, 0, 1], port)))),
            IDLE,
            self.drain.clone().into_wait(),
        )
    }

    fn publish(&self, instance: Arc<Instance>) {
        self.publish_all([instance]);
    }

    pub(super) fn publish_all(&self, instances: impl IntoIterator<Item = Arc<Instance>>) {
        let put = |instance| Changed::Put { instance, left: None };
        let batch = Batch {
            revision: self.hub.look(View::revision).next(),
            at: WALL,
            changes: instances.into_iter().map(put).collect(),
            leases: Vec::new(),
            overrides: Vec::new(),
            by: None,
            trace: None,
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

    /// All parts of a snapshot: its revision and cause, and the ids in order.
    fn snapshot(&mut self) -> (i64, wire::snapshot::Cause, Vec<String>) {
        let mut ids = Vec::new();
        loop {
            let response = self.next().expect("a part");
            assert!(response.encoded_len() < 24 << 10, "{}", response.encoded_len());
            let Some(Change::Snapshot(snapshot)) = response.change else {
                panic!("a part")
            };
            let (cause, more) = (snapshot.cause(), snapshot.more);
            ids.extend(snapshot.instances.into_iter().map(|instance| instance.id));
            if !more {
                return (response.revision, cause, ids);
            }
        }
    }
}

/// One with some 15 KiB of metadata.
pub(super) fn large(n: usize) -> Arc<Instance> {
    let mut draft = draft("a", &format!("{n:04}"), "");
    let pairs = (0..15).map(|key| (format!("k{key}"), "v".repeat(1_024)));
    draft.spec.metadata = Metadata::try_new(pairs).expect("fits");
    Arc::new(draft.registered(Revision::new(1), LeaseId::from_random(1), WALL))
}

fn small(n: usize) -> Arc<Instance> {
    Arc::new(draft("a", &n.to_string(), "").registered(Revision::new(2), LeaseId::from_random(1), WALL))
}

/// Watches that were never read held a whole change each, encoded, however large it was and however many they were.
#[tokio::test]
async fn unread_watches_of_a_connection_hold_a_bounded_part_and_nobody_else_up() {
    let fixture = Fixture::new(&[]);
    let mut unread: Vec<_> = (0..20).map(|_| fixture.watch(1)).collect();
    let mut other = fixture.watch(2);
    for watch in unread.iter_mut().chain([&mut other]) {
        watch.next().expect("a snapshot");
    }
    fixture.publish_all((0..64).map(large));
    // As HTTP/2 has them that cannot send: head and rest.
    let take = |watch: &mut Watch<_>| Some([watch.poll()?, watch.poll()?]);
    let mut taken: Vec<_> = unread.iter_mut().map(take).collect();
    assert_eq!(taken.iter().flatten().count(), 8, "8 MiB of 1 MiB each");
    assert!(take(&mut unread[0]).is_none(), "there is nothing new");
    assert!(
        take(&mut unread[8]).is_none(),
        "being asked for more gives nothing back"
    );
    assert!(other.next().is_some(), "another connection");

    // What is written, or given up with its stream, makes room for the next.
    taken[0] = None;
    taken[8] = take(&mut unread[8]);
    assert!(taken[8].is_some() && take(&mut unread[9]).is_none());
    drop((unread.remove(1), taken.remove(1)));
    assert!(take(&mut unread[8]).is_some());

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
    watch.next().expect("the first part");
    fixture.publish(small(1));
    let (revision, cause, ids) = watch.snapshot();
    assert_eq!((revision, cause), (1, wire::snapshot::Cause::Initial));
    assert_eq!(ids.len(), 299, "one was in the first part");
    assert!(ids.is_sorted());
    assert_eq!(watch.next().expect("a delta").revision, 2, "then what came meanwhile");
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

    // Never cut off.
    let (revision, cause, ids) = stalled.snapshot();
    assert_eq!((revision, ids.len()), (1_001, 1_000));
    assert_eq!(cause, wire::snapshot::Cause::Coalesced);
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
