//! What is spoken on a gRPC connection: HTTP/2 by hyper, with every bound of [`Limits`] set.
//!
//! hyper is used directly and not through tonic's server: that one always puts a timer of its own around each call, which
//! answers CANCELLED in a race with our DEADLINE_EXCEEDED, and gives no way to bound the send buffer.

use std::{
    convert::Infallible,
    error::Error,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use telemetry::{metrics::Counter, server::PeerAddr};
use tls::Accepted;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tokio_util::task::TaskTracker;
use tonic::transport::server::TcpConnectInfo;
use tower::ServiceExt as _;
use tower_service::Service;

use crate::{
    config::Limits,
    listener::{
        CalmIo, Connections, Cork, Ended, Handshakes, Heard, Opened, PrefaceIo, Stop, Uncork, WriteTimeout, cork,
    },
    peer::Peer,
};

/// How long a connection that has said nothing yet may take to say something when the server stops. Its opening and a first
/// call may be under way or in the socket's buffer, unread: that is a round trip between neighbours. More would delay the
/// end for peers that never speak.
const UNOPENED_LINGER: Duration = Duration::from_millis(100);

/// How long calls may go on whose connection was opened with a certificate that has ended: enough for those that were about to
/// be answered.
const ENDED_LINGER: Duration = Duration::from_secs(5);

/// The calls being answered, and the tasks that answer them.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight {
    calls: Arc<AtomicUsize>,
    handlers: TaskTracker,
    heard: Heard,
}

impl InFlight {
    /// How many calls are open now.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Shows from now on how many are open.
    pub(crate) fn measure(&self) {
        let streams = telemetry::metrics::gauge(
            "tessera_server_streams",
            "Inbound calls that are open now, streams included",
            &[],
        )
        .with(&[]);
        let calls = Arc::downgrade(&self.calls);
        // Read when somebody scrapes, so that a call pays nothing for it. A process has one server.
        telemetry::metrics::before_encode(move || {
            if let Some(calls) = calls.upgrade() {
                streams.set(calls.load(Ordering::Relaxed) as f64);
            }
        });
    }

    /// Resolves when for `calm` no call has been open and no peer has said anything. A peer that still reads its last answer
    /// out of the kernel's buffers says so with window updates; one that is stopped says nothing.
    pub(crate) async fn none_for(&self, calm: Duration) {
        // Only while draining, and then for seconds: looking now and then is simpler than being told.
        const LOOK: Duration = Duration::from_millis(20);
        let mut since = Instant::now();
        let mut heard = self.heard.times();
        while since.elapsed() < calm {
            let last = std::mem::replace(&mut heard, self.heard.times());
            if self.calls() > 0 || heard != last {
                since = Instant::now();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Counts a call until the guard is dropped.
    pub(crate) fn enter(&self) -> CallGuard {
        self.calls.fetch_add(1, Ordering::Relaxed);
        CallGuard(Arc::clone(&self.calls))
    }

    /// Waits until no handler runs any more, for at most `patience`: with its connection gone a handler is dropped at its
    /// next await.
    pub(crate) async fn handlers_ended(&self, patience: Duration) {
        self.handlers.close();
        if tokio::time::timeout(patience, self.handlers.wait()).await.is_err() {
            tracing::warn!(
                handlers = self.handlers.len(),
                "handlers run on although their callers are gone"
            );
        }
    }
}

/// One open call.
#[derive(Debug)]
pub(crate) struct CallGuard(Arc<AtomicUsize>);

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Spawns the task of each stream where it is counted.
#[derive(Debug, Clone)]
struct Handlers(TaskTracker);

impl<F> hyper::rt::Executor<F> for Handlers
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Serves gRPC connections with `stack`, behind a TLS handshake if there is somebody who makes them.
pub(crate) fn grpc<S, B>(stack: S, in_flight: &InFlight, limits: &Limits, handshakes: Option<Handshakes>) -> Connections
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data: Send> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = http2::Builder::new(Handlers(in_flight.handlers.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_local_error_reset_streams(limits.max_local_error_reset_streams)
        .max_pending_accept_reset_streams(limits.max_pending_accept_reset_streams)
        .max_header_list_size(limits.max_header_list_size)
        .max_send_buf_size(limits.max_send_buffer)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    let (preface_timeout, write_timeout) = (limits.preface_timeout, limits.write_timeout());
    let grpc = Grpc {
        stack,
        builder,
        in_flight: in_flight.clone(),
        floods: telemetry::metrics::counter(
            "tessera_server_floods",
            "Connections ended because the peer sent too many frames that ask for nothing",
            &[],
        )
        .with(&[]),
    };
    Arc::new(move |socket, peer, stop| {
        // One deadline for everything that comes before the first call.
        let opened_by = Instant::now() + preface_timeout;
        let local_addr = socket.local_addr().ok();
        let socket = WriteTimeout::new(socket, write_timeout);
        let caller = Caller {
            local_addr,
            peer: Peer::at(peer),
        };
        // Two kinds of connection, each compiled for itself: the plain one does not pay for the other.
        let Some(handshakes) = handshakes.clone() else {
            return Box::pin(grpc.serve(socket, opened_by, caller, stop));
        };
        let grpc = grpc.clone();
        Box::pin(async move {
            let made = tokio::select! {
                made = handshakes.make(socket, peer, opened_by) => made,
                // It has not made a call yet.
                () = stop.gracefully.cancelled() => None,
            };
            let Some(Accepted { stream, identity }) = made else {
                return Ended::Closed;
            };
            let peer = Peer {
                identity,
                ..caller.peer
            };
            let caller = Caller { peer, ..caller };
            // Boxed, since the handshake's own state is gone by now and should not be held for as long as the connection.
            Box::pin(while_good(caller, stop, |caller, stop| {
                grpc.serve(stream, opened_by, caller, stop)
            }))
            .await
        })
    })
}

/// Serves a connection for as long as its certificate is good: then its streams end, it takes no new ones, so that a peer that has
/// a new certificate comes back with that, and what goes on is cut.
async fn while_good<F: Future<Output = Ended>>(
    caller: Caller,
    stop: Stop,
    serve: impl FnOnce(Caller, Stop) -> F,
) -> Ended {
    let (identity, ended) = (caller.peer.identity.clone(), caller.peer.ended.clone());
    let gracefully = stop.gracefully.child_token();
    let own = Stop {
        gracefully: gracefully.clone(),
        ..stop
    };
    let mut serving = std::pin::pin!(serve(caller, own));
    tokio::select! {
        ended = serving.as_mut() => return ended,
        () = Peer::certificate_ends(identity) => {}
    }
    ended.revoke();
    gracefully.cancel();
    tokio::time::timeout(ENDED_LINGER, serving)
        .await
        .unwrap_or(Ended::Closed)
}

/// What serves connections of either kind.
#[derive(Clone)]
struct Grpc<S> {
    stack: S,
    builder: http2::Builder<Handlers>,
    in_flight: InFlight,
    floods: Counter,
}

/// Both ends of a connection.
#[derive(Debug, Clone)]
struct Caller {
    local_addr: Option<SocketAddr>,
    peer: Peer,
}

impl<S, B> Grpc<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data: Send> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn serve<T>(
        &self,
        io: T,
        opened_by: Instant,
        caller: Caller,
        stop: Stop,
    ) -> impl Future<Output = Ended> + Send + use<S, B, T>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = caller.peer.address;
        let service = OnConnection {
            stack: self.stack.clone(),
            caller,
        };
        let io = PrefaceIo::new(io, opened_by, self.in_flight.heard.clone());
        let opened = io.opened();
        let (io, uncork) = cork(CalmIo::new(io, self.floods.clone()));
        let turns = Turns {
            connection: self.builder.serve_connection(TokioIo::new(io), service),
            uncork,
            in_flight: self.in_flight.clone(),
            unwritten: None,
            has_yielded: false,
        };
        drive(turns, opened, peer, stop)
    }
}

pin_project! {
    /// A connection, turn by turn: first the streams that are ready, then the connection, then one write of all they had to say.
    struct Turns<C, T> {
        #[pin]
        connection: C,
        uncork: Uncork<CalmIo<PrefaceIo<T>>>,
        in_flight: InFlight,
        // Bytes that the socket has not taken are a call that is not over.
        unwritten: Option<CallGuard>,
        has_yielded: bool,
    }
}

impl<C, T> Future for Turns<C, T>
where
    C: Future<Output = hyper::Result<()>>,
    T: AsyncWrite + Unpin,
{
    type Output = Result<(), Box<dyn Error + Send + Sync>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // Whoever woke us is one of many, often: a change is told to all watchers of the connection, and each of them wakes it.
        // Those who are ready by now go first, behind them is our place; else each would be written by itself.
        if !std::mem::replace(this.has_yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        *this.has_yielded = false;
        if let Poll::Ready(ended) = this.connection.poll(cx) {
            return Poll::Ready(ended.map_err(Into::into));
        }
        match this.uncork.poll(cx) {
            Poll::Ready(Ok(())) => {
                // The connection may have waited for that.
                if this.unwritten.take().is_some() {
                    cx.waker().wake_by_ref();
                }
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
            Poll::Pending => {
                this.unwritten.get_or_insert_with(|| this.in_flight.enter());
            }
        }
        Poll::Pending
    }
}

/// HTTP/2 on a connection of either kind.
type Spoken<T, S> = http2::Connection<TokioIo<Cork<CalmIo<PrefaceIo<T>>>>, OnConnection<S>, Handlers>;

async fn drive<S, B, T>(turns: Turns<Spoken<T, S>, T>, opened: Opened, peer: SocketAddr, stop: Stop) -> Ended
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data: Send> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut turns = std::pin::pin!(turns);
    let result = tokio::select! {
        result = turns.as_mut() => result,
        () = stop.gracefully.cancelled() => {
            turns.as_mut().project().connection.graceful_shutdown();
            tokio::select! {
                result = turns.as_mut() => result,
                () = tokio::time::sleep(UNOPENED_LINGER) => {
                    if !opened.get() {
                        return Ended::Closed;
                    }
                    turns.await
                }
            }
        }
    };
    if let Err(error) = result {
        // Whatever a peer does to its connection is not our error: HTTP/1, TLS and noise end here too.
        tracing::debug!(%peer, %error, cause = error.source().map(tracing::field::display), "connection ended");
    }
    Ended::Closed
}

/// The stack, told who is calling.
#[derive(Debug, Clone)]
struct OnConnection<S> {
    stack: S,
    caller: Caller,
}

impl<S> hyper::service::Service<Request<Incoming>> for OnConnection<S>
where
    S: Service<Request<Incoming>, Error = Infallible> + Clone,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = tower::util::Oneshot<S, Request<Incoming>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let extensions = request.extensions_mut();
        let Caller { local_addr, peer } = &self.caller;
        // What tonic's `Request::remote_addr` reads.
        extensions.insert(TcpConnectInfo {
            local_addr: *local_addr,
            remote_addr: Some(peer.address),
        });
        extensions.insert(PeerAddr(peer.address));
        extensions.insert(peer.clone());
        self.stack.clone().oneshot(request)
    }
}
