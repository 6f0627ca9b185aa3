//! A store without room: what needs some is refused, everything else goes on, and it ends by itself.

use super::stage::Stage;
use crate::{
    catalog::{CatalogError, Command},
    driver::SubmitError,
    fixtures::{draft, grant, heartbeat},
    model::ReplicaId,
    store::Verdict,
};

fn full() -> Verdict {
    Verdict::NoRoom("4 KiB left".into())
}

#[test]
fn a_full_disk_sheds_and_recovers() {
    let mut stage = Stage::new();
    let first = stage.register(1, "first");
    stage.commit_all();
    first.ok();

    let refused = stage.register(2, "second");
    stage.batches();
    let later = stage.register(3, "third");
    stage.verdict(full());
    let error = refused.err();
    assert!(
        matches!(&error, SubmitError::NoRoom(why) if why == "4 KiB left"),
        "{error}"
    );
    // What stood behind it is tried on its own, from where the catalog now is.
    assert_eq!(stage.batches()[0].revision.get(), 2);
    stage.verdict(full());
    assert!(matches!(later.err(), SubmitError::NoRoom(_)));

    // Nobody goes to the disk for the next second.
    for n in 10..20 {
        assert!(matches!(stage.register(n, "more").err(), SubmitError::NoRoom(_)));
    }
    assert!(stage.job().is_none());
    assert_eq!(stage.ids(), ["first"], "reads go on");
    assert!(stage.renew(1).is_ok(), "renewals go on");
    assert!(stage.renew(2).is_err(), "what was refused was not done");

    stage.pass(1_000);
    let probe = stage.register(20, "probe");
    stage.batches();
    assert!(
        matches!(stage.register(21, "x").err(), SubmitError::NoRoom(_)),
        "one probe a second"
    );
    stage.verdict(Verdict::Durable);
    probe.ok();
    let after = stage.register(22, "after");
    stage.commit_all();
    after.ok();
    assert_eq!(stage.ids(), ["after", "first", "probe"]);
    stage.core.catalog.check_invariants();
}

/// A replica that takes no registrations never asked a store again that had been full once, so it never became the owner of
/// the leases whose heartbeats it heard: those that a dead replica had left lapsed although they were renewed.
#[test]
fn a_claim_is_a_probe() {
    let mut other = Stage::of(ReplicaId::from_bits(2));
    other.register(1, "1");
    let mut stage = Stage::of(ReplicaId::from_bits(1));
    stage.others(&other.batches());
    stage.register(2, "2");
    stage.batches();
    stage.verdict(full());

    assert!(stage.renew(1).expect("lives").claim);
    assert!(stage.job().is_none(), "there was no room a moment ago");
    stage.pass(1_000);
    stage.renew(1).expect("lives");
    assert_eq!(stage.batches().len(), 1);
    stage.verdict(Verdict::Durable);
    assert!(!stage.renew(1).expect("lives").claim, "it is ours");
}

/// A deregistration makes room; committed together with a registration it would fail for the registration's sake.
#[test]
fn what_makes_room_is_tried_alone() {
    let mut stage = Stage::new();
    let kept = stage.register(1, "1");
    stage.commit_all();
    kept.ok();
    let large = stage.register(2, "2");
    let mut ended = stage.end(1);
    stage.batches();
    stage.verdict(full());
    assert!(matches!(large.err(), SubmitError::NoRoom(_)));
    assert!(ended.is_open());
    let alone = stage.batches();
    assert_eq!((alone.len(), alone[0].revision.get()), (1, 2));
    stage.verdict(Verdict::Durable);
    ended.ok();
    assert!(stage.ids().is_empty());
    assert!(
        matches!(stage.register(3, "3").err(), SubmitError::NoRoom(_)),
        "that proves no room for what needs some"
    );
}

#[test]
fn a_deregistration_that_does_not_fit_is_refused_and_the_next_is_tried() {
    let mut stage = Stage::new();
    let kept = stage.register(1, "1");
    stage.commit_all();
    kept.ok();
    for _ in 0..3 {
        let ended = stage.end(1);
        stage.batches();
        stage.verdict(full());
        assert!(matches!(ended.err(), SubmitError::NoRoom(_)));
        assert!(stage.job().is_none(), "not in a hot loop");
    }
    assert!(stage.renew(1).is_ok(), "the lease lives");
}

/// A lease stays overdue while its end does not fit, and is saved by a renewal.
#[test]
fn an_expiry_that_did_not_fit_is_tried_again_every_second() {
    let mut stage = Stage::new();
    let silent = stage.register(1, "silent");
    stage.commit_all();
    silent.ok();
    stage.pass(5_000);
    let mut tries = 0;
    for _ in 0..30 {
        if stage.job().is_some() {
            tries += 1;
            stage.verdict(full());
        }
        stage.pass(100);
    }
    assert!((2..=4).contains(&tries), "{tries} tries in 3 seconds");
    assert_eq!(stage.ids(), ["silent"], "it is not gone before that is durable");
    stage.pass(1_000);
    stage.batches();
    stage.verdict(Verdict::Durable);
    assert!(stage.ids().is_empty());
}

/// What changes nothing needs no room: a refusal says what is wrong, and a repeat gets its answer again.
#[test]
fn what_changes_nothing_is_answered_as_ever() {
    let mut stage = Stage::new();
    let twice = || {
        let mut register = grant(1, heartbeat(1_000), vec![draft("a", "1", "")]);
        register.request = Some(crate::catalog::RequestId { id: 7, body: [7; 32] });
        Command::Register(register)
    };
    let first = stage.submit(twice());
    stage.commit_all();
    first.ok();
    let refused = stage.register(2, "2");
    stage.batches();
    stage.verdict(full());
    refused.err();
    let repeat = stage.submit(twice());
    let unknown = stage.end(9);
    assert!(stage.job().is_none());
    repeat.ok();
    assert!(matches!(
        unknown.err(),
        SubmitError::Refused(CatalogError::LeaseUnknown)
    ));
}
