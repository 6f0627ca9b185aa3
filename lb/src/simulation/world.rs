//! A history as it happens: instances, the set, and time that goes from one event to the next. What calls do is in `calls`, what
//! must hold is asked elsewhere.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

use http::uri::Authority;
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::time::Instant;

use super::{
    Plant,
    calls::{Call, Picked},
    ledger,
    plan::{Incident, Nature, Plan},
};
use crate::{
    Backoff, CircuitBreaker, Policy, RetryBudget, RetryThrottling, SlowStart,
    breaker::Breaker,
    call::Retries,
    endpoint::{Endpoint, connection::Connection, driver::ReadySink as _},
    outlier::Standing,
    pool::{Backend, Care, Key, Newcomer, Origin, Pool, Roster},
};

/// What an instance allows: more than any history opens.
const STREAMS: usize = 1 << 20;

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) plant: Plant,
    pub(super) pool: Arc<Pool>,
    pub(super) breaker: Option<Arc<Breaker>>,
    pub(super) retries: Retries,
    /// What those two should do.
    pub(super) circuit: Option<ledger::Breaker>,
    pub(super) ledger: ledger::Retries,
    pub(super) rng: StdRng,
    began: Instant,
    /// No call begins any more.
    pub(super) is_closing: bool,
    over: bool,
    events: BinaryHeap<Reverse<(Instant, u64)>>,
    what: HashMap<u64, Event>,
    /// When the pool wants to be attended to.
    due: Option<Instant>,
    pub(super) instances: Vec<Instance>,
    numbers: HashMap<*const Endpoint, usize>,
    pub(super) calls: HashMap<u64, Call>,
    pub(super) next: u64,
    /// Where the instances were before this step, and where they are after it.
    pub(super) before: Vec<Phase>,
    pub(super) now: Vec<Phase>,
    /// The pick of this step, if there was one.
    pub(super) picked: Option<Picked>,
    /// The instance that has failed often enough in a row with this step.
    pub(super) suspect: Option<usize>,
    /// First attempts on instances that fail, and how many their weights would have sent there.
    pub(super) failing: (f64, f64),
    /// Calls that were picked since the fleet has settled.
    pub(super) settled: f64,
}

pub(super) struct Instance {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) nature: Nature,
    pub(super) weight: u32,
    /// When it joined the others; nothing if it was there from the beginning.
    pub(super) since: Option<Instant>,
    pub(super) removed: bool,
    pub(super) connected: bool,
    /// Calls that are open, as counted here.
    pub(super) open: u32,
    /// Failures since the last success, or since they were as many as make suspect.
    pub(super) row: u32,
    /// The call that it is to prove itself by, and since when.
    pub(super) proving: Option<(u64, Instant)>,
    /// Since the fleet has settled.
    pub(super) picks: f64,
    backend: Backend,
}

/// Where an instance is between being in service and being out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    InService,
    Ejected,
    OnProbation,
    Proving,
    /// Not in the set.
    Gone,
}

pub(super) enum Event {
    Arrival,
    /// To the attempt of that call that began then.
    Answer(u64, Instant),
    Retry(u64),
    GivenUp(u64),
    Incident(Incident),
    Back(usize),
    Attend,
    Healed,
    Closing,
}

impl World {
    pub(super) async fn new(plan: Plan, plant: Plant) -> Self {
        let began = Instant::now();
        let circuit = plan.circuit;
        let terms = plan.retries;
        let budget =
            RetryBudget::try_new(f64::from(terms.thousandths) / 1000.0, terms.per_second).expect("in its ranges");
        let throttling = terms
            .throttle
            .map(|(tokens, gain)| RetryThrottling::try_new(tokens, f64::from(gain) / 1000.0).expect("in its ranges"));
        let mut world = Self {
            pool: Arc::new(Pool::seeded(plan.policy.clone(), plan.seed)),
            breaker: circuit.map(|circuit| {
                let open = Backoff::doubling(circuit.open, circuit.longest, 0.0);
                let breaker = CircuitBreaker::default()
                    .window(circuit.window)
                    .and_then(|it| it.minimum_calls(circuit.minimum_calls))
                    .and_then(|it| it.error_ratio(circuit.error_ratio))
                    .and_then(|it| it.probes(circuit.probes))
                    .expect("in their ranges");
                Arc::new(Breaker::new(breaker.open(open)))
            }),
            retries: Retries::new(),
            circuit: circuit.map(|circuit| ledger::Breaker::new(circuit, began)),
            ledger: ledger::Retries::new(terms),
            rng: StdRng::seed_from_u64(!plan.seed),
            plant,
            began,
            is_closing: false,
            over: false,
            events: BinaryHeap::new(),
            what: HashMap::new(),
            due: None,
            instances: Vec::new(),
            calls: HashMap::new(),
            next: 0,
            before: Vec::new(),
            now: Vec::new(),
            numbers: HashMap::new(),
            picked: None,
            suspect: None,
            failing: (0.0, 0.0),
            settled: 0.0,
            plan,
        };
        world.retries.set_budgets(budget, budget);
        world.retries.set_throttling(throttling);
        let uncapped = |config: crate::OutlierDetection| match plant {
            Plant::Uncapped => config.max_ejection_percent(100).expect("a percentage"),
            _ => config,
        };
        world.pool.set_care(Care {
            outlier: world.plan.outlier.map(uncapped),
            slow_start: world.plan.slow_start.then(SlowStart::default),
        });
        world.add(world.plan.natures.clone()).await;
        world.at(Duration::ZERO, Event::Arrival);
        for (at, incident) in world.plan.incidents.clone() {
            world.at(at, Event::Incident(incident));
        }
        world.at(world.plan.healed, Event::Healed);
        world.at(world.plan.lasts, Event::Closing);
        world.attend();
        world.now = world.phases();
        world
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether the history has come to its end: the last call has ended.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Those that can be called.
    pub(super) fn callable(&self) -> impl Iterator<Item = (usize, &Instance)> {
        let callable = |instance: &Instance| instance.connected && !instance.removed;
        self.instances
            .iter()
            .enumerate()
            .filter(move |(_, instance)| callable(instance))
    }

    pub(super) fn measures_latency(&self) -> bool {
        matches!(self.plan.policy, Policy::PeakEwma(_))
    }

    pub(super) fn phases(&self) -> Vec<Phase> {
        let mut phases = vec![Phase::Gone; self.instances.len()];
        self.pool.standings(|endpoint, standing| {
            let at = self.numbers.get(&Arc::as_ptr(endpoint));
            if let Some(at) = at.filter(|at| !self.instances[**at].removed) {
                phases[*at] = match standing {
                    Standing::InService(_) => Phase::InService,
                    Standing::Ejected(_) => Phase::Ejected,
                    Standing::OnProbation(_) => Phase::OnProbation,
                    Standing::Proving(_) => Phase::Proving,
                };
            }
        });
        phases
    }

    /// Whether a call is out by which that instance is to prove itself, and has not been for too long.
    pub(super) fn is_proving(&self, at: usize, now: Instant) -> bool {
        let interval = self.plan.outlier.map_or(Duration::ZERO, |config| config.interval);
        let proving = self.instances[at].proving;
        proving.is_some_and(|(_, since)| now - since < interval)
    }

    /// The next event; false when the history is over.
    pub(super) async fn step(&mut self) -> bool {
        if self.over {
            return false;
        }
        let Some(Reverse((at, id))) = self.events.pop() else {
            return false;
        };
        tokio::time::advance(at.saturating_duration_since(Instant::now())).await;
        self.before = std::mem::take(&mut self.now);
        (self.picked, self.suspect, self.ledger.asked) = (None, None, None);
        if let Some(circuit) = &mut self.circuit {
            circuit.met = None;
        }
        match self.what.remove(&id).expect("each event is there once") {
            Event::Arrival if self.is_closing => {}
            Event::Arrival => self.arrives(),
            Event::Answer(call, began) => self.answer(call, began),
            Event::Retry(call) => self.attempt(call),
            Event::GivenUp(call) => self.given_up(call),
            Event::Incident(incident) => self.happens(incident).await,
            Event::Back(at) => self.connect(at).await,
            Event::Attend if self.due.is_some_and(|due| due <= Instant::now()) => self.attend(),
            Event::Attend => {}
            Event::Healed => {
                if self.instances.iter().all(|instance| instance.removed) {
                    self.add(vec![(Nature::Well, 100)]).await;
                }
                for at in 0..self.instances.len() {
                    self.instances[at].nature = Nature::Well;
                    self.connect(at).await;
                }
            }
            Event::Closing => self.is_closing = true,
        }
        self.keep().await;
        self.now = self.phases();
        self.over = self.is_closing && self.calls.is_empty();
        true
    }

    /// What the keeper's task does: it attends to the pool whenever that asks for it.
    async fn keep(&mut self) {
        loop {
            let asks = tokio::select! {
                biased;
                () = self.pool.wants_attention(None) => true,
                () = std::future::ready(()) => false,
            };
            if !asks {
                return;
            }
            self.attend();
        }
    }

    fn attend(&mut self) {
        if self.plant == Plant::Unattended {
            return;
        }
        self.due = self.pool.attend(Instant::now());
        if let Some(due) = self.due {
            self.after(due.saturating_duration_since(Instant::now()), Event::Attend);
        }
    }

    async fn happens(&mut self, incident: Incident) {
        match incident {
            Incident::Lost(at, back) => {
                let instance = &mut self.instances[at];
                instance.connected = false;
                self.pool.lines(&instance.endpoint, Vec::new());
                self.after(back, Event::Back(at));
            }
            Incident::Turns(at, nature) => self.instances[at].nature = nature,
            Incident::Removed(at) => {
                self.instances[at].removed = true;
                if self.plant != Plant::KeptRemoved {
                    self.tell();
                }
            }
            Incident::Added => self.add(vec![(Nature::Well, 100)]).await,
        }
    }

    /// New ones, all known at the same moment.
    async fn add(&mut self, all: Vec<(Nature, u32)>) {
        let is_warm = self.callable().next().is_some();
        let first = self.instances.len();
        let new: Vec<Backend> = all
            .iter()
            .enumerate()
            .map(|(at, (_, weight))| Backend {
                key: Key {
                    // In the order of their numbers.
                    instance_id: format!("instance-{:04}", first + at).into(),
                    address: "127.0.0.1:1".into(),
                    is_secured: false,
                },
                authority: Authority::from_static("127.0.0.1:1"),
                secured: None,
                weight: *weight,
                attributes: Arc::default(),
                epoch: 1,
                registry: 0,
            })
            .collect();
        let newcomers = self
            .pool
            .apply(roster(self.backends().chain(new.iter().cloned()).collect()));
        assert_eq!(newcomers.len(), new.len(), "they are new");
        for (backend, (nature, weight)) in new.into_iter().zip(all) {
            let is_it = |newcomer: &&Newcomer| newcomer.endpoint.instance_id == backend.key.instance_id;
            let newcomer = newcomers.iter().find(is_it).expect("one of them");
            self.numbers
                .insert(Arc::as_ptr(&newcomer.endpoint), self.instances.len());
            self.instances.push(Instance {
                endpoint: Arc::clone(&newcomer.endpoint),
                nature,
                weight,
                since: is_warm.then(Instant::now),
                removed: false,
                connected: false,
                open: 0,
                row: 0,
                proving: None,
                picks: 0.0,
                backend,
            });
            self.connect(self.instances.len() - 1).await;
        }
    }

    fn tell(&self) {
        let newcomers = self.pool.apply(roster(self.backends().collect()));
        assert!(newcomers.is_empty(), "nobody is new");
    }

    fn backends(&self) -> impl Iterator<Item = Backend> {
        let present = self.instances.iter().filter(|instance| !instance.removed);
        present.map(|instance| instance.backend.clone())
    }

    async fn connect(&mut self, at: usize) {
        let instance = &mut self.instances[at];
        if !instance.connected && !instance.removed {
            instance.connected = true;
            let connection = Connection::idle(STREAMS).await;
            self.pool.lines(&instance.endpoint, vec![connection]);
        }
    }

    pub(super) fn after(&mut self, pause: Duration, event: Event) {
        self.at(self.elapsed() + pause, event);
    }

    fn at(&mut self, elapsed: Duration, event: Event) {
        self.events.push(Reverse((self.began + elapsed, self.next)));
        self.what.insert(self.next, event);
        self.next += 1;
    }
}

fn roster(backends: Vec<Backend>) -> Roster {
    Roster {
        known: backends.len(),
        backends,
        passed_over: Vec::new(),
        unspoken: None,
        origin: Origin::Fixed,
    }
}
