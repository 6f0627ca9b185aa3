//! The world of one history: everybody in it, and the agenda of what happens when.
//!
//! One thread, no clock, no socket. What happens next is the earliest entry of the agenda, so a second of it takes as long as
//! its events do, and the same seed gives the same history to the last event.

use std::{collections::BTreeMap, rc::Rc};

use super::{
    Options, Plant, Summary, Time, Violation,
    clients::{provider::Provider, watcher::Watch},
    heard::{Encoded, Heard},
    invariants::{self, End, Invariant, Seen},
    plan::{Fault, Plan},
    replica::{Delivery, Replica},
    request::{Answer, Request, Ticket},
    rng::Rng,
    store::Store,
    trace::Trace,
    truth::Truth,
};
use crate::{
    catalog::{Owner, RequestId},
    model::{LeaseId, ReplicaId},
    store::Verdict,
};

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) plant: Plant,
    pub(super) rng: Rng,
    pub(super) truth: Truth,
    pub(super) trace: Trace,
    pub(super) store: Store,
    pub(super) replicas: Vec<Replica>,
    pub(super) providers: Vec<Provider>,
    pub(super) watches: Vec<Watch>,
    /// What the hubs have encoded.
    pub(super) encoded: Encoded,
    /// Which registries no client reaches, and until when.
    pub(super) cut_off: BTreeMap<usize, Time>,
    /// What is on its way or waits for an answer.
    pub(super) requests: BTreeMap<Ticket, Asked>,
    /// Who may renew the leases that were granted, and by which request.
    pub(super) grants: BTreeMap<LeaseId, (Owner, RequestId)>,
    agenda: BTreeMap<(Time, u64), Event>,
    entries: u64,
    tickets: u64,
    /// Decisions of operators.
    pub(super) decisions: u64,
    checks: Vec<Box<dyn Invariant>>,
    violation: Option<Violation>,
}

/// A request that was sent.
#[derive(Debug)]
pub(super) struct Asked {
    /// What.
    pub(super) request: Rc<Request>,
    /// Its client waits no more.
    pub(super) hung_up: bool,
}

/// What can happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A request reaches its registry.
    Arrives(Ticket),
    /// An answer reaches its client.
    Answers(Ticket, Answer),
    /// The timer of a registry's life.
    Wakes(usize, u64),
    /// A registry that was stopped goes on.
    Continues(usize, u64),
    /// A registry is started.
    Starts(usize),
    /// A commit reaches the store.
    Stores(u64),
    /// A provider's timer of this generation.
    Provider(usize, u64),
    /// A watcher looks.
    Watch(usize),
    /// A reader looks.
    Reads(usize),
    /// An operator decides something.
    Decides(usize),
    /// A prober has asked an instance how it is.
    Probes(usize),
    /// Something goes wrong.
    Fault(Fault),
    /// Commits are as fast as before.
    StoreRecovers,
    /// There is room again.
    StoreHasRoom,
    /// The store's answer to a commit reaches this life of a registry.
    Says(usize, u64, Verdict, Time),
    /// News of the store reaches this life of a registry.
    Feeds(usize, u64),
    /// This life of a registry has not heard the store for some time.
    Misses(usize, u64),
    /// This life of a registry may reach the store again.
    Rejoins(usize, u64),
    /// The store has not heard this life of a registry for some time.
    SessionEnds(usize, ReplicaId),
    /// A stream of heartbeats to this life of a registry breaks.
    Breaks(usize, u64, LeaseId),
}

impl World {
    /// The world of a seed at its beginning.
    pub(super) fn new(options: &Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let mut plan = Plan::draw(&mut rng);
        plan.operators = Plan::operators_of(options.seed);
        plan.probers = Plan::probers_of(options.seed);
        let mut world = Self {
            plant: options.plant,
            truth: Truth::new(),
            trace: Trace::new(options.trace, options.whole),
            store: Store::default(),
            replicas: Vec::new(),
            providers: Vec::new(),
            watches: Vec::new(),
            encoded: Encoded::default(),
            cut_off: BTreeMap::new(),
            requests: BTreeMap::new(),
            grants: BTreeMap::new(),
            agenda: BTreeMap::new(),
            entries: 0,
            tickets: 0,
            decisions: 0,
            checks: invariants::all(&plan),
            violation: None,
            rng,
            plan,
        };
        world.populate();
        world
    }

    /// Runs to its end.
    pub(super) fn run(&mut self) -> Result<(), Violation> {
        let end = self.plan.end();
        let mut healed = false;
        while let Some(((at, _), event)) = self.agenda.pop_first() {
            if at > end {
                break;
            }
            self.truth.now = at;
            if !healed && at >= self.plan.heal {
                healed = true;
                (self.store.failing, self.store.full, self.store.slow) = (false, false, Time::ZERO);
                self.note("world", format_args!("nothing goes wrong any more"));
                self.see(Seen::Healed);
                // There is something to do in any case.
                self.born(None);
            }
            self.happen(event);
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
        }
        let end = End {
            truth: &self.truth,
            replicas: &self.replicas,
            providers: &self.providers,
            watches: &self.watches,
        };
        for check in &mut self.checks {
            if let Err(what) = check.finish(&end) {
                let invariant = check.name();
                return Err(Violation { invariant, what });
            }
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives(ticket) => self.arrives(ticket),
            Event::Answers(ticket, answer) => self.answers(ticket, &answer),
            Event::Wakes(replica, life) => self.wakes(replica, life),
            Event::Continues(replica, life) => self.continues(replica, life),
            Event::Starts(replica) => self.starts(replica),
            Event::Stores(commit) => self.stores(commit),
            Event::Provider(provider, timer) => self.provider(provider, timer),
            Event::Watch(watch) => self.watch(watch),
            Event::Reads(reader) => self.reads(reader),
            Event::Decides(operator) => self.decides(operator),
            Event::Probes(prober) => self.probes(prober),
            Event::Fault(fault) => self.fault(fault),
            Event::StoreRecovers => self.store.slow = Time::ZERO,
            Event::StoreHasRoom => self.store.full = false,
            Event::Says(replica, life, verdict, took) => self.says(replica, life, verdict, took),
            Event::Feeds(replica, life) => self.feeds(replica, life),
            Event::Misses(replica, life) => self.misses(replica, life),
            Event::Rejoins(replica, life) => self.rejoins(replica, life),
            Event::SessionEnds(replica, id) => self.session_ends(replica, id),
            Event::Breaks(replica, life, lease) => {
                if self.replicas[replica].life == life {
                    self.deliver(replica, Delivery::Broken(lease));
                }
            }
        }
    }

    /// Puts something on the agenda. What is at the same time happens in the order in which it was put there.
    pub(super) fn at(&mut self, time: Time, event: Event) {
        self.entries += 1;
        self.agenda.insert((time, self.entries), event);
    }

    /// The next ticket.
    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Shows something to the invariants. The first that is broken ends the history.
    pub(super) fn see(&mut self, seen: Seen<'_>) {
        if self.violation.is_some() {
            return;
        }
        for check in &mut self.checks {
            if let Err(what) = check.see(&seen, &self.truth) {
                let invariant = check.name();
                self.violation = Some(Violation { invariant, what });
                return;
            }
        }
    }

    /// The history is broken by this.
    pub(super) fn broken(&mut self, invariant: &'static str, what: String) {
        self.violation.get_or_insert(Violation { invariant, what });
    }

    /// What it came to.
    pub(super) fn summary(&self) -> Summary {
        Summary {
            revisions: self.truth.head().get(),
            requests: self.tickets,
            events: self.entries,
        }
    }

    /// A line of the trace.
    pub(super) fn note(&mut self, who: impl std::fmt::Display, what: std::fmt::Arguments<'_>) {
        if self.trace.is_on() {
            self.trace.line(self.truth.now, format_args!("{who}"), what);
        }
    }

    /// What a watcher hears, and who it is.
    pub(super) fn heard(&mut self, watch: usize, heard: &Heard, compacted: crate::model::Revision) {
        let selection = self.watches[watch].selection.clone();
        self.note(format_args!("watcher {watch}"), format_args!("hears {heard}"));
        self.see(Seen::Heard {
            watch,
            selection: &selection,
            heard,
            compacted,
        });
    }
}
