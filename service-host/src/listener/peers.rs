//! How many connections each peer has: one that opens all there may be must not lock everybody else out.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The connections of all peers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A peer's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    /// A place for another connection of a peer, if it has fewer than `most`.
    pub(crate) fn enter(&self, address: IpAddr, most: usize) -> Option<Place> {
        let peer = whose(address);
        let mut open = self.lock();
        let count = open.entry(peer).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place {
            peers: self.clone(),
            peer,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.peers.lock().entry(self.peer) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// To whom an address belongs. A host on IPv6 has a whole /64 to choose from (RFC 8981), and one that came to a socket for both
/// as IPv4 is the same as on one for IPv4 alone.
pub fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_peer_has_so_many_and_gets_them_back() {
        let peers = Peers::default();
        let one = address("192.0.2.1");
        let first = peers.enter(one, 2).expect("there is a place");
        let _second = peers.enter(one, 2).expect("there is another");
        assert!(peers.enter(one, 2).is_none());
        assert!(peers.enter(address("192.0.2.2"), 2).is_some(), "others have their own");
        drop(first);
        assert!(peers.enter(one, 2).is_some());
        drop(_second);
        assert!(peers.lock().is_empty(), "nothing is kept of those who have gone");
    }

    #[test]
    fn the_addresses_of_one_host_are_one_peer() {
        assert_eq!(whose(address("::ffff:192.0.2.1")), address("192.0.2.1"));
        assert_eq!(
            whose(address("2001:db8:1:2:3::4")),
            whose(address("2001:db8:1:2:ffff::1"))
        );
        assert_ne!(whose(address("2001:db8:1:2::1")), whose(address("2001:db8:1:3::1")));
    }
}
