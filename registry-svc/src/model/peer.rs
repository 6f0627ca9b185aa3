//! Where calls come from, as far as limits care.

use std::net::IpAddr;

/// A peer: an IPv4 address or a /64 of IPv6, which is what a flood comes from. Behind a proxy all are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PeerKey(IpAddr);

impl PeerKey {
    /// To whom an address belongs; `service_host::whose` says that.
    pub(crate) const fn new(whose: IpAddr) -> Self {
        Self(whose)
    }
}
