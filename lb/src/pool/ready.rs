//! The ready set: an immutable extract of the pool that calls pick from. Nothing here changes it.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Attributes, Wish};
use crate::{
    Policy,
    endpoint::{
        Endpoint, InFlight,
        connection::{Connection, Slot},
    },
    load::{Fleet, Load, Places, Probes, Tick},
    pick::{Candidates, InstanceRef, Maglev, Numbers, Weights},
    route::Weighed,
};

/// Connected endpoints with a weight above zero.
#[derive(Debug)]
pub(crate) struct ReadySet {
    members: Vec<Member>,
    /// Of the members, in their order: what a pick compares.
    places: Places,
    weights: Weights,
    fleet: Arc<Fleet>,
    probes: Option<Arc<Probes>>,
    maglev: Option<Arc<Maglev>>,
    /// Whether somebody is to prove itself.
    on_probation: bool,
    numbers: Option<Numbers>,
    /// Everybody is here, since nobody is in service.
    is_last_resort: bool,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) endpoint: Arc<Endpoint>,
    /// At least one. The first that has room is used.
    pub(crate) connections: Arc<[Connection]>,
    pub(crate) weight: u32,
    pub(crate) attributes: Arc<Attributes>,
    /// The number of the registry that it is known from.
    pub(crate) registry: usize,
    pub(crate) admission: Admission,
}

/// Whom a member lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    All,
    /// One call, by which it is to prove itself; nobody else.
    OneToProve,
    /// As everybody else is no better; but one of them counts.
    AllAndOneToProve,
    /// It is out of service. Such a member is in no view.
    Nobody,
}

/// A choice: the connection to use, and one call counted on its endpoint.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) connection: Connection,
    pub(crate) in_flight: InFlight,
    /// The random bits by which a policy has chosen it, if one has: who was drawn besides can be told from them.
    pub(crate) drawn: Option<u64>,
}

/// A choice with room for its stream: nothing stands between the call and its being sent.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) choice: Choice,
    pub(crate) slot: Slot,
}

impl Place {
    /// Counts a call that already has room there; nothing if the connection was closed meanwhile.
    pub(crate) fn at(endpoint: &Arc<Endpoint>, slot: Slot) -> Option<Self> {
        let in_flight = endpoint.begin(Instant::now());
        let connection = slot.connection().clone();
        // Only now, see `Connection::close`.
        connection.still_takes().then(|| Self {
            choice: Choice {
                connection,
                in_flight,
                drawn: None,
            },
            slot,
        })
    }
}

impl Member {
    /// Whether calls may go there that prove nothing.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.admission, Admission::All | Admission::AllAndOneToProve)
    }

    /// Counts a call that already has room here; nothing if the connection was closed meanwhile.
    pub(crate) fn enter(self, slot: Slot) -> Option<Place> {
        Place::at(&self.endpoint, slot)
    }

    /// Whether any of its connections has room.
    pub(crate) fn has_room(&self) -> bool {
        self.connections.iter().any(Connection::has_room)
    }

    pub(crate) fn weighed(&self) -> Weighed<'_> {
        Weighed {
            attributes: &self.attributes,
            registry: self.registry,
            weight: self.weight,
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
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
            places: Places::default(),
            weights: Weights::Equal,
            fleet: Arc::default(),
            probes: None,
            maglev: None,
            on_probation: false,
            numbers: None,
            is_last_resort: false,
        }
    }
}

impl ReadySet {
    pub(crate) fn new(members: impl Iterator<Item = Member>, fleet: &Arc<Fleet>) -> Self {
        let members: Vec<Member> = members.filter(|member| member.weight > 0).collect();
        let weights = Weights::new(members.iter().map(|member| member.weight));
        let on_probation = members.iter().any(|member| member.admission != Admission::All);
        Self {
            on_probation,
            places: Load::places(members.iter().map(|member| member.endpoint.load())),
            members,
            weights,
            fleet: Arc::clone(fleet),
            probes: fleet.probes(),
            maglev: None,
            numbers: None,
            is_last_resort: false,
        }
    }

    /// One that calls go to only when they can go nowhere else.
    pub(crate) fn marked_last_resort(self, is_last_resort: bool) -> Self {
        Self { is_last_resort, ..self }
    }

    pub(crate) fn is_last_resort(&self) -> bool {
        self.is_last_resort
    }

    /// With what `policy` has to have ready beforehand; `table` makes the one of consistent hashing for those identities and weights,
    /// or does not. That may take milliseconds: a set that is made for one pick does without, and every policy copes.
    pub(crate) fn prepared_for(
        mut self,
        policy: &Policy,
        table: impl FnOnce(Vec<(u64, u32)>) -> Option<Arc<Maglev>>,
    ) -> Self {
        if let Policy::ConsistentHash(_) = policy {
            let of: Vec<_> = self
                .members
                .iter()
                .map(|member| (member.endpoint.identity(), member.weight))
                .collect();
            self.maglev = table(of);
        }
        if let Policy::Prequal(_) = policy {
            self.numbers = Some(Numbers::new(
                self.members.iter().map(|member| member.endpoint.load().number()),
            ));
        }
        self
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// What was prepared for consistent hashing.
    pub(crate) fn table(&self) -> Option<&Arc<Maglev>> {
        self.maglev.as_ref()
    }

    /// Those that have room for a stream now.
    pub(crate) fn with_room(&self) -> Self {
        let open = self.members.iter().filter(|member| member.is_open());
        self.narrowed(open.filter(|member| member.has_room()).cloned())
    }

    /// Some of the members, perhaps with other weights.
    pub(crate) fn narrowed(&self, members: impl Iterator<Item = Member>) -> Self {
        Self::new(members, &self.fleet)
    }

    /// Counts a call on a member that is to prove itself by it, if there is one. No policy is asked: by what it knows of somebody
    /// that has failed it might never choose it.
    pub(crate) fn take_to_prove(&self, wish: Wish<'_>, now: Instant) -> Option<Choice> {
        if !self.on_probation {
            return None;
        }
        let mut waiting = self.members.iter().filter(|member| member.admission != Admission::All);
        let member = waiting.find(|member| !wish.avoids(&member.endpoint) && member.endpoint.record().claim())?;
        Some(Choice {
            in_flight: member.endpoint.begin(now).proving(),
            connection: member.connection().clone(),
            drawn: None,
        })
    }

    /// Counts a call on member `index`; if that is one to avoid, on the next one that is not, as long as there is any.
    pub(crate) fn take(&self, (index, drawn): (usize, u64), wish: Wish<'_>, now: Instant) -> Choice {
        let (before, from) = self.members.split_at(index);
        let around = || from.iter().chain(before);
        let wanted = around().find(|member| member.is_open() && !wish.avoids(&member.endpoint));
        // All there are were to be avoided, or are about to prove themselves: better there than nowhere.
        let chosen = wanted.or_else(|| around().find(|member| member.is_open()));
        let chosen = chosen.unwrap_or(&self.members[index]);
        Choice {
            in_flight: chosen.endpoint.begin(now),
            connection: chosen.connection().clone(),
            drawn: Some(drawn),
        }
    }
}

impl Candidates for ReadySet {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.places.hot(index).occupancy.calls()
    }

    fn all_in_flight(&self) -> u32 {
        self.fleet.in_flight()
    }

    fn latency(&self, index: usize, now: Tick) -> Option<f32> {
        self.fleet.latency(self.places.hot(index), now)
    }

    fn identity(&self, index: usize) -> u64 {
        self.members[index].endpoint.identity()
    }

    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn maglev(&self) -> Option<&Maglev> {
        self.maglev.as_deref()
    }

    fn penalty(&self, index: usize, now: Tick) -> f32 {
        self.fleet.penalty(self.places.hot(index), now)
    }

    fn probes(&self) -> Option<&Probes> {
        self.probes.as_deref()
    }

    fn find(&self, number: u32) -> Option<usize> {
        self.numbers.as_ref()?.find(number)
    }

    fn about(&self, index: usize) -> InstanceRef<'_> {
        let member = &self.members[index];
        InstanceRef {
            id: &member.endpoint.instance_id,
            address: &member.endpoint.address,
            weight: member.weight,
            attributes: &member.attributes,
        }
    }
}
