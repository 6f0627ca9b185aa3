//! Who is at the other end of a connection, as each of its requests says, and for how long that is so.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::gate::Revocation;

/// The wall clock may be set while we sleep: it is looked at again at least so often.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The peer of a request: an extension of every one that a [`Host`](crate::Host) serves, there before any layer.
///
/// It is what the connection shows, and no more: behind a proxy the address is the proxy's.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// Whom the peer's certificate names, once it was verified; `None` without TLS and for a peer that showed none.
    pub identity: Option<Arc<tls::Identity>>,
    /// Fires when that certificate ends. The connection then takes no more calls and is closed soon; a [`Gate`](crate::Gate) that
    /// admits a stream by the certificate passes it until this.
    pub ended: Revocation,
}

impl Peer {
    /// A peer of whom nothing but the address is known.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            identity: None,
            ended: Revocation::new(),
        }
    }

    /// Resolves when the peer's certificate is good no longer; never for a peer without one.
    pub(crate) async fn certificate_ends(identity: Option<Arc<tls::Identity>>) {
        let Some(last) = identity.and_then(|identity| identity.not_after) else {
            return std::future::pending().await;
        };
        // The last second is one of the good ones.
        let end = Duration::from_secs(last.saturating_add(1));
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let left = end.saturating_sub(now);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK_AGAIN)).await;
        }
    }
}
