//! Replicas: whose lease is whose, what becomes of a dead replica's, and that all of them end up with the same.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::{
    fixtures::{draft, end, grant, heartbeat, join, key, owner},
    model::{Detail, Replicas, Who},
};

fn id(n: u64) -> ReplicaId {
    ReplicaId::from_bits(n)
}

fn who(own: u64, alive: &[u64], elected: u64) -> Replicas {
    Replicas {
        own: id(own),
        alive: alive.iter().map(|n| id(*n)).collect(),
        elected: own == elected,
    }
}

fn replica(own: u64, alive: &[u64], elected: u64) -> Catalog {
    let settings = Settings {
        own: id(own),
        // Some seconds are enough for a history in which all die.
        protection: Protection {
            window: Duration::from_secs(1),
            max: Duration::from_secs(3),
            ..Protection::default()
        },
        ..Settings::default()
    };
    let mut catalog = Catalog::restore(settings, Revision::ZERO, Vec::new(), &[], now(0).moment);
    catalog.replicas(&who(own, alive, elected));
    catalog
}

/// Applied here, followed there.
fn shared(here: &mut Catalog, there: &mut Catalog, command: &Command) {
    if let Some(batch) = here.apply(command, WALL).batch {
        there.follow(&batch);
    }
    there.check_invariants();
}

/// 1 and 2 are there, 1 hears lease 1, which lives a second.
fn pair() -> (Catalog, Catalog) {
    let (mut one, mut two) = (replica(1, &[1, 2], 1), replica(2, &[1, 2], 1));
    let register = Command::Register(grant(1, heartbeat(200), vec![draft("a", "1", "")]));
    shared(&mut one, &mut two, &register);
    (one, two)
}

#[test]
fn only_the_replica_that_hears_a_lease_counts_its_time() {
    let (mut one, mut two) = pair();
    assert_eq!(run(&mut two, 0, 100_000), Vec::<String>::new());
    assert_eq!(two.next_due(), None);
    assert_eq!(run(&mut one, 0, 2_000), ["1 at 1000"]);
}

/// A client may renew at any replica: it is answered at once, and the lease follows it.
#[test]
fn a_lease_moves_to_the_replica_that_its_owner_comes_to() {
    let (mut one, mut two) = pair();
    let renewed = two.renew(&owner(1)).expect("lives");
    assert!(renewed.claim);
    assert_eq!(renewed.ttl, Duration::from_secs(1));
    let wrong = Owner {
        secret: owner(2).secret,
        ..owner(1)
    };
    assert_eq!(two.renew(&wrong), Err(RenewError::Unknown));

    let outcome = two.apply(&Command::Claim(vec![owner(1)]), WALL);
    assert!(matches!(outcome.reply, Ok(Reply::Claimed)));
    let batch = outcome.batch.expect("moves it");
    assert!(batch.changes.is_empty(), "watchers see nothing");
    one.follow(&batch);
    one.check_invariants();
    assert!(!two.renew(&owner(1)).expect("lives").claim);
    assert!(
        two.apply(&Command::Claim(vec![owner(1)]), WALL).batch.is_none(),
        "asked for twice"
    );
    assert_eq!(
        run(&mut one, 0, 100_000),
        Vec::<String>::new(),
        "no longer its business"
    );
    assert_eq!(
        run(&mut two, 0, 20_000),
        ["1 at 11000"],
        "its time, and a grace since it moved"
    );
}

/// A lease moved from 1 to 2 on the last heartbeat that came there, and its owner went back to 1, which had not heard of it yet
/// and said for 0.4 s more that all was well: 2 ended the lease 2.8 s after that, of the 3 s that were promised. The grace is for
/// all that the former owner may say before it knows, and neither the claim's commit nor a renewal takes it back.
#[test]
fn a_lease_that_moves_has_what_its_former_replica_may_still_promise() {
    let (_, mut two) = pair();
    assert!(two.renew(&owner(1)).expect("lives").claim);
    let claimed = two
        .apply(&Command::Claim(vec![owner(1)]), WALL)
        .batch
        .expect("moves it");
    two.begin_life(&claimed);
    assert!(!two.renew(&owner(1)).expect("lives").claim);
    two.check_invariants();
    assert_eq!(run(&mut two, 0, 20_000), ["1 at 11000"]);
}

/// A claim that is overtaken and tried again in the same 10 ms: each try left another entry in the queue at the lease's tick,
/// which no sweep told from the one that was meant. The queue grew with the tries, and each of them swept all of it.
#[test]
fn a_claim_that_is_undone_over_and_over_leaves_nothing_behind() {
    let (_, mut two) = pair();
    for _ in 0..10_000 {
        let claimed = two.apply(&Command::Claim(vec![owner(1)]), WALL);
        two.undo(claimed.undo);
    }
    two.check_invariants();
}

#[test]
fn who_registers_more_at_another_replica_is_heard_there() {
    let (mut one, mut two) = pair();
    let more = Command::Register(join(1, vec![draft("a", "2", "")]));
    shared(&mut two, &mut one, &more);
    assert!(!two.renew(&owner(1)).expect("lives").claim);
    assert!(one.renew(&owner(1)).expect("lives").claim);
}

#[test]
fn the_elected_replica_ends_orphans_after_their_time_and_a_grace() {
    let (_, mut two) = pair();
    run(&mut two, 0, 30_000);
    two.replicas(&who(2, &[2], 2));
    assert_eq!(run(&mut two, 30_100, 60_000), ["1 at 41000"]);
}

/// The last word is with whoever is elected: one that is elected late counts from then, and one that is no more leaves it.
#[test]
fn a_late_election_charges_nobody_for_the_time_before() {
    let (_, mut two) = pair();
    two.replicas(&who(2, &[2, 3], 3));
    assert_eq!(run(&mut two, 0, 60_000), Vec::<String>::new());
    two.replicas(&who(2, &[2], 2));
    assert_eq!(run(&mut two, 60_100, 65_000), Vec::<String>::new());
    two.replicas(&who(2, &[2, 3], 3));
    assert_eq!(run(&mut two, 65_100, 90_000), Vec::<String>::new());
    two.replicas(&who(2, &[2], 2));
    assert_eq!(run(&mut two, 90_100, 120_000), ["1 at 101000"]);
}

#[test]
fn an_orphan_that_is_renewed_lives() {
    let (_, mut two) = pair();
    two.replicas(&who(2, &[2], 2));
    run(&mut two, 0, 10_900);
    assert!(two.renew(&owner(1)).expect("lives").claim);
    assert_eq!(run(&mut two, 11_000, 12_000), Vec::<String>::new());
    two.apply(&Command::Claim(vec![owner(1)]), WALL)
        .reply
        .expect("is claimed");
    assert_eq!(run(&mut two, 12_100, 30_000), ["1 at 23000"], "it has moved");
}

/// Nobody lapses because the store was away, however long, and who renewed meanwhile has his full time.
#[test]
fn lease_time_stands_still_while_the_store_is_away() {
    let (mut one, _) = pair();
    run(&mut one, 0, 600);
    one.away();
    assert_eq!(run(&mut one, 700, 100_000), Vec::<String>::new());
    assert_eq!(one.next_due(), None);
    one.back(now(100_000));
    assert_eq!(run(&mut one, 100_100, 100_300), Vec::<String>::new());
    assert_eq!(run(&mut one, 100_400, 101_000), ["1 at 100400"]);
}

/// A whole cluster restarts: all leases are orphans. One replica joins others that never stopped: it has nobody to wait for.
#[test]
fn who_joins_living_replicas_does_not_recover() {
    let (one, _) = pair();
    let (instances, leases, _) = one.content();
    let instances: Vec<Arc<Instance>> = instances.into_values().collect();
    let leases: Vec<LeaseRecord> = leases.into_values().collect();
    let settings = Settings {
        own: id(3),
        ..Settings::default()
    };
    let restore = || Catalog::restore(settings, one.revision, leases.clone(), &instances, now(0).moment);
    let mut joins = restore();
    assert_eq!(joins.confidence(), Confidence::Recovering);
    joins.replicas(&who(3, &[1, 3], 1));
    assert_eq!(joins.confidence(), Confidence::Fresh);

    let mut alone = restore();
    alone.replicas(&who(3, &[3], 3));
    assert_eq!(alone.confidence(), Confidence::Recovering);
    assert_eq!(run(&mut alone, 0, 20_000), ["1 at 11000"]);
}

/// A step of several replicas over one log.
#[derive(Debug, Clone)]
enum Step {
    Grant { lease: u128, id: u8 },
    Join { lease: u128, id: u8 },
    End { lease: u128, id: Option<u8> },
    Renew { lease: u128 },
    Govern { id: u8, drain: bool, seconds: Option<i64> },
    Pass { millis: u64 },
    Die,
}

fn steps() -> impl Strategy<Value = Vec<(usize, bool, Step)>> {
    let lease = 0..5_u128;
    let step = prop_oneof![
        3 => (lease.clone(), 0..6_u8).prop_map(|(lease, id)| Step::Grant { lease, id }),
        2 => (lease.clone(), 0..6_u8).prop_map(|(lease, id)| Step::Join { lease, id }),
        2 => (lease.clone(), proptest::option::of(0..6_u8)).prop_map(|(lease, id)| Step::End { lease, id }),
        4 => lease.prop_map(|lease| Step::Renew { lease }),
        2 => (0..6_u8, any::<bool>(), proptest::option::of(1..4_i64))
            .prop_map(|(id, drain, seconds)| Step::Govern { id, drain, seconds }),
        3 => (1..2_000_u64).prop_map(|millis| Step::Pass { millis }),
        1 => Just(Step::Die),
    ];
    // At which replica, and whether it has heard of what the others did.
    proptest::collection::vec((0..3_usize, proptest::bool::ANY, step), 1..80)
}

/// Three replicas and the log that they share, in which the first to append wins.
struct Cluster {
    replicas: Vec<Option<Catalog>>,
    log: Vec<Arc<Batch>>,
    millis: u64,
}

impl Cluster {
    fn catch_up(&mut self, n: usize) {
        let Some(catalog) = &mut self.replicas[n] else { return };
        let known = usize::try_from(catalog.revision.get()).expect("few");
        for batch in &self.log[known..] {
            catalog.follow(batch);
        }
        catalog.check_invariants();
    }

    /// Applied by a replica that may be behind: then it was overtaken, takes back what it did, catches up and does it again.
    fn submit(&mut self, n: usize, command: &Command) {
        let Some(catalog) = &mut self.replicas[n] else { return };
        let behind = usize::try_from(catalog.revision.get()).expect("few") < self.log.len();
        let outcome = catalog.apply(command, WALL);
        if behind {
            catalog.undo(outcome.undo);
            self.catch_up(n);
            let catalog = self.replicas[n].as_mut().expect("lives");
            self.log.extend(catalog.apply(command, WALL).batch);
        } else {
            self.log.extend(outcome.batch);
        }
    }

    fn expire(&mut self, n: usize) {
        let Some(catalog) = &mut self.replicas[n] else { return };
        let behind = usize::try_from(catalog.revision.get()).expect("few") < self.log.len();
        let wall = WallTime {
            seconds: WALL.seconds + i64::try_from(self.millis / 1_000).expect("fits"),
            ..WALL
        };
        let mut expired: VecDeque<_> = catalog.expire(WALL, self.millis).into();
        expired.extend(catalog.end_overrides(wall));
        if !behind {
            self.log.extend(expired.into_iter().map(|(batch, _)| batch));
            return;
        }
        while let Some((_, undo)) = expired.pop_back() {
            catalog.undo(undo);
        }
        self.catch_up(n);
        let catalog = self.replicas[n].as_mut().expect("lives");
        self.log
            .extend(catalog.expire(WALL, self.millis).into_iter().map(|(batch, _)| batch));
        self.log
            .extend(catalog.end_overrides(wall).into_iter().map(|(batch, _)| batch));
    }

    fn alive(&self) -> Vec<u64> {
        let alive = self
            .replicas
            .iter()
            .enumerate()
            .filter(|(_, catalog)| catalog.is_some());
        alive.map(|(n, _)| n as u64 + 1).collect()
    }

    fn tell_who_is_there(&mut self) {
        let alive = self.alive();
        for n in alive.clone() {
            if let Some(catalog) = &mut self.replicas[usize::try_from(n).expect("few") - 1] {
                catalog.replicas(&who(n, &alive, alive[0]));
            }
        }
    }

    fn step(&mut self, n: usize, informed: bool, step: Step) {
        if informed {
            self.catch_up(n);
        }
        match step {
            Step::Grant { lease, id } => {
                let drafts = vec![draft("a", &id.to_string(), "")];
                self.submit(n, &Command::Register(grant(lease, heartbeat(200), drafts)));
            }
            Step::Join { lease, id } => {
                let drafts = vec![draft("a", &id.to_string(), "")];
                self.submit(n, &Command::Register(join(lease, drafts)));
            }
            Step::End { lease, id } => {
                let id = id.map(|id| id.to_string());
                let ids: Vec<&str> = id.iter().map(String::as_str).collect();
                self.submit(n, &Command::Deregister(end(lease, &ids)));
            }
            Step::Renew { lease } => {
                let Some(catalog) = &mut self.replicas[n] else { return };
                if catalog.renew(&owner(lease)).is_ok_and(|renewed| renewed.claim) {
                    self.submit(n, &Command::Claim(vec![owner(lease)]));
                }
            }
            Step::Govern { id, drain, seconds } => {
                let until = seconds.map(|seconds| WallTime {
                    seconds: WALL.seconds + seconds,
                    ..WALL
                });
                let govern = Govern {
                    key: key("a", &id.to_string()),
                    decision: if drain {
                        Decision::Drain { until }
                    } else {
                        Decision::Undrain
                    },
                    who: Who::of("ann"),
                    why: Detail::of(""),
                };
                self.submit(n, &Command::Govern(govern));
            }
            Step::Pass { millis } => {
                let end = self.millis + millis;
                while self.millis < end {
                    self.millis += 100;
                    for n in 0..self.replicas.len() {
                        if let Some(catalog) = &mut self.replicas[n] {
                            catalog.look(now(self.millis));
                        }
                        self.expire(n);
                    }
                }
            }
            Step::Die => {
                if self.alive().len() > 1 {
                    self.replicas[n] = None;
                    self.tell_who_is_there();
                }
            }
        }
        if let Some(catalog) = &self.replicas[n] {
            catalog.check_invariants();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// However their work interleaves, replicas that have read the same log have the same content, every lease is counted by
    /// exactly one of them, and what nobody renews ends, also what a dead one has left.
    #[test]
    fn replicas_agree_and_forget_nobody(steps in steps()) {
        let mut cluster = Cluster {
            replicas: (1..=3).map(|n| Some(replica(n, &[1, 2, 3], 1))).collect(),
            log: Vec::new(),
            millis: 0,
        };
        for (n, informed, step) in steps {
            cluster.step(n, informed, step);
        }
        for n in 0..3 {
            cluster.catch_up(n);
        }
        let living: Vec<&Catalog> = cluster.replicas.iter().flatten().collect();
        for pair in living.windows(2) {
            prop_assert_eq!(pair[0].revision, pair[1].revision);
            prop_assert_eq!(pair[0].content(), pair[1].content());
        }
        let counted: Vec<LeaseId> = living.iter().flat_map(|catalog| catalog.leases.counted()).collect();
        let once: BTreeSet<LeaseId> = counted.iter().copied().collect();
        prop_assert_eq!(once.len(), counted.len(), "counted by one");
        prop_assert_eq!(once.len(), living[0].leases(), "and by one at least");

        cluster.step(0, true, Step::Pass { millis: 20_000 });
        for n in 0..3 {
            cluster.catch_up(n);
        }
        for catalog in cluster.replicas.iter().flatten() {
            prop_assert_eq!((catalog.leases(), catalog.instances()), (0, 0));
            let (_, _, overrides) = catalog.content();
            prop_assert!(overrides.values().all(|laid| laid.next_end().is_none()), "the elected one ends them");
        }
    }
}
