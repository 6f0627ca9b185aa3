//! Self-preservation: who is held back and who never is, how it ends, and what random outages may not do to it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    super::protection::{GroupKey, key_of},
    *,
};
use crate::{
    fixtures::{draft, end, grant, heartbeat, key, owner},
    model::RemovalReason,
};

/// A catalog of one service, `n` instances with a lease each that lives a second.
fn service(n: u128) -> Catalog {
    let mut catalog = catalog();
    for n in 0..n {
        let drafts = vec![draft("a", &n.to_string(), "")];
        register(&mut catalog, grant(n, heartbeat(200), drafts)).expect("registers");
    }
    catalog
}

/// Time passes while some renew; how many have lapsed at each time that somebody did.
fn renewing(catalog: &mut Catalog, from: u64, to: u64, alive: std::ops::Range<u128>) -> Vec<(u64, usize)> {
    let mut lapsed = Vec::new();
    let alive: Vec<Owner> = alive.map(owner).collect();
    for (pulse, millis) in (from..=to).step_by(100).enumerate() {
        catalog.look(now(millis));
        for owner in alive.iter().filter(|_| pulse % 5 == 0) {
            catalog.renew(owner).expect("lives");
        }
        let expired = catalog.expire(WALL, millis);
        let changes: usize = expired.iter().map(|(batch, _)| batch.changes.len()).sum();
        if changes > 0 {
            lapsed.push((millis, changes));
        }
    }
    catalog.check_invariants();
    lapsed
}

fn protects(catalog: &Catalog) -> bool {
    catalog.protecting().contains(&**key("a", "1").service_key())
}

#[test]
fn below_the_threshold_nothing_is_slowed() {
    let mut catalog = service(1_000);
    assert_eq!(renewing(&mut catalog, 0, 5_000, 0..850), [(1_000, 150)]);
    assert_eq!(catalog.protection(), ProtectionStatus::default());
}

#[test]
fn above_it_they_trickle_and_the_healthy_stay() {
    let mut catalog = service(1_000);
    let told_before = catalog.protecting();
    let lapsed = renewing(&mut catalog, 0, 60_900, 0..849);
    assert!(!Arc::ptr_eq(&told_before, &catalog.protecting()));
    assert!(protects(&catalog));
    assert_eq!(lapsed[0], (1_000, 2), "the floor at once");
    assert!(lapsed.iter().all(|(_, n)| *n <= 2), "then evenly: {lapsed:?}");
    let in_the_window: usize = lapsed.iter().map(|(_, n)| n).sum();
    assert!((140..=150).contains(&in_the_window), "{in_the_window}");
    // What is left fits in the next window's budget.
    renewing(&mut catalog, 61_000, 61_000, 0..849);
    assert!(!protects(&catalog));
    assert_eq!(catalog.instances(), 849);
    let status = catalog.protection();
    assert_eq!((status.begun, status.ended_lapsed, status.held_back), (1, 1, 0));
}

/// Users hate ghosts: one or two instances that die are gone in time however small their service is, and so is one process
/// that was half of it.
#[test]
fn the_small_lose_their_dead_in_time() {
    for (n, alive) in [(1, 0..0), (2, 1..2), (2, 0..0), (3, 2..3), (5, 2..5)] {
        let mut catalog = service(n);
        let dead = usize::try_from(n - (alive.end - alive.start)).expect("few");
        assert_eq!(
            renewing(&mut catalog, 0, 2_000, alive),
            [(1_000, dead)],
            "{dead} of {n}"
        );
    }
    let mut catalog = service(10);
    let drafts = (0..30).map(|n| draft("a", &format!("big-{n}"), "")).collect();
    register(&mut catalog, grant(99, heartbeat(200), drafts)).expect("registers");
    assert_eq!(renewing(&mut catalog, 0, 2_000, 0..10), [(1_000, 30)]);
}

/// spring-cloud-netflix #2407: after a kill -9 of many, Eureka kept them for ever.
#[test]
fn a_service_that_is_really_dead_goes_in_time_the_last_one_too() {
    let mut catalog = service(300);
    let mut at = 0;
    let mut sizes = Vec::new();
    while catalog.instances() > 0 {
        renewing(&mut catalog, at, at + 59_900, 0..0);
        at += 60_000;
        sizes.push(catalog.instances());
        assert!(sizes.len() < 20, "{sizes:?}");
    }
    assert!(sizes[0] >= 255, "no more than 15 % in a minute: {sizes:?}");
    assert!(at <= 1_000 + 15 * 60_000 + 60_000, "{sizes:?}");
    assert!(!protects(&catalog));
    let status = catalog.protection();
    assert_eq!(status.ended_timed_out, 1, "{sizes:?}");
}

#[test]
fn who_renews_is_saved_and_that_ends_it() {
    let mut catalog = service(100);
    renewing(&mut catalog, 0, 30_000, 0..50);
    assert!(protects(&catalog));
    let left = catalog.instances();
    // The network is there again.
    for n in 50..100 {
        let _ = catalog.renew(&owner(n));
    }
    catalog.look(now(30_100));
    assert!(catalog.expire(WALL, 1).is_empty());
    assert!(!protects(&catalog));
    assert_eq!(catalog.instances(), left);
    catalog.check_invariants();
    assert_eq!(catalog.protection().ended_recovered, 1);
}

/// A zone that fails is held back; what lapses elsewhere in the same service is not.
#[test]
fn zones_are_judged_by_themselves() {
    let mut catalog = catalog();
    for n in 0..40 {
        let zone = if n < 20 { "east" } else { "west" };
        register(
            &mut catalog,
            grant(n, heartbeat(200), vec![draft("a", &n.to_string(), zone)]),
        )
        .expect("registers");
    }
    // All of the east and two of the west.
    assert_eq!(renewing(&mut catalog, 0, 1_500, 22..40), [(1_000, 4)]);
    assert!(protects(&catalog));
    assert_eq!(catalog.instances(), 36);
}

/// A lease lapses as a whole: what its process serves besides is held back with it, but the others of that service are not.
#[test]
fn a_lease_is_held_back_while_any_of_its_services_is() {
    let mut catalog = service(20);
    let both = vec![draft("a", "both", ""), draft("b", "both", "")];
    register(&mut catalog, grant(100, heartbeat(200), both)).expect("registers");
    for n in 101..103 {
        register(
            &mut catalog,
            grant(n, heartbeat(200), vec![draft("b", &n.to_string(), "")]),
        )
        .expect("registers");
    }
    run(&mut catalog, 0, 900);
    catalog.renew(&owner(102)).expect("lives");
    let lapsed = run(&mut catalog, 1_000, 1_000);
    assert!(lapsed.contains(&"101 at 1000".to_owned()), "{lapsed:?}");
    assert!(protects(&catalog));
}

#[test]
fn what_is_deregistered_or_replaced_does_not_count() {
    let mut catalog = service(20);
    for n in 0..10 {
        catalog
            .apply(&Command::Deregister(end(n, &[])), WALL)
            .reply
            .expect("ends");
    }
    for n in 10..15_u128 {
        let drafts = vec![draft("a", &n.to_string(), "")];
        register(&mut catalog, grant(100 + n, heartbeat(200_000), drafts)).expect("replaces");
    }
    assert_eq!(renewing(&mut catalog, 0, 2_000, 17..20), [(1_000, 2)]);
    assert_eq!(catalog.protection().begun, 0);
}

#[test]
fn it_can_be_switched_off() {
    let settings = Settings {
        protection: Protection {
            enabled: false,
            ..Protection::default()
        },
        ..Settings::default()
    };
    let mut catalog = Catalog::restore(settings, Revision::ZERO, Vec::new(), &[], now(0).moment);
    for n in 0..100 {
        register(
            &mut catalog,
            grant(n, heartbeat(200), vec![draft("a", &n.to_string(), "")]),
        )
        .expect("registers");
    }
    assert_eq!(renewing(&mut catalog, 0, 2_000, 0..0), [(1_000, 100)]);
}

#[test]
fn the_removal_tells_that_it_was_held_back() {
    let mut catalog = service(20);
    renewing(&mut catalog, 0, 60_000, 0..0);
    catalog.look(now(60_100));
    catalog.look(now(60_200));
    let mut details = Vec::new();
    for millis in (60_300..70_000).step_by(100) {
        catalog.look(now(millis));
        for (batch, _) in catalog.expire(WALL, millis) {
            for change in &batch.changes {
                if let Change::Removed(removal) = change {
                    details.push(removal.detail.as_str().to_owned());
                }
            }
        }
    }
    assert!(
        details
            .iter()
            .any(|detail| detail.starts_with("no renewal within 1s, held back for 60.")),
        "{details:?}"
    );
}

/// One step of a random outage.
#[derive(Debug, Clone)]
enum Step {
    /// Leases of a range fall silent, or are heard again.
    Silence(u8, u8),
    Speak(u8, u8),
    Pass(u64),
    End(u8),
    Again(u8, u8),
    /// The last expiry did not fit on the disk.
    NoRoom,
    Away(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..60_u8, 1..40_u8).prop_map(|(from, n)| Step::Silence(from, n)),
        2 => (0..60_u8, 1..40_u8).prop_map(|(from, n)| Step::Speak(from, n)),
        6 => (1..200_u64).prop_map(Step::Pass),
        1 => (0..60_u8).prop_map(Step::End),
        1 => (0..60_u8, 0..60_u8).prop_map(|(lease, id)| Step::Again(lease, id)),
        1 => Just(Step::NoRoom),
        1 => (1..100_u64).prop_map(Step::Away),
    ];
    proptest::collection::vec(step, 1..20)
}

/// Lease `n` keeps one to three instances in two services and three zones.
fn drafts_of(n: u8) -> Vec<crate::model::Draft> {
    let draft = |part: u8| {
        let service = ["a", "b"][usize::from((n / 7 + part) % 2)];
        draft(
            service,
            &format!("{n}-{part}"),
            ["", "east", "west"][usize::from(n % 3)],
        )
    };
    (0..=n % 3).map(draft).collect()
}

const LONGEST: u64 = 40_000;
const TTL: u64 = 1_000;

/// Leases that renew unless they are silent.
struct Outage {
    catalog: Catalog,
    owners: Vec<Owner>,
    /// Somebody has just begun to.
    spoke: bool,
    millis: u64,
    /// Since when, on the clock of leases.
    silent: BTreeMap<u8, u64>,
    /// What of the clock does not count.
    stood_still: u64,
    /// By group and window: instances that lapsed in it, and those of them that had been held back for the longest time.
    lapsed: BTreeMap<(GroupKey, LeaseTime), (usize, usize)>,
    last: Vec<(Undo, Vec<Gone>)>,
    /// When an expiry was taken back.
    undone: u64,
}

/// An instance that lapsed: its group, in the window that began when, and whether it had been held back for the longest time.
type Gone = (GroupKey, LeaseTime, bool);

impl Outage {
    fn time(&self) -> u64 {
        self.millis - self.stood_still
    }

    fn pulse(&mut self) {
        self.millis += 100;
        self.catalog.look(now(self.millis));
        // Twice in a time to live.
        if self.millis.is_multiple_of(500) || self.spoke {
            self.spoke = false;
            for (n, owner) in (0..).zip(&self.owners) {
                if !self.silent.contains_key(&n) {
                    let _ = self.catalog.renew(owner);
                }
            }
        }
        if self.catalog.next_due().is_none_or(|due| due > now(self.millis).moment) {
            return;
        }
        let before: BTreeMap<InstanceKey, (GroupKey, LeaseId, bool)> = self
            .catalog
            .instances
            .iter()
            .map(|Held(instance)| {
                let lease = self.catalog.leases.get(instance.lease).expect("lives");
                let at_last = lease.overdue(self.catalog.clock.now()) >= Duration::from_millis(LONGEST);
                (instance.key.clone(), (key_of(instance), instance.lease, at_last))
            })
            .collect();
        let expired = self.catalog.expire(WALL, self.millis);
        if !expired.is_empty() {
            self.last.clear();
        }
        let budgets: BTreeMap<_, _> = self
            .catalog
            .groups
            .budgets()
            .into_iter()
            .map(|(key, start, budget, lapsed)| (key, (start, budget, lapsed)))
            .collect();
        for (batch, undo) in expired {
            let mut charged = Vec::new();
            for change in &batch.changes {
                let Change::Removed(removal) = change else {
                    panic!("{change:?}")
                };
                assert_eq!(removal.reason, RemovalReason::Expired);
                let (group, lease, at_last) = before[&removal.key].clone();
                let is_silent = self.silent.keys().any(|n| LeaseId::from_random((*n).into()) == lease);
                assert!(is_silent, "who renews lives");
                let start = budgets[&group].0;
                let lapsed = self.lapsed.entry((group.clone(), start)).or_default();
                lapsed.0 += 1;
                lapsed.1 += usize::from(at_last);
                charged.push((group, start, at_last));
            }
            self.last.push((undo, charged));
        }
        for (group, (start, budget, lapsed)) in &budgets {
            let counted = self.lapsed.get(&(group.clone(), *start)).copied().unwrap_or_default();
            assert_eq!(counted.0, *lapsed, "{group:?}: what lapsed in the window");
            // A lease of three may be all that lapses in a window that allows two.
            assert!(
                counted.0 - counted.1 <= (*budget).max(3),
                "{group:?} lost {counted:?} of {budget}"
            );
        }
        for (n, since) in &self.silent {
            let gone = self.catalog.leases.get(LeaseId::from_random((*n).into())).is_none();
            let longest = (since + TTL + LONGEST).max(self.undone);
            assert!(gone || self.time() <= longest + 200, "{n} is a ghost");
        }
    }

    fn step(&mut self, step: Step) {
        let time = self.time();
        match step {
            Step::Silence(from, n) => {
                for n in from..from.saturating_add(n).min(60) {
                    self.silent.entry(n).or_insert(time);
                }
            }
            Step::Speak(from, n) => {
                self.spoke = true;
                for n in from..from.saturating_add(n) {
                    self.silent.remove(&n);
                }
            }
            Step::Pass(pulses) => {
                for _ in 0..pulses {
                    self.pulse();
                }
            }
            Step::End(n) => {
                self.last.clear();
                let _ = self.catalog.apply(&Command::Deregister(end(n.into(), &[])), WALL);
            }
            Step::Again(n, of) => {
                // Takes another's instances, or has its own again.
                self.last.clear();
                let command = Command::Register(grant(n.into(), heartbeat(200), drafts_of(of)));
                if self.catalog.apply(&command, WALL).reply.is_ok() {
                    self.silent.remove(&n);
                }
            }
            Step::NoRoom => {
                while let Some((undo, charged)) = self.last.pop() {
                    self.undone = time;
                    // Who was refused meanwhile is heard again.
                    self.spoke = true;
                    self.catalog.undo(undo);
                    for (group, start, at_last) in charged {
                        if let Some(lapsed) = self.lapsed.get_mut(&(group, start)) {
                            lapsed.0 -= 1;
                            lapsed.1 -= usize::from(at_last);
                        }
                    }
                }
            }
            Step::Away(pulses) => {
                self.catalog.away();
                for _ in 0..pulses {
                    self.millis += 100;
                    self.stood_still += 100;
                    self.catalog.look(now(self.millis));
                    assert!(
                        self.catalog.expire(WALL, 0).is_empty(),
                        "nobody lapses while the store is away"
                    );
                }
                self.catalog.back(now(self.millis));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Through random outages: who renews lives, no group loses more than its budget in a window, every silent lease is gone by
    /// its time to live and the longest time, and the sums hold.
    #[test]
    fn outages_are_bounded_both_ways(steps in steps()) {
        let settings = Settings {
            protection: Protection {
                window: Duration::from_secs(5),
                max: Duration::from_millis(LONGEST),
                ..Protection::default()
            },
            ..Settings::default()
        };
        let mut outage = Outage {
            catalog: Catalog::restore(settings, Revision::ZERO, Vec::new(), &[], now(0).moment),
            owners: (0..60).map(owner).collect(),
            spoke: false,
            millis: 0,
            silent: BTreeMap::new(),
            stood_still: 0,
            lapsed: BTreeMap::new(),
            last: Vec::new(),
            undone: 0,
        };
        for n in 0..60 {
            register(&mut outage.catalog, grant(n.into(), heartbeat(200), drafts_of(n))).expect("registers");
        }
        for step in steps {
            outage.step(step);
            outage.catalog.check_invariants();
        }
        let silent: BTreeSet<u8> = outage.silent.keys().copied().collect();
        outage.step(Step::Pass((TTL + LONGEST) / 100 + 5));
        for n in silent {
            prop_assert!(outage.catalog.leases.get(LeaseId::from_random(n.into())).is_none(), "{} is gone", n);
        }
        prop_assert!(outage.catalog.protecting().is_empty() || !outage.silent.is_empty());
    }
}
