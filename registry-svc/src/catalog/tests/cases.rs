//! Single cases: the life of a lease, what another takes from it, what is refused, what is remembered.

use super::*;
use crate::{
    fixtures::{draft, end, grant, heartbeat, join, key, owner},
    model::Registrant,
};

#[test]
fn a_lease_lapses_when_its_time_has_passed_and_not_before() {
    let mut catalog = catalog();
    register(&mut catalog, grant(1, heartbeat(200), vec![draft("a", "1", "")])).expect("registers");
    assert_eq!(run(&mut catalog, 0, 900), Vec::<String>::new());
    catalog.renew(&owner(1)).expect("lives");
    assert_eq!(run(&mut catalog, 1_000, 5_000), ["1 at 1900"]);
    assert_eq!(catalog.renew(&owner(1)), Err(RenewError::Unknown));
}

/// SIGSTOP, a frozen machine: the registry heard no heartbeat, which is its own fault.
#[test]
fn a_pause_of_the_registry_expires_nobody() {
    let mut catalog = catalog();
    register(&mut catalog, grant(1, heartbeat(200), vec![draft("a", "1", "")])).expect("registers");
    assert_eq!(run(&mut catalog, 0, 500), Vec::<String>::new());
    // An hour later the lease has what it had left, half of its second, and the respite.
    assert_eq!(catalog.look(now(3_600_600)), Some(Duration::from_millis(3_600_000)));
    assert!(catalog.expire(WALL, 0).is_empty());
    assert_eq!(run(&mut catalog, 3_600_700, 3_605_000), ["1 at 3602600"]);
}

/// After a SIGCONT the timer runs first: leases with less than a pulse left lapsed although their heartbeats had come during the
/// pause, for nobody had read the sockets yet.
#[test]
fn after_a_pause_there_is_time_to_read_what_has_come_meanwhile() {
    let mut catalog = catalog();
    register(&mut catalog, grant(1, heartbeat(200), vec![draft("a", "1", "")])).expect("registers");
    assert_eq!(run(&mut catalog, 0, 950), Vec::<String>::new());
    assert_eq!(run(&mut catalog, 60_000, 60_500), Vec::<String>::new());
    catalog.renew(&owner(1)).expect("its heartbeat is read at last");
    assert_eq!(run(&mut catalog, 60_600, 65_000), ["1 at 62000"]);
}

/// A box that is starved has a pause between any two looks, and loses its dead all the same.
#[test]
fn pauses_without_end_keep_nobody() {
    let mut catalog = catalog();
    register(&mut catalog, grant(1, heartbeat(200), vec![draft("a", "1", "")])).expect("registers");
    let pauses = (1..).find(|pauses| {
        catalog.look(now(pauses * 5_000));
        !catalog.expire(WALL, 0).is_empty()
    });
    // Each counts for a tenth of a second: the lease's time, and the respites of 2 s with as much between them.
    assert_eq!(pauses, Some(21));
}

#[test]
fn a_restart_gives_every_lease_its_full_time_and_expires_nobody_before_all_could_be_back() {
    let mut before = catalog();
    let mut leases = Vec::new();
    let mut instances = Vec::new();
    for (n, interval) in [(1, 100), (2, 1_000), (3, 3_600_000)] {
        let drafts = vec![draft("a", &n.to_string(), "")];
        let batch = before
            .apply(&Command::Register(grant(n, heartbeat(interval), drafts)), WALL)
            .batch
            .expect("a batch");
        for change in &batch.changes {
            if let Change::Put { instance, .. } = change {
                instances.push(Arc::clone(instance));
            }
        }
        leases.extend(batch.leases.iter().map(|change| match change {
            LeaseChange::Kept(record) => record.clone(),
            other => panic!("{other:?}"),
        }));
    }
    let mut after = Catalog::restore(Settings::default(), before.revision, leases, &instances, now(0).moment);
    after.check_invariants();
    assert_eq!(after.confidence(), Confidence::Recovering);
    assert_eq!(
        run(&mut after, 0, 59_900),
        Vec::<String>::new(),
        "the longest is bounded by a minute"
    );
    assert_eq!(run(&mut after, 60_000, 61_000), ["1 at 60000", "2 at 60000"]);
    assert_eq!(after.confidence(), Confidence::Fresh);
    assert_eq!(catalog().confidence(), Confidence::Fresh, "there is nobody to wait for");
}

#[test]
fn a_rack_that_dies_is_a_few_revisions_and_a_lease_is_never_split() {
    let mut settings = Settings::default();
    settings.protection.enabled = false;
    let mut catalog = Catalog::restore(settings, Revision::ZERO, Vec::new(), &[], now(0).moment);
    for n in 0..500 {
        let drafts = (0..5).map(|i| draft("a", &format!("{n}-{i}"), "")).collect();
        register(&mut catalog, grant(n, heartbeat(100), drafts)).expect("registers");
    }
    run(&mut catalog, 0, 400);
    catalog.look(now(500));
    let sizes: Vec<usize> = catalog
        .expire(WALL, 0)
        .iter()
        .map(|(batch, _)| batch.changes.len())
        .collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
    catalog.check_invariants();
}

#[test]
fn shorter_terms_are_kept_at_once() {
    let mut catalog = catalog();
    register(&mut catalog, grant(1, heartbeat(10_000), vec![draft("a", "1", "")])).expect("registers");
    let mut shorter = join(1, vec![draft("a", "2", "")]);
    let LeaseChoice::Join { terms, .. } = &mut shorter.lease else {
        panic!("joins")
    };
    terms.interval = Some(Duration::from_millis(100));
    assert_eq!(
        register(&mut catalog, shorter).expect("joins").ttl,
        Duration::from_millis(500)
    );
    assert_eq!(run(&mut catalog, 0, 1_000), ["1 at 500", "2 at 500"]);
}

#[test]
fn an_emptied_lease_lives_on_until_it_lapses() {
    let mut catalog = catalog();
    register(&mut catalog, grant(1, heartbeat(100), vec![draft("a", "1", "")])).expect("registers");
    catalog
        .apply(&Command::Deregister(end(1, &["1"])), WALL)
        .reply
        .expect("ends the instance");
    catalog.renew(&owner(1)).expect("the lease lives");
    register(&mut catalog, join(1, vec![draft("a", "2", "")])).expect("and takes another");
    assert_eq!(run(&mut catalog, 0, 1_000), ["2 at 500"]);
}

/// Part of a lease may be taken by another: what is left of it goes on, what was taken is not its own any more.
#[test]
fn a_lease_loses_what_another_takes_and_is_fenced_off_when_that_is_all() {
    let mut catalog = catalog();
    register(
        &mut catalog,
        grant(1, heartbeat(100), vec![draft("a", "1", ""), draft("a", "2", "")]),
    )
    .expect("registers");
    register(&mut catalog, grant(2, heartbeat(100), vec![draft("a", "1", "")])).expect("takes one");
    catalog.renew(&owner(1)).expect("it has another");
    let stale = catalog
        .apply(&Command::Deregister(end(1, &["1"])), WALL)
        .reply
        .expect_err("taken");
    assert_eq!(stale, CatalogError::StaleEpoch(key("a", "1")));

    register(&mut catalog, grant(3, heartbeat(100), vec![draft("a", "2", "")])).expect("takes the other");
    assert_eq!(catalog.renew(&owner(1)), Err(RenewError::Fenced));
    assert_eq!(
        register(&mut catalog, join(1, vec![draft("a", "1", "")])).expect_err("fenced"),
        CatalogError::LeaseFenced
    );
    // It cannot be renewed, so it goes; what it lost stays with its new owners.
    for millis in (0..=2_000).step_by(100) {
        catalog.look(now(millis));
        catalog.expire(WALL, 0);
        catalog.renew(&owner(2)).expect("lives");
        catalog.renew(&owner(3)).expect("lives");
    }
    assert_eq!((catalog.leases(), catalog.instances()), (2, 2));
    catalog.check_invariants();
}

/// A lease lost one instance to another and its owner deregistered the rest: it passed for one that had lost everything, so its
/// owner, alive and renewing, was told that it had been succeeded.
#[test]
fn a_lease_that_its_owner_empties_is_not_fenced_off_by_what_it_lost_before() {
    let mut catalog = catalog();
    let both = vec![draft("a", "1", ""), draft("a", "2", "")];
    register(&mut catalog, grant(1, heartbeat(100), both)).expect("registers");
    register(&mut catalog, grant(2, heartbeat(100), vec![draft("a", "1", "")])).expect("takes one");
    let outcome = catalog.apply(&Command::Deregister(end(1, &["2"])), WALL);
    outcome.reply.expect("ends the other");
    catalog.renew(&owner(1)).expect("the lease lives");
    let stale = catalog.apply(&Command::Deregister(end(1, &["1"])), WALL).reply;
    assert_eq!(stale.expect_err("taken"), CatalogError::StaleEpoch(key("a", "1")));
    catalog.check_invariants();

    // It does so after a restart too.
    let record = match outcome.batch.expect("a batch").leases.as_slice() {
        [LeaseChange::Kept(record)] => record.clone(),
        other => panic!("{other:?}"),
    };
    let mut again = Catalog::restore(Settings::default(), catalog.revision, vec![record], &[], now(0).moment);
    again.renew(&owner(1)).expect("the lease lives");

    register(&mut catalog, join(1, vec![draft("a", "3", "")])).expect("takes the next instance");
    // Once that is taken nothing is left of it after all.
    register(&mut catalog, grant(3, heartbeat(100), vec![draft("a", "3", "")])).expect("takes it");
    assert_eq!(catalog.renew(&owner(1)), Err(RenewError::Fenced));
    catalog.check_invariants();
}

/// A quota counts what is there, whichever way it came and goes: an update of what one has costs nothing, what another takes over
/// is that one's, and what lapses or is taken back is given back.
#[test]
fn a_registrant_has_its_quota() {
    let settings = |limit| Settings {
        capacity: Capacity {
            instances_of_registrant: Some(limit),
            ..Capacity::default()
        },
        protection: Protection {
            enabled: false,
            ..Protection::default()
        },
        ..Settings::default()
    };
    let mut catalog = Catalog::restore(settings(2), Revision::ZERO, Vec::new(), &[], now(0).moment);
    let (ann, bob) = (Some(Registrant::of("ann")), Some(Registrant::of("bob")));
    let ask = |registrant, n, ids: &[&str]| Register {
        registrant,
        ..grant(n, heartbeat(200), ids.iter().map(|id| draft("a", id, "")).collect())
    };
    let over = |held| CatalogError::QuotaExceeded { limit: 2, held };
    assert_eq!(
        register(&mut catalog, ask(ann, 1, &["1", "2", "3"])),
        Err(over(0)),
        "all or none"
    );
    register(&mut catalog, ask(ann, 1, &["1", "2"])).expect("as many as it may");
    assert_eq!(register(&mut catalog, ask(ann, 2, &["3"])), Err(over(2)));
    assert_eq!(
        register(&mut catalog, join(1, vec![draft("a", "3", "")])),
        Err(over(2)),
        "by whatever lease"
    );
    register(&mut catalog, ask(ann, 3, &["1"])).expect("what it has already");
    register(&mut catalog, join(1, vec![draft("a", "2", "")])).expect("what it has already");
    register(&mut catalog, ask(bob, 4, &["2", "4"])).expect("another has its own");
    register(&mut catalog, ask(ann, 5, &["3"])).expect("one was taken over");
    register(&mut catalog, ask(None, 6, &["5", "6", "7"])).expect("who has no quota");
    let refused = register(&mut catalog, ask(ann, 7, &["8"]));
    assert_eq!(refused, Err(over(2)));

    // What is not made durable was never there.
    let ended = catalog.apply(&Command::Deregister(end(5, &[])), WALL);
    let anew = catalog.apply(&Command::Register(ask(ann, 7, &["8"])), WALL);
    anew.reply.expect("there is room");
    catalog.undo(anew.undo);
    catalog.undo(ended.undo);
    catalog.check_invariants();
    assert_eq!(register(&mut catalog, ask(ann, 7, &["8"])), Err(over(2)));

    // A restart with another limit: what is there stays, and may be registered again.
    let leases = catalog.leases.iter().map(|(id, lease)| lease.record(*id)).collect();
    let instances: Vec<_> = catalog.instances.iter().map(|held| Arc::clone(&held.0)).collect();
    let mut after = Catalog::restore(settings(1), catalog.revision, leases, &instances, now(0).moment);
    register(&mut after, ask(ann, 8, &["1"])).expect("what it has already");
    assert_eq!(
        register(&mut after, ask(ann, 9, &["8"])),
        Err(CatalogError::QuotaExceeded { limit: 1, held: 2 })
    );
    after.check_invariants();

    run(&mut catalog, 0, 5_000);
    register(&mut catalog, ask(ann, 9, &["1", "3"])).expect("all that it had has lapsed");
}

#[test]
fn capacity_is_kept() {
    let settings = Settings {
        capacity: Capacity {
            instances: 2,
            leases: 2,
            ..Capacity::default()
        },
        ..Settings::default()
    };
    let mut catalog = Catalog::restore(settings, Revision::ZERO, Vec::new(), &[], now(0).moment);
    register(
        &mut catalog,
        grant(1, heartbeat(100), vec![draft("a", "1", ""), draft("a", "2", "")]),
    )
    .expect("fits");
    let full = register(&mut catalog, grant(2, heartbeat(100), vec![draft("a", "3", "")]));
    assert!(
        matches!(full, Err(CatalogError::RegistryFull { what: "instances", .. })),
        "{full:?}"
    );
    register(&mut catalog, grant(2, heartbeat(100), vec![draft("a", "1", "")])).expect("a replacement adds nothing");
    let full = register(&mut catalog, grant(3, heartbeat(100), vec![draft("a", "1", "")]));
    assert!(
        matches!(full, Err(CatalogError::RegistryFull { what: "leases", .. })),
        "{full:?}"
    );
    catalog.check_invariants();
}

#[test]
fn a_request_is_remembered_for_ten_minutes() {
    let mut catalog = catalog();
    let request = |n, body| Register {
        request: Some(RequestId {
            id: 1,
            body: [body; 32],
        }),
        ..grant(n, heartbeat(1_000_000), vec![draft("a", "1", "")])
    };
    let first = register(&mut catalog, request(1, 1)).expect("registers");
    assert_eq!(
        register(&mut catalog, request(2, 1)).expect("the same").lease,
        first.lease
    );
    assert_eq!(
        register(&mut catalog, request(3, 2)).expect_err("another body"),
        CatalogError::RequestIdReused
    );
    run(&mut catalog, 0, 599_900);
    assert_eq!(
        register(&mut catalog, request(4, 1)).expect("the same").lease,
        first.lease
    );
    run(&mut catalog, 600_000, 600_100);
    assert_eq!(
        register(&mut catalog, request(5, 2)).expect("forgotten").lease,
        owner(5).lease
    );
    catalog.check_invariants();
}

/// A client whose first answer was lost asks again just before its lease would lapse, or after. It was given the lease as it
/// was: one with a moment to live, or a dead one that the first renewal refused.
#[test]
fn a_repeated_request_gets_a_lease_that_it_can_renew() {
    let mut catalog = catalog();
    let request = |n| Register {
        request: Some(RequestId { id: 1, body: [1; 32] }),
        ..grant(n, heartbeat(100), vec![draft("a", "1", "")])
    };
    let first = register(&mut catalog, request(1)).expect("registers");
    run(&mut catalog, 0, 400);
    assert_eq!(register(&mut catalog, request(2)).expect("the same").lease, first.lease);
    assert_eq!(
        run(&mut catalog, 500, 800),
        Vec::<String>::new(),
        "it has its full time again"
    );
    assert_eq!(run(&mut catalog, 900, 1_500), ["1 at 900"]);
    let anew = register(&mut catalog, request(3)).expect("registers anew");
    assert_eq!(anew.lease, owner(3).lease);
    assert!(anew.revision > first.revision);
    catalog.renew(&owner(3)).expect("lives");
    assert_eq!(register(&mut catalog, request(4)).expect("the same").lease, anew.lease);
    catalog.check_invariants();
}

/// A late repeat by a process that has been succeeded must neither take the instance back nor keep its dead lease.
#[test]
fn a_repeat_by_a_former_owner_changes_nothing() {
    let mut catalog = catalog();
    let request = |n| Register {
        request: Some(RequestId { id: 1, body: [1; 32] }),
        ..grant(n, heartbeat(100), vec![draft("a", "1", "")])
    };
    register(&mut catalog, request(1)).expect("registers");
    register(&mut catalog, grant(2, heartbeat(100_000), vec![draft("a", "1", "")])).expect("takes it");
    run(&mut catalog, 0, 400);
    assert_eq!(
        register(&mut catalog, request(3)).expect("the same").lease,
        owner(1).lease
    );
    assert_eq!(catalog.renew(&owner(1)), Err(RenewError::Fenced));
    run(&mut catalog, 500, 500);
    assert_eq!(catalog.leases(), 1, "it has gained no time");
}

/// A lease joins another instance with a shorter time to live, and that does not get into the store. Its owner was told that
/// nothing was done and went on to renew in time by its old terms, but its lease lapsed by the new ones.
#[test]
fn shorter_terms_that_are_undone_cost_nobody_anything() {
    let mut catalog = catalog();
    register(&mut catalog, grant(1, heartbeat(5_000), vec![draft("a", "1", "")])).expect("registers");
    let mut shorter = join(1, vec![draft("a", "2", "")]);
    let LeaseChoice::Join { terms, .. } = &mut shorter.lease else {
        panic!("joins")
    };
    terms.interval = Some(Duration::from_millis(100));
    let joined = catalog.apply(&Command::Register(shorter), WALL);
    catalog.undo(joined.undo);
    assert_eq!(run(&mut catalog, 0, 24_900), Vec::<String>::new());
    assert_eq!(run(&mut catalog, 25_000, 26_000), ["1 at 25000"]);
}

/// At a restart a lease that something was taken from came back before what was left to it: it looked as if it had lost all, and
/// got the minute of such a one instead of its hours.
#[test]
fn what_is_left_to_a_lease_keeps_its_time_over_a_restart() {
    let hour = 3_600_000;
    let mut before = catalog();
    let drafts = || vec![draft("a", "1", ""), draft("a", "2", "")];
    register(&mut before, grant(1, heartbeat(hour), drafts())).expect("registers");
    let taken = grant(2, heartbeat(hour), vec![draft("a", "1", "")]);
    register(&mut before, taken).expect("takes one");
    let records = [1, 2].map(|n| before.leases.get(owner(n).lease).expect("lives").record(owner(n).lease));
    let instances: Vec<Arc<Instance>> = before
        .leases
        .iter()
        .flat_map(|(_, lease)| lease.instances().to_vec())
        .collect();
    let after = Catalog::restore(
        Settings::default(),
        before.revision,
        records.to_vec(),
        &instances,
        now(0).moment,
    );
    let due = |n: u128| after.leases.get(owner(n).lease).expect("lives").deadline();
    assert_eq!(due(1), due(2));
    after.check_invariants();
}

/// A process with a long time to live that crashed and started over once a second left a lease each time, for days: in the end the
/// registry was full for everybody.
#[test]
fn who_has_been_succeeded_is_gone_within_a_minute() {
    let mut catalog = catalog();
    for n in 1..4 {
        register(&mut catalog, grant(n, heartbeat(3_600_000), vec![draft("a", "1", "")])).expect("registers");
    }
    let (leases, instances): (Vec<LeaseRecord>, Vec<Arc<Instance>>) = {
        let (instances, leases, _) = catalog.content();
        (leases.into_values().collect(), instances.into_values().collect())
    };
    let mut again = Catalog::restore(Settings::default(), catalog.revision, leases, &instances, now(0).moment);
    for catalog in [&mut catalog, &mut again] {
        run(catalog, 0, 59_900);
        assert_eq!(catalog.leases(), 3);
        run(catalog, 60_000, 60_100);
        assert_eq!((catalog.leases(), catalog.instances()), (1, 1));
        assert_eq!(run(catalog, 60_200, 120_000), Vec::<String>::new());
    }
}
