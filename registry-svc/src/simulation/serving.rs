//! How the registries of a world live: start, take what comes, stop, crash.

use std::{ops::Bound, rc::Rc, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{
    Plant, Time,
    invariants::Seen,
    replica::{Delivery, Pending, Process, Round},
    request::{Answer, Ask, Request},
    world::{Event, World},
};
use crate::{
    catalog::{
        Command, Decision, Deregister, Govern, LeaseChoice, Owner, Register, RenewError, Renewed, Reply, Update,
    },
    driver::{DriverError, NotRenewed, SubmitError},
    model::{Detail, LeaseId, LeaseSecret, Registrant, RemovalReason, ReplicaId, Revision, Terms},
};

impl World {
    /// A process begins, if it reaches the store.
    pub(super) fn starts(&mut self, replica: usize) {
        if self.replicas[replica].process.is_some() {
            return;
        }
        let reached = self.store.reached_at(replica);
        if reached > self.truth.now {
            let again = reached + Duration::from_millis(100);
            return self.at(again, Event::Starts(replica));
        }
        self.replicas[replica].life += 1;
        let id = self.id(replica);
        let draws = self.rng.fork();
        let process = Process::boot(id, &self.truth, &self.store, &self.plan, self.plant, draws);
        let hub = Arc::clone(&process.hub);
        self.replicas[replica].process = Some(process);
        self.note_registry(replica, format_args!("starts at {}", self.truth.head()));
        self.see(Seen::Started { replica, id, hub: &hub });
        self.join(replica);
        self.set_timer(replica);
    }

    /// The name of a registry's present life.
    pub(super) fn id(&self, replica: usize) -> ReplicaId {
        if self.plan.replicas == 1 {
            return ReplicaId::ALONE;
        }
        ReplicaId::from_bits(self.replicas[replica].life * 16 + replica as u64 + 1)
    }

    /// A process ends without a word. What it had on its way may have been written or not.
    pub(super) fn crashes(&mut self, replica: usize, down: Duration) {
        if self.replicas[replica].process.take().is_none() {
            return;
        }
        self.note_registry(replica, format_args!("crashes"));
        let commits = self.store.commits.iter();
        let own: Vec<u64> = commits
            .filter(|(_, commit)| commit.replica == replica)
            .map(|(id, _)| *id)
            .collect();
        for id in own {
            match self.rng.below(2) {
                // On a wire it may still arrive later, on a disk it is now or never.
                0 if self.plan.replicas > 1 => {}
                0 => self.stores(id),
                _ => drop(self.store.commits.remove(&id)),
            }
        }
        if self.plan.replicas == 1 {
            // Also one that failed just now: it must not be found by a crash of a later life.
            self.store.commits.retain(|_, commit| commit.replica != replica);
        }
        let back = self.truth.now + down;
        self.see(Seen::Trouble { until: back });
        self.falls_silent(replica);
        if self.plant != Plant::StayDown {
            self.at(back, Event::Starts(replica));
        }
    }

    /// SIGSTOP.
    pub(super) fn stops(&mut self, replica: usize, time: Duration) {
        let (until, life) = (self.truth.now + time, self.replicas[replica].life);
        let Some(process) = &mut self.replicas[replica].process else {
            return;
        };
        if process.stopped.is_some() {
            return;
        }
        process.stopped = Some(until);
        self.note_registry(replica, format_args!("is stopped for {time:?}"));
        self.see(Seen::Stopped { replica, until });
        self.see(Seen::Trouble { until });
        self.falls_silent(replica);
        self.at(until, Event::Continues(replica, life));
    }

    /// SIGCONT.
    pub(super) fn continues(&mut self, replica: usize, life: u64) {
        if self.replicas[replica].life != life {
            return;
        }
        let Some(process) = &mut self.replicas[replica].process else {
            return;
        };
        let Some(until) = process.stopped.take() else { return };
        let waiting = process.take_waiting(&mut self.rng);
        self.note_registry(replica, format_args!("goes on, {} deliveries wait", waiting.len()));
        if self.plant == Plant::ChargePauses {
            self.pretend_no_pause(replica, until);
        }
        for delivery in waiting {
            self.deliver(replica, delivery);
        }
        self.join(replica);
        self.set_timer(replica);
    }

    /// The planted bug: as if somebody had looked at the clock during the pause.
    fn pretend_no_pause(&mut self, replica: usize, until: Time) {
        let skew = self.replicas[replica].wall_skew;
        let Some(process) = &mut self.replicas[replica].process else {
            return;
        };
        let mut time = until.saturating_sub(Duration::from_secs(6)).max(process.since);
        while time < until {
            let now = process.clock(time, skew);
            process.core.look(now);
            time += Duration::from_millis(100);
        }
    }

    /// Its timer has come.
    pub(super) fn wakes(&mut self, replica: usize, life: u64) {
        let now = self.truth.now;
        if self.replicas[replica].life != life {
            return;
        }
        let Some(process) = &mut self.replicas[replica].process else {
            return;
        };
        if process.wakes != Some(now) {
            return;
        }
        process.wakes = None;
        self.deliver(replica, Delivery::Pulse);
    }

    fn set_timer(&mut self, replica: usize) {
        let late = self.rng.between(Duration::ZERO, Duration::from_millis(1));
        let (now, life, skew) = (
            self.truth.now,
            self.replicas[replica].life,
            self.replicas[replica].wall_skew,
        );
        let Some(process) = &mut self.replicas[replica].process else {
            return;
        };
        let wanted = process.since + process.core.next_wake(process.clock(now, skew)).since_start();
        // A timer that is set for earlier is good too.
        if process.stopped.is_some() || process.wakes.is_some_and(|set| set <= wanted + late) {
            return;
        }
        let time = wanted.max(now) + late;
        process.wakes = Some(time);
        self.at(time, Event::Wakes(replica, life));
    }

    /// Something comes to a registry's process.
    pub(super) fn deliver(&mut self, replica: usize, delivery: Delivery) {
        let (now, skew) = (self.truth.now, self.replicas[replica].wall_skew);
        let Some(process) = &mut self.replicas[replica].process else {
            return;
        };
        if process.stopped.is_some() {
            process.waiting.push_back(delivery);
            return;
        }
        let mut clock = process.clock(now, skew);
        if self.plant == Plant::NeverEndOverrides {
            clock.wall.seconds = 0;
        }
        process.core.look(clock);
        let draw = process.draws.bits();
        let taken = match delivery {
            Delivery::Request(request) => {
                self.take(replica, &request);
                Ok(())
            }
            Delivery::Broken(lease) => {
                if let Some(beat) = process.beats.get(&lease) {
                    process.core.suspect(&[(lease, *beat)]);
                    self.see(Seen::Suspected { lease });
                }
                Ok(())
            }
            Delivery::Verdict(verdict, took) => process.core.committed(verdict, took, clock, draw),
            Delivery::News(news) => process.core.news(news, clock),
            Delivery::Pulse if self.plant == Plant::NeverExpire => Ok(()),
            Delivery::Pulse => {
                process.core.pulse(clock, draw);
                Ok(())
            }
        };
        match taken {
            Ok(()) => self.after(replica),
            // The process ends itself.
            Err(DriverError::Gap { expected, found }) => {
                self.broken(
                    "reliable news",
                    format!("registry {replica} expected {expected} and was told {found}"),
                );
            }
            Err(_) => self.crashes(replica, Duration::from_millis(100)),
        }
    }

    /// What follows from an input: a commit, answers.
    fn after(&mut self, replica: usize) {
        let (now, skew) = (self.truth.now, self.replicas[replica].wall_skew);
        let Some(process) = &mut self.replicas[replica].process else {
            return;
        };
        let clock = process.clock(now, skew);
        if let Some(job) = process.core.next_job(clock) {
            if self.plant == Plant::PublishBeforeDurable {
                process.hub.publish(&job.batches);
            }
            self.commit(replica, job);
        }
        self.answer_pending(replica);
        let Some(process) = &self.replicas[replica].process else {
            return;
        };
        let hub = Arc::clone(&process.hub);
        let (sizes, unsettled) = (process.core.sizes(), process.core.unsettled());
        if self.rng.chance(50) {
            process.core.check_invariants();
        }
        self.see(Seen::Stepped {
            replica,
            hub: &hub,
            sizes,
            unsettled,
        });
        self.set_timer(replica);
    }

    fn answer_pending(&mut self, replica: usize) {
        let Some(process) = &mut self.replicas[replica].process else {
            return;
        };
        let mut heard = Vec::new();
        process.rounds.retain_mut(|round| match round.results.try_recv() {
            Ok(results) => {
                heard.push((round.ticket, std::mem::take(&mut round.leases), results));
                false
            }
            Err(error) => error == oneshot::error::TryRecvError::Empty,
        });
        for (_, leases, results) in &heard {
            for (lease, result) in leases.iter().zip(results) {
                if let Ok(renewed) = result {
                    process.beats.insert(*lease, renewed.beat);
                }
            }
        }
        let mut answered = Vec::new();
        process.pending.retain_mut(|pending| match pending.answer.try_recv() {
            Ok(answer) => {
                answered.push((pending.ticket, pending.lease, answer));
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
        for (ticket, leases, results) in heard {
            if let Some(asked) = self.requests.get(&ticket) {
                let request = Rc::clone(&asked.request);
                self.round(replica, &request, &leases, &results);
            }
        }
        for (ticket, lease, answer) in answered {
            let Some(asked) = self.requests.get(&ticket) else {
                continue;
            };
            let request = Rc::clone(&asked.request);
            let answer = match answer {
                Ok(Reply::Registered(registered)) => Answer::Registered {
                    owner: self.grants[&registered.lease].0,
                    revision: registered.revision,
                },
                Ok(Reply::Updated { instance }) => Answer::Updated(instance),
                Ok(Reply::Deregistered { revision }) => Answer::Deregistered(revision),
                Ok(Reply::Governed { revision, .. }) => Answer::Governed(revision),
                Ok(Reply::Claimed) => continue,
                Err(SubmitError::Refused(error)) => Answer::Refused(error),
                Err(SubmitError::OutcomeUnknown) => Answer::Unknown,
                Err(undone) => Answer::Undone(undone.to_string(), lease),
            };
            self.reply(replica, &request, answer);
        }
    }

    /// What a round of heartbeats is told: of one that nobody can answer, the whole stream.
    fn round(
        &mut self,
        replica: usize,
        request: &Rc<Request>,
        leases: &[LeaseId],
        results: &[Result<Renewed, NotRenewed>],
    ) {
        let undecided = results.contains(&Err(NotRenewed::Undecided));
        let results = leases.iter().zip(results).map(|(lease, result)| {
            let result = if undecided { Err(NotRenewed::Undecided) } else { *result };
            self.renewed(*lease, result)
        });
        let mut answers: Vec<Answer> = results.collect();
        for (heartbeat, answer) in request.rounds().iter().zip(&answers).skip(1) {
            self.see(Seen::Answered {
                replica,
                request: heartbeat,
                answer,
            });
        }
        self.reply(replica, request, answers.swap_remove(0));
    }

    /// What an owner is told of its heartbeat.
    fn renewed(&self, lease: LeaseId, result: Result<Renewed, NotRenewed>) -> Answer {
        match (result, self.plant) {
            (Ok(renewed), _) => Answer::Renewed(Ok(renewed.ttl)),
            (Err(NotRenewed::Refused(error)), _) => Answer::Renewed(Err(error)),
            (Err(NotRenewed::Undecided), Plant::RefuseInDoubt) => Answer::Renewed(Err(RenewError::Unknown)),
            (Err(NotRenewed::Undecided), Plant::PromiseInDoubt) => {
                let record = self.truth.present().leases.get(&lease);
                Answer::Renewed(Ok(record.map(|record| record.heartbeat.ttl()).unwrap_or_default()))
            }
            (Err(NotRenewed::Undecided), _) => Answer::Undone("nobody knows".into(), None),
        }
    }

    fn take(&mut self, replica: usize, request: &Rc<Request>) {
        let hung_up = self.requests.get(&request.ticket).is_none_or(|asked| asked.hung_up);
        // Whether the news of it comes before the request is taken is a matter of luck.
        if hung_up && !request.is_renewal() && self.rng.chance(700) {
            return;
        }
        let (now, skew) = (self.truth.now, self.replicas[replica].wall_skew);
        let mut granted = None;
        let command = match &request.ask {
            Ask::Renew(owner, former) => {
                if self.plant == Plant::NeverClaim
                    && let Some(record) = self.truth.present().leases.get(&owner.lease)
                    && record.owner != self.id(replica)
                {
                    let ttl = record.heartbeat.ttl();
                    return self.reply(replica, request, Answer::Renewed(Ok(ttl)));
                }
                let Some(process) = &mut self.replicas[replica].process else {
                    return;
                };
                let (caller, results) = oneshot::channel();
                let owners: Vec<Owner> = [Some(*owner), *former].into_iter().flatten().collect();
                let leases = owners.iter().map(|owner| owner.lease).collect();
                if self.plant == Plant::HearAtOnce {
                    let results = process.core.renew(&owners, None).into_iter();
                    let _ = caller.send(results.map(|result| result.map_err(NotRenewed::Refused)).collect());
                } else {
                    process.core.hear(owners, None, None, caller);
                }
                return process.rounds.push(Round {
                    ticket: request.ticket,
                    leases,
                    results,
                });
            }
            Ask::Get(_) | Ask::List(_) => return self.read(replica, request),
            Ask::Register {
                request: id,
                drafts,
                heartbeat,
                under: Some(owner),
            } => Command::Register(Register {
                request: Some(*id),
                drafts: drafts.clone(),
                lease: LeaseChoice::Join {
                    owner: *owner,
                    secret: LeaseSecret::from_random(0).reveal(),
                    terms: Terms {
                        interval: Some(heartbeat.interval()),
                        misses: Some(heartbeat.misses()),
                    },
                    within: None,
                },
                registrant: None,
            }),
            Ask::Register {
                request: id,
                drafts,
                heartbeat,
                under: None,
            } => {
                let lease = LeaseId::from_random(self.rng.wide());
                let secret = LeaseSecret::from_random(self.rng.wide());
                let owner = Owner {
                    lease,
                    secret: secret.hash(),
                };
                granted = Some(lease);
                self.grants.insert(lease, (owner, *id));
                self.see(Seen::Granting {
                    replica,
                    lease,
                    request: *id,
                });
                Command::Register(Register {
                    request: (self.plant != Plant::ForgetRequestIds).then_some(*id),
                    drafts: drafts.clone(),
                    lease: LeaseChoice::Grant {
                        id: lease,
                        secret,
                        heartbeat: *heartbeat,
                    },
                    registrant: Some(Registrant::of("one")),
                })
            }
            Ask::Update {
                owner,
                key,
                epoch,
                weight,
                status,
            } => {
                let mut update = Update {
                    owner: *owner,
                    key: key.clone(),
                    epoch: *epoch,
                    weight: Some(*weight),
                    status: Some(*status),
                    metadata: None,
                };
                if self.plant == Plant::StaleEpochWins
                    && let Some(present) = self.truth.present().get(key)
                {
                    update.epoch = present.epoch;
                    update.owner = self.grants[&present.lease].0;
                }
                Command::Update(update)
            }
            Ask::Govern(govern) => Command::Govern(govern.clone()),
            Ask::Judge(judge) => {
                let mut judge = judge.clone();
                if self.plant == Plant::JudgeTheSuccessor
                    && let Some(present) = self.truth.present().get(&judge.key)
                {
                    judge.epoch = present.epoch;
                }
                Command::Judge(judge)
            }
            Ask::Deregister(owner, ids) => Command::Deregister(Deregister {
                owner: *owner,
                within: None,
                ids: ids.clone(),
                reason: RemovalReason::Deregistered,
                detail: Detail::of(""),
            }),
        };
        if self.plant == Plant::RefuseAll {
            return self.reply(replica, request, Answer::Undone("planted".into(), None));
        }
        let (caller, answer) = oneshot::channel();
        let Some(process) = &mut self.replicas[replica].process else {
            return;
        };
        process.pending.push(Pending {
            ticket: request.ticket,
            lease: granted,
            answer,
        });
        let clock = process.clock(now, skew);
        process.core.mutate(command, caller, clock);
        if self.plant == Plant::DecideAgain {
            self.decide_again(replica, request);
        }
        if self.plant == Plant::AnswerBeforeDurable
            && let Some(lease) = granted
        {
            let answer = Answer::Registered {
                owner: self.grants[&lease].0,
                revision: self.truth.head().next(),
            };
            self.reply(replica, request, answer);
        }
    }

    /// The planted bug: what has just been taken back is decided once more, by nobody.
    fn decide_again(&mut self, replica: usize, request: &Rc<Request>) {
        let Ask::Govern(govern) = &request.ask else { return };
        let Some(laid) = self.truth.present().overrides.get(&govern.key) else {
            return;
        };
        let (decision, ruling) = match (govern.decision, &laid.drain, &laid.weight) {
            (Decision::Undrain, Some(drain), _) => (Decision::Drain { until: drain.until }, drain),
            (Decision::OwnWeight, _, Some((weight, ruling))) => {
                let (weight, until) = (*weight, ruling.until);
                (Decision::SetWeight { weight, until }, ruling)
            }
            _ => return,
        };
        let again = Govern {
            key: govern.key.clone(),
            decision,
            who: ruling.who.clone(),
            why: ruling.why.clone(),
        };
        let (now, skew) = (self.truth.now, self.replicas[replica].wall_skew);
        let ticket = self.ticket();
        let Some(process) = &mut self.replicas[replica].process else {
            return;
        };
        let (caller, answer) = oneshot::channel();
        process.pending.push(Pending {
            ticket,
            lease: None,
            answer,
        });
        let clock = process.clock(now, skew);
        process.core.mutate(Command::Govern(again), caller, clock);
    }

    fn read(&mut self, replica: usize, request: &Rc<Request>) {
        let Some(process) = &self.replicas[replica].process else {
            return;
        };
        let mut answer = match &request.ask {
            Ask::Get(key) => process.hub.look(|view| Answer::Found(view.revision(), view.get(key))),
            Ask::List(selection) => process.hub.look(|view| {
                let services = view.services(&selection.scope, Bound::Unbounded, usize::MAX);
                let all = services.iter().flat_map(|(_, view)| view.values());
                let found = all.filter(|instance| selection.holds(instance)).cloned();
                Answer::Listed(view.revision(), found.collect())
            }),
            _ => return,
        };
        if self.plant == Plant::StaleReads
            && let (Ask::Get(key), Answer::Found(revision, _)) = (&request.ask, &answer)
        {
            let old = Revision::new(revision.get().saturating_sub(3));
            let found = self.truth.state(old).and_then(|state| state.get(key).cloned());
            answer = Answer::Found(old, found);
        }
        self.reply(replica, request, answer);
    }

    fn reply(&mut self, replica: usize, request: &Rc<Request>, answer: Answer) {
        self.see(Seen::Answered {
            replica,
            request,
            answer: &answer,
        });
        if let Some(delay) = self.passes(request.to) {
            let at = self.truth.now + delay;
            self.at(at, Event::Answers(request.ticket, answer));
        }
    }

    /// A line of the trace about a registry.
    pub(super) fn note_registry(&mut self, replica: usize, what: std::fmt::Arguments<'_>) {
        self.note(format_args!("registry {replica}"), what);
    }
}
