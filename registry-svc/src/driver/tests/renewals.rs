//! What a heartbeat is told: at once where nothing can take it back, and else when it is certain.

use super::stage::Stage;
use crate::{catalog::RenewError, model::ReplicaId, store::Verdict};

fn kept() -> Stage {
    let mut stage = Stage::new();
    let kept = stage.register(1, "x");
    stage.commit_all();
    kept.ok();
    stage
}

/// The simulation's seed 138: a replacement was on its way to a full disk, the owner renewed and was told that it is fenced, its
/// time was not extended, and what fenced it never happened. It could not register either, so it lapsed, alive and in time.
#[test]
fn nobody_is_refused_for_what_did_not_happen() {
    let mut stage = kept();
    stage.pass(4_500);
    let _replacement = stage.register(2, "x");
    stage.batches();
    let mut renewed = stage.hear(1);
    assert!(renewed.try_recv().is_err(), "not before it is certain");
    stage.verdict(Verdict::NoRoom("full".into()));
    assert!(renewed.try_recv().expect("answered")[0].is_ok());
    stage.pass(4_900);
    assert!(stage.job().is_none(), "it has its full time");
    stage.pass(200);
    assert_eq!(stage.batches().len(), 1, "and no more");
}

/// The same where another replica was first.
#[test]
fn a_refusal_that_was_overtaken_is_thought_over() {
    let mut stage = Stage::of(ReplicaId::from_bits(1));
    let kept = stage.register(1, "x");
    stage.commit_all();
    kept.ok();
    let _replacement = stage.register(2, "x");
    stage.batches();
    let mut renewed = stage.hear(1);
    assert!(renewed.try_recv().is_err());
    stage.verdict(Verdict::Overtaken);
    assert!(renewed.try_recv().expect("answered")[0].is_ok());
}

#[test]
fn who_was_replaced_is_told_when_that_is_durable() {
    let mut stage = kept();
    let replacement = stage.register(2, "x");
    stage.batches();
    let mut renewed = stage.hear(1);
    assert!(renewed.try_recv().is_err());
    // What comes later does not make it wait for longer.
    let _later = stage.register(3, "y");
    stage.verdict(Verdict::Durable);
    replacement.ok();
    assert_eq!(renewed.try_recv().expect("answered"), [Err(RenewError::LeaseFenced)]);
}

#[test]
fn an_owner_who_is_heard_while_its_end_is_on_its_way_lives_if_that_fails() {
    let mut stage = kept();
    stage.pass(5_000);
    stage.batches();
    let mut renewed = stage.hear(1);
    assert!(renewed.try_recv().is_err());
    stage.verdict(Verdict::NoRoom("full".into()));
    assert!(renewed.try_recv().expect("answered")[0].is_ok());
    stage.pass(4_900);
    assert!(stage.job().is_none());
}

#[test]
fn nobody_waits_for_a_store_that_is_away() {
    let mut stage = Stage::of(ReplicaId::from_bits(1));
    let kept = stage.register(1, "x");
    stage.commit_all();
    kept.ok();
    let _replacement = stage.register(2, "x");
    stage.batches();
    let mut refused = stage.hear(1);
    assert!(stage.hear(2).try_recv().expect("at once")[0].is_ok());
    stage.away(3_000);
    stage.pass(2_000);
    assert!(refused.try_recv().expect("answered")[0].is_err());
}

/// Nothing is on its way: a stranger is refused at once.
#[test]
fn a_stranger_is_refused_at_once_when_all_is_durable() {
    let mut stage = kept();
    assert_eq!(
        stage.hear(9).try_recv().expect("at once"),
        [Err(RenewError::LeaseUnknown)]
    );
}
