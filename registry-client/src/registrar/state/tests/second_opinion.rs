//! A replica that has not heard of a lease yet, and a lease that is gone.

use super::*;

/// A machine of a registry that has another endpoint to ask, registered.
fn replicated() -> World {
    let mut world = World::new(18);
    world.machine = Machine::new(INTERVAL, 3, true, world.now);
    world.register_request();
    world.apply(Outcome::Registered(Ok(granted(7))));
    world
}

fn renewal(world: &mut World) -> Duration {
    match world.next() {
        (waited, Action::Renew { lease, .. }) if lease.id == "lease-7" => waited,
        other => panic!("not a heartbeat: {other:?}"),
    }
}

/// The first who does not know a lease was believed: a registrar that went over to a replica which was a moment behind gave up
/// its good lease.
#[test]
fn one_who_does_not_know_the_lease_is_not_believed_alone() {
    let mut world = replicated();
    for _ in 0..3 {
        renewal(&mut world);
        world.apply(Outcome::Renewed(Err(lease_unknown(Some(1)))));
        assert_eq!(world.reason(), "LEASE_UNKNOWN");
        assert_eq!(renewal(&mut world), Duration::from_secs(1), "when the registry says");
        world.apply(Outcome::Renewed(Ok(Some(TTL))));
        assert!(matches!(
            world.machine.status(),
            RegistrarStatus::Registered { epoch: 7, .. }
        ));
    }
}

#[test]
fn a_second_opinion_does_not_wait_longer_than_the_lease_can() {
    for retry_after in [Some(1_000), None] {
        let mut world = replicated();
        renewal(&mut world);
        world.apply(Outcome::Renewed(Err(lease_unknown(retry_after))));
        assert!(renewal(&mut world) <= TTL / 8);
    }
}

#[test]
fn two_who_do_not_know_the_lease_are_believed() {
    let mut world = replicated();
    renewal(&mut world);
    world.apply(Outcome::Renewed(Err(lease_unknown(Some(1)))));
    renewal(&mut world);
    // Whom nobody hears has no opinion.
    world.apply(Outcome::Renewed(Err(unreachable())));
    renewal(&mut world);
    world.apply(Outcome::Renewed(Err(lease_unknown(Some(1)))));
    world.register_request();
}

#[test]
fn a_lease_that_must_have_lapsed_needs_no_second_opinion() {
    let mut world = replicated();
    renewal(&mut world);
    world.now += TTL;
    world.apply(Outcome::Renewed(Err(lease_unknown(Some(1)))));
    world.register_request();
}

/// The lease lives and the instance is not there: asked for the update alone, the machine would go round in circles between a
/// heartbeat that succeeds and an update that does not.
#[test]
fn a_heartbeat_is_no_second_opinion_on_an_update() {
    let mut world = replicated();
    world.desired.says.weight = 7;
    let unknown = || answer(Code::NotFound, "INSTANCE_UNKNOWN", None);
    assert!(matches!(world.next().1, Action::Update { .. }));
    world.apply(Outcome::Updated(Err(unknown())));
    for _ in 0..100 {
        match world.next().1 {
            Action::Renew { .. } => world.apply(Outcome::Renewed(Ok(Some(TTL)))),
            Action::Update { .. } => world.apply(Outcome::Updated(Err(unknown()))),
            Action::Register { says, .. } => {
                assert_eq!(says.weight, 7);
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("{:?}", world.machine);
}
