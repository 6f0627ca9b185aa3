//! What a client says first: read as a whole before anything is decided, and bounded.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// The longest hello, in bytes of the wire. Real ones have 200 to 2,000, the longest with post-quantum keys; rustls would hold
/// 64 KiB of one that never ends, for each connection that anybody opens.
const MAX_BYTES: usize = 16 << 10;
/// rustls reads no more at a time.
const PIECE: usize = 4 << 10;

/// Reads a hello to its end. Takes as long as the client likes.
///
/// # Errors
/// An end, noise or more than 16 KiB without a whole hello; the client has been told as much as TLS tells.
pub(crate) async fn read<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO) -> io::Result<Accepted> {
    let mut acceptor = Acceptor::default();
    let mut left = MAX_BYTES;
    while left > 0 {
        let came = poll_fn(|cx| more(io, &mut acceptor, left, cx)).await?;
        if came == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= came;
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut told = Vec::new();
                alert.write_all(&mut told)?;
                // Whoever does not take it goes without.
                let _ = io.write_all(&told).await;
                let _ = io.flush().await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
    let problem = "no end of the client's hello in its first 16 KiB";
    Err(io::Error::new(io::ErrorKind::InvalidData, problem))
}

/// The next bytes, at most `left`; 0 at the end. What they pass through is on the stack: a silent client holds nothing.
fn more<IO: AsyncRead + Unpin>(
    io: &mut IO,
    acceptor: &mut Acceptor,
    left: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut bytes = [0; PIECE];
    let mut buffer = ReadBuf::new(&mut bytes[..left.min(PIECE)]);
    ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
    let mut came = buffer.filled();
    let count = came.len();
    if count > 0 {
        acceptor.read_tls(&mut came)?;
    }
    Poll::Ready(Ok(count))
}
