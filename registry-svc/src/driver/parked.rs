//! Rounds of heartbeats that wait with a group: so many in all, and of these one peer has half once they are many.
//!
//! Anybody may ask for leases that nobody has granted, and where several replicas share a store each such answer waits for it.
//! Without shares one peer could fill the room, and the heartbeats of all others that have to wait would be sent elsewhere.

use std::collections::HashMap;

use super::rounds::Round;
use crate::model::PeerKey;

/// Heartbeats that may wait for one group, some 100 bytes each, and their callers ask again: more than come while a replica's
/// leases move to another.
const HEARTBEATS_MAX: usize = 131_072;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Parked {
    rounds: Vec<Round>,
    /// What they count, at least.
    weight: usize,
    /// The same of each peer.
    by_peer: HashMap<Option<PeerKey>, usize>,
    /// Rounds that have come since those were dropped whose callers have gone.
    since_sweep: usize,
}

impl Parked {
    pub(super) fn is_empty(&self) -> bool {
        self.rounds.is_empty()
    }

    /// All of them, abandoned ones too.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Round> {
        self.rounds.iter()
    }

    /// Takes one in.
    ///
    /// # Errors
    /// It is returned where there is no room for it.
    pub(super) fn park(&mut self, round: Round) -> Result<(), Round> {
        self.since_sweep += 1;
        // A look at all of them, for as many that came.
        if !self.has_room_for(&round) && self.since_sweep >= self.rounds.len() {
            *self = self.rounds.drain(..).filter(|round| !round.is_abandoned()).collect();
        }
        if !self.has_room_for(&round) {
            return Err(round);
        }
        self.push(round);
        Ok(())
    }

    fn has_room_for(&self, round: &Round) -> bool {
        let own = self.by_peer.get(&round.peer).copied().unwrap_or_default();
        let has_its_share = self.weight >= HEARTBEATS_MAX / 2 && own * 2 >= self.weight;
        self.weight + round.weight() <= HEARTBEATS_MAX && !has_its_share
    }

    fn push(&mut self, round: Round) {
        self.weight += round.weight();
        *self.by_peer.entry(round.peer).or_default() += round.weight();
        self.rounds.push(round);
    }

    /// Takes those out.
    pub(super) fn take_if(&mut self, takes: impl FnMut(&mut Round) -> bool) -> Self {
        let taken = self.rounds.extract_if(.., takes).collect();
        *self = self.rounds.drain(..).collect();
        taken
    }
}

impl FromIterator<Round> for Parked {
    fn from_iter<I: IntoIterator<Item = Round>>(rounds: I) -> Self {
        let mut parked = Self::default();
        rounds.into_iter().for_each(|round| parked.push(round));
        parked
    }
}

impl IntoIterator for Parked {
    type Item = Round;
    type IntoIter = std::vec::IntoIter<Round>;

    fn into_iter(self) -> Self::IntoIter {
        self.rounds.into_iter()
    }
}
