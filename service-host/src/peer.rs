//! Who is at the other end of a connection, as each of its requests says.

use std::{net::SocketAddr, sync::Arc};

/// The peer of a request: an extension of every one that a [`Host`](crate::Host) serves, there before any layer.
///
/// It is what the connection shows, and no more: behind a proxy the address is the proxy's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// Whom the peer's certificate names, once it was verified; `None` without TLS and for a peer that showed none.
    pub identity: Option<Arc<tls::Identity>>,
}
