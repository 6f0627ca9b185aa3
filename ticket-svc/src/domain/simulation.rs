//! The domain in simulation: buyers, a sweeper and refunds over a store that does nothing but conditional writes, every operation
//! cut in two, so that anything may happen between what one has read and what it writes. Seeds decide; a failing one repeats.
//!
//! The store of this model is what both real stores come to: rows with versions, and writes that happen all or not at all.

use std::collections::BTreeMap;

use proptest::prelude::*;
use service_store::Timestamp;
use uuid::Uuid;

use super::{
    hold::{Confirmation, Ending, FencingToken, HoldFacts, HoldPhase, Refund, Release},
    refusal::Refusal,
    seat::SeatState,
    stock::{Free, Seat, Version},
};

const SEATS: usize = 4;
const TTL: i64 = 10;

/// What an actor wants.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// Hold `count` seats from `first` on.
    Hold {
        first: usize,
        count: usize,
    },
    Confirm {
        hold: usize,
        order: u128,
    },
    Release {
        hold: usize,
    },
    Refund {
        hold: usize,
        order: u128,
    },
    /// Tidy a hold away that has run out.
    Sweep {
        hold: usize,
    },
}

/// What is to be written, on condition that everything is as it was read.
#[derive(Debug, Clone)]
struct Intent {
    seats: Vec<(usize, Version, Seat)>,
    hold: HoldWrite,
}

#[derive(Debug, Clone)]
enum HoldWrite {
    New(Vec<usize>, Timestamp),
    Turn {
        hold: usize,
        from: HoldPhase,
        to: HoldPhase,
    },
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// An actor reads and decides.
    Look { actor: usize, want: Want },
    /// It writes what it decided some time before.
    Write { actor: usize },
    /// The clock goes on, or back.
    Clock(i64),
}

struct Row {
    facts: HoldFacts,
    seats: Vec<usize>,
    refunds: u32,
    /// Somebody was told that it cannot be confirmed, finally.
    ended: bool,
}

struct World {
    seats: Vec<Seat>,
    holds: Vec<Row>,
    now: Timestamp,
    intents: BTreeMap<usize, Intent>,
    /// The greatest token that ever had each seat.
    greatest: Vec<FencingToken>,
}

impl World {
    fn new() -> Self {
        Self {
            seats: vec![Seat::Free(Free { version: Version(0) }); SEATS],
            holds: Vec::new(),
            now: Timestamp::from_nanos(100),
            intents: BTreeMap::new(),
            greatest: vec![FencingToken(0); SEATS],
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Look { actor, want } => {
                // Who looks again has given up what they were about.
                self.intents.remove(&actor);
                if let Some(intent) = self.decide(want) {
                    self.intents.insert(actor, intent);
                }
            }
            Step::Write { actor } => {
                if let Some(intent) = self.intents.remove(&actor) {
                    self.write(intent);
                }
            }
            Step::Clock(by) => self.now = Timestamp::from_nanos(self.now.as_nanos() + by),
        }
        self.check();
    }

    /// Reads, and asks the domain. Writes nothing.
    fn decide(&mut self, want: Want) -> Option<Intent> {
        match want {
            Want::Hold { first, count } => self.hold(first, count),
            Want::Confirm { hold, order } => {
                let facts = self.holds.get(hold)?.facts;
                match facts.confirm(facts.token, Uuid::from_u128(order), self.now) {
                    Ok(Confirmation::Sell) => {
                        let intent = self.sell(hold, order);
                        // A seat that went to a later hold never comes back to this one: told as expired, without a record.
                        self.holds[hold].ended |= intent.is_none();
                        intent
                    }
                    Ok(Confirmation::Lapse) => Some(self.free(hold, HoldPhase::Over(Ending::Lapsed))),
                    Ok(Confirmation::Repeat) => None,
                    Err(Refusal::HoldExpired(_) | Refusal::HoldReleased(_) | Refusal::HoldRefunded(_)) => {
                        self.holds[hold].ended = true;
                        None
                    }
                    Err(_) => None,
                }
            }
            Want::Release { hold } => {
                let row = self.holds.get(hold)?;
                let token = Some(row.facts.token);
                (row.facts.release(token) == Ok(Release::GiveBack))
                    .then(|| self.free(hold, HoldPhase::Over(Ending::Released)))
            }
            Want::Sweep { hold } => {
                let row = self.holds.get(hold)?;
                row.facts
                    .has_lapsed(self.now)
                    .then(|| self.free(hold, HoldPhase::Over(Ending::Lapsed)))
            }
            Want::Refund { hold, order } => {
                let row = self.holds.get(hold)?;
                let refund = row.facts.refund(None, Uuid::from_u128(order));
                (refund == Ok(Refund::Revoke)).then(|| self.free(hold, HoldPhase::Over(Ending::Refunded)))
            }
        }
    }

    fn hold(&self, first: usize, count: usize) -> Option<Intent> {
        let places: Vec<usize> = (first..(first + count).min(SEATS)).collect();
        // The token is given by the write; until then no other has it.
        let (token, until) = (self.next_token(), Timestamp::from_nanos(self.now.as_nanos() + TTL));
        let seats = places.iter().map(|&place| {
            let free = self.seats[place].available(self.now)?;
            Some((place, free.version, Seat::Held(free.hold(token, until))))
        });
        Some(Intent {
            seats: seats.collect::<Option<Vec<_>>>()?,
            hold: HoldWrite::New(places, until),
        })
    }

    /// All of the hold's seats or none: one that went to a later hold makes all of it too late.
    fn sell(&self, hold: usize, order: u128) -> Option<Intent> {
        let row = &self.holds[hold];
        let seats = row.seats.iter().map(|&place| match self.seats[place] {
            Seat::Held(held) => {
                let sold = held.sell(row.facts.token).ok()?;
                Some((place, sold.version, Seat::Sold(sold)))
            }
            Seat::Free(_) | Seat::Sold(_) => None,
        });
        Some(Intent {
            seats: seats.collect::<Option<Vec<_>>>()?,
            hold: HoldWrite::Turn {
                hold,
                from: row.facts.phase,
                to: HoldPhase::Confirmed {
                    order_id: Uuid::from_u128(order),
                },
            },
        })
    }

    /// Those of the hold's seats that are still its own.
    fn free(&self, hold: usize, to: HoldPhase) -> Intent {
        let row = &self.holds[hold];
        let seats = row.seats.iter().filter_map(|&place| {
            let free = match self.seats[place] {
                Seat::Held(held) => held.give_back(row.facts.token).ok()?,
                Seat::Sold(sold) => sold.refund(row.facts.token).ok()?,
                Seat::Free(_) => return None,
            };
            Some((place, free.version, Seat::Free(free)))
        });
        Intent {
            seats: seats.collect(),
            hold: HoldWrite::Turn {
                hold,
                from: row.facts.phase,
                to,
            },
        }
    }

    fn next_token(&self) -> FencingToken {
        FencingToken(i64::try_from(self.holds.len()).expect("few") + 1)
    }

    /// One transaction: everything is as it was read, or nothing is written.
    fn write(&mut self, intent: Intent) {
        let as_read = intent
            .seats
            .iter()
            .all(|(place, version, _)| self.seats[*place].version() == *version);
        let hold_as_read = match &intent.hold {
            HoldWrite::New(..) => true,
            HoldWrite::Turn { hold, from, .. } => self.holds[*hold].facts.phase == *from,
        };
        if !as_read || !hold_as_read {
            return;
        }
        let token = match intent.hold {
            HoldWrite::New(seats, until) => {
                let token = self.next_token();
                self.holds.push(Row {
                    facts: HoldFacts {
                        id: Uuid::from_u128(7),
                        token,
                        phase: HoldPhase::Held { until },
                    },
                    seats,
                    refunds: 0,
                    ended: false,
                });
                token
            }
            HoldWrite::Turn { hold, to, .. } => {
                let row = &mut self.holds[hold];
                row.ended |= matches!(to, HoldPhase::Over(Ending::Lapsed) | HoldPhase::Over(Ending::Released));
                assert!(
                    !(row.ended && matches!(to, HoldPhase::Confirmed { .. })),
                    "sold after somebody was told that it is too late"
                );
                row.refunds += u32::from(to == HoldPhase::Over(Ending::Refunded));
                row.facts.phase = to;
                row.facts.token
            }
        };
        for (place, version, seat) in intent.seats {
            let next = Version(version.0 + 1);
            self.seats[place] = match seat {
                Seat::Free(_) => Seat::Free(Free { version: next }),
                // Another hold may have been written since this one looked: it gets the token of its own write.
                Seat::Held(held) => Seat::Held(Free { version: next }.hold(token, held.until)),
                Seat::Sold(_) => {
                    let held = Free { version: next }.hold(token, self.now);
                    Seat::Sold(held.sell(token).expect("its own"))
                }
            };
            assert!(
                token >= self.greatest[place] || matches!(seat, Seat::Free(_)),
                "a token works after a later one had the seat"
            );
            self.greatest[place] = self.greatest[place].max(token);
        }
    }

    /// The invariants of docs/ticket-svc.md, after every step.
    fn check(&self) {
        let count = |state| {
            self.seats
                .iter()
                .filter(|seat| seat.state_at(self.now) == state)
                .count()
        };
        let counts = [SeatState::Free, SeatState::Held, SeatState::Sold].map(count);
        assert_eq!(counts.iter().sum::<usize>(), SEATS, "T1");
        for (place, seat) in self.seats.iter().enumerate() {
            let owners: Vec<&Row> = self.holds.iter().filter(|row| self.owns(row, place)).collect();
            assert!(owners.len() <= 1, "T2: seat {place} has {} owners", owners.len());
            match seat {
                Seat::Sold(sold) => assert_eq!(owners.first().map(|row| row.facts.token), Some(sold.by), "T3"),
                Seat::Held(_) | Seat::Free(_) => assert!(owners.is_empty(), "T3: a ticket for a seat that is not sold"),
            }
            if let Seat::Held(held) = seat {
                let holder = self.holds.iter().find(|row| row.facts.token == held.by);
                let phase = holder.map(|row| row.facts.phase);
                assert!(
                    matches!(phase, Some(HoldPhase::Held { .. })),
                    "held by a hold that is {phase:?}"
                );
            }
        }
        assert!(self.holds.iter().all(|row| row.refunds <= 1), "T6: refunded twice");
    }

    /// Has the hold a valid ticket for the seat?
    fn owns(&self, row: &Row, place: usize) -> bool {
        matches!(row.facts.phase, HoldPhase::Confirmed { .. }) && row.seats.contains(&place)
    }
}

fn want() -> impl Strategy<Value = Want> {
    let (hold, order) = (0_usize..4, prop_oneof![4 => Just(1), 1 => Just(2)]);
    prop_oneof![
        3 => (0..SEATS, 1_usize..=2).prop_map(|(first, count)| Want::Hold { first, count }),
        5 => (hold.clone(), order.clone()).prop_map(|(hold, order)| Want::Confirm { hold, order }),
        1 => hold.clone().prop_map(|hold| Want::Release { hold }),
        2 => hold.clone().prop_map(|hold| Want::Sweep { hold }),
        3 => (hold, order).prop_map(|(hold, order)| Want::Refund { hold, order }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..3, want()).prop_map(|(actor, want)| Step::Look { actor, want }),
        4 => (0_usize..3).prop_map(|actor| Step::Write { actor }),
        1 => (1_i64..=TTL).prop_map(Step::Clock),
        // Clocks step back.
        1 => (-TTL..0).prop_map(Step::Clock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Hold expiry against confirm, release, sweep and refund: 10,000 interleavings.
    #[test]
    fn whatever_happens_in_between_no_seat_has_two_owners(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
    }
}

/// The interleavings above would prove nothing if hardly any of them sold, refunded or lapsed.
#[test]
fn the_simulation_gets_everywhere() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};

    let mut runner = TestRunner::deterministic();
    let steps = proptest::collection::vec(step(), 100);
    let mut reached = BTreeMap::<&str, u32>::new();
    for _ in 0..500 {
        let mut world = World::new();
        for step in steps.new_tree(&mut runner).expect("a tree").current() {
            world.step(step);
        }
        for row in &world.holds {
            let phase = match row.facts.phase {
                HoldPhase::Held { .. } => "held",
                HoldPhase::Confirmed { .. } => "confirmed",
                HoldPhase::Over(Ending::Released) => "released",
                HoldPhase::Over(Ending::Lapsed) => "lapsed",
                HoldPhase::Over(Ending::Refunded) => "refunded",
            };
            *reached.entry(phase).or_default() += 1;
        }
    }
    assert!(
        reached.len() == 5 && reached.values().all(|count| *count >= 50),
        "{reached:?}"
    );
}
