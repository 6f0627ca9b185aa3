//! The TLS handshakes that wait for their client: so many in all, and never at the expense of whoever has few.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::whose;

/// The handshakes of one listener. Cheap to clone.
///
/// Not a queue: whoever waits behind clients that do not go on is shut out by them. Beyond the bound the peer that has the most
/// loses its oldest, and among peers that have as many the oldest of all goes. An honest handshake takes a round trip, so to be
/// that one within it others must have begun as many as there may be.
#[derive(Debug, Clone)]
pub(super) struct UnderWay {
    most: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: usize,
    peers: HashMap<IpAddr, BTreeMap<u64, CancellationToken>>,
}

/// A handshake's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    under_way: UnderWay,
    peer: IpAddr,
    number: u64,
    lost: CancellationToken,
}

impl UnderWay {
    /// At most `most` at once, at least 1.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            open: Arc::default(),
        }
    }

    /// A place, which somebody else loses if there are too many.
    pub(super) fn enter(&self, address: IpAddr) -> Place {
        let peer = whose(address);
        let lost = CancellationToken::new();
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        open.all += 1;
        open.peers.entry(peer).or_default().insert(number, lost.clone());
        if open.all > self.most {
            open.end_one();
        }
        Place {
            under_way: self.clone(),
            peer,
            number,
            lost,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing panics while it is locked.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// The newest is never the one: it is its peer's oldest only where that has no other, and others are older then.
    fn end_one(&mut self) {
        let rank = |places: &BTreeMap<u64, _>| (places.len(), Reverse(places.keys().next().copied()));
        let most = self.peers.iter().max_by_key(|(_, places)| rank(places));
        let victim = most.and_then(|(peer, places)| Some((*peer, *places.keys().next()?)));
        if let Some((peer, number)) = victim {
            self.leave(peer, number);
        }
    }

    fn leave(&mut self, peer: IpAddr, number: u64) {
        let Some(places) = self.peers.get_mut(&peer) else {
            return;
        };
        if let Some(lost) = places.remove(&number) {
            self.all -= 1;
            lost.cancel();
        }
        if places.is_empty() {
            self.peers.remove(&peer);
        }
    }
}

impl Place {
    /// Resolves when somebody else has got it.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.under_way.lock().leave(self.peer, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn lost(places: &[Place]) -> Vec<bool> {
        places.iter().map(|place| place.lost.is_cancelled()).collect()
    }

    #[test]
    fn whoever_has_the_most_loses_their_oldest() {
        let under_way = UnderWay::new(4);
        let good = under_way.enter(address(1));
        let flood: Vec<_> = (0..20).map(|_| under_way.enter(address(2))).collect();
        assert!(
            !good.lost.is_cancelled(),
            "it is the oldest, and the only one of its peer"
        );
        assert_eq!(lost(&flood[..17]), [true; 17]);
        assert_eq!(lost(&flood[17..]), [false; 3]);
    }

    #[test]
    fn among_equals_the_oldest_goes_and_never_the_newest() {
        let under_way = UnderWay::new(2);
        let places: Vec<_> = (1..=4).map(|last| under_way.enter(address(last))).collect();
        assert_eq!(lost(&places), [true, true, false, false]);
        drop(places);
        let open = under_way.lock();
        assert_eq!((open.all, open.peers.len()), (0, 0), "nothing is kept");
    }

    #[test]
    fn a_place_that_was_given_back_is_free() {
        let under_way = UnderWay::new(1);
        drop(under_way.enter(address(1)));
        let one = under_way.enter(address(1));
        assert!(!one.lost.is_cancelled());
        let _other = under_way.enter(address(2));
        assert!(one.lost.is_cancelled());
    }
}
