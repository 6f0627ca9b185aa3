//! How a connection to a member is made: with TLS for `etcds://`, without for `etcd://`. Bounded by whoever dials. Which member,
//! and when it is given up, is `client`'s to say.
//!
//! What goes wrong here goes wrong until somebody changes a flag or a file, so the errors say which.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use hyper_util::rt::TokioIo;
use tls::ConnectError;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tonic::transport::Uri;
use tower_service::Service;

use super::client::CONNECT;

/// What every error names that says what to do: the flag, or those that begin so.
pub(super) const FLAG: &str = "--store";

/// Dials members.
#[derive(Debug, Clone, Default)]
pub(super) struct Dialer {
    tls: Option<tls::Client>,
    wordless: Arc<AtomicBool>,
}

impl Dialer {
    pub(super) fn plain() -> Self {
        Self::default()
    }

    pub(super) fn secured(tls: tls::Client) -> Self {
        Self {
            tls: Some(tls),
            ..Self::default()
        }
    }

    /// Whether the last connection without TLS was closed before anything had come.
    pub(super) fn is_wordless(&self) -> bool {
        self.wordless.load(Ordering::Relaxed)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("cannot connect to {member}: {why}")]
    Tcp { member: String, why: io::Error },
    #[error("{member}: {why}; {}", advice(.why))]
    Tls { member: String, why: ConnectError },
}

/// What to do about it.
fn advice(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Plain => "where etcd listens without TLS, --store is etcd://",
        ConnectError::Certificate { .. } => {
            "--store-ca has to be the authority that issued etcd's certificate, and --store names its members as that does"
        }
        ConnectError::Refused { .. } => {
            "pass --store-cert and --store-key with a client certificate of the authority that is etcd's --trusted-ca-file"
        }
        _ => "etcd's log says more; --store names its client addresses, and where it listens without TLS is etcd://",
    }
}

/// A connection, whichever way it was made.
pub(super) trait Connected: AsyncRead + AsyncWrite + Send + Unpin {}

impl<IO: AsyncRead + AsyncWrite + Send + Unpin> Connected for IO {}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Box<dyn Connected>>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    /// tonic bounds it by the time that a connection may take.
    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { tls, wordless } = self.clone();
        Box::pin(async move {
            let member = uri.authority().map(ToString::to_string).unwrap_or_default();
            let host = uri.host().unwrap_or_default();
            let socket = match tcp(host, uri.port_u16().unwrap_or_default()).await {
                Ok(socket) => socket,
                Err(why) => return Err(DialError::Tcp { member, why }),
            };
            let Some(tls) = tls else {
                let plain: Box<dyn Connected> = Box::new(Plain {
                    socket,
                    is_heard: false,
                    wordless,
                });
                return Ok(TokioIo::new(plain));
            };
            match tls.connect(socket, host, &tls::Expected::Host).await {
                Ok(secured) => {
                    let secured: Box<dyn Connected> = Box::new(secured);
                    Ok(TokioIo::new(secured))
                }
                Err(why) => Err(DialError::Tls { member, why }),
            }
        })
    }
}

/// Connects to one of the addresses of a host. Each has its share of the time: one that swallows everything must not use up the
/// next one's.
async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<_> = lookup_host((bare, port)).await?.collect();
    let share = CONNECT / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

/// A connection without TLS. An etcd that wants TLS closes it without an answer, and what callers are told of it is only that
/// their connection was closed.
#[derive(Debug)]
struct Plain {
    socket: TcpStream,
    /// Anything has come.
    is_heard: bool,
    wordless: Arc<AtomicBool>,
}

impl Plain {
    /// Takes in what was read, or why nothing was.
    fn hear(&mut self, came: bool) {
        if !self.is_heard {
            self.wordless.store(!came, Ordering::Relaxed);
        }
        self.is_heard |= came;
    }

    /// A connection that is closed may be noticed by what cannot be written.
    fn write(&mut self, written: io::Result<usize>) -> Poll<io::Result<usize>> {
        if written.is_err() {
            self.hear(false);
        }
        Poll::Ready(written)
    }
}

impl AsyncRead for Plain {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.socket).poll_read(cx, buffer));
        self.hear(buffer.filled().len() > before);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, bytes));
        self.write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, bytes));
        self.write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
