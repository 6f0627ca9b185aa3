//! Over a real HTTP/2 connection, of which nobody reads: what is held of what was handed over.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::BytesMut;
use http::{Request, Response};
use http_body::Body as _;
use hyper::{body::Incoming, client, server, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use proto::registry::v1 as wire;

use super::{
    tests::{Fixture, large},
    *,
};
use crate::{
    api::backlog::CONNECTION_BYTES,
    fixtures::{WALL, draft, scope},
    model::{Instance, LeaseId, Revision},
    running::SEND_BUFFER,
};

/// Watches of a connection, each of another service.
const WATCHES: usize = 20;

/// Counts the bytes that a body has handed over and HTTP/2 has not let go, by the memory that they keep.
struct Counted<B> {
    inner: B,
    held: Arc<AtomicUsize>,
}

struct Counting {
    bytes: Bytes,
    size: usize,
    held: Arc<AtomicUsize>,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Counted<B> {
    type Data = Counting;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Counting>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let held = &self.held;
        let counting = |bytes: Bytes| {
            held.fetch_add(bytes.len(), Ordering::Relaxed);
            Counting {
                size: bytes.len(),
                bytes,
                held: Arc::clone(held),
            }
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(counting))))
    }
}

impl bytes::Buf for Counting {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.held.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// A client whose watches are opened and not read, and what the server holds of them.
struct Unread {
    held: Arc<AtomicUsize>,
    streams: Vec<Stream>,
}

/// One of its watches.
struct Stream {
    body: Incoming,
    received: BytesMut,
    told: Vec<wire::WatchResponse>,
}

fn service(n: usize) -> String {
    format!("s{n:02}")
}

impl Unread {
    /// Opens a watch of each service, with so large windows.
    async fn open(fixture: &Arc<Fixture>, window: u32) -> Self {
        let (client, server) = tokio::io::duplex(64 << 10);
        let held = Arc::new(AtomicUsize::new(0));
        let (served, counted) = (Arc::clone(fixture), Arc::clone(&held));
        let answer = service_fn(move |request: Request<Incoming>| {
            let body = Counted {
                inner: Box::pin(served.body(1, &scope(request.uri().path().trim_matches('/')))),
                held: Arc::clone(&counted),
            };
            async { Ok::<_, Infallible>(Response::new(body)) }
        });
        let mut http2 = server::conn::http2::Builder::new(TokioExecutor::new());
        http2.max_send_buf_size(SEND_BUFFER);
        tokio::spawn(http2.serve_connection(TokioIo::new(server), answer));

        let mut http2 = client::conn::http2::Builder::new(TokioExecutor::new());
        http2
            .initial_stream_window_size(window)
            .initial_connection_window_size(i32::MAX.unsigned_abs());
        let (mut sender, connection) = http2.handshake(TokioIo::new(client)).await.expect("speaks");
        tokio::spawn(connection);
        let mut streams = Vec::new();
        for n in 0..WATCHES {
            let request = Request::get(format!("http://a/{}", service(n)));
            let request = request.body(String::new()).expect("a request");
            streams.push(Stream {
                body: sender.send_request(request).await.expect("answers").into_body(),
                received: BytesMut::new(),
                told: Vec::new(),
            });
        }
        Self { held, streams }
    }

    /// What is held when everything has come to rest. Time is paused: it passes when nobody has anything to do.
    async fn held(&self) -> usize {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.held.load(Ordering::Relaxed)
    }
}

impl Stream {
    /// Reads until it has been told so many messages.
    async fn read(&mut self, messages: usize) {
        while self.told.len() < messages {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            let data = frame.expect("goes on").expect("no reset").into_data().expect("data");
            self.received.extend_from_slice(&data);
            while let Some(header) = self.received.get(1..5) {
                let length = u32::from_be_bytes(header.try_into().expect("four bytes"));
                let whole = 5 + usize::try_from(length).expect("small");
                if self.received.len() < whole {
                    break;
                }
                let message = self.received.split_to(whole).split_off(5);
                self.told.push(wire::WatchResponse::decode(message).expect("decodes"));
            }
        }
    }
}

/// A megabyte of a service.
fn megabyte(n: usize) -> impl Iterator<Item = Arc<Instance>> {
    (0..64).map(move |id| {
        let mut draft = draft(&service(n), &format!("{id:02}"), "");
        draft.spec.metadata = large(0).spec.metadata.clone();
        Arc::new(draft.registered(Revision::new(1), LeaseId::from_random(1), WALL))
    })
}

/// What a stalled watch may hold.
const STALLED_BYTES: usize = 64 << 10;

/// A snapshot of a megabyte came in one message, which HTTP/2 held as a whole, and the next one, for every watch that was not read.
#[tokio::test(start_paused = true)]
async fn a_watch_that_stalls_within_a_snapshot_holds_a_bounded_part_of_it() {
    let instances: Vec<_> = (0..WATCHES).flat_map(megabyte).collect();
    let fixture = Arc::new(Fixture::new(&instances));
    // The stream is held back by its window; or the socket by who does not read it.
    for window in [65_535, 1 << 30] {
        let mut unread = Unread::open(&fixture, window).await;
        let held = unread.held().await;
        assert!(
            held <= WATCHES * STALLED_BYTES,
            "{} bytes each with a window of {window}",
            held / WATCHES
        );
        for stream in &mut unread.streams {
            stream.read(64).await;
            assert!(stream.told.iter().all(|part| part.revision == 1));
        }
        assert_eq!(unread.held().await, 0);
    }
}

/// The room of a large message was given back when hyper asked for the next one, which it does while HTTP/2 still has all of the
/// last: the budget bounded nothing.
#[tokio::test(start_paused = true)]
async fn large_changes_that_are_not_read_share_a_budget() {
    let fixture = Arc::new(Fixture::new(&[]));
    let mut unread = Unread::open(&fixture, 65_535).await;
    unread.held().await;
    for _ in 0..2 {
        for n in 0..WATCHES {
            fixture.publish_all(megabyte(n));
        }
    }
    let held = unread.held().await;
    assert!(
        held <= CONNECTION_BYTES + WATCHES * STALLED_BYTES,
        "{held} bytes of {WATCHES} watches"
    );
    // Of each watch that has room, HTTP/2 has one and the body the most of the next.
    assert!(held > CONNECTION_BYTES / 4, "{held} bytes: nothing is tested");
    // Reading those that have room makes room for the others.
    let mut waiting: Vec<&mut Stream> = unread.streams.iter_mut().collect();
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut left = Vec::new();
        for stream in waiting {
            let patience = Duration::from_secs(1);
            if tokio::time::timeout(patience, stream.read(3)).await.is_err() {
                left.push(stream);
            }
        }
        waiting = left;
        assert!(waiting.len() < before, "{} wait for ever", waiting.len());
    }
    assert_eq!(unread.held().await, 0);
}
