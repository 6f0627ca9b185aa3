//! Random histories: whatever happens, the invariants hold, the batches tell the whole state, what is undone was never there,
//! and a restart at any point changes nothing but the deadlines.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    past::{Event, Past, restored, wall},
    told::Told,
    *,
};
use crate::{
    fixtures::{draft, end, grant, heartbeat, join, key, owner},
    model::{Detail, Draft, Epoch, Registrant, RemovalReason, Status, Weight, Who},
};

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Grant {
        lease: u128,
        ids: Vec<u8>,
        interval: u64,
        request: Option<u128>,
    },
    Join {
        lease: u128,
        ids: Vec<u8>,
        interval: Option<u64>,
    },
    Update {
        lease: u128,
        id: u8,
        weight: u32,
        epoch_back: u64,
    },
    End {
        lease: u128,
        id: Option<u8>,
    },
    Renew {
        lease: u128,
    },
    Govern {
        id: u8,
        decision: Decision,
        why: u8,
    },
    /// So many seconds pass on the wall.
    Wall {
        seconds: i64,
    },
    Suspect {
        lease: u128,
        slack: u64,
    },
    Pass {
        millis: u64,
    },
    Away,
    Back,
    /// So many of the outcomes since the last restart are taken back; the commands among them are applied again.
    Undo {
        count: usize,
    },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lease = 0..6_u128;
    let ids = || proptest::collection::btree_set(0..8_u8, 1..4).prop_map(|ids| ids.into_iter().collect::<Vec<u8>>());
    let request = proptest::option::weighted(0.3, 0..4_u128);
    let interval = || prop_oneof![4 => 100..400_u64, 1 => 400..100_000_u64];
    let step = prop_oneof![
        3 => (lease.clone(), ids(), interval(), request)
            .prop_map(|(lease, ids, interval, request)| Step::Grant { lease, ids, interval, request }),
        3 => (lease.clone(), ids(), proptest::option::weighted(0.3, interval()))
            .prop_map(|(lease, ids, interval)| Step::Join { lease, ids, interval }),
        2 => (lease.clone(), 0..8_u8, 0..3_u32, 0..2_u64)
            .prop_map(|(lease, id, weight, epoch_back)| Step::Update { lease, id, weight, epoch_back }),
        2 => (lease.clone(), proptest::option::of(0..8_u8)).prop_map(|(lease, id)| Step::End { lease, id }),
        4 => lease.clone().prop_map(|lease| Step::Renew { lease }),
        4 => (0..8_u8, decision(), 0..2_u8).prop_map(|(id, decision, why)| Step::Govern { id, decision, why }),
        1 => (1..40_i64).prop_map(|seconds| Step::Wall { seconds }),
        1 => (lease, 0..300_u64).prop_map(|(lease, slack)| Step::Suspect { lease, slack }),
        4 => (1..240_u64).prop_map(|millis| Step::Pass { millis }),
        1 => (240..100_000_u64).prop_map(|millis| Step::Pass { millis }),
        1 => Just(Step::Away),
        2 => Just(Step::Back),
        2 => (1..12_usize).prop_map(|count| Step::Undo { count }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..80)
}

fn decision() -> impl Strategy<Value = Decision> {
    let until = || proptest::option::of((1..40_i64).prop_map(wall));
    prop_oneof![
        3 => until().prop_map(|until| Decision::Drain { until }),
        1 => Just(Decision::Undrain),
        2 => (0..3_u32, until()).prop_map(|(weight, until)| Decision::SetWeight {
            weight: Weight::try_new(weight).expect("a weight"),
            until,
        }),
        1 => Just(Decision::OwnWeight),
    ]
}

fn service(id: u8) -> &'static str {
    ["a", "b"][usize::from(id % 2)]
}

fn drafts(ids: &[u8]) -> Vec<Draft> {
    ids.iter().map(|id| draft(service(*id), &id.to_string(), "")).collect()
}

/// An outcome that can still be taken back.
struct Applied {
    /// The events that came before it.
    before: usize,
    at: LeaseTime,
    told_before: Told,
    requests_before: BTreeMap<u128, Registered>,
    /// None: an expiry.
    command: Option<Command>,
    batch: Option<Arc<Batch>>,
    undo: Undo,
}

/// The catalog, and what is to be held against it.
struct World {
    catalog: Catalog,
    millis: u64,
    seconds: i64,
    told: Told,
    past: Past,
    away: bool,
    applied: Vec<Applied>,
    beats: BTreeMap<u128, Beat>,
}

impl World {
    fn apply(&mut self, command: Command) {
        let (told_before, requests_before) = (self.told.clone(), self.catalog.requests.answers());
        let outcome = self.catalog.apply(&command, WALL);
        if outcome.reply.is_err() {
            assert!(outcome.batch.is_none(), "a refusal changes nothing");
        }
        if let Some(batch) = &outcome.batch {
            self.told.commit(batch);
        }
        let before = self.past.events.len();
        self.past.events.push(Event::Applied(command.clone()));
        self.applied.push(Applied {
            before,
            at: self.catalog.clock.now(),
            told_before,
            requests_before,
            command: Some(command),
            batch: outcome.batch,
            undo: outcome.undo,
        });
    }

    fn expire(&mut self) {
        let draw = self.millis;
        let recovering = self.catalog.confidence() == Confidence::Recovering;
        let requests_before = self.catalog.requests.answers();
        let expired = self.catalog.expire(WALL, draw);
        let before = self.past.events.len();
        self.past.events.push(Event::Expired { draw });
        assert!(
            expired.is_empty() || !(recovering || self.away),
            "nobody lapses while recovering or while the store is away"
        );
        for (batch, undo) in expired {
            for change in &batch.changes {
                assert!(matches!(change, Change::Removed(r) if r.reason == RemovalReason::Expired));
            }
            let told_before = self.told.clone();
            self.told.commit(&batch);
            self.applied.push(Applied {
                before,
                at: self.catalog.clock.now(),
                told_before,
                requests_before: requests_before.clone(),
                command: None,
                batch: Some(batch),
                undo,
            });
        }
    }

    fn end_overrides(&mut self) {
        let requests_before = self.catalog.requests.answers();
        let before = self.past.events.len();
        let ended = self.catalog.end_overrides(wall(self.seconds));
        self.past.events.push(Event::Ended { seconds: self.seconds });
        for (batch, undo) in ended {
            assert!(batch.overrides.iter().all(|change| change.who.is_some()));
            let told_before = self.told.clone();
            self.told.commit(&batch);
            self.applied.push(Applied {
                before,
                at: self.catalog.clock.now(),
                told_before,
                requests_before: requests_before.clone(),
                command: None,
                batch: Some(batch),
                undo,
            });
        }
        let next = self.told.overrides.values().filter_map(|laid| laid.next_end()).min();
        assert!(
            next.is_none_or(|next| next > wall(self.seconds)),
            "what was due has ended"
        );
    }

    fn undo(&mut self, count: usize) {
        let mut first = self.past.events.len();
        let mut again = Vec::new();
        for _ in 0..count {
            let Some(applied) = self.applied.pop() else { break };
            first = applied.before;
            self.catalog.undo(applied.undo);
            self.told = applied.told_before;
            self.check();
            // An answer may have become too old meanwhile, but none is there that was not there before.
            let requests = self.catalog.requests.answers();
            assert!(
                requests
                    .iter()
                    .all(|(id, answer)| applied.requests_before.get(id) == Some(answer)),
                "the requests of before"
            );
            again.push((applied.command, applied.batch));
        }
        self.check_deadlines(first);
        let only_commands = again.iter().all(|(command, _)| command.is_some());
        for (command, batch) in again.into_iter().rev() {
            let Some(command) = command else { continue };
            self.apply(command);
            // What follows an expiry that is not repeated may well go another way.
            if only_commands {
                assert_eq!(
                    self.applied.last().expect("was applied").batch,
                    batch,
                    "the same again gives the same"
                );
            }
        }
    }

    /// All events from one on have just been undone. Holds the deadlines against those of a catalog that has never seen them: no
    /// lease is due earlier, and none is due at another time but by what its owner said meanwhile.
    fn check_deadlines(&mut self, first: usize) {
        let undone = self.past.events.split_off(first);
        let spoke = |id: &LeaseId| {
            undone.iter().any(|event| match event {
                Event::Applied(Command::Register(register)) => match &register.lease {
                    LeaseChoice::Join { owner, .. } => owner.lease == *id,
                    // A repeat revives a lease that it does not name.
                    LeaseChoice::Grant { .. } => register.request.is_some(),
                },
                Event::Suspected { heard, .. } => heard.0 == *id,
                _ => false,
            })
        };
        self.past
            .events
            .extend(undone.iter().filter(|event| event.stays()).cloned());
        if self.past.drifted {
            return;
        }
        let twin = self.past.catalog();
        let now = self.catalog.clock.now();
        assert_eq!(now, twin.clock.now());
        // Ids repeat here alone: whose renewals were heard is then not the same in both.
        let was_granted = |id: &LeaseId| {
            let grants = undone.iter().filter_map(|event| match event {
                Event::Applied(Command::Register(register)) => Some(&register.lease),
                _ => None,
            });
            grants
                .into_iter()
                .any(|lease| matches!(lease, LeaseChoice::Grant { id: granted, .. } if granted == id))
        };
        for (id, lease) in self.catalog.leases.iter().filter(|(id, _)| !was_granted(id)) {
            let (found, wanted) = (lease.deadline(), twin.leases.get(*id).expect("lives").deadline());
            assert!(spoke(id) || found == wanted, "{id} is due at {found:?}, not {wanted:?}");
            self.past.drifted |= found != wanted;
            assert!(found >= wanted, "{id} lost {:?}", wanted.since(found));
            assert!(
                found <= wanted.max(now.plus(lease.ttl())),
                "{id} has more than its time"
            );
        }
        self.past.drifted |= self.catalog.leases.iter().any(|(id, _)| was_granted(id));
        // What is overdue is so whatever is undone: the windows that began with it go on, and what is held back is drawn anew.
        let windows = |catalog: &Catalog| -> BTreeSet<_> { catalog.groups.budgets().into_iter().collect() };
        let held_back = self.catalog.protection().held_back + twin.protection().held_back;
        self.past.drifted |= held_back > 0 || windows(&self.catalog) != windows(&twin);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Grant {
                lease,
                ids,
                interval,
                request,
            } => {
                let request = request.map(|id| RequestId {
                    id,
                    body: [u8::try_from(ids.len()).expect("few"); 32],
                });
                self.apply(Command::Register(Register {
                    request,
                    // One of two, or nobody.
                    registrant: Registrant::from_bits(u64::try_from(lease % 3).expect("few")),
                    ..grant(lease, heartbeat(interval), drafts(&ids))
                }));
            }
            Step::Join { lease, ids, interval } => {
                let mut register = join(lease, drafts(&ids));
                if let LeaseChoice::Join { terms, .. } = &mut register.lease {
                    terms.interval = interval.map(Duration::from_millis);
                }
                self.apply(Command::Register(register));
            }
            Step::Update {
                lease,
                id,
                weight,
                epoch_back,
            } => {
                let key = key(service(id), &id.to_string());
                let Some(present) = self.told.instances.get(&key) else {
                    return;
                };
                let epoch = Epoch::of(Revision::new(present.epoch.revision().get() - epoch_back));
                let is_right = present.lease == owner(lease).lease && epoch_back == 0;
                let update = Update {
                    owner: owner(lease),
                    key: key.clone(),
                    epoch,
                    weight: Some(Weight::try_new(weight).expect("a weight")),
                    status: Some(Status::Draining),
                    metadata: None,
                };
                let before = Arc::clone(present);
                self.apply(Command::Update(update));
                let after = &self.told.instances[&key];
                assert!(
                    is_right || before == *after,
                    "only the owner at its epoch changes anything"
                );
            }
            Step::End { lease, id } => {
                let id = id.map(|id| id.to_string());
                let ids: Vec<&str> = id.iter().map(String::as_str).collect();
                self.apply(Command::Deregister(end(lease, &ids)));
            }
            Step::Renew { lease } => {
                let fenced = self.told.leases.get(&owner(lease).lease).is_some_and(|record| {
                    !record.emptied
                        && !record.replaced.is_empty()
                        && !self.told.instances.values().any(|i| i.lease == record.id)
                });
                let lives = self.told.leases.contains_key(&owner(lease).lease);
                let renewed = self.catalog.renew(&owner(lease));
                assert_eq!(renewed.is_ok(), lives && !fenced);
                if let Ok(renewed) = renewed {
                    assert!(!renewed.claim, "who is alone has nothing to claim");
                    self.beats.insert(lease, renewed.beat);
                    self.past.events.push(Event::Renewed(lease));
                }
            }
            Step::Govern { id, decision, why } => {
                let key = key(service(id), &id.to_string());
                let govern = Govern {
                    key: key.clone(),
                    decision,
                    who: Who::try_new("ann").expect("a name"),
                    why: Detail::of(["disk", "test"][usize::from(why)]),
                };
                let is_known = self.told.instances.contains_key(&key)
                    || (self.told.overrides.contains_key(&key) && !decision.lays());
                let revision = self.told.revision;
                self.apply(Command::Govern(govern.clone()));
                assert!(
                    is_known || revision == self.told.revision,
                    "of nobody there is nothing to decide"
                );
                let revision = self.told.revision;
                self.apply(Command::Govern(govern));
                assert_eq!(revision, self.told.revision, "once more it changes nothing");
                let laid = self.told.overrides.get(&key);
                let (drained, weight) = laid.map_or((false, None), |laid| (laid.is_drained(), laid.weight()));
                match decision {
                    _ if !is_known => {}
                    Decision::Drain { .. } => assert!(drained),
                    Decision::Undrain => assert!(!drained),
                    Decision::SetWeight { weight: set, .. } => assert_eq!(weight, Some(set)),
                    Decision::OwnWeight => assert_eq!(weight, None),
                }
            }
            Step::Wall { seconds } => {
                self.seconds += seconds;
                self.end_overrides();
            }
            Step::Suspect { lease, slack } => {
                let beat = self.beats.get(&lease).copied().unwrap_or_default();
                let (heard, slack) = ((owner(lease).lease, beat), Duration::from_millis(slack));
                if self.catalog.suspect(&[heard], slack) > 0 {
                    self.past.events.push(Event::Suspected { heard, slack });
                }
            }
            Step::Pass { millis } => {
                self.millis += millis;
                self.catalog.look(now(self.millis));
                self.past.events.push(Event::Look { millis: self.millis });
                self.expire();
            }
            Step::Away => {
                self.away = true;
                self.catalog.away();
                self.past.events.push(Event::Away);
            }
            Step::Back => {
                self.away = false;
                self.catalog.back(now(self.millis));
                self.past.events.push(Event::Back { millis: self.millis });
            }
            Step::Undo { count } => self.undo(count),
            Step::Restart => {
                self.past = Past {
                    told: self.told.clone(),
                    millis: self.millis,
                    events: Vec::new(),
                    drifted: false,
                };
                self.catalog = self.past.catalog();
                self.away = false;
                self.applied.clear();
                self.expire();
                assert!(self.applied.is_empty(), "a restart expires nobody");
            }
        }
    }

    /// After every step, and after each outcome that is taken back.
    fn check(&self) {
        self.catalog.check_invariants();
        assert_eq!(self.catalog.revision, self.told.revision);
        let (instances, leases, overrides) = self.catalog.content();
        assert_eq!(
            instances, self.told.instances,
            "the batches tell all of the catalog's instances"
        );
        assert_eq!(leases, self.told.leases, "and of its leases");
        assert_eq!(overrides, self.told.overrides, "and of what is laid over them");
        for (group, start, _, lapsed) in self.catalog.groups.budgets() {
            let since = self.applied.iter().filter(|applied| applied.at >= start);
            let changes = since
                .flat_map(|applied| &applied.batch)
                .flat_map(|batch| &batch.changes);
            let counted = changes.filter(|change| match change {
                Change::Put { .. } => false,
                Change::Removed(removal) => {
                    removal.reason == RemovalReason::Expired
                        && (removal.key.service_key(), &removal.labels.zone) == (&group.0, &group.1)
                }
            });
            assert_eq!(lapsed, counted.count(), "{group:?}: what lapsed in its window");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_keep_the_invariants(steps in steps()) {
        live_through(steps);
    }
}

fn live_through(steps: Vec<Step>) {
    let mut world = World {
        catalog: restored(&Told::default(), 0),
        millis: 0,
        seconds: 0,
        told: Told::default(),
        past: Past::default(),
        away: false,
        applied: Vec::new(),
        beats: BTreeMap::new(),
    };
    for step in steps {
        world.step(step);
        world.check();
    }
}

/// A step that takes back the newest outcome.
const UNDO: Step = Step::Undo { count: 1 };

fn lasts_half_a_second(lease: u8) -> Step {
    Step::Grant {
        lease: lease.into(),
        // All of one service.
        ids: vec![2 * lease],
        interval: 100,
        request: None,
    }
}

fn passes(millis: u64) -> Step {
    Step::Pass { millis }
}

/// A window of self-preservation begins when somebody is overdue, and an expiry that is taken back leaves that as it is. So
/// what was found again a millisecond later counted in the window that had begun before. These histories held it against a catalog
/// that had never seen the first expiry and whose window began a millisecond later, found no such window there, and took the one
/// that had lapsed for one too many.
#[test]
fn what_lapses_after_all_counts_in_the_window_that_was_open() {
    let refused = Step::End { lease: 1, id: None };
    let (almost, at_last, again) = (passes(240), passes(20), passes(1));
    live_through(vec![
        lasts_half_a_second(0),
        almost.clone(),
        almost,
        at_last,
        UNDO,
        again,
        refused,
        UNDO,
    ]);
}

/// Of three that are overdue two lapse, drawn from all of them. When that is taken back it is drawn anew, from an order that has the
/// third one first: they may be others than in a catalog that has never seen the first draw.
#[test]
fn what_is_drawn_anew_may_be_others() {
    for again in 1..40 {
        let refused = Step::End { lease: 5, id: None };
        let mut steps = (0..3).map(lasts_half_a_second).collect::<Vec<Step>>();
        steps.extend([passes(240), passes(240), passes(20), UNDO, passes(again), refused, UNDO]);
        live_through(steps);
    }
}
