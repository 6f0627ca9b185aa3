//! The ready set: an immutable extract of the pool that calls pick from. Nothing here changes it.

use std::sync::Arc;

use super::Wish;
use crate::{
    endpoint::{
        Endpoint, InFlight,
        connection::{Connection, Slot},
    },
    pick::{Candidates, Weights},
};

/// Connected endpoints with a weight above zero.
#[derive(Debug)]
pub(crate) struct ReadySet {
    members: Vec<Member>,
    weights: Weights,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) endpoint: Arc<Endpoint>,
    /// At least one. The first that has room is used.
    pub(crate) connections: Arc<[Connection]>,
    pub(crate) weight: u32,
}

/// A choice: the connection to use, and one call counted on its endpoint.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) connection: Connection,
    pub(crate) in_flight: InFlight,
}

/// A choice with room for its stream: nothing stands between the call and its being sent.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) choice: Choice,
    pub(crate) slot: Slot,
}

impl Member {
    /// Counts a call that already has room here; nothing if the connection was closed meanwhile.
    pub(crate) fn enter(self, slot: Slot) -> Option<Place> {
        let in_flight = self.endpoint.begin();
        let connection = slot.connection().clone();
        // Only now, see `Connection::close`.
        connection.still_takes().then(|| Place {
            choice: Choice { connection, in_flight },
            slot,
        })
    }

    /// Whether any of its connections has room.
    pub(crate) fn has_room(&self) -> bool {
        self.connections.iter().any(Connection::has_room)
    }

    fn connection(&self) -> &Connection {
        match &*self.connections {
            [only] => only,
            several => several
                .iter()
                .find(|connection| connection.has_room())
                .unwrap_or(&several[0]),
        }
    }
}

impl Default for ReadySet {
    fn default() -> Self {
        Self {
            members: Vec::new(),
            weights: Weights::Equal,
        }
    }
}

impl ReadySet {
    pub(crate) fn new(members: impl Iterator<Item = Member>) -> Self {
        let members: Vec<Member> = members.filter(|member| member.weight > 0).collect();
        let weights = Weights::new(members.iter().map(|member| member.weight));
        Self { members, weights }
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Those that have room for a stream now.
    pub(crate) fn with_room(&self) -> Self {
        Self::new(self.members.iter().filter(|member| member.has_room()).cloned())
    }

    /// Counts a call on member `index`; if that is one to avoid, on the next one that is not, as long as there is any.
    pub(crate) fn take(&self, index: usize, wish: Wish<'_>) -> Choice {
        let (before, from) = self.members.split_at(index);
        let chosen = from.iter().chain(before).find(|member| !wish.avoids(&member.endpoint));
        let chosen = chosen.unwrap_or(&self.members[index]);
        Choice {
            in_flight: chosen.endpoint.begin(),
            connection: chosen.connection().clone(),
        }
    }
}

impl Candidates for ReadySet {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.members[index].endpoint.in_flight()
    }

    fn weights(&self) -> &Weights {
        &self.weights
    }
}
