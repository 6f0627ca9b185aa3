//! A store that cannot be reached: changes are refused at once, nobody waits for ever, nothing lapses, and what was on its
//! way comes out as the store says.

use std::time::Duration;

use super::stage::Stage;
use crate::{
    driver::SubmitError,
    model::{Confidence, ReplicaId},
    store::{News, Verdict},
};

fn stage() -> Stage {
    Stage::of(ReplicaId::from_bits(1))
}

#[test]
fn changes_are_refused_at_once_and_the_rest_goes_on() {
    let mut stage = stage();
    let kept = stage.register(1, "kept");
    stage.commit_all();
    kept.ok();
    stage.away(3_000);
    assert!(matches!(stage.register(2, "x").err(), SubmitError::StoreAway));
    assert!(stage.job().is_none());
    assert_eq!(stage.ids(), ["kept"]);
    assert!(stage.renew(1).is_ok());
    stage.pass(500);
    let Confidence::Stale { age } = stage.confidence() else {
        panic!("{:?}", stage.confidence())
    };
    assert!(age >= Duration::from_secs(3), "since the last contact: {age:?}");
    stage.news(News::Back);
    assert_eq!(stage.confidence(), Confidence::Fresh);
    let after = stage.register(3, "y");
    stage.commit_all();
    after.ok();
}

/// For as long as the store is away no owner can be charged: what lapsed could not be told.
#[test]
fn nothing_lapses_while_the_store_is_away_nor_for_it() {
    let mut stage = stage();
    let kept = stage.register(1, "kept");
    stage.commit_all();
    kept.ok();
    stage.pass(4_000);
    stage.away(0);
    stage.pass(60_000);
    stage.news(News::Back);
    stage.pass(900);
    assert!(stage.job().is_none(), "it has what it had");
    stage.pass(200);
    assert_eq!(stage.batches().len(), 1, "and no more");
}

#[test]
fn what_was_on_its_way_and_was_committed() {
    let mut stage = stage();
    let mut sent = stage.register(1, "sent");
    stage.batches();
    let mut unsent = stage.register(2, "unsent");
    stage.away(3_000);
    assert!(sent.is_open() && unsent.is_open(), "it may come back in time");
    stage.pass(1_900);
    assert!(sent.is_open() && unsent.is_open());
    stage.pass(100);
    assert!(matches!(sent.err(), SubmitError::OutcomeUnknown));
    assert!(
        matches!(unsent.err(), SubmitError::StoreAway),
        "this one was certainly not done"
    );
    assert!(stage.ids().is_empty());
    stage.verdict(Verdict::Durable);
    assert_eq!(stage.ids(), ["sent"], "it was made after all");
    stage.news(News::Back);
    assert!(stage.job().is_none());
    assert!(stage.renew(1).is_ok());
    assert!(stage.renew(2).is_err());
    stage.core.catalog.check_invariants();
}

/// Its caller was told that nobody knows, and may have asked again: it is not done a second time.
#[test]
fn what_was_on_its_way_and_was_not_committed() {
    let (mut ours, mut theirs) = (stage(), Stage::of(ReplicaId::from_bits(2)));
    theirs.register(9, "theirs");
    let committed = theirs.batches();
    let sent = ours.register(1, "sent");
    ours.batches();
    ours.away(3_000);
    ours.pass(2_000);
    assert!(matches!(sent.err(), SubmitError::OutcomeUnknown));
    ours.others(&committed);
    ours.verdict(Verdict::Overtaken);
    ours.news(News::Back);
    assert!(ours.job().is_none());
    assert_eq!(ours.ids(), ["theirs"]);
    assert!(ours.renew(1).is_err());
}

#[test]
fn a_short_absence_is_noticed_by_nobody_who_waits() {
    let mut stage = stage();
    let sent = stage.register(1, "sent");
    stage.batches();
    let unsent = stage.register(2, "unsent");
    stage.away(3_000);
    stage.pass(1_000);
    stage.news(News::Back);
    stage.verdict(Verdict::Durable);
    sent.ok();
    stage.commit_all();
    unsent.ok();
}

/// "Back" promises that what was told before it is shown. Their batches wait for our verdict, so it waits with them.
#[test]
fn it_is_fresh_again_only_with_what_was_missed() {
    let (mut ours, mut theirs) = (stage(), Stage::of(ReplicaId::from_bits(2)));
    theirs.register(9, "theirs");
    let committed = theirs.batches();
    ours.register(1, "ours");
    ours.batches();
    ours.away(3_000);
    ours.others(&committed);
    ours.news(News::Back);
    assert!(matches!(ours.confidence(), Confidence::Stale { .. }));
    ours.verdict(Verdict::Overtaken);
    assert_eq!(ours.confidence(), Confidence::Fresh);
    assert_eq!(ours.ids(), ["theirs"]);
}

/// A "back" that waits behind a verdict is of yesterday when the store goes away again.
#[test]
fn an_old_back_does_not_end_a_new_absence() {
    let (mut ours, mut theirs) = (stage(), Stage::of(ReplicaId::from_bits(2)));
    theirs.register(9, "theirs");
    let committed = theirs.batches();
    ours.register(1, "ours");
    ours.batches();
    ours.away(3_000);
    ours.others(&committed);
    ours.news(News::Back);
    ours.away(0);
    ours.verdict(Verdict::Overtaken);
    assert!(matches!(ours.confidence(), Confidence::Stale { .. }));
}
