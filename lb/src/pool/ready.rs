//! The ready set: an immutable extract of the pool that calls pick from. Nothing here changes it.

use std::sync::Arc;

use crate::{
    endpoint::{Endpoint, InFlight, connection::Connection},
    pick::{Candidates, Weights},
};

/// Connected endpoints with a weight above zero.
#[derive(Debug)]
pub(crate) struct ReadySet {
    members: Vec<Member>,
    weights: Weights,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) connection: Connection,
    pub(crate) weight: u32,
}

/// A choice: the connection to use, and one call counted on its endpoint.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) connection: Connection,
    pub(crate) in_flight: InFlight,
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

    /// Counts a call on member `index`; on its neighbour if it is the one to avoid and there is a neighbour.
    pub(crate) fn take(&self, index: usize, avoid: Option<&Arc<Endpoint>>) -> Choice {
        let chosen = &self.members[index];
        let chosen = match avoid {
            Some(avoid) if Arc::ptr_eq(&chosen.endpoint, avoid) => &self.members[(index + 1) % self.members.len()],
            _ => chosen,
        };
        Choice {
            in_flight: chosen.endpoint.begin(),
            connection: chosen.connection.clone(),
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
