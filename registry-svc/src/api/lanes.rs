//! Whose turn it is when more is asked than can be done: heartbeats never stand behind lists, and no peer behind another's flood.
//!
//! - **Reads** that may take long take turns: half of the runtime's threads compute them at once, so that the others are there for
//!   everybody else. A list of a narrow selection may look at a million instances. Short ones, which are nearly all, take turns
//!   only while a heartbeat waits: else each would wake the next one, and half of the machine would be idle.
//! - **Changes** and **reads** that wait are counted by peer. While few wait anybody may have as many as he likes; once the lane
//!   is half full, one peer may have half of what waits, and beyond that is told to come back.
//! - **Heartbeats** are never refused. Each peer has so many rounds in the driver's queue, and its further ones wait for those.
//!
//! A peer is an IPv4 address or a /64 of IPv6: what a flood comes from. Behind a proxy all are one peer.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::Extensions;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::ApiError;
use crate::{
    driver::Seat,
    metrics::{Metrics, Shed},
    model::PeerKey,
};

/// Changes that may wait for their answer: what the driver's queue and its open group hold.
const CHANGES: usize = 5_120;
/// Reads that may wait for their turn. Each is a request of some 100 bytes; the last of them waits a fraction of a second.
const READS: usize = 1_024;
/// Rounds of heartbeats that a peer may have in the driver's queue, a quarter of it: what the driver takes in one turn.
const ROUNDS: usize = 256;

/// The lanes of a registry. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    changes: Lane,
    reads: Lane,
    turns: Arc<Semaphore>,
    heartbeats: Arc<Mutex<HashMap<PeerKey, Stand>>>,
    /// Rounds of heartbeats that have not been answered.
    rounds: Arc<AtomicUsize>,
    metrics: Metrics,
}

/// Those who wait for the same thing, by peer.
#[derive(Debug, Clone)]
struct Lane {
    most: usize,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    all: usize,
    by_peer: HashMap<PeerKey, usize>,
}

/// A place in a lane; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    lane: Lane,
    peer: PeerKey,
}

/// How much a read may have to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// As long as a thread is busy with a heartbeat or two.
    Short,
    /// Nobody knows.
    Long,
}

/// A read's turn; `None` for one that needs none.
#[derive(Debug)]
pub(super) struct Turn<'a>(#[allow(dead_code, reason = "held until dropped")] Option<(SemaphorePermit<'a>, Place)>);

/// The heartbeats of one peer.
#[derive(Debug)]
struct Stand {
    seats: Arc<Semaphore>,
    users: usize,
}

/// Somebody's heartbeats: a stream of them, or one.
#[derive(Debug)]
pub(super) struct Heartbeats {
    lanes: Lanes,
    peer: PeerKey,
    seats: Arc<Semaphore>,
}

/// A round of heartbeats that is not answered yet.
#[derive(Debug)]
pub(super) struct Round<'a>(&'a AtomicUsize);

/// Why a call is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crowded {
    /// The peer has half of all that waits.
    Peer,
    /// Nobody else has room either.
    All,
}

/// Where a call comes from.
pub(super) fn peer_of(extensions: &Extensions) -> PeerKey {
    let peer = extensions.get::<service_host::Peer>();
    let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.address.ip());
    PeerKey::new(service_host::whose(address))
}

impl Lanes {
    /// Of a registry with so many threads.
    pub(crate) fn new(threads: usize, metrics: Metrics) -> Self {
        Self {
            changes: Lane::new(CHANGES),
            reads: Lane::new(READS),
            turns: Arc::new(Semaphore::new((threads / 2).max(1))),
            heartbeats: Arc::default(),
            rounds: Arc::default(),
            metrics,
        }
    }

    /// A change is asked for; hold the place until it is answered.
    pub(super) fn change(&self, peer: PeerKey) -> Result<Place, ApiError> {
        self.changes.enter(peer).map_err(|crowded| self.shed(crowded))
    }

    /// Waits for a read's turn, if it has to take one.
    pub(super) async fn read(&self, peer: PeerKey, effort: Effort) -> Result<Turn<'_>, ApiError> {
        // Nothing is ordered by it: one that comes a moment later waits for a short read.
        if effort == Effort::Short && self.rounds.load(Ordering::Relaxed) == 0 {
            return Ok(Turn(None));
        }
        let place = self.reads.enter(peer).map_err(|crowded| self.shed(crowded))?;
        let turn = self.turns.acquire().await;
        let turn = turn.map_err(|_| ApiError::Bug("the turns of reads are closed"))?;
        Ok(Turn(Some((turn, place))))
    }

    fn shed(&self, crowded: Crowded) -> ApiError {
        let reason = match crowded {
            Crowded::Peer => Shed::Peer,
            Crowded::All => Shed::Busy,
        };
        self.metrics.shed(reason).inc();
        ApiError::Crowded(crowded)
    }

    /// Somebody begins to send heartbeats.
    pub(super) fn heartbeats(&self, peer: PeerKey) -> Heartbeats {
        let mut stands = lock(&self.heartbeats);
        let stand = stands.entry(peer).or_insert_with(|| Stand {
            seats: Arc::new(Semaphore::new(ROUNDS)),
            users: 0,
        });
        stand.users += 1;
        Heartbeats {
            lanes: self.clone(),
            peer,
            seats: Arc::clone(&stand.seats),
        }
    }
}

impl Heartbeats {
    /// A round has come; to be held until it is answered.
    pub(super) fn round(&self) -> Round<'_> {
        self.lanes.rounds.fetch_add(1, Ordering::Relaxed);
        Round(&self.lanes.rounds)
    }

    /// Waits behind the other rounds of the same peer; to be held until the driver has heard this one.
    pub(super) async fn seat(&self) -> Result<Seat, ApiError> {
        let place = Arc::clone(&self.seats).acquire_owned().await;
        let place = place.map_err(|_| ApiError::Bug("the seats of heartbeats are closed"))?;
        Ok(Seat { peer: self.peer, place })
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        if let Entry::Occupied(mut stand) = lock(&self.lanes.heartbeats).entry(self.peer) {
            stand.get_mut().users -= 1;
            if stand.get().users == 0 {
                stand.remove();
            }
        }
    }
}

impl Lane {
    fn new(most: usize) -> Self {
        Self {
            most,
            waiting: Arc::default(),
        }
    }

    fn enter(&self, peer: PeerKey) -> Result<Place, Crowded> {
        let mut waiting = lock(&self.waiting);
        if waiting.all >= self.most {
            return Err(Crowded::All);
        }
        let own = waiting.by_peer.get(&peer).copied().unwrap_or_default();
        if waiting.all >= self.most / 2 && own * 2 >= waiting.all {
            return Err(Crowded::Peer);
        }
        waiting.by_peer.insert(peer, own + 1);
        waiting.all += 1;
        Ok(Place {
            lane: self.clone(),
            peer,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = lock(&self.lane.waiting);
        waiting.all -= 1;
        if let Entry::Occupied(mut own) = waiting.by_peer.entry(self.peer) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is locked.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn peer(n: u8) -> PeerKey {
        PeerKey::new(IpAddr::from([192, 0, 2, n]))
    }

    fn fill(lane: &Lane, peer: PeerKey) -> (Vec<Place>, Crowded) {
        let mut places = Vec::new();
        loop {
            match lane.enter(peer) {
                Ok(place) => places.push(place),
                Err(crowded) => return (places, crowded),
            }
        }
    }

    #[test]
    fn one_peer_fills_half_of_a_lane_and_others_have_the_rest() {
        let lane = Lane::new(100);
        let (flood, told) = fill(&lane, peer(1));
        assert_eq!((flood.len(), told), (50, Crowded::Peer));
        let (others, told) = fill(&lane, peer(2));
        assert_eq!((others.len(), told), (50, Crowded::All));
        assert!(matches!(lane.enter(peer(3)), Err(Crowded::All)));
        drop(flood);
        assert!(lane.enter(peer(3)).is_ok());
        drop(others);
        assert!(
            lock(&lane.waiting).by_peer.is_empty(),
            "nothing is kept of those who have gone"
        );
    }

    #[tokio::test]
    async fn reads_take_turns() {
        let lanes = Lanes::new(2, Metrics::new());
        let first = lanes.read(peer(1), Effort::Long).await.expect("its turn");
        let mut second = Box::pin(lanes.read(peer(2), Effort::Long));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        second.now_or_never().expect("its turn").expect("is taken");
    }

    #[tokio::test]
    async fn short_reads_take_turns_while_a_heartbeat_waits() {
        let lanes = Lanes::new(2, Metrics::new());
        let heartbeats = lanes.heartbeats(peer(1));
        let _long = lanes.read(peer(1), Effort::Long).await.expect("its turn");
        let short = lanes.read(peer(2), Effort::Short).now_or_never();
        short.expect("at once").expect("is taken");
        let round = heartbeats.round();
        let waiting = lanes.read(peer(2), Effort::Short).now_or_never();
        assert!(waiting.is_none(), "it would have the thread that the heartbeat needs");
        drop(round);
        assert!(lanes.read(peer(2), Effort::Short).now_or_never().is_some());
    }

    /// Without a runtime, which would make one task yield before it has all seats.
    #[test]
    fn heartbeats_wait_for_those_of_the_same_peer_alone() {
        let lanes = Lanes::new(2, Metrics::new());
        let (flood, same, other) = (
            lanes.heartbeats(peer(1)),
            lanes.heartbeats(peer(1)),
            lanes.heartbeats(peer(2)),
        );
        let seats: Vec<_> = (0..ROUNDS).map(|_| flood.seat().now_or_never()).collect();
        assert!(seats.iter().all(Option::is_some));
        let mut waiting = Box::pin(same.seat());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(other.seat().now_or_never().is_some());
        drop(seats);
        assert!(waiting.now_or_never().is_some());
        drop((flood, same, other));
        assert!(lock(&lanes.heartbeats).is_empty());
    }
}
