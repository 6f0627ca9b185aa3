//! What keeps a connection moving: reads and writes its socket, keeps it alive, and notices when it takes no more calls.
//!
//! A link is spawned by its endpoint's driver and outlives its usefulness on purpose: after a GOAWAY it takes no new calls
//! but finishes those it has.

use std::{
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::client;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::oneshot,
};

use super::{
    Endpoint,
    connection::Connection,
    heard::{Heard, Note},
    keepalive::{self, KeepAlive, Pace, too_many_pings},
};

/// Per stream; fast enough for 2 Gbit/s at a round trip of 4 ms.
const STREAM_WINDOW: u32 = 1 << 20;
/// All streams of one connection together; bounds what a peer can make us buffer.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// What the bookkeeping of unread DATA frames may cost beside the bytes that windows count. h2 reckons 256 bytes a frame, less
/// its payload, over all streams, and when the budget is spent it ends the *connection*, every call of it; half the window,
/// its default, are 17,000 unread messages of 7 bytes on a single stream whose reader is slow. With eight times the window
/// the windows stop the peer first: one stream's is full of even the smallest of messages (5 bytes) after 53 MB of
/// bookkeeping, and the connection's is full of messages that are 29 bytes or more, on whichever streams, after 64 MB.
const DATA_FRAME_BUDGET: usize = 8 * CONNECTION_WINDOW as usize;
/// Of response headers and trailers, as gRPC's own implementations have it.
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// More streams than this on one connection is "unlimited"; keeps the count in the range of the semaphore.
const MAX_STREAMS: usize = 1 << 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect: {0}")]
    Tcp(#[source] std::io::Error),
    #[error("connected, but no HTTP/2 there: {0}")]
    Http2(#[source] h2::Error),
    #[error("accepted the connection and closed it without a word")]
    HungUp,
    #[error(transparent)]
    Tls(#[from] tls::ConnectError),
    #[error("it is to be called with TLS, and no CA bundle is given to verify it with")]
    NoAuthorities,
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl ConnectError {
    /// With TLS 1.3 a server refuses a client's certificate only after the handshake, and HTTP/2 hears of it first.
    fn explained(self) -> Self {
        let by_tls = match &self {
            Self::Http2(error) => error.get_io().and_then(|error| tls::ConnectError::explain(error)),
            _ => None,
        };
        by_tls.map_or(self, Self::Tls)
    }
}

/// A connection that has just been made.
pub(crate) struct Connected<L = AnyLink> {
    /// For calls.
    pub(crate) connection: Connection,
    /// To be spawned.
    pub(crate) link: L,
    /// Resolves when the connection takes no more calls.
    pub(crate) gone: oneshot::Receiver<Gone>,
}

/// Why a connection takes no more calls.
#[derive(Debug)]
pub(crate) struct Gone {
    /// For people.
    pub(crate) why: String,
    /// The peer was asked too often whether it is there.
    pub(crate) too_many_pings: bool,
}

/// The live connection. Resolves when its socket is closed.
pub(crate) struct Link<T> {
    io: client::Connection<Heard<T>, Bytes>,
    heard: Note,
    /// Never sends; is asked whether it could.
    probe: client::SendRequest<Bytes>,
    connection: Connection,
    keep_alive: Option<KeepAlive>,
    limit: usize,
    gone: Option<oneshot::Sender<Gone>>,
    /// Whether others have been let go first since the last look at the socket.
    gathered: bool,
}

/// A link of either kind. Each is compiled for itself, and told from the other once a turn, not once a read or write.
#[allow(
    clippy::large_enum_variant,
    reason = "one a connection, moved once into its task; the plain one shall not pay for the other"
)]
pub(crate) enum AnyLink {
    Plain(Link<TcpStream>),
    /// Boxed, as rustls keeps its state in the stream.
    Tls(Box<Link<tls::ClientStream<TcpStream>>>),
}

impl Future for AnyLink {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.get_mut() {
            Self::Plain(link) => Pin::new(link).poll(cx),
            Self::Tls(link) => Pin::new(&mut **link).poll(cx),
        }
    }
}

/// Dials `endpoint` (a name is resolved anew each time), with TLS where a certificate is expected, and waits for the server to
/// speak, `timeout` in all.
pub(super) async fn connect(
    endpoint: &Endpoint,
    tls: Option<&tls::Client>,
    timeout: Duration,
    pace: Pace,
) -> Result<Connected, ConnectError> {
    tokio::time::timeout(timeout, establish(endpoint, tls, pace))
        .await
        .unwrap_or(Err(ConnectError::Timeout(timeout)))
}

async fn establish(endpoint: &Endpoint, tls: Option<&tls::Client>, pace: Pace) -> Result<Connected, ConnectError> {
    let stream = TcpStream::connect(&*endpoint.address)
        .await
        .map_err(ConnectError::Tcp)?;
    // Calls are small and wait for nothing: Nagle's algorithm would only add its delay.
    stream.set_nodelay(true).map_err(ConnectError::Tcp)?;
    let Some(expected) = &endpoint.secured else {
        return Ok(speak(stream, pace).await?.map(AnyLink::Plain));
    };
    let tls = tls.ok_or(ConnectError::NoAuthorities)?;
    // Large, and gone as soon as there is a connection.
    let secured = Box::pin(tls.connect(stream, endpoint.authority.host(), expected)).await?;
    let connected = speak(secured, pace).await.map_err(ConnectError::explained)?;
    Ok(connected.map(|link| AnyLink::Tls(Box::new(link))))
}

impl<L> Connected<L> {
    fn map<M>(self, change: impl FnOnce(L) -> M) -> Connected<M> {
        Connected {
            connection: self.connection,
            link: change(self.link),
            gone: self.gone,
        }
    }
}

async fn speak<T: AsyncRead + AsyncWrite + Unpin>(stream: T, pace: Pace) -> Result<Connected<Link<T>>, ConnectError> {
    static NEXT_ID: AtomicU64 = AtomicU64::new(0);

    let (stream, heard) = Heard::new(stream);
    let (sender, mut io) = client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(DATA_FRAME_BUDGET)
        .max_header_list_size(MAX_HEADER_LIST)
        .enable_push(false)
        .initial_max_send_streams(0)
        .handshake(stream)
        .await
        .map_err(ConnectError::Http2)?;
    // A TCP connect proves only that a kernel is alive: a stopped process still accepts, up to its backlog. A server speaks
    // first thing (RFC 9113 section 3.4: its SETTINGS), and only that raises the limit from the zero above.
    let limit = std::future::poll_fn(|cx| match Pin::new(&mut io).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(ConnectError::HungUp)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(ConnectError::Http2(error))),
        Poll::Pending => match io.max_concurrent_send_streams() {
            0 => Poll::Pending,
            limit => Poll::Ready(Ok(limit.min(MAX_STREAMS))),
        },
    })
    .await?;
    let keep_alive = io.ping_pong().map(|pings| KeepAlive::new(pings, pace));
    let connection = Connection::new(NEXT_ID.fetch_add(1, Ordering::Relaxed), sender.clone());
    connection.widen(limit);
    let (tell, gone) = oneshot::channel();
    let link = Link {
        io,
        heard,
        probe: sender,
        connection: connection.clone(),
        keep_alive,
        limit,
        gone: Some(tell),
        gathered: false,
    };
    Ok(Connected { connection, link, gone })
}

impl Gone {
    /// The link went without a word.
    pub(super) fn panicked() -> Self {
        Self::because("the connection failed")
    }

    fn because(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            too_many_pings: false,
        }
    }

    fn failed(error: h2::Error) -> Self {
        Self {
            too_many_pings: too_many_pings(&error),
            why: error.to_string(),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Link<T> {
    fn takes_no_more(&mut self, why: impl FnOnce() -> Gone) {
        if let Some(gone) = self.gone.take() {
            self.connection.close();
            // Nobody listens when the endpoint was removed meanwhile.
            let _ = gone.send(why());
        }
    }

    fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (heard, calls) = (self.heard.take(), self.connection.has_calls());
        let keep_alive = self.keep_alive.as_mut();
        keep_alive.map_or(Poll::Pending, |keep_alive| keep_alive.poll_dead(cx, heard, calls))
    }

    fn follow_limit(&mut self) {
        let limit = self.io.max_concurrent_send_streams().min(MAX_STREAMS);
        if limit > self.limit {
            self.connection.widen(limit - self.limit);
        } else if limit < self.limit {
            self.connection.narrow(self.limit - limit);
        }
        self.limit = limit;
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Link<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // Callers that are ready to run right now may have more to send: with their streams in one write, and one wake-up of the
        // peer, instead of one each, calls are cheaper on both sides. grpc-go's writer does the same.
        this.gathered = !this.gathered;
        if this.gathered {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match Pin::new(&mut this.io).poll(cx) {
            Poll::Ready(ended) => {
                this.takes_no_more(|| ended.map_or_else(Gone::failed, |()| Gone::because("closed by the server")));
                Poll::Ready(())
            }
            Poll::Pending => {
                // A GOAWAY came, or the stream ids are used up (after some hours at full speed).
                if let Poll::Ready(Err(error)) = this.probe.poll_ready(cx) {
                    this.takes_no_more(|| Gone::failed(error));
                }
                this.follow_limit();
                // A ping that is due now wakes us again to write it.
                let dead = this.poll_dead(cx);
                if dead.is_ready() {
                    this.takes_no_more(|| {
                        Gone::because(format!("a ping was not answered within {:?}", keepalive::TIMEOUT))
                    });
                }
                dead
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use tokio::time::Instant;

    use super::*;
    use crate::{
        call::RequestBody,
        endpoint::{
            raw_peer::{
                ACK, DATA, END_HEADERS, GOAWAY, HEADERS, PING, RST_STREAM, RawPeer, STATUS_200, frame, streams_allowed,
            },
            stream::{Exchange, Incoming},
        },
    };

    /// A call without a body, sent.
    fn send(connection: &Connection) -> Exchange {
        let slot = connection.try_room().expect("open").expect("room");
        let head = || Request::post("http://h/s/m").body(()).expect("a head");
        Connection::send(slot, head, &RequestBody::Whole(None)).expect("sent")
    }

    /// Connected to a raw peer that allows so many streams.
    async fn connected(limit: u32) -> (Connected<Link<tokio::io::DuplexStream>>, RawPeer) {
        let (ours, mut peer) = RawPeer::pair();
        let (connected, ()) = tokio::join!(speak(ours, Pace::default()), async {
            peer.send(&streams_allowed(limit)).await;
            peer.preface().await;
        });
        (connected.expect("speaks HTTP/2"), peer)
    }

    /// A subscriber that does not keep up used to end the calls of everybody on its connection: 17,000 small messages that
    /// nobody had read yet were more bookkeeping than h2 allows by default, long before any window was full.
    #[tokio::test]
    async fn a_window_full_of_the_smallest_messages_harms_nobody_else() {
        const EMPTY_MESSAGE: [u8; 5] = [0; 5];
        let (Connected { connection, link, gone }, mut peer) = connected(100).await;
        let link = tokio::spawn(link);
        let stalled = send(&connection);
        let stream = peer.next(HEADERS).await.stream;
        peer.send(&frame(HEADERS, END_HEADERS, stream, STATUS_200)).await;
        let unread: Response<Incoming> = stalled.await.expect("answered");
        let message = frame(DATA, 0, stream, &EMPTY_MESSAGE);
        let full = STREAM_WINDOW as usize / EMPTY_MESSAGE.len();
        for _ in 0..full / 1000 {
            peer.send(&message.repeat(1000)).await;
        }
        peer.send(&message.repeat(full % 1000)).await;
        peer.sync().await;

        let other = send(&connection);
        let stream = peer.next(HEADERS).await.stream;
        peer.send(&frame(HEADERS, END_HEADERS, stream, STATUS_200)).await;
        other.await.expect("answered");
        assert!(gone.is_empty(), "the connection is as good as before");
        drop(unread);
        link.abort();
    }

    #[tokio::test]
    async fn the_peers_limit_is_followed_down_to_nothing_and_up_again() {
        let (Connected { connection, link, .. }, mut peer) = connected(2).await;
        let link = tokio::spawn(link);
        let call = send(&connection);
        peer.send(&streams_allowed(0)).await;
        peer.sync().await;
        assert!(!connection.has_room());
        drop(call);
        assert!(!connection.has_room());
        peer.send(&streams_allowed(1)).await;
        peer.sync().await;
        let one = connection.try_room().expect("open").expect("room");
        assert!(!connection.has_room());
        drop(one);
        link.abort();
    }

    /// h2's handle for sending keeps hold of the stream that has reached the peer's limit; dropping that call did not cancel
    /// it, and the server worked on for nobody until the next call was sent.
    #[tokio::test(start_paused = true)]
    async fn a_dropped_call_that_had_taken_the_last_room_is_cancelled() {
        let (Connected { connection, link, .. }, mut peer) = connected(1).await;
        let link = tokio::spawn(link);
        let call = send(&connection);
        let stream = peer.next(HEADERS).await.stream;
        drop(call);
        let reset = tokio::time::timeout(Duration::from_secs(5), peer.next(RST_STREAM)).await;
        let reset = reset.expect("it is cancelled");
        let cancel = u32::from(h2::Reason::CANCEL).to_be_bytes();
        assert_eq!((reset.stream, &reset.payload[..]), (stream, &cancel[..]));
        link.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_falls_silent_during_a_call_is_given_up_after_interval_and_timeout() {
        let (Connected { connection, link, gone }, mut peer) = connected(100).await;
        let link = tokio::spawn(link);
        let call = send(&connection);
        let started = Instant::now();
        // It answers three pings, and then nobody reads any more.
        for _ in 0..3 {
            let ping = peer.next(PING).await;
            peer.send(&frame(PING, ACK, 0, &ping.payload)).await;
        }
        let gone = gone.await.expect("says why");
        assert!(gone.why.contains("a ping was not answered within 3s"), "{gone:?}");
        let lived = started.elapsed();
        assert!(
            lived >= Duration::from_secs(43) && lived < Duration::from_secs(44),
            "{lived:?}"
        );
        assert!(connection.try_room().is_err(), "it takes no more calls");
        link.await.expect("the link ends");
        assert!(call.await.is_err(), "broken off");
    }

    /// Pings used to go out every 10 s, come what may. gRPC's servers end the connection of a client that does so, and all
    /// calls with it: about every 40 s.
    #[tokio::test(start_paused = true)]
    async fn a_peer_is_not_asked_without_calls_or_while_it_talks() {
        let (Connected { connection, link, gone }, mut peer) = connected(100).await;
        let link = tokio::spawn(link);
        let started = Instant::now();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let call = send(&connection);
        let stream = peer.next(HEADERS).await.stream;
        peer.send(&frame(HEADERS, END_HEADERS, stream, STATUS_200)).await;
        let unread: Response<Incoming> = call.await.expect("answered");
        for _ in 0..400 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            peer.send(&frame(DATA, 0, stream, b"x")).await;
        }
        // The first ping of all comes 10 s after the last word.
        peer.next(PING).await;
        assert_eq!(started.elapsed().as_secs(), 3600 + 400 * 9 + 10);
        assert!(gone.is_empty());
        drop((unread, peer));
        link.abort();
    }

    #[tokio::test]
    async fn a_peer_that_was_asked_too_often_says_so() {
        const ENHANCE_YOUR_CALM: u8 = 11;
        for (reason, data, expected) in [
            (ENHANCE_YOUR_CALM, "too_many_pings", true),
            (ENHANCE_YOUR_CALM, "too_many_calls", false),
            (0, "too_many_pings", false),
        ] {
            for hangs_up in [false, true] {
                let (Connected { connection, link, gone }, mut peer) = connected(100).await;
                let link = tokio::spawn(link);
                let payload = [&[0, 0, 0, 0, 0, 0, 0, reason], data.as_bytes()].concat();
                peer.send(&frame(GOAWAY, 0, 0, &payload)).await;
                let peer = (!hangs_up).then_some(peer);
                let gone = gone.await.expect("says why");
                assert_eq!(gone.too_many_pings, expected, "{gone:?}");
                assert!(connection.try_room().is_err(), "it takes no more calls");
                drop(peer);
                link.abort();
            }
        }
    }
}
