//! What operators decide: when it ends by itself, who ends it, and what a full disk makes of it.

use super::stage::Stage;
use crate::{
    catalog::{Decision, Reply},
    driver::SubmitError,
    fixtures::key,
    model::{ReplicaId, Weight},
    store::Verdict,
};

fn full() -> Verdict {
    Verdict::NoRoom("full".into())
}

fn weight(weight: u32) -> Weight {
    Weight::try_new(weight).expect("a weight")
}

#[test]
fn a_drain_is_seen_when_it_is_durable_and_ends_by_a_commit() {
    let mut stage = Stage::new();
    stage.register(1, "1");
    stage.commit_all();
    let drained = stage.drain("1", Some(10));
    assert_eq!(stage.is_callable("1"), Some(true), "nobody sees what is not durable");
    stage.commit_all();
    let Reply::Governed { instance, revision } = drained.ok() else {
        panic!("another answer");
    };
    assert_eq!(
        (instance.expect("is registered").revision, revision.get()),
        (revision, 2)
    );
    assert_eq!(stage.is_callable("1"), Some(false));

    stage.wall = 9;
    stage.pass(200);
    assert!(stage.job().is_none(), "it is not over yet");
    stage.wall = 10;
    stage.pass(100);
    assert_eq!(stage.is_callable("1"), Some(false), "it is over when that is durable");
    let batches = stage.batches();
    stage.verdict(Verdict::Durable);
    assert_eq!((batches.len(), batches[0].overrides.len()), (1, 1));
    assert_eq!(stage.is_callable("1"), Some(true));
    stage.pass(1_000);
    assert!(stage.job().is_none(), "it ends once");
    stage.core.catalog.check_invariants();
}

#[test]
fn what_is_laid_over_a_name_waits_for_who_registers_it_again() {
    let mut stage = Stage::new();
    stage.register(1, "1");
    stage.drain("1", None);
    stage.govern(
        "1",
        Decision::SetWeight {
            weight: weight(7),
            until: None,
        },
    );
    stage.end(1);
    stage.commit_all();
    assert_eq!(stage.is_callable("1"), None);
    stage.register(2, "1");
    stage.commit_all();
    assert_eq!(stage.is_callable("1"), Some(false));
    stage.end(2);
    stage.govern("1", Decision::Undrain).is_open();
    stage.commit_all();
    let refused = stage.drain("1", None);
    stage.commit_all();
    assert!(
        matches!(refused.err(), SubmitError::Refused(_)),
        "of who is not there nothing is decided"
    );
    stage.register(3, "1");
    stage.commit_all();
    let instance = stage.hub.look(|view| view.get(&key("a", "1"))).expect("is there");
    assert_eq!((instance.is_callable(), instance.weight()), (true, weight(7)));
    assert_eq!(
        stage.hub.look(|view| view.laid_over(&key("a", "1"))),
        instance.governance
    );
}

/// The reader's clock has no say, and neither has that of a replica that is not elected.
#[test]
fn of_several_replicas_the_elected_one_ends_it() {
    let (mut elected, mut other) = (Stage::of(ReplicaId::from_bits(1)), Stage::of(ReplicaId::from_bits(2)));
    other.register(1, "1");
    other.drain("1", Some(10));
    let batches = other.batches();
    other.verdict(Verdict::Durable);
    elected.others(&batches);
    for stage in [&mut elected, &mut other] {
        assert_eq!(stage.is_callable("1"), Some(false));
        stage.wall = 11;
        stage.pass(200);
    }
    assert!(other.job().is_none());
    let ended = elected.batches();
    elected.verdict(Verdict::Durable);
    other.others(&ended);
    for stage in [&mut elected, &mut other] {
        assert_eq!(stage.is_callable("1"), Some(true));
        stage.core.catalog.check_invariants();
    }
}

/// An instance that burns has to be taken out whatever the disk says; what is not urgent waits for room as all writes do.
#[test]
fn a_drain_takes_no_room_and_a_weight_does() {
    let mut stage = Stage::new();
    stage.register(1, "1");
    stage.commit_all();
    stage.register(2, "2");
    stage.batches();
    stage.verdict(full());
    let set = Decision::SetWeight {
        weight: weight(7),
        until: None,
    };
    assert!(matches!(stage.govern("1", set).err(), SubmitError::NoRoom(_)));
    let drained = stage.drain("1", Some(5));
    let batches = stage.batches();
    assert!(!batches[0].grows());
    stage.verdict(Verdict::Durable);
    drained.ok();
    assert_eq!(stage.is_callable("1"), Some(false));
    assert!(matches!(
        stage.govern("1", Decision::Undrain).err(),
        SubmitError::NoRoom(_)
    ));
    stage.wall = 5;
    stage.pass(1_100);
    stage.commit_all();
    assert_eq!(
        stage.is_callable("1"),
        Some(true),
        "and what ends does so on a full disk"
    );
}

/// What could not be made durable has not been decided, and is not half there.
#[test]
fn what_is_taken_back_was_never_decided() {
    let mut stage = Stage::new();
    stage.register(1, "1");
    stage.commit_all();
    let drained = stage.drain("1", None);
    stage.batches();
    stage.verdict(full());
    assert!(matches!(drained.err(), SubmitError::NoRoom(_)));
    stage.core.catalog.check_invariants();
    stage.pass(1_100);
    let again = stage.drain("1", None);
    stage.commit_all();
    again.ok();
    assert_eq!(stage.is_callable("1"), Some(false));
    // What ended and was refused ends later.
    let mut stage = Stage::new();
    stage.register(1, "1");
    stage.drain("1", Some(1));
    stage.commit_all();
    stage.wall = 2;
    stage.pass(100);
    stage.batches();
    stage.verdict(full());
    assert_eq!(stage.is_callable("1"), Some(false));
    stage.pass(1_200);
    stage.commit_all();
    assert_eq!(stage.is_callable("1"), Some(true));
}
