//! Which endpoints exist, and which of them can be picked now.
//!
//! Two views of one truth. The *book* (behind a mutex, touched only when something changes) has every endpoint of the target
//! with its connection, if it has one. The *ready set* is the book's immutable extract that calls pick from without a lock:
//! connected endpoints with their weights. Every change of the book publishes a new extract before the mutex is released, so a
//! dead endpoint is out of the ready set when the function that noticed returns, and not when some queue is worked off.
//!
//! Connected is not yet able: a peer allows only so many streams at a time. Who finds its choice full takes another one that is
//! not, and queues at all of them together (`queues`) if all are.
//!
//! The pool does not dial (each endpoint's driver does) and does not choose (the policies of `pick` do).

mod care;
mod chance;
mod diff;
mod explain;
mod health;
mod keeper;
mod prober;
mod queues;
mod ready;
mod roster;
mod scarcity;
mod slow_start;
mod views;
mod waiting;
mod wish;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderMap;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub(crate) use care::Care;
pub(crate) use explain::PassedOver;
pub(crate) use keeper::{Keeper, KeeperSettings};
#[cfg(feature = "bench")]
pub(crate) use ready::Admission;
pub(crate) use ready::{Choice, Member, Place};
pub(crate) use roster::{Attributes, Backend, Key, Origin, Roster};
pub use slow_start::SlowStart;
pub(crate) use views::Routing;
pub(crate) use wish::Wish;

use self::{
    care::Cared,
    chance::Chance,
    diff::{Change, diff},
    health::Health,
    queues::Queues,
    ready::ReadySet,
    views::{Found, Ready, Terms},
    waiting::Waiting,
};
use crate::{
    Policy,
    call::RequestBody,
    endpoint::{Endpoint, Overseer, connection::Connection, driver::ReadySink},
    load::{Fleet, Load},
    pick::Draw,
    route::{Refine, Route, Table, Tag},
};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Pool {
    fleet: Arc<Fleet>,
    ready: ArcSwap<Ready>,
    /// Told whenever the ready set has changed.
    changed: Notify,
    turn: AtomicU64,
    /// Calls that wait for anybody to be ready, or to have room.
    waiting: Waiting,
    chance: Chance,
    /// Told whenever something has changed that the keeper's task sees to.
    attention: Notify,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    slots: BTreeMap<Key, Slot>,
    /// Removed endpoints that still have calls to finish.
    leaving: Vec<Arc<Endpoint>>,
    /// Instances that the discovery knows, callable or not.
    known: usize,
    /// Those of them that take no calls.
    passed_over: Vec<PassedOver>,
    /// What the discovery says of itself, for error messages.
    origin: Origin,
    unspoken: Option<String>,
    policy: Policy,
    routing: Routing,
    care: Care,
    next_sweep: Option<Instant>,
    /// Of which service the endpoints are asked whether they serve it, if they are asked.
    health_of: Option<Arc<str>>,
}

#[derive(Debug)]
struct Slot {
    backend: Backend,
    endpoint: Arc<Endpoint>,
    /// Those that take calls.
    connections: Vec<Connection>,
    removed: CancellationToken,
    health: Health,
    cared: Cared,
}

/// An endpoint that needs a driver.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) removed: CancellationToken,
}

impl Pool {
    pub(crate) fn new(policy: Policy) -> Self {
        // Callers that start together should not all begin with the same instance.
        Self::with(policy, Chance::Thread)
    }

    /// One that chooses the same again.
    #[cfg(test)]
    pub(crate) fn seeded(policy: Policy, seed: u64) -> Self {
        Self::with(policy, Chance::seeded(seed))
    }

    fn with(policy: Policy, chance: Chance) -> Self {
        Self {
            fleet: Arc::new(Fleet::new(&policy)),
            ready: ArcSwap::from_pointee(Ready::empty(&policy)),
            changed: Notify::new(),
            turn: AtomicU64::new(chance.bits() >> 32),
            chance,
            waiting: Waiting::default(),
            attention: Notify::new(),
            book: Mutex::new(Book {
                policy,
                ..Book::default()
            }),
        }
    }

    /// The next endpoint, one call counted on it; `None` when none is ready.
    pub(crate) fn pick(&self, wish: Wish<'_>) -> Option<Choice> {
        let ready = self.ready.load();
        let Found { view, passed_over } = ready.find(wish.route);
        // Somebody that only such calls reach comes back by one of them, though all others go elsewhere.
        for view in &passed_over {
            if let Some(choice) = view.take_to_prove(wish, Instant::now()) {
                self.let_through(&choice);
                return Some(choice);
            }
        }
        self.pick_from(ready.policy(), &view, wish)
    }

    fn pick_from(&self, policy: &Policy, ready: &ReadySet, wish: Wish<'_>) -> Option<Choice> {
        let now = Instant::now();
        if let Some(choice) = ready.take_to_prove(wish, now) {
            self.let_through(&choice);
            return Some(choice);
        }
        let bits = self.chance.bits();
        let index = self.index(policy, ready, wish, now, bits)?;
        Some(ready.take((index, bits), wish, now))
    }

    fn index(&self, policy: &Policy, ready: &ReadySet, wish: Wish<'_>, now: Instant, bits: u64) -> Option<usize> {
        let draw = Draw {
            bits,
            now: self.fleet.tick(now),
            key: wish.key,
        };
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed);
        policy.pick(ready, turn, draw)
    }

    /// From here on calls choose by `policy`. What is known of the endpoints stays known, as far as both look at it.
    pub(crate) fn set_policy(&self, policy: &Policy) {
        let mut book = self.book();
        if book.policy != *policy {
            book.policy = policy.clone();
            // First of all: a set that is made for the policy looks at what it measures.
            self.fleet.follow(policy);
            self.publish(&book);
        }
    }

    /// Whether calls ask the instances for reports of their load.
    pub(crate) fn asks_for_reports(&self) -> bool {
        self.fleet.wants_reports()
    }

    /// The digest of the key by which calls with those headers and that body are kept together, if the policy does that.
    pub(crate) fn key_of(&self, headers: &HeaderMap, body: &RequestBody) -> Option<u64> {
        if !self.fleet.wants_keys() {
            return None;
        }
        match self.ready.load().policy() {
            Policy::ConsistentHash(settings) => settings.key.digest(headers, body.whole()),
            Policy::Own(own) => own.chooser().key()?.digest(headers, body.whole()),
            _ => None,
        }
    }

    /// As [`Pool::pick`], among those that have room for a stream, and with that room. For when the first choice was full:
    /// it looks at every endpoint.
    fn place(&self, wish: Wish<'_>) -> Option<Place> {
        let ready = self.ready.load();
        for member in ready
            .view(wish.route)
            .members()
            .iter()
            .filter(|member| !member.has_room())
        {
            member.endpoint.crowd();
        }
        loop {
            let ready = self.ready.load();
            let with_room = ready.view(wish.route).with_room();
            let choice = self.pick_from(ready.policy(), &with_room, wish)?;
            // Otherwise somebody else was faster, and the next look sees one less.
            if let Ok(Some(slot)) = choice.connection.try_room() {
                return Some(Place { choice, slot });
            }
        }
    }

    /// As [`Pool::pick`], waiting until anything is ready *and* has room for a stream, or `until` has come. Who waits counts
    /// nowhere as in flight, and goes wherever room is first.
    pub(crate) async fn place_by(&self, until: Instant, wish: Wish<'_>) -> Option<Place> {
        let _waits = self.waiting.one_more();
        let mut queues = Queues::default();
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Listening before looking: a change in between is not missed.
            changed.as_mut().enable();
            if let Some(place) = self.place(wish) {
                return Some(place);
            }
            let ready = self.ready.load_full();
            let view = ready.view(wish.route);
            if view.members().is_empty() {
                self.wake();
            }
            queues.follow(&view);
            tokio::select! {
                biased;
                place = queues.first() => return Some(place),
                () = changed => {}
                () = sleep_until(until) => return None,
            }
        }
    }

    /// How many endpoints are ready for such a call, with room or without.
    pub(crate) fn ready_count(&self, wish: Wish<'_>) -> usize {
        self.ready.load().view(wish.route).members().len()
    }

    /// Where a call goes by the rules in force. `draw` is 64 random bits, asked for when there are rules.
    pub(crate) fn route(&self, tag: Option<Tag>, path: &str, headers: &HeaderMap, draw: impl FnOnce() -> u64) -> Route {
        Route::decide(self.ready.load().table(), tag, path, headers, draw)
    }

    /// Routes calls that begin from here on by these rules.
    pub(crate) fn set_routes(&self, table: Table) {
        let mut book = self.book();
        book.routing.table = Arc::new(table);
        self.publish(&book);
    }

    /// Shifts weights like this from here on.
    pub(crate) fn set_refine(&self, refine: Refine) {
        let mut book = self.book();
        book.routing.refine = Arc::new(refine);
        self.publish(&book);
    }

    /// As [`Pool::pick`], waiting until something is ready or `until` has come.
    pub(crate) async fn pick_by(&self, until: Instant) -> Option<Choice> {
        let _waits = self.waiting.one_more();
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Listening before looking: a change in between is not missed.
            changed.as_mut().enable();
            if let Some(choice) = self.pick(Wish::default()) {
                return Some(choice);
            }
            self.wake();
            if tokio::time::timeout_at(until, changed).await.is_err() {
                return None;
            }
        }
    }

    /// Every endpoint that takes such calls, connected or not.
    pub(crate) fn everyone(&self, wish: Wish<'_>) -> Vec<Arc<Endpoint>> {
        let book = self.book();
        let callable = book
            .slots
            .values()
            .filter(|slot| slot.backend.weight > 0 && Route::may_reach(wish.route, &slot.backend.attributes));
        callable.map(|slot| Arc::clone(&slot.endpoint)).collect()
    }

    /// A connection to that endpoint and no other, waiting until there is one or `until` has come.
    pub(crate) async fn connection_to(&self, endpoint: &Arc<Endpoint>, until: Instant) -> Option<Connection> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Listening before looking: a change in between is not missed.
            changed.as_mut().enable();
            {
                let book = self.book();
                let mut slots = book.slots.values();
                let slot = slots.find(|slot| Arc::ptr_eq(&slot.endpoint, endpoint))?;
                let with_room = slot.connections.iter().find(|connection| connection.has_room());
                if let Some(connection) = with_room.or(slot.connections.first()) {
                    return Some(connection.clone());
                }
            }
            endpoint.wake();
            if tokio::time::timeout_at(until, changed).await.is_err() {
                return None;
            }
        }
    }

    /// Somebody wants to call: endpoints that were let rest are connected again.
    fn wake(&self) {
        for slot in self.book().slots.values() {
            slot.endpoint.wake();
        }
    }

    /// Lets the connections go if nobody has called since the last time this was asked, and nobody does now.
    pub(crate) fn rest_if_idle(&self, seen: &mut u64) {
        let book = self.book();
        let endpoints = || book.slots.values().map(|slot| &slot.endpoint);
        let ended = endpoints().fold(0_u64, |sum, endpoint| sum.wrapping_add(endpoint.ended()));
        let idle = ended == *seen && endpoints().all(|endpoint| endpoint.in_flight() == 0);
        *seen = ended;
        if idle {
            endpoints().for_each(|endpoint| endpoint.rest());
        }
    }

    /// A connection takes no more calls: out of the ready set with it, unless a later one has already taken its place.
    pub(crate) fn take_out(&self, choice: &Choice) {
        let mut book = self.book();
        let slot = book
            .slots
            .values_mut()
            .find(|slot| Arc::ptr_eq(&slot.endpoint, choice.in_flight.endpoint()));
        if let Some(slot) = slot {
            let before = slot.connections.len();
            slot.connections
                .retain(|connection| connection.id() != choice.connection.id());
            if slot.connections.len() < before {
                self.publish(&book);
            }
        }
    }

    /// Brings the book in line with `roster`. Endpoints that are in both are left alone, connections and all. The result
    /// needs drivers.
    pub(crate) fn apply(self: &Arc<Self>, roster: Roster) -> Vec<Newcomer> {
        let (mut newcomers, mut removed) = (Vec::new(), Vec::new());
        let mut book = self.book();
        let (care, is_warm) = (book.care, book.is_warm());
        book.known = roster.known;
        book.passed_over = roster.passed_over;
        book.origin = roster.origin;
        book.unspoken = roster.unspoken;
        for change in diff(
            book.slots.iter().map(|(key, slot)| (key, &slot.backend)),
            roster.backends,
        ) {
            match change {
                Change::Add(backend) => {
                    let endpoint = Endpoint::new(
                        Arc::clone(&backend.key.instance_id),
                        Arc::clone(&backend.key.address),
                        backend.authority.clone(),
                    );
                    let overseer: Weak<dyn Overseer> = Arc::<Self>::downgrade(self);
                    let endpoint = Arc::new(
                        endpoint
                            .secured(backend.secured.clone())
                            .measured_by(Load::new(Arc::clone(&self.fleet)))
                            .overseen_by(overseer),
                    );
                    endpoint.says(&backend.attributes);
                    let removal = CancellationToken::new();
                    newcomers.push(Newcomer {
                        endpoint: Arc::clone(&endpoint),
                        removed: removal.clone(),
                    });
                    let mut slot = Slot {
                        backend,
                        endpoint,
                        connections: Vec::new(),
                        removed: removal,
                        health: Health::default(),
                        cared: Cared::default(),
                    };
                    slot.begin(&care, is_warm);
                    book.slots.insert(slot.backend.key.clone(), slot);
                }
                Change::Update { backend, reborn } => {
                    if let Some(slot) = book.slots.get_mut(&backend.key) {
                        slot.endpoint.says(&backend.attributes);
                        slot.backend = backend;
                        if reborn {
                            slot.endpoint.nudge();
                            slot.begin(&care, is_warm);
                            self.attention.notify_one();
                        }
                    }
                }
                Change::Remove(key) => {
                    if let Some(slot) = book.slots.remove(&key) {
                        // First of all: who picked it from an older set, or waits for its room, is turned away from here on.
                        for connection in &slot.connections {
                            connection.close();
                        }
                        book.leaving.push(slot.endpoint);
                        removed.push(slot.removed);
                    }
                }
            }
        }
        self.publish(&book);
        // Last of all: the driver takes this for the promise that no call can begin any more.
        for removal in removed {
            removal.cancel();
        }
        newcomers
    }

    /// The driver of a removed endpoint has ended: nothing is left of it.
    pub(crate) fn gone(&self, endpoint: &Arc<Endpoint>) {
        self.book().leaving.retain(|leaving| !Arc::ptr_eq(leaving, endpoint));
    }

    /// Removes everything, as if the target had become empty.
    pub(crate) fn clear(self: &Arc<Self>) {
        let newcomers = self.apply(Roster {
            backends: Vec::new(),
            known: 0,
            passed_over: Vec::new(),
            unspoken: None,
            origin: Origin::Closed,
        });
        debug_assert!(newcomers.is_empty());
    }

    /// Where the set comes from.
    pub(crate) fn origin(&self) -> Origin {
        self.book().origin.clone()
    }

    fn publish(&self, book: &Book) {
        let members = book.members(Instant::now()).into_iter();
        let terms = Terms {
            policy: &book.policy,
            routing: &book.routing,
            expected: book.slots.len(),
            panic_threshold_percent: book.panic_threshold_percent(),
        };
        self.set_ready(members, &terms);
        self.changed.notify_waiters();
    }

    /// What calls pick from, from now on.
    fn set_ready(&self, members: impl Iterator<Item = Member>, terms: &Terms<'_>) {
        let all = ReadySet::new(members, &self.fleet);
        if let Some(probes) = self.fleet.probes() {
            probes.fit(all.members().len());
        }
        let ready = Ready::new(all, terms, &self.ready.load());
        self.ready.store(Arc::new(ready));
    }

    fn connected(&self, endpoint: &Arc<Endpoint>, connections: Vec<Connection>) {
        let mut book = self.book();
        let health_of = book.health_of.clone();
        // Not found when it was removed a moment ago; its driver is about to see that too.
        if let Some(slot) = book
            .slots
            .values_mut()
            .find(|slot| Arc::ptr_eq(&slot.endpoint, endpoint))
        {
            let (was_connected, was_callable) = (slot.is_connected(), slot.is_callable());
            slot.connections = connections;
            if !was_connected && slot.is_connected() {
                // It may be another process: what the last one said is no word of this one's.
                slot.health = health_of.map_or(Health::Unasked, |_| Health::Awaited);
            }
            if !was_callable && slot.is_callable() {
                slot.ready(Instant::now());
                self.attention.notify_one();
            }
            self.publish(&book);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // No code that runs under this lock can leave the book half changed and panic.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(feature = "bench")]
impl Pool {
    pub(crate) fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// All at once and without a book.
    pub(crate) fn set_members(&self, members: impl Iterator<Item = Member>) {
        let terms = Terms {
            policy: &self.book().policy,
            routing: &Routing::default(),
            expected: 0,
            panic_threshold_percent: 0,
        };
        self.set_ready(members, &terms);
    }

    /// As [`Pool::pick`], without anything being counted.
    pub(crate) fn choose(&self, wish: Wish<'_>) -> Option<usize> {
        let ready = self.ready.load();
        let bits = self.chance.bits();
        self.index(ready.policy(), &ready.view(wish.route), wish, Instant::now(), bits)
    }
}

impl ReadySink for Arc<Pool> {
    fn impatience(&self) -> Option<Duration> {
        // Whatever they wait for, an instance of their route or room anywhere, one more that is ready helps.
        let any = self.waiting.any();
        any.then(|| waiting::patience(self.book().slots.len()))
    }

    fn lines(&self, endpoint: &Arc<Endpoint>, connections: Vec<Connection>) {
        self.connected(endpoint, connections);
    }
}

#[cfg(test)]
mod tests;
