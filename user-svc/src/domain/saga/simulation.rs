//! Purchases over several processes in virtual time, from a seed: answers are lost, late, doubled and out of order, processes
//! crash between any two writes and stand still past the end of their claims, holds run out. Then the faults end and all must
//! heal.
//!
//! The rules are the real ones (`saga`); store, ticket service, outbox and consumer are models of what theirs promise. Invariants
//! are looked at after every step:
//!
//! 1. a seat is sold to one order at most; 2. a refund is made once at most, and never of what was sold; 3. an order has
//!    succeeded if and only if its seat is sold and it has paid once; 4. one that has failed has paid nothing in the end;
//! 5. whose release was heard holds nothing any more; 6. a consumer sees the events of an order in order, all of them, and
//!    each has one effect; 7. an order was refunded if and only if its seat is not sold to it any more and its money
//!    came back, once.
//!
//! Seeds: 400, or as many as `TESSERA_SEEDS` says. [`Bug`]s are planted to see that the simulation finds such.

mod checks;
mod refunds;
mod tickets;

use std::collections::{BTreeMap, BTreeSet};

use super::*;

type Millis = u64;

const ORDERS: usize = 6;
const SEATS: usize = 4;
const PROCESSES: usize = 3;
const PRICE: i64 = 100;
/// Enough for four of six orders.
const PURSE: i64 = 450;
const LEASE: Millis = 5_000;
const HOLD: Millis = 12_000;
const CALL: Millis = 3_000;
/// Faults until then.
const STORM: Millis = 90_000;
/// After the storm all must have ended within this time.
const HEALED: Millis = 60_000;

/// A mistake that somebody could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// Writes are not conditional on version and claim.
    NoFence,
    /// The debit is no part of the transaction that records its step, and not once for each order.
    DebitApart,
    /// An unheard confirmation is refunded.
    RefundInDoubt,
    /// A release of a hold that never was is not remembered.
    EmptyReleaseForgotten,
    /// The ticket service sells what has run out and gone to somebody else.
    LateConfirm,
    /// The ticket service does not remember that it has refused a refund.
    RefusalForgotten,
    /// A revocation that was not heard of is taken for a refusal.
    RefusedInDoubt,
    /// The money goes back before its record, and not once for each order.
    RepayApart,
    /// The event is written after the commit of its effect.
    EventApart,
    /// A consumer without an inbox.
    NoInbox,
    /// Events are taken although an earlier one of their key waits.
    NotInOrder,
}

struct Draw(u64);

impl Draw {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

#[derive(Debug, Clone)]
struct Stored {
    step: Step,
    version: u64,
    claim: u64,
    claimed_until: Millis,
    held: Option<Held>,
    heard_release: bool,
    /// The last refund that was asked for.
    refund: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Held,
    Confirmed,
    Released,
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    token: i64,
    seat: usize,
    until: Millis,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Ask {
    Hold,
    Confirm(i64),
    Release,
    Revoke(u64),
}

#[derive(Debug, Clone)]
enum Answer {
    Hold(HoldOutcome),
    Confirm(ConfirmOutcome),
    Release(ReleaseOutcome),
    Revoke(RevokeOutcome),
}

/// What is on its way.
#[derive(Debug, Clone)]
enum Mail {
    Request { call: u64, order: usize, ask: Ask },
    Reply { call: u64, answer: Answer },
}

/// One process's work on one order.
#[derive(Debug, Clone)]
struct Driver {
    /// As it was read: step, version and claim.
    seen: Stored,
    attempts: Attempts,
    /// The call that it waits for, and until when.
    call: Option<(u64, Millis)>,
    /// When it goes on.
    at: Millis,
}

#[derive(Default)]
struct Process {
    drivers: BTreeMap<usize, Driver>,
    stopped_until: Millis,
    /// Events that were handed over and not noted yet.
    delivering: Vec<usize>,
}

struct Event {
    order: usize,
    version: u64,
    taken_until: Millis,
    delivered: bool,
}

struct World {
    bug: Bug,
    draw: Draw,
    now: Millis,
    orders: Vec<Stored>,
    debits: Vec<usize>,
    refunds: Vec<usize>,
    /// Of orders that had succeeded.
    returns: Vec<usize>,
    refunds_asked: u64,
    refunds_refused: BTreeSet<u64>,
    holds: BTreeMap<usize, Hold>,
    seats: [Option<i64>; SEATS],
    sold: Vec<(usize, usize)>,
    empty_releases: BTreeSet<usize>,
    token: i64,
    wire: Vec<(Millis, Mail)>,
    calls: u64,
    processes: Vec<Process>,
    events: Vec<Event>,
    inbox: BTreeSet<usize>,
    /// The versions of each order that the consumer saw first, in order, and its effects.
    seen: BTreeMap<usize, Vec<u64>>,
    effects: BTreeMap<usize, u32>,
}

fn failing(failure: Failure) -> Failing {
    Failing::new(failure, "simulated")
}

impl World {
    fn new(seed: u64, bug: Bug) -> Self {
        let fresh = Stored {
            step: Step::Begin,
            version: 1,
            claim: 0,
            claimed_until: 0,
            held: None,
            heard_release: false,
            refund: None,
        };
        Self {
            bug,
            draw: Draw(seed),
            now: 1,
            orders: vec![fresh; ORDERS],
            debits: Vec::new(),
            refunds: Vec::new(),
            returns: Vec::new(),
            refunds_asked: 0,
            refunds_refused: BTreeSet::new(),
            holds: BTreeMap::new(),
            seats: [None; SEATS],
            sold: Vec::new(),
            empty_releases: BTreeSet::new(),
            token: 0,
            wire: Vec::new(),
            calls: 0,
            processes: (0..PROCESSES).map(|_| Process::default()).collect(),
            events: Vec::new(),
            inbox: BTreeSet::new(),
            seen: BTreeMap::new(),
            effects: BTreeMap::new(),
        }
    }

    fn storms(&self) -> bool {
        self.now < STORM
    }

    /// Runs to the end; what went wrong.
    fn run(&mut self) -> Result<(), String> {
        while self.now < STORM + HEALED {
            self.now += 1 + self.draw.below(150);
            self.faults();
            self.mail();
            self.ask_refund();
            for process in 0..PROCESSES {
                if self.processes[process].stopped_until <= self.now {
                    self.drive(process);
                    self.recover(process);
                    self.deliver(process);
                }
            }
            self.check()?;
        }
        for (number, order) in self.orders.iter().enumerate() {
            if !order.step.is_final() {
                return Err(format!("order {number} has not ended: {order:?}"));
            }
            let told = self.events.iter().filter(|event| event.order == number);
            let versions: Vec<u64> = told.map(|event| event.version).collect();
            if versions.len() as u64 != order.version - 1 || self.seen.get(&number) != Some(&versions) {
                return Err(format!(
                    "order {number}: events {versions:?} of {}, seen {:?}",
                    order.version, self.seen
                ));
            }
        }
        Ok(())
    }

    fn faults(&mut self) {
        if !self.storms() {
            return;
        }
        let process = self.draw.below(PROCESSES as u64) as usize;
        if self.draw.once_in(60) {
            // kill -9, and started again.
            self.processes[process] = Process::default();
        } else if self.draw.once_in(80) {
            // SIGSTOP: what it has in hand it does when it wakes up.
            self.processes[process].stopped_until = self.now + self.draw.below(4 * LEASE);
        }
    }

    fn drive(&mut self, process: usize) {
        for number in 0..ORDERS {
            let Some(driver) = self.processes[process].drivers.get(&number).cloned() else {
                continue;
            };
            let answer = match driver.call {
                Some((_, deadline)) if deadline <= self.now => Some(unheard(&driver.seen.step)),
                Some(_) => None,
                None if driver.at <= self.now => self.act(process, number, &driver),
                None => None,
            };
            if let Some(answer) = answer {
                self.hear(process, number, answer);
            }
            // A crash may come between any two of these.
            if self.storms() && self.draw.once_in(400) {
                self.processes[process] = Process::default();
                return;
            }
        }
    }

    /// Performs the step that was read. Local ones are one transaction with their record.
    fn act(&mut self, process: usize, number: usize, driver: &Driver) -> Option<Answer> {
        let ask = match &driver.seen.step {
            Step::Begin => {
                self.advance(process, number, Step::Hold, None, |_| {});
                return None;
            }
            Step::Debit => {
                if self.bug == Bug::DebitApart {
                    self.debits.push(number);
                    if self.draw.once_in(10) {
                        self.processes[process] = Process::default();
                    } else {
                        self.advance(process, number, Step::Confirm, None, |_| {});
                    }
                    return None;
                }
                let paid = self.debits.contains(&number);
                let back = self.refunds.len() + self.returns.len();
                let spent = PRICE * (self.debits.len() as i64 - back as i64);
                let poor = !paid && PURSE - spent < PRICE;
                let outcome = if poor {
                    Err(failing(Failure::InsufficientFunds))
                } else {
                    Ok(())
                };
                self.advance(process, number, after_debit(outcome), None, |world| {
                    if !paid && !poor {
                        world.debits.push(number);
                    }
                });
                return None;
            }
            Step::Refund(why) => {
                let owed = self.debits.contains(&number) && !self.refunds.contains(&number);
                self.advance(process, number, Step::Release(why.clone()), None, |world| {
                    if owed {
                        world.refunds.push(number);
                    }
                });
                return None;
            }
            Step::Hold => Ask::Hold,
            Step::Confirm => Ask::Confirm(driver.seen.held.as_ref().map_or(0, |held| held.token)),
            Step::Release(_) => Ask::Release,
            Step::Revoke(_) => Ask::Revoke(driver.seen.refund.expect("somebody asked")),
            Step::Repay(tickets) => {
                self.repay(process, number, tickets.clone());
                return None;
            }
            Step::Succeeded(_) | Step::Refunded(_) | Step::Failed(_) => {
                self.processes[process].drivers.remove(&number);
                return None;
            }
        };
        self.calls += 1;
        let call = self.calls;
        self.post(Mail::Request {
            call,
            order: number,
            ask,
        });
        if let Some(driver) = self.processes[process].drivers.get_mut(&number) {
            driver.call = Some((call, self.now + CALL));
        }
        None
    }

    fn hear(&mut self, process: usize, number: usize, answer: Answer) {
        let driver = self.processes[process].drivers[&number].clone();
        let heard_release = matches!(answer, Answer::Release(ReleaseOutcome::Settled));
        let (next, held) = match (answer, &driver.seen.step) {
            (Answer::Hold(outcome), Step::Hold) => after_hold(outcome, driver.attempts),
            (Answer::Confirm(ConfirmOutcome::Unknown), Step::Confirm) if self.bug == Bug::RefundInDoubt => {
                (Next::Go(Step::Refund(failing(Failure::Unavailable))), None)
            }
            (Answer::Confirm(outcome), Step::Confirm) => (after_confirm(outcome), None),
            (Answer::Release(outcome), Step::Release(why)) => {
                (after_release(why.clone(), outcome, driver.attempts), None)
            }
            (Answer::Revoke(RevokeOutcome::Unknown), Step::Revoke(tickets)) if self.bug == Bug::RefusedInDoubt => {
                (Next::Go(Step::Succeeded(tickets.clone())), None)
            }
            (Answer::Revoke(outcome), Step::Revoke(tickets)) => (after_revoke(tickets.clone(), outcome).0, None),
            (answer, step) => panic!("{answer:?} at {step:?}"),
        };
        match next {
            Next::Go(step) => self.advance(process, number, step, held, |world| {
                world.orders[number].heard_release |= heard_release;
            }),
            Next::Again { in_doubt } => {
                let pause = self.draw.below(1_000);
                if let Some(driver) = self.processes[process].drivers.get_mut(&number) {
                    driver.attempts = driver.attempts.another(in_doubt);
                    driver.call = None;
                    driver.at = self.now + pause;
                }
            }
        }
    }

    /// One transaction: the effect, the next step and its event, if the order is as it was read and claimed as it was.
    fn advance(
        &mut self,
        process: usize,
        number: usize,
        step: Step,
        held: Option<Held>,
        effect: impl FnOnce(&mut Self),
    ) {
        let seen = self.processes[process].drivers[&number].seen.clone();
        let stored = &self.orders[number];
        let fenced = (stored.version, stored.claim) != (seen.version, seen.claim);
        if fenced && self.bug != Bug::NoFence {
            // Overtaken.
            self.processes[process].drivers.remove(&number);
            return;
        }
        effect(self);
        let stored = &mut self.orders[number];
        stored.step = step;
        stored.version += 1;
        stored.held = held.or(seen.held);
        stored.claimed_until = self.now + LEASE;
        let now = stored.clone();
        self.tell(number, now.version);
        let driver = Driver {
            seen: now,
            attempts: Attempts::FIRST,
            call: None,
            at: self.now,
        };
        self.processes[process].drivers.insert(number, driver);
    }

    /// Writes the event of a change, in its transaction.
    fn tell(&mut self, order: usize, version: u64) {
        if self.bug != Bug::EventApart || !self.draw.once_in(30) {
            self.events.push(Event {
                order,
                version,
                taken_until: 0,
                delivered: false,
            });
        }
    }

    fn recover(&mut self, process: usize) {
        for number in 0..ORDERS {
            let driven = self.processes[process].drivers.contains_key(&number);
            if driven {
                // Renewed while it is driven, if it is still this one's.
                let seen = self.processes[process].drivers[&number].seen.claim;
                let stored = &mut self.orders[number];
                if stored.claim == seen && !stored.step.is_final() {
                    stored.claimed_until = self.now + LEASE;
                }
                continue;
            }
            let stored = &mut self.orders[number];
            if stored.step.is_final() || stored.claimed_until > self.now {
                continue;
            }
            stored.claim += 1;
            stored.claimed_until = self.now + LEASE;
            let driver = Driver {
                seen: stored.clone(),
                attempts: Attempts::RESUMED,
                call: None,
                at: self.now,
            };
            self.processes[process].drivers.insert(number, driver);
        }
    }

    /// The outbox of a process: notes what it handed over last time, if it still has it, then hands over what is due.
    fn deliver(&mut self, process: usize) {
        for place in std::mem::take(&mut self.processes[process].delivering) {
            self.events[place].delivered = true;
        }
        for place in 0..self.events.len() {
            let event = &self.events[place];
            let is_first = self.bug == Bug::NotInOrder
                || !self.events[..place]
                    .iter()
                    .any(|other| other.order == event.order && !other.delivered);
            if event.delivered || event.taken_until > self.now || !is_first || self.draw.once_in(3) {
                continue;
            }
            self.events[place].taken_until = self.now + LEASE;
            let (order, version) = (self.events[place].order, self.events[place].version);
            let seen = self.seen.entry(order).or_default();
            if !seen.contains(&version) {
                seen.push(version);
            }
            if self.inbox.insert(place) || self.bug == Bug::NoInbox {
                *self.effects.entry(place).or_default() += 1;
            }
            self.processes[process].delivering.push(place);
        }
    }
}

/// What a driver makes of a call without an answer.
fn unheard(step: &Step) -> Answer {
    match step {
        Step::Hold => Answer::Hold(HoldOutcome::Unknown(failing(Failure::Unavailable))),
        Step::Confirm => Answer::Confirm(ConfirmOutcome::Unknown),
        Step::Revoke(_) => Answer::Revoke(RevokeOutcome::Unknown),
        _ => Answer::Release(ReleaseOutcome::Unknown),
    }
}

fn seeds() -> u64 {
    let seeds = std::env::var("TESSERA_SEEDS").ok();
    seeds.map_or(400, |seeds| seeds.parse().expect("TESSERA_SEEDS is a number"))
}

#[test]
fn purchases_survive_every_storm() {
    let (mut succeeded, mut failed, mut refunded) = (0, 0, 0);
    let (mut returned, mut refused) = (0, 0);
    for seed in 0..seeds() {
        let mut world = World::new(seed, Bug::None);
        world.run().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        let bought = |order: &&Stored| matches!(order.step, Step::Succeeded(_));
        succeeded += world.orders.iter().filter(bought).count();
        let fell = |order: &&Stored| matches!(order.step, Step::Failed(_));
        failed += world.orders.iter().filter(fell).count();
        refunded += world.refunds.len();
        returned += world.returns.len();
        refused += world.refunds_refused.len();
    }
    // A simulation in which nothing happens proves nothing.
    assert!(
        succeeded > 0 && failed > 0 && refunded > 0,
        "{succeeded} {failed} {refunded}"
    );
    assert!(returned > 0 && refused > 0, "{returned} {refused}");
}

#[test]
fn planted_bugs_are_found() {
    for bug in [
        Bug::NoFence,
        Bug::DebitApart,
        Bug::RefundInDoubt,
        Bug::EmptyReleaseForgotten,
        Bug::LateConfirm,
        Bug::RefusalForgotten,
        Bug::RefusedInDoubt,
        Bug::RepayApart,
        Bug::EventApart,
        Bug::NoInbox,
        Bug::NotInOrder,
    ] {
        let found = (0..seeds()).find_map(|seed| Some((seed, World::new(seed, bug).run().err()?)));
        let (seed, wrong) = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
        println!("{bug:?}: seed {seed}: {wrong}");
    }
}
