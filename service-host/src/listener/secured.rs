//! The TLS handshake of a new connection: bounded in time, and complained of rarely.
//!
//! Not here: which certificates are good (`tls`), and what is spoken afterwards.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use telemetry::metrics::Counter;
use tls::{Accepted, HandshakeError};
use tokio::{net::TcpStream, time::Instant};

use super::{WriteTimeout, accept::due};

/// Makes the handshakes of one listener.
#[derive(Debug, Clone)]
pub(crate) struct Handshakes {
    acceptor: tls::Acceptor,
    listener: &'static str,
    refused: Counter,
    said: Arc<Mutex<Option<Instant>>>,
}

impl Handshakes {
    pub(crate) fn new(acceptor: tls::Acceptor, listener: &'static str) -> Self {
        let refused = telemetry::metrics::counter(
            "tessera_server_handshakes_refused",
            "TLS handshakes that ended because the client showed no certificate that is good here",
            &["listener"],
        );
        Self {
            acceptor,
            listener,
            refused: refused.with(&[listener]),
            said: Arc::default(),
        }
    }

    /// The connection behind its handshake, its writes watched below TLS, since what TLS holds back is not with the peer; `None` when there was none by `deadline`, which has been told.
    pub(crate) async fn make(
        &self,
        socket: WriteTimeout<TcpStream>,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Option<Accepted<WriteTimeout<TcpStream>>> {
        match tokio::time::timeout_at(deadline, self.acceptor.accept(socket)).await {
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
