//! A history as it happens: instances, calls, and time that goes from one event to the next. What must hold is asked elsewhere.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

use http::uri::Authority;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::Instant;

use super::{
    Plant,
    plan::{Incident, Nature, Plan},
};
use crate::{
    Policy,
    endpoint::{Ending, Endpoint, InFlight, connection::Connection, driver::ReadySink as _},
    pool::{Backend, Key, Origin, Pool, Roster, Wish},
};

/// What an instance allows: more than any history opens.
const STREAMS: usize = 1 << 20;
/// Attempts of a call besides the first.
const RETRIES: usize = 1;
/// After the healing, until the shares are looked at: averages with a time constant of 10 s have forgotten by then.
const SETTLED: Duration = Duration::from_secs(20);

pub(super) struct World {
    plan: Plan,
    plant: Plant,
    pool: Arc<Pool>,
    rng: StdRng,
    began: Instant,
    over: bool,
    events: BinaryHeap<Reverse<(Instant, u64)>>,
    what: HashMap<u64, Event>,
    pub(super) instances: Vec<Instance>,
    calls: HashMap<u64, Call>,
    next: u64,
    /// The pick of the last step, if there was one.
    pub(super) picked: Option<Picked>,
    /// First attempts on instances that fail, and how many their weights would have sent there.
    pub(super) failing: (f64, f64),
    /// Calls that were picked since the fleet has settled.
    pub(super) settled: f64,
}

pub(super) struct Instance {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) nature: Nature,
    pub(super) weight: u32,
    pub(super) removed: bool,
    pub(super) connected: bool,
    /// Calls that are open, as counted here.
    pub(super) open: u32,
    /// Since the fleet has settled.
    pub(super) picks: f64,
    backend: Backend,
}

/// What the pool was asked, and what it answered.
#[derive(Debug)]
pub(super) struct Picked {
    /// Which instance; nothing if the pool had none.
    pub(super) instance: Option<usize>,
    /// The instances that had the call before.
    pub(super) tried: Vec<usize>,
}

enum Event {
    Arrival,
    Answer(u64),
    Incident(Incident),
    Back(usize),
    Healed,
    End,
}

struct Call {
    in_flight: InFlight,
    instance: usize,
    tried: Vec<usize>,
}

impl World {
    pub(super) async fn new(plan: Plan, plant: Plant) -> Self {
        let began = Instant::now();
        let mut world = Self {
            pool: Arc::new(Pool::seeded(plan.policy.clone(), plan.seed)),
            rng: StdRng::seed_from_u64(!plan.seed),
            plant,
            began,
            over: false,
            events: BinaryHeap::new(),
            what: HashMap::new(),
            instances: Vec::new(),
            calls: HashMap::new(),
            next: 0,
            picked: None,
            failing: (0.0, 0.0),
            settled: 0.0,
            plan,
        };
        for (nature, weight) in world.plan.natures.clone() {
            world.add(nature, weight).await;
        }
        world.at(Duration::ZERO, Event::Arrival);
        for (at, incident) in world.plan.incidents.clone() {
            world.at(at, Event::Incident(incident));
        }
        world.at(world.plan.healed, Event::Healed);
        world.at(world.plan.lasts, Event::End);
        world
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether the history has come to its end.
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

    /// The next event; false when the history is over.
    pub(super) async fn step(&mut self) -> bool {
        if self.over {
            return false;
        }
        let Some(Reverse((at, id))) = self.events.pop() else {
            return false;
        };
        tokio::time::advance(at.saturating_duration_since(Instant::now())).await;
        self.picked = None;
        match self.what.remove(&id).expect("each event is there once") {
            Event::Arrival => {
                let uniform: f64 = self.rng.random_range(f64::EPSILON..1.0);
                self.after(Duration::from_secs_f64(-uniform.ln() / self.plan.rate), Event::Arrival);
                self.attempt(Vec::new());
            }
            Event::Answer(call) => self.answer(call),
            Event::Incident(incident) => self.happens(incident).await,
            Event::Back(at) => self.connect(at).await,
            Event::Healed => {
                if self.instances.iter().all(|instance| instance.removed) {
                    self.add(Nature::Well, 100).await;
                }
                for at in 0..self.instances.len() {
                    self.instances[at].nature = Nature::Well;
                    self.connect(at).await;
                }
            }
            Event::End => self.over = true,
        }
        true
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
            Incident::Added => self.add(Nature::Well, 100).await,
        }
    }

    async fn add(&mut self, nature: Nature, weight: u32) {
        let name = format!("instance-{}", self.instances.len());
        let backend = Backend {
            key: Key {
                instance_id: name.as_str().into(),
                address: "127.0.0.1:1".into(),
                is_secured: false,
            },
            authority: Authority::from_static("127.0.0.1:1"),
            secured: None,
            weight,
            attributes: Arc::default(),
            epoch: 1,
            registry: 0,
        };
        let known = self.backends().chain([backend.clone()]).collect();
        let newcomers = self.pool.apply(roster(known));
        let [newcomer] = &newcomers[..] else {
            panic!("one is new")
        };
        self.instances.push(Instance {
            endpoint: Arc::clone(&newcomer.endpoint),
            nature,
            weight,
            removed: false,
            connected: false,
            open: 0,
            picks: 0.0,
            backend,
        });
        self.connect(self.instances.len() - 1).await;
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

    fn attempt(&mut self, tried: Vec<usize>) {
        let avoid: Vec<Arc<Endpoint>> = match self.plant {
            Plant::NotAvoided => Vec::new(),
            Plant::Sticky => self.instances[1..]
                .iter()
                .map(|instance| Arc::clone(&instance.endpoint))
                .collect(),
            _ => tried
                .iter()
                .map(|at| Arc::clone(&self.instances[*at].endpoint))
                .collect(),
        };
        let wish = Wish {
            avoid: &avoid,
            key: Some(self.rng.next_u64()),
            route: None,
        };
        let Some(choice) = self.pool.pick(wish) else {
            self.picked = Some(Picked { instance: None, tried });
            return;
        };
        let is_it = |instance: &Instance| Arc::ptr_eq(&instance.endpoint, choice.in_flight.endpoint());
        let at = self.instances.iter().position(is_it).expect("one of them");
        if tried.is_empty() {
            self.count(at);
        }
        let instance = &mut self.instances[at];
        instance.open += 1;
        let usual = self.plan.usual.mul_f64(self.rng.random_range(0.8..1.2));
        let takes = match instance.nature {
            Nature::Well => usual,
            Nature::Slow(times) => usual * times,
            Nature::Failing => Duration::from_micros(50),
        };
        let id = self.next;
        self.calls.insert(
            id,
            Call {
                in_flight: choice.in_flight,
                instance: at,
                tried: tried.clone(),
            },
        );
        self.picked = Some(Picked {
            instance: Some(at),
            tried,
        });
        self.after(takes, Event::Answer(id));
    }

    /// What the shares are judged by.
    fn count(&mut self, at: usize) {
        fn is_failing(instance: &Instance) -> bool {
            instance.nature == Nature::Failing
        }
        let weigh = |count: fn(&Instance) -> bool| -> f64 {
            let counted = self.callable().filter(|(_, instance)| count(instance));
            counted.map(|(_, instance)| f64::from(instance.weight)).sum()
        };
        let (failing, all) = (weigh(is_failing), weigh(|_| true));
        if failing > 0.0 && failing < all {
            self.failing.0 += f64::from(u8::from(is_failing(&self.instances[at])));
            self.failing.1 += failing / all;
        }
        if self.elapsed() >= self.plan.healed + SETTLED {
            self.settled += 1.0;
            self.instances[at].picks += 1.0;
        }
    }

    fn answer(&mut self, id: u64) {
        let Call {
            mut in_flight,
            instance: at,
            mut tried,
        } = self.calls.remove(&id).expect("each call is answered once");
        self.instances[at].open -= 1;
        let failed = self.instances[at].nature == Nature::Failing;
        if failed {
            in_flight.ends(Ending::Failed);
        } else {
            in_flight.speaks();
            in_flight.ends(Ending::Served);
        }
        if self.plant == Plant::LeakedCall && id.is_multiple_of(5) {
            std::mem::forget(in_flight);
        } else {
            drop(in_flight);
        }
        if failed && tried.len() < RETRIES {
            tried.push(at);
            self.attempt(tried);
        }
    }

    fn after(&mut self, pause: Duration, event: Event) {
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
