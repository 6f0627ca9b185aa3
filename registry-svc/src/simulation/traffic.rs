//! What the clients of a world do, and the network between them and the registries.

use std::{
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

use super::{
    Plant, Time,
    clients::{
        provider::{self, Next, Provider},
        watcher::Watch,
    },
    heard::{Fact, Heard},
    invariants::Seen,
    replica::{Delivery, Replica},
    request::{Answer, Ask, Client, Request, Ticket},
    world::{Asked, Event, World},
};
use crate::{
    catalog::{Decision, Govern, Judge},
    fixtures::{self, WALL},
    hub::{Selection, WatchFrom},
    model::{Detail, Health, InstanceKey, Revision, WallTime, Weight, Who, Zone},
};

/// Steps that a watcher takes in at one look.
const STEPS: usize = 6;

impl World {
    /// Everybody who is there from the beginning.
    pub(super) fn populate(&mut self) {
        for replica in 0..self.plan.replicas {
            self.replicas.push(Replica::default());
            self.at(Time::ZERO, Event::Starts(replica));
        }
        for _ in 0..self.plan.providers {
            self.born(None);
        }
        for watch in 0..self.plan.watchers {
            let selection = self.selection();
            let millis = Duration::from_millis;
            let paces = [
                (millis(1), millis(20)),
                (millis(50), millis(300)),
                (millis(500), millis(2_500)),
            ];
            let (pace, home, rng) = (
                self.rng.pick(&paces),
                self.rng.below(self.plan.replicas),
                self.rng.fork(),
            );
            self.watches.push(Watch::new(selection, pace, home, rng));
            let begins = self.rng.between(Time::ZERO, millis(1_500));
            self.at(begins, Event::Watch(watch));
        }
        for reader in 0..self.plan.readers {
            self.at(Duration::from_millis(10), Event::Reads(reader));
        }
        for operator in 0..self.plan.operators {
            self.at(Duration::from_millis(800), Event::Decides(operator));
        }
        for prober in 0..self.plan.probers {
            self.at(Duration::from_millis(600), Event::Probes(prober));
        }
        for (at, fault) in self.plan.faults.clone() {
            self.at(at, Event::Fault(fault));
        }
    }

    fn selection(&mut self) -> Selection {
        let service = self.rng.below(self.plan.services + 1);
        let mut selection = match service {
            0 => fixtures::scope(""),
            n => fixtures::scope(&format!("svc-{n}")),
        };
        if self.rng.chance(300) {
            let zone = self.rng.below(self.plan.zones);
            selection.zone = Some(Zone::try_new(&format!("z{zone}")).expect("a zone"));
        }
        selection
    }

    /// A new provider, or one that is started again under the names of an earlier one.
    pub(super) fn born(&mut self, successor_of: Option<usize>) {
        let n = self.providers.len();
        let mut zone = self.rng.below(self.plan.zones);
        let mut drafts = Vec::new();
        match successor_of {
            Some(former) => {
                let keys: Vec<InstanceKey> = self.providers[former].keys().cloned().collect();
                // Sometimes it comes up in another zone: what watchers select by may change.
                zone = if self.rng.chance(700) {
                    self.providers[former].zone
                } else {
                    zone
                };
                for key in keys {
                    drafts.push(fixtures::draft(
                        key.service.as_str(),
                        key.id.as_str(),
                        &format!("z{zone}"),
                    ));
                }
            }
            None => {
                let instances = if self.rng.chance(250) { 2 + self.rng.below(2) } else { 1 };
                for instance in 0..instances {
                    let service = 1 + self.rng.below(self.plan.services);
                    drafts.push(fixtures::draft(
                        &format!("svc-{service}"),
                        &format!("i{n}-{instance}"),
                        &format!("z{zone}"),
                    ));
                }
            }
        }
        let heartbeat = provider::terms(&mut self.rng);
        let home = self.rng.below(self.plan.replicas);
        let rng = self.rng.fork();
        self.providers
            .push(Provider::new(drafts, zone, heartbeat, home, self.plan.heal, rng));
        let begins = self.truth.now + self.rng.between(Duration::ZERO, Duration::from_millis(500));
        self.at(begins, Event::Provider(n, 0));
    }

    /// How long a message takes, if it comes at all.
    pub(super) fn passes(&mut self, replica: usize) -> Option<Duration> {
        let calm = self.truth.now >= self.plan.heal;
        if self.cut_off.get(&replica).is_some_and(|until| self.truth.now < *until) {
            return None;
        }
        if !calm && self.rng.chance(self.plan.lost) {
            return None;
        }
        let (fastest, slowest) = self.plan.delay;
        let late = !calm && self.rng.chance(self.plan.late);
        let slowest = if late { Duration::from_secs(1) } else { slowest };
        Some(self.rng.between(fastest, slowest))
    }

    fn send(&mut self, from: Client, to: usize, ask: Ask) -> Ticket {
        let (ticket, now) = (self.ticket(), self.truth.now);
        self.note(from, format_args!("asks registry {to}: {ask}"));
        let request = Rc::new(Request { ticket, from, ask, to });
        self.requests.insert(
            ticket,
            Asked {
                request,
                hung_up: false,
            },
        );
        let copies = if now < self.plan.heal && self.rng.chance(self.plan.twice) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            if let Some(delay) = self.passes(to) {
                self.at(now + delay, Event::Arrives(ticket));
            }
        }
        ticket
    }

    /// A request comes to its registry's door.
    pub(super) fn arrives(&mut self, ticket: Ticket) {
        let Some(asked) = self.requests.get(&ticket) else {
            return;
        };
        let request = Rc::clone(&asked.request);
        let to = request.to;
        if self.replicas[to].process.is_none() {
            return;
        }
        for heartbeat in request.rounds() {
            self.see(Seen::Arrived { request: &heartbeat });
        }
        if !request.is_renewal() {
            self.see(Seen::Arrived { request: &request });
        }
        self.deliver(to, Delivery::Request(request));
    }

    /// An answer comes to its client.
    pub(super) fn answers(&mut self, ticket: Ticket, answer: &Answer) {
        let Some(asked) = self.requests.get(&ticket) else {
            return;
        };
        let request = Rc::clone(&asked.request);
        let Client::Provider(n) = request.from else {
            self.requests.remove(&ticket);
            return;
        };
        let now = self.truth.now;
        if let Some(wakes) = self.providers[n].asleep.filter(|wakes| *wakes > now) {
            // It finds the answer when it wakes.
            return self.at(wakes, Event::Answers(ticket, answer.clone()));
        }
        if let Some(next) = self.providers[n].answered(ticket, answer, now) {
            self.note(request.from, format_args!("hears: {answer}"));
            self.requests.remove(&ticket);
            self.wind(n, next);
        }
    }

    /// Sets a provider's timer, and only that one.
    pub(super) fn wind(&mut self, n: usize, at: Time) {
        self.providers[n].timer += 1;
        let timer = self.providers[n].timer;
        self.at(at.max(self.truth.now), Event::Provider(n, timer));
    }

    /// A provider's timer has come.
    pub(super) fn provider(&mut self, n: usize, timer: u64) {
        let now = self.truth.now;
        let provider = &mut self.providers[n];
        if provider.timer != timer {
            return;
        }
        if let Some(wakes) = provider.asleep {
            if now < wakes {
                return self.wind(n, wakes);
            }
            provider.asleep = None;
        }
        let (next, given_up) = provider.next(now, self.replicas.len());
        if let Some(ticket) = given_up {
            self.hangs_up(ticket);
        }
        match next {
            Next::Ask(Ask::Register { .. }, _)
                if self.plant == Plant::GiveUp && n < self.plan.providers && now > Duration::from_secs(3) => {}
            Next::Ask(ask, patience) => {
                let home = self.providers[n].home;
                let ticket = self.send(Client::Provider(n), home, ask);
                self.providers[n].sent(ticket, now + patience);
                self.wind(n, now + patience);
            }
            Next::Wait(until) => self.wind(n, until),
            Next::Nothing => {}
        }
    }

    /// A client waits no more. Its registry may notice in time, and drop what it has not begun.
    fn hangs_up(&mut self, ticket: Ticket) {
        let Some(asked) = self.requests.get_mut(&ticket) else {
            return;
        };
        asked.hung_up = true;
        let to = asked.request.to;
        let noticed = self.rng.chance(700);
        if let Some(process) = &mut self.replicas[to].process
            && process.stopped.is_none()
            && noticed
        {
            process.pending.retain(|pending| pending.ticket != ticket);
        }
    }

    /// A reader looks at something.
    pub(super) fn reads(&mut self, reader: usize) {
        let known: usize = self.providers.iter().map(|provider| provider.drafts.len()).sum();
        let nth = self.rng.below(known);
        let key = self.providers.iter().flat_map(Provider::keys).nth(nth).cloned();
        let ask = match key {
            Some(key) if self.rng.chance(700) => Ask::Get(key),
            _ => Ask::List(self.selection()),
        };
        let to = self.rng.below(self.plan.replicas);
        self.send(Client::Reader(reader), to, ask);
        let next = self.truth.now + self.rng.between(Duration::from_millis(50), Duration::from_millis(400));
        self.at(next, Event::Reads(reader));
    }

    /// An operator decides something about some instance, registered or not.
    pub(super) fn decides(&mut self, operator: usize) {
        let known: usize = self.providers.iter().map(|provider| provider.drafts.len()).sum();
        // A few of them, so that decisions meet.
        let nth = self.rng.below(known.min(4));
        let Some(key) = self.providers.iter().flat_map(Provider::keys).nth(nth).cloned() else {
            return;
        };
        let until = self.rng.chance(500).then(|| {
            let moment = self.truth.now + self.rng.between(Duration::from_millis(200), Duration::from_secs(5));
            WallTime {
                seconds: WALL.seconds + i64::try_from(moment.as_secs()).unwrap_or_default(),
                nanos: moment.subsec_nanos(),
            }
        });
        let weight = Weight::try_new(u32::try_from(self.rng.below(4)).unwrap_or_default()).expect("a weight");
        let decision = match self.rng.below(6) {
            0..=1 => Decision::Drain { until },
            2 => Decision::Undrain,
            3..=4 => Decision::SetWeight { weight, until },
            _ => Decision::OwnWeight,
        };
        self.decisions += 1;
        let govern = Govern {
            key,
            decision,
            who: Who::of(&format!("operator {operator}")),
            why: Detail::of(&format!("decision {}", self.decisions)),
        };
        let to = self.rng.below(self.plan.replicas);
        self.send(Client::Operator(operator), to, Ask::Govern(govern));
        let next = self.truth.now + self.rng.between(Duration::from_millis(100), Duration::from_millis(900));
        self.at(next, Event::Decides(operator));
    }

    /// A probe has come to something: of what a registry showed when the probe began, which may be another by now.
    pub(super) fn probes(&mut self, prober: usize) {
        let next = self.truth.now + self.rng.between(Duration::from_millis(50), Duration::from_millis(600));
        self.at(next, Event::Probes(prober));
        let to = self.rng.below(self.plan.replicas);
        let known: usize = self.providers.iter().map(|provider| provider.drafts.len()).sum();
        // A few of them, so that verdicts meet each other, successors and decisions.
        let nth = self.rng.below(known.min(5));
        let Some(key) = self.providers.iter().flat_map(Provider::keys).nth(nth).cloned() else {
            return;
        };
        let process = self.replicas[to]
            .process
            .as_ref()
            .filter(|process| process.stopped.is_none());
        let shown = process.and_then(|process| process.hub.look(|view| view.get(&key)));
        // Time passes between the first look and the verdict: what was there then is what is judged.
        let ago = u64::try_from(self.rng.below(6)).unwrap_or_default();
        let began = Revision::new(self.truth.head().get().saturating_sub(ago));
        let former = self.truth.state(began).and_then(|state| state.get(&key)).cloned();
        let Some(epoch) = former.or(shown).map(|instance| instance.epoch) else {
            return;
        };
        let health = self.rng.pick(&[Health::Passing, Health::Failing]);
        let judge = Judge { key, epoch, health };
        self.send(Client::Prober(prober), to, Ask::Judge(judge));
    }

    /// A watcher looks whether there is something to hear.
    pub(super) fn watch(&mut self, n: usize) {
        let (fastest, slowest) = match self.calm() {
            // In the end the slow ones catch up.
            true => (Duration::from_millis(50), Duration::from_millis(300)),
            false => self.watches[n].pace,
        };
        let next = self.truth.now + self.rng.between(fastest, slowest);
        self.at(next, Event::Watch(n));
        let home = self.watches[n].home;
        let life = self.replicas[home].life;
        let reachable = self.cut_off.get(&home).is_none_or(|until| *until <= self.truth.now);
        let running = self.replicas[home]
            .process
            .as_ref()
            .is_some_and(|process| process.stopped.is_none());
        if self.watches[n].stream.as_ref().is_some_and(|(_, of)| *of != life) {
            self.watches[n].disconnect();
        }
        if !reachable || !running {
            // Its keep-alive finds out, sooner or later.
            if self.watches[n].rng.chance(200) {
                self.watches[n].disconnect();
                self.watches[n].home = self.rng.below(self.plan.replicas);
            }
            return;
        }
        if self.watches[n].stream.is_none() && !self.open(n) {
            return;
        }
        let steps = if self.calm() { usize::MAX } else { STEPS };
        for _ in 0..steps {
            if !self.pull(n) {
                return;
            }
        }
    }

    /// A stream is opened, where the watcher was.
    fn open(&mut self, n: usize) -> bool {
        let home = self.watches[n].home;
        let Some(process) = &self.replicas[home].process else {
            return false;
        };
        let hub = std::sync::Arc::clone(&process.hub);
        let last = self.watches[n].last;
        let from = match last {
            _ if self.plant == Plant::ResumeWithSnapshot => WatchFrom::Nothing,
            Some(revision) if self.plant == Plant::ServeBehind => {
                WatchFrom::Revision(revision.min(hub.look(crate::hub::View::revision)))
            }
            Some(revision) => WatchFrom::Revision(revision),
            None => WatchFrom::Nothing,
        };
        let opened = hub.watch(&self.watches[n].selection, from);
        self.see(Seen::Opened {
            watch: n,
            from: last,
            shown: hub.look(crate::hub::View::revision),
            accepted: opened.is_ok(),
        });
        let life = self.replicas[home].life;
        let opened = opened.ok().map(|stream| (stream, life));
        self.watches[n].stream = opened;
        self.watches[n].stream.is_some()
    }

    /// Hears one thing, if there is one. Whether to go on.
    fn pull(&mut self, n: usize) -> bool {
        let home = self.watches[n].home;
        let Some(process) = &self.replicas[home].process else {
            return false;
        };
        let compacted = process.hub.compacted_after(&[]);
        let now = process.clock(self.truth.now, 0).moment;
        process.hub.tidy(now);
        let watch = &mut self.watches[n];
        let Some((stream, _)) = &mut watch.stream else {
            return false;
        };
        // Only who is woken looks again, so that a wake-up that is missing shows.
        let woken = stream.poll_woken(&mut Context::from_waker(Waker::noop()));
        if watch.idle && woken.is_pending() {
            return false;
        }
        let Some(heard) = Heard::from(stream, now, &mut self.encoded) else {
            watch.idle = true;
            return false;
        };
        watch.idle = false;
        if self.truth.now < self.plan.heal && watch.rng.chance(self.plan.lost) {
            self.note(
                format_args!("watcher {n}"),
                format_args!("loses its stream, and with it {heard}"),
            );
            self.watches[n].disconnect();
            return false;
        }
        let Some(heard) = self.watches[n].assemble(heard) else {
            return true;
        };
        for heard in self.planted(n, heard) {
            self.watches[n].fold(&heard);
            self.heard(n, &heard, compacted);
        }
        true
    }

    /// The planted bugs of a watch.
    fn planted(&mut self, n: usize, heard: Heard) -> Vec<Heard> {
        let unlucky = self.truth.now > Duration::from_secs(2) && self.rng.chance(100);
        match (self.plant, heard) {
            (Plant::TellTwice, heard @ Heard::Delta(..)) if unlucky => vec![heard.clone(), heard],
            (Plant::SkipDelta, Heard::Delta(..)) if unlucky => Vec::new(),
            (Plant::SplitDelta, Heard::Delta(revision, mut facts)) if facts.len() > 1 => {
                let rest: Vec<Fact> = facts.split_off(1);
                vec![
                    Heard::Delta(revision, facts),
                    Heard::Delta(Revision::new(revision.get() + 1), rest),
                ]
            }
            (Plant::TravelInTime, heard @ Heard::Delta(..)) if unlucky => {
                let back = Revision::new(self.watches[n].last.unwrap_or_default().get().saturating_sub(2));
                vec![heard, Heard::Bookmark(back)]
            }
            (Plant::BookmarkAhead, Heard::Delta(revision, facts)) if unlucky => {
                vec![Heard::Bookmark(revision), Heard::Delta(revision.next(), facts)]
            }
            (_, heard) => vec![heard],
        }
    }
}
