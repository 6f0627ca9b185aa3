//! The TLS handshake of a new connection: bounded in time and number, and complained of rarely.
//!
//! Not here: which certificates are good (`tls`), and what is spoken afterwards.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use telemetry::metrics::Counter;
use tls::{Accepted, HandshakeError};
use tokio::{net::TcpStream, time::Instant};

use super::{WriteTimeout, accept::due, under_way::UnderWay};

/// Makes the handshakes of one listener.
#[derive(Debug, Clone)]
pub(crate) struct Handshakes {
    acceptor: tls::Acceptor,
    listener: &'static str,
    under_way: UnderWay,
    refused: Counter,
    said: Arc<Mutex<Option<Instant>>>,
}

impl Handshakes {
    pub(crate) fn new(acceptor: tls::Acceptor, listener: &'static str, most: usize) -> Self {
        let refused = telemetry::metrics::counter(
            "tessera_server_handshakes_refused",
            "TLS handshakes that ended because the client showed no certificate that is good here",
            &["listener"],
        );
        Self {
            acceptor,
            listener,
            under_way: UnderWay::new(most),
            refused: refused.with(&[listener]),
            said: Arc::default(),
        }
    }

    /// The connection behind its handshake, its writes watched below TLS, since what TLS holds back is not with the peer; `None`
    /// when there was none by `deadline`, which has been told.
    ///
    /// Nobody waits for anybody else's handshake: what costs us is done at once, and a client that then keeps us waiting gives
    /// way to others when there are too many of its kind.
    pub(crate) async fn make(
        &self,
        socket: WriteTimeout<TcpStream>,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Option<Accepted<WriteTimeout<TcpStream>>> {
        let handshake = async {
            let hello = self.acceptor.hello(socket).await?;
            let place = self.under_way.enter(peer.ip());
            tokio::select! {
                biased;
                accepted = hello.answer() => accepted,
                () = place.lost() => Err(io::Error::other("it kept us waiting while too many handshakes were under way").into()),
            }
        };
        match tokio::time::timeout_at(deadline, handshake).await {
            Ok(Ok(accepted)) => return Some(accepted),
            Ok(Err(error)) => self.failed(peer, &error),
            Err(_) => {
                tracing::debug!(%peer, listener = self.listener, "the TLS handshake did not end in time");
            }
        }
        None
    }

    fn failed(&self, peer: SocketAddr, error: &HandshakeError) {
        let HandshakeError::Certificate { reason } = error else {
            // Whatever a peer sends us is not our error: plain HTTP and noise end here.
            tracing::debug!(%peer, listener = self.listener, %error, "connection ended");
            return;
        };
        self.refused.inc();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if due(&mut said) {
            // Somebody who should get in may be kept out; and whoever should not must not be able to fill a disk.
            tracing::warn!(%peer, listener = self.listener, reason, "a client's certificate was refused; more are not told for 10 s");
        } else {
            tracing::debug!(%peer, listener = self.listener, reason, "a client's certificate was refused");
        }
    }
}
