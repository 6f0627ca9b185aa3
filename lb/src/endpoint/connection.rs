//! One HTTP/2 connection: dialling it, and handing it calls. The only file that names hyper's client.
//!
//! It does not reconnect and does not know the pool. [`Connection`] is the cheap handle that calls use; [`Link`] is the
//! connection itself, which its driver must poll for anything to move.

use std::{
    fmt, io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::peer::Peer;
use crate::call::RequestBody;

/// Our servers and everybody's defaults accept a ping every 10 s (gRPC's own floor of 5 min is for idle mobile clients and
/// is enforced by grpc-go and grpc-java servers only against much faster ones when calls are under way).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A peer that has not answered a ping for this long is gone: 13 s at most from the plug being pulled to the loss noticed.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Per stream; fast enough for 2 Gbit/s at a round trip of 4 ms.
const STREAM_WINDOW: u32 = 1 << 20;
/// All streams of one connection together; bounds what a peer can make us buffer.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// How a connection is made.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// For TCP, HTTP/2 preface and the server's first word together.
    pub(crate) connect_timeout: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect: {0}")]
    Tcp(#[source] io::Error),
    #[error("connected, but no HTTP/2 there: {0}")]
    Http2(#[source] hyper::Error),
    #[error("accepted the connection and closed it without a word")]
    HungUp,
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// What calls hold: cheap to clone.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: http2::SendRequest<RequestBody>,
    id: u64,
}

/// The live connection. Resolves when it takes no more calls: closed, failed, or a GOAWAY was noticed. Calls that it still
/// answers go on regardless.
pub(crate) struct Link {
    driven: Pin<Box<http2::Connection<TokioIo<Peer>, RequestBody, TokioExecutor>>>,
}

impl Connection {
    /// Tells this connection from the earlier and later ones of the same endpoint.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether it is known to take no more calls.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a call. A request that never left comes back in the error.
    pub(crate) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<> {
        self.sender.try_send_request(request)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("closed", &self.is_closed())
            .finish()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Future for Link {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.driven.as_mut().poll(cx)
    }
}

/// Dials `address` (`host:port`; a name is resolved anew each time) and waits for the server to speak.
pub(crate) async fn connect(address: &str, settings: &Settings) -> Result<(Connection, Link), ConnectError> {
    tokio::time::timeout(settings.connect_timeout, establish(address))
        .await
        .unwrap_or(Err(ConnectError::Timeout(settings.connect_timeout)))
}

async fn establish(address: &str) -> Result<(Connection, Link), ConnectError> {
    static NEXT_ID: AtomicU64 = AtomicU64::new(0);

    let stream = TcpStream::connect(address).await.map_err(ConnectError::Tcp)?;
    // Calls are small and wait for nothing: Nagle's algorithm would only add its delay.
    stream.set_nodelay(true).map_err(ConnectError::Tcp)?;
    let (peer, heard) = Peer::new(stream);
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(peer))
        .await
        .map_err(ConnectError::Http2)?;
    let mut link = Link {
        driven: Box::pin(connection),
    };
    tokio::select! {
        heard = heard => heard.map_err(|_| ConnectError::HungUp)?,
        ended = &mut link => return Err(ended.map_or_else(ConnectError::Http2, |()| ConnectError::HungUp)),
    }
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    Ok((Connection { sender, id }, link))
}
