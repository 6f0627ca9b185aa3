//! The state machine in virtual time: each promise by itself. Random faults are in `healing`.

use rand::{SeedableRng as _, rngs::StdRng};
use tonic::Code;

use super::*;
use crate::error::Answer;

mod healing;
mod second_opinion;

const INTERVAL: Duration = Duration::from_secs(5);
const TTL: Duration = Duration::from_secs(15);

/// A machine, its clock, its dice and its owner's wish.
struct World {
    machine: Machine,
    begin: Instant,
    now: Instant,
    desired: Desired,
    rng: StdRng,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            machine: Machine::new(INTERVAL, 3, false, now),
            begin: now,
            now,
            desired: Desired {
                says: Says {
                    status: InstanceStatus::Up,
                    weight: 100,
                    metadata: BTreeMap::new(),
                },
                leave: None,
            },
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// A world whose instance is registered.
    fn registered(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.register_request();
        world.apply(Outcome::Registered(Ok(granted(7))));
        assert!(matches!(world.machine.status(), RegistrarStatus::Registered { .. }));
        world
    }

    /// The next thing to do, after all the waiting that comes before it, and how long that was.
    fn next(&mut self) -> (Duration, Action) {
        let before = self.now;
        for _ in 0..10 {
            match self.machine.next(self.now, &self.desired, &mut self.rng) {
                Action::Wait { until } => {
                    assert!(until > self.now, "a wait that does not wait");
                    self.now = until;
                }
                action => return (self.now - before, action),
            }
        }
        panic!("ten waits without anything to do")
    }

    fn register_request(&mut self) -> (Duration, String, Says) {
        match self.next() {
            (waited, Action::Register { request_id, says }) => (waited, request_id, says),
            other => panic!("not a registration: {other:?}"),
        }
    }

    fn apply(&mut self, outcome: Outcome) {
        self.machine.apply(self.now, outcome, &mut self.rng);
    }

    fn reason(&self) -> String {
        match self.machine.status() {
            RegistrarStatus::Retrying { reason, .. } => reason.reason().to_owned(),
            other => panic!("not in trouble: {other:?}"),
        }
    }
}

fn granted(epoch: i64) -> Granted {
    Granted {
        lease: Lease {
            id: format!("lease-{epoch}"),
            secret: "s".into(),
        },
        instance_id: "ticket-1".into(),
        epoch,
        revision: epoch,
        ttl: Some(TTL),
    }
}

fn unreachable() -> Error {
    Error::Unreachable {
        endpoint: "http://r:7000".into(),
        problem: "connection refused".into(),
    }
}

fn answer(code: Code, reason: &str, retry_after: Option<u64>) -> Error {
    Error::Answered(Box::new(Answer {
        endpoint: "http://r:7000".into(),
        code,
        reason: reason.into(),
        message: String::new(),
        retry_after: retry_after.map(Duration::from_secs),
        violations: Vec::new(),
    }))
}

fn lease_unknown(retry_after: Option<u64>) -> Error {
    answer(Code::NotFound, "LEASE_UNKNOWN", retry_after)
}

fn stale_epoch() -> Error {
    answer(Code::FailedPrecondition, "STALE_EPOCH", None)
}

#[test]
fn it_registers_at_once_and_then_beats() {
    let mut world = World::new(1);
    assert_eq!(world.machine.status(), RegistrarStatus::Registering);
    let (waited, ..) = world.register_request();
    assert_eq!(waited, Duration::ZERO);
    world.apply(Outcome::Registered(Ok(granted(7))));
    assert_eq!(
        world.machine.status(),
        RegistrarStatus::Registered {
            instance_id: "ticket-1".into(),
            epoch: 7,
            revision: 7
        }
    );
    for _ in 0..100 {
        let (waited, action) = world.next();
        assert!(matches!(action, Action::Renew { .. }), "{action:?}");
        assert!((INTERVAL.mul_f64(0.9)..=INTERVAL).contains(&waited), "{waited:?}");
        world.apply(Outcome::Renewed(Ok(Some(TTL))));
    }
}

#[test]
fn a_short_lease_is_renewed_within_half_its_life_but_never_in_a_busy_loop() {
    let cases = [
        (Duration::from_secs(15), 4_500..=5_000),
        (Duration::from_secs(4), 1_800..=2_000),
        (Duration::from_millis(500), 225..=250),
        (Duration::from_nanos(1), 45..=50),
    ];
    for (ttl, expected) in cases {
        let mut world = World::new(2);
        world.register_request();
        world.apply(Outcome::Registered(Ok(Granted {
            ttl: Some(ttl),
            ..granted(7)
        })));
        let (waited, _) = world.next();
        assert!(expected.contains(&waited.as_millis()), "{ttl:?}: {waited:?}");
    }
}

#[test]
fn extreme_settings_do_not_overflow() {
    for interval in [Duration::ZERO, Duration::MAX] {
        let mut world = World::new(3);
        world.machine = Machine::new(interval, u32::MAX, false, world.now);
        world.register_request();
        world.apply(Outcome::Registered(Ok(Granted {
            ttl: None,
            ..granted(7)
        })));
        let (waited, _) = world.next();
        assert!((MIN_PERIOD.mul_f64(0.9)..=MAX_PERIOD).contains(&waited), "{waited:?}");
        world.apply(Outcome::Renewed(Err(unreachable())));
        world.next();
    }
}

#[test]
fn a_repeat_after_a_lost_answer_is_the_same_request() {
    let mut world = World::new(4);
    let (_, id, says) = world.register_request();
    world.apply(Outcome::Registered(Err(unreachable())));
    let (_, again, says_again) = world.register_request();
    assert_eq!((&again, &says_again), (&id, &says));

    // Another body would be REQUEST_ID_REUSED.
    world.apply(Outcome::Registered(Err(answer(Code::Unavailable, "", None))));
    world.desired.says.weight = 5;
    let (_, other, says) = world.register_request();
    assert_ne!(other, id);
    assert_eq!(says.weight, 5);

    // A refusal has had no effect that could be repeated.
    world.apply(Outcome::Registered(Err(answer(
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
        None,
    ))));
    assert_ne!(world.register_request().1, other);
}

#[test]
fn a_request_id_is_not_older_than_the_lease_that_it_may_have_made() {
    let mut world = World::new(5);
    let (_, first, _) = world.register_request();
    let mut last = first.clone();
    while world.now - world.begin < TTL {
        assert_eq!(last, first);
        world.apply(Outcome::Registered(Err(unreachable())));
        last = world.register_request().1;
    }
    assert_ne!(last, first);
}

#[test]
fn a_lost_lease_is_asked_for_again_when_the_registry_says() {
    let cases = [
        (lease_unknown(Some(3)), 3_000..=3_000),
        (lease_unknown(Some(0)), 0..=0),
        (lease_unknown(Some(1_000_000)), 30_000..=30_000),
        (lease_unknown(None), 100..=200),
        (answer(Code::NotFound, "INSTANCE_UNKNOWN", None), 100..=200),
        (stale_epoch(), 100..=200),
    ];
    for (error, expected) in cases {
        let mut world = World::registered(6);
        world.next();
        world.apply(Outcome::Renewed(Err(error.clone())));
        assert_eq!(world.reason(), error.reason());
        let (waited, ..) = world.register_request();
        assert!(expected.contains(&waited.as_millis()), "{error}: {waited:?}");
        world.apply(Outcome::Registered(Ok(granted(8))));
        assert!(matches!(
            world.machine.status(),
            RegistrarStatus::Registered { epoch: 8, .. }
        ));
    }
}

#[test]
fn it_never_gives_up_and_never_storms() {
    let mut world = World::new(7);
    let mut attempts = 0;
    while world.now - world.begin < Duration::from_secs(24 * 3_600) {
        let (waited, ..) = world.register_request();
        assert!(waited <= Duration::from_secs(10), "{waited:?}");
        attempts += 1;
        world.apply(Outcome::Registered(Err(unreachable())));
    }
    // A mean of 5.05 s once the ceiling is reached.
    assert!((16_000..18_500).contains(&attempts), "{attempts} attempts in a day");
}

#[test]
fn a_registry_that_is_away_gets_heartbeats_no_rarer_than_before() {
    let mut world = World::registered(8);
    world.next();
    let since = world.now;
    for _ in 0..1_000 {
        world.apply(Outcome::Renewed(Err(unreachable())));
        assert!(
            matches!(world.machine.status(), RegistrarStatus::Retrying { since: s, .. } if s == since),
            "one outage has one beginning"
        );
        let (waited, action) = world.next();
        assert!(
            matches!(action, Action::Renew { .. }),
            "the lease may still live: {action:?}"
        );
        assert!(waited <= INTERVAL);
    }
    world.apply(Outcome::Renewed(Ok(None)));
    assert!(matches!(
        world.machine.status(),
        RegistrarStatus::Registered { epoch: 7, .. }
    ));
}

#[test]
fn a_drain_is_told_before_the_next_heartbeat() {
    let mut world = World::registered(9);
    world.desired.says.status = InstanceStatus::Draining;
    let (waited, action) = world.next();
    assert_eq!(waited, Duration::ZERO);
    assert!(
        matches!(&action, Action::Update { epoch: 7, says, .. } if says.status == InstanceStatus::Draining),
        "{action:?}"
    );
    world.apply(Outcome::Updated(Ok(12)));
    assert_eq!(
        world.machine.status(),
        RegistrarStatus::Draining {
            instance_id: "ticket-1".into(),
            epoch: 7,
            revision: 12
        }
    );
    assert!(matches!(world.next().1, Action::Renew { .. }), "and only once");
}

/// The deadline of a heartbeat was taken from the interval, which with one miss allowed is the whole lease: 4 s after a heartbeat
/// at half of 5 s, the lease had lapsed.
#[test]
fn one_heartbeat_that_hangs_costs_no_lease_however_short() {
    for millis in [500, 900, 5_000, 15_000, 3_600_000] {
        let ttl = Duration::from_millis(millis);
        for interval in [ttl, ttl / 3] {
            let mut world = World::new(millis);
            world.machine = Machine::new(interval, 1, false, world.now);
            world.register_request();
            world.apply(Outcome::Registered(Ok(Granted {
                ttl: Some(ttl),
                ..granted(7)
            })));
            let mut confirmed = world.now;
            for _ in 0..100 {
                let (_, Action::Renew { within, .. }) = world.next() else {
                    panic!("{:?}", world.machine)
                };
                world.now += within;
                world.apply(Outcome::Renewed(Err(unreachable())));
                let (_, action) = world.next();
                assert!(matches!(action, Action::Renew { .. }), "{action:?}");
                let age = world.now - confirmed;
                assert!(age <= ttl.mul_f64(0.88), "{age:?} of {ttl:?}");
                confirmed = world.now;
                world.apply(Outcome::Renewed(Ok(Some(ttl))));
            }
        }
    }
}

#[test]
fn heartbeats_are_counted_from_when_they_were_sent() {
    let mut world = World::registered(9);
    world.next();
    world.now += Duration::from_secs(3);
    world.apply(Outcome::Renewed(Ok(Some(TTL))));
    assert!(world.next().0 <= INTERVAL - Duration::from_secs(3));
}

/// The lease of a registration whose answer was lost lives from the first request; the repeat gets the first one's answer.
#[test]
fn a_lease_that_was_granted_in_silence_is_renewed_from_its_beginning() {
    let mut world = World::new(10);
    world.register_request();
    world.now += Duration::from_secs(4);
    world.apply(Outcome::Registered(Err(unreachable())));
    world.register_request();
    world.apply(Outcome::Registered(Ok(granted(7))));
    let (_, action) = world.next();
    assert!(matches!(action, Action::Renew { .. }), "{action:?}");
    assert!(world.now - world.begin <= INTERVAL, "{:?}", world.now - world.begin);
}

/// Updates went before heartbeats, so a drain that a stalled store did not answer was repeated until the lease had lapsed.
#[test]
fn a_heartbeat_that_is_due_goes_before_an_update() {
    let mut world = World::registered(9);
    world.desired.says.status = InstanceStatus::Draining;
    let mut last_beat = world.now;
    let mut updates = 0;
    while world.now - world.begin < Duration::from_secs(120) {
        match world.next().1 {
            // It hangs until it is given up, and the owner has changed its mind again.
            Action::Update { within, .. } => {
                updates += 1;
                world.now += within;
                world.desired.says.weight += 1;
                world.apply(Outcome::Updated(Err(unreachable())));
            }
            Action::Renew { .. } => {
                let since = world.now - last_beat;
                assert!(since < TTL * 3 / 5, "{since:?} after the last one");
                last_beat = world.now;
                world.apply(Outcome::Renewed(Ok(Some(TTL))));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(updates > 20, "and updates are tried in between: {updates}");
}

/// Nacos puts an instance back online that its operator had taken off, when its client reconnects (alibaba/nacos 10975).
#[test]
fn a_draining_instance_that_registers_again_stays_draining() {
    let mut world = World::registered(10);
    world.desired.says.status = InstanceStatus::Draining;
    world.next();
    world.apply(Outcome::Updated(Ok(12)));
    world.next();
    world.apply(Outcome::Renewed(Err(lease_unknown(Some(1)))));
    let (_, _, says) = world.register_request();
    assert_eq!(says.status, InstanceStatus::Draining);
    world.apply(Outcome::Registered(Ok(granted(20))));
    assert!(matches!(
        world.machine.status(),
        RegistrarStatus::Draining { epoch: 20, .. }
    ));
}

#[test]
fn an_update_in_doubt_is_followed_by_another_even_back_to_the_old_words() {
    let mut world = World::registered(11);
    world.desired.says.weight = 5;
    assert!(matches!(world.next().1, Action::Update { .. }));
    world.apply(Outcome::Updated(Err(unreachable())));
    world.desired.says.weight = 100;
    let (waited, action) = world.next();
    assert_eq!(waited, Duration::ZERO, "new words need not wait");
    assert!(
        matches!(&action, Action::Update { says, .. } if says.weight == 100),
        "{action:?}"
    );
}

#[test]
fn a_refused_update_does_not_disturb_the_heartbeats() {
    let mut world = World::registered(12);
    world.desired.says.weight = 5_000;
    let (mut updates, mut last_beat) = (0, world.now);
    while world.now - world.begin < Duration::from_secs(600) {
        match world.next().1 {
            Action::Update { .. } => {
                updates += 1;
                world.apply(Outcome::Updated(Err(answer(
                    Code::InvalidArgument,
                    "INVALID_ARGUMENT",
                    None,
                ))));
                assert_eq!(world.reason(), "INVALID_ARGUMENT");
            }
            Action::Renew { .. } => {
                assert!(world.now - last_beat <= INTERVAL);
                last_beat = world.now;
                world.apply(Outcome::Renewed(Ok(Some(TTL))));
                assert_eq!(world.reason(), "INVALID_ARGUMENT", "a heartbeat does not hide it");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((60..250).contains(&updates), "{updates} updates in ten minutes");
    world.desired.says.weight = 50;
    while !matches!(world.next().1, Action::Update { .. }) {
        world.apply(Outcome::Renewed(Ok(Some(TTL))));
    }
    world.apply(Outcome::Updated(Ok(30)));
    assert!(matches!(
        world.machine.status(),
        RegistrarStatus::Registered { revision: 30, .. }
    ));
}

/// Every update named all three fields, so one value that the registry refused took every later drain with it.
#[test]
fn a_refused_field_does_not_hold_back_another() {
    let mut world = World::registered(12);
    world.desired.says.metadata.insert("k".into(), "x".repeat(2_000));
    world.desired.says.weight = 5_000;
    let refused = || Outcome::Updated(Err(answer(Code::InvalidArgument, "INVALID_ARGUMENT", None)));
    let refuse = |world: &mut World, n| {
        let mut tried = Vec::new();
        while tried.len() < n {
            let outcome = match world.next().1 {
                Action::Update { field, .. } => {
                    tried.push(field);
                    refused()
                }
                _ => Outcome::Renewed(Ok(Some(TTL))),
            };
            world.apply(outcome);
        }
        tried
    };
    refuse(&mut world, 20);

    world.desired.says.status = InstanceStatus::Draining;
    let (waited, action) = world.next();
    assert_eq!(waited, Duration::ZERO);
    assert!(
        matches!(
            action,
            Action::Update {
                field: Field::Status,
                ..
            }
        ),
        "{action:?}"
    );
    world.apply(Outcome::Updated(Ok(12)));
    assert!(matches!(world.machine.status(), RegistrarStatus::Draining { .. }));

    let tried = refuse(&mut world, 20);
    assert!(!tried.contains(&Field::Status), "told once: {tried:?}");
    for field in [Field::Weight, Field::Metadata] {
        let n = tried.iter().filter(|tried| **tried == field).count();
        assert!(n >= 5, "{field:?} is tried {n} times of 20");
    }
}

#[test]
fn a_field_that_changes_all_the_time_leaves_room_for_the_others() {
    let mut world = World::registered(12);
    world.desired.says.metadata.insert("k".into(), "v".into());
    let mut told = Vec::new();
    for _ in 0..4 {
        world.desired.says.weight += 1;
        let (_, Action::Update { field, .. }) = world.next() else {
            panic!("{:?}", world.machine)
        };
        told.push(field);
        world.apply(Outcome::Updated(Ok(12)));
    }
    assert_eq!(told, [Field::Weight, Field::Metadata, Field::Weight, Field::Weight]);
}

/// Two processes with one id throw each other out. That cannot be cured here, but it must not become a storm.
#[test]
fn a_contested_id_is_fought_for_more_and_more_slowly() {
    let mut world = World::registered(13);
    for _ in 0..12 {
        world.next();
        world.apply(Outcome::Renewed(Err(stale_epoch())));
        world.register_request();
        world.apply(Outcome::Registered(Ok(granted(9))));
    }
    let mut waits = Vec::new();
    for _ in 0..20 {
        world.next();
        world.apply(Outcome::Renewed(Err(stale_epoch())));
        waits.push(world.register_request().0.as_secs_f64());
        world.apply(Outcome::Registered(Ok(granted(9))));
    }
    let mean = waits.iter().sum::<f64>() / 20.0;
    assert!((3.0..7.0).contains(&mean), "mean of the waits: {mean} s");

    // Once it has been left alone for the life of a lease, all is forgiven.
    for _ in 0..4 {
        world.next();
        world.apply(Outcome::Renewed(Ok(Some(TTL))));
    }
    world.next();
    world.apply(Outcome::Renewed(Err(lease_unknown(None))));
    assert!(world.register_request().0 <= Duration::from_millis(200));
}

#[test]
fn leaving_from_wherever_it_stands() {
    let mut absent = World::new(14);
    absent.desired.leave = Some(Removal::Drained);
    assert_eq!(absent.next().1, Action::Done);
    assert_eq!(absent.machine.status(), RegistrarStatus::Left);

    for answer in [Ok(()), Err(unreachable()), Err(lease_unknown(None))] {
        let mut held = World::registered(15);
        held.desired.leave = Some(Removal::Drained);
        let (waited, action) = held.next();
        assert_eq!(waited, Duration::ZERO);
        assert!(
            matches!(
                action,
                Action::Deregister {
                    removal: Removal::Drained,
                    ..
                }
            ),
            "{action:?}"
        );
        held.apply(Outcome::Deregistered(answer));
        assert_eq!(held.next().1, Action::Done, "once is enough");
    }
}

#[test]
fn an_answer_to_another_question_changes_nothing() {
    let outcomes = || {
        [
            Outcome::Registered(Ok(granted(9))),
            Outcome::Renewed(Ok(None)),
            Outcome::Updated(Ok(9)),
        ]
    };
    for outcome in outcomes() {
        let mut fresh = World::new(16);
        fresh.apply(outcome);
        assert_eq!(fresh.machine.status(), RegistrarStatus::Registering);
    }
    let mut held = World::registered(17);
    for outcome in outcomes() {
        held.apply(outcome);
    }
    assert!(matches!(held.next().1, Action::Renew { lease, .. } if lease.id == "lease-7"));
}
