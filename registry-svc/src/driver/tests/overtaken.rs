//! Another replica was first: what we had applied is taken back, theirs is followed, ours is applied again.

use super::stage::Stage;
use crate::{
    catalog::{CatalogError, Change, Command, Reply, Update},
    driver::{DriverError, SubmitError},
    fixtures::{draft, grant, heartbeat, key, owner},
    model::{Epoch, RemovalReason, ReplicaId, Replicas, Revision, Weight},
    store::{News, Verdict},
};

fn pair() -> (Stage, Stage) {
    (Stage::of(ReplicaId::from_bits(1)), Stage::of(ReplicaId::from_bits(2)))
}

fn registered(reply: Reply) -> u64 {
    match reply {
        Reply::Registered(registered) => registered.revision.get(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_registration_that_was_overtaken_is_a_replacement_then() {
    let (mut ours, mut theirs) = pair();
    let first = theirs.register(2, "x");
    let committed = theirs.batches();
    theirs.verdict(Verdict::Durable);
    first.ok();

    let mut second = ours.register(1, "x");
    ours.batches();
    let mut third = ours.register(3, "y");
    ours.verdict(Verdict::Overtaken);
    assert!(ours.job().is_none(), "not before the news");
    assert!(second.is_open() && third.is_open());
    assert_eq!(ours.revision(), 0, "nothing is shown that is not durable");
    ours.others(&committed);
    assert_eq!(ours.revision(), 1);
    let batches = ours.batches();
    let Change::Removed(removal) = &batches[0].changes[0] else {
        panic!("{batches:?}")
    };
    assert_eq!(removal.reason, RemovalReason::Replaced);
    ours.verdict(Verdict::Durable);
    assert_eq!((registered(second.ok()), registered(third.ok())), (2, 3));
    theirs.others(&batches);
    assert_eq!(ours.instances(), theirs.instances());
    for stage in [&ours, &theirs] {
        stage.core.catalog.check_invariants();
    }
}

#[test]
fn a_deregistration_whose_lease_the_other_ended_is_told_so() {
    let (mut ours, mut theirs) = pair();
    ours.register(1, "x");
    let batches = ours.batches();
    ours.verdict(Verdict::Durable);
    theirs.others(&batches);
    let ended = theirs.end(1);
    let committed = theirs.batches();
    theirs.verdict(Verdict::Durable);
    ended.ok();

    let again = ours.end(1);
    ours.batches();
    ours.verdict(Verdict::Overtaken);
    ours.others(&committed);
    let job = ours.job().expect("it asks whether that is so");
    assert!(job.batches.is_empty(), "nothing is left to commit");
    ours.verdict(Verdict::Durable);
    let error = again.err();
    assert!(
        matches!(error, SubmitError::Refused(CatalogError::LeaseUnknown)),
        "{error}"
    );
}

#[test]
fn an_update_whose_epoch_has_become_stale_is_refused() {
    let (mut ours, mut theirs) = pair();
    ours.register(1, "x");
    ours.register(4, "z");
    let batches = ours.batches();
    ours.verdict(Verdict::Durable);
    theirs.others(&batches);
    let replaced = theirs.submit(Command::Register(grant(2, heartbeat(1_000), vec![draft("a", "x", "")])));
    let committed = theirs.batches();
    theirs.verdict(Verdict::Durable);
    replaced.ok();

    let heavier = ours.submit(Command::Update(Update {
        owner: owner(1),
        key: key("a", "x"),
        epoch: Epoch::of(Revision::new(1)),
        weight: Some(Weight::try_new(7).expect("a weight")),
        status: None,
        metadata: None,
    }));
    let unharmed = ours.end(4);
    ours.batches();
    ours.verdict(Verdict::Overtaken);
    ours.others(&committed);
    ours.commit_all();
    let error = heavier.err();
    assert!(
        matches!(error, SubmitError::Refused(CatalogError::StaleEpoch(_))),
        "{error}"
    );
    unharmed.ok();
}

/// News that comes while only applied changes wait takes them back too: they stood on a present that is past.
#[test]
fn news_comes_under_what_has_not_been_sent() {
    let (mut ours, mut theirs) = pair();
    let first = theirs.register(2, "x");
    let committed = theirs.batches();
    theirs.verdict(Verdict::Durable);
    first.ok();
    let second = ours.register(1, "x");
    ours.others(&committed);
    assert_eq!(ours.batches()[0].revision.get(), 2);
    ours.verdict(Verdict::Durable);
    assert_eq!(registered(second.ok()), 2);
}

/// The news of our own commit may come before the verdict, after it, or not at all.
#[test]
fn our_own_commits_come_back_to_us_and_change_nothing() {
    let (mut ours, _) = pair();
    let mut early = ours.register(1, "x");
    let batches = ours.batches();
    ours.others(&batches);
    assert!(early.is_open(), "only the verdict says whose they are");
    assert_eq!(ours.revision(), 0);
    ours.verdict(Verdict::Durable);
    early.ok();
    ours.others(&batches);
    assert_eq!(ours.revision(), 1);
    ours.core.catalog.check_invariants();
}

/// While our group is under way their batches may be the ones that overtake it, so they wait for the verdict.
#[test]
fn news_that_comes_before_the_verdict_is_followed_with_it() {
    let (mut ours, mut theirs) = pair();
    theirs.register(2, "x");
    let committed = theirs.batches();
    theirs.verdict(Verdict::Durable);
    let second = ours.register(1, "y");
    ours.batches();
    ours.others(&committed);
    assert_eq!(ours.revision(), 0);
    ours.verdict(Verdict::Overtaken);
    assert_eq!(ours.revision(), 1);
    assert_eq!(ours.batches()[0].revision.get(), 2);
    ours.verdict(Verdict::Durable);
    assert_eq!(registered(second.ok()), 2);
}

/// Whoever has given up must not be surprised by a change that comes later.
#[test]
fn who_has_gone_is_not_replayed() {
    let (mut ours, mut theirs) = pair();
    theirs.register(2, "x");
    let committed = theirs.batches();
    theirs.verdict(Verdict::Durable);
    drop(ours.register(1, "y"));
    let kept = ours.register(3, "z");
    ours.batches();
    ours.verdict(Verdict::Overtaken);
    ours.others(&committed);
    ours.commit_all();
    assert_eq!(registered(kept.ok()), 2);
    assert_eq!(ours.ids(), ["x", "z"]);
}

/// A store that says "overtaken" and never by whom: the replica tries again by itself instead of waiting for ever.
#[test]
fn an_overtaken_replica_that_hears_nothing_tries_again() {
    let (mut ours, _) = pair();
    let waiting = ours.register(1, "x");
    ours.batches();
    ours.verdict(Verdict::Overtaken);
    ours.pass(900);
    assert!(ours.job().is_none());
    ours.pass(100);
    ours.batches();
    ours.verdict(Verdict::Durable);
    waiting.ok();
}

#[test]
fn a_gap_is_the_end() {
    let (mut ours, mut theirs) = pair();
    theirs.register(2, "x");
    theirs.register(3, "y");
    let committed = theirs.batches();
    let error = ours
        .try_news(News::Batches(committed[1..].to_vec()))
        .expect_err("a gap");
    assert!(matches!(error, DriverError::Gap { .. }), "{error}");
}

/// An expiry that was overtaken by a renewal elsewhere must not happen: the catalog decides anew.
#[test]
fn an_expiry_is_not_replayed_but_found_again() {
    let (mut ours, mut theirs) = pair();
    ours.register(1, "mine");
    let batches = ours.batches();
    ours.verdict(Verdict::Durable);
    theirs.others(&batches);
    theirs.register(2, "theirs");
    let committed = theirs.batches();
    theirs.verdict(Verdict::Durable);

    ours.pass(5_000);
    assert_eq!(ours.batches().len(), 1, "the silent lease lapses");
    assert!(ours.renew(1).is_err(), "it has ended as far as we know");
    ours.verdict(Verdict::Overtaken);
    assert!(ours.renew(1).is_ok(), "it has not");
    ours.others(&committed);
    ours.pass(100);
    assert!(ours.job().is_none(), "and it was renewed in time");
    assert_eq!(ours.ids(), ["mine", "theirs"]);
}

/// Providers that renew at another replica belong to that one. Each lease had a revision of its own: when a replica with a
/// hundred thousand of them died, nothing else was left in the history.
#[test]
fn renewals_elsewhere_move_their_leases_in_one_revision() {
    let (mut ours, mut theirs) = pair();
    for n in [1, 2, 3] {
        ours.register(n, &n.to_string());
    }
    while let Some(job) = ours.job() {
        ours.verdict(Verdict::Durable);
        theirs.others(&job.batches);
    }
    for n in [1, 2, 3, 1] {
        theirs.renew(n).expect("is answered at once");
    }
    let claim = theirs.batches();
    assert_eq!((claim.len(), claim[0].changes.len(), claim[0].leases.len()), (1, 0, 3));
    theirs.renew(1).expect("again");
    theirs.verdict(Verdict::Durable);
    assert!(theirs.job().is_none(), "once is enough");
    ours.others(&claim);
    ours.pass(60_000);
    assert!(ours.job().is_none(), "they are no longer ours to end");
}

/// What ends leases of dead replicas names those, and where one is back nothing was written and no news comes. After that
/// nothing lapsed until somebody made a change.
#[test]
fn an_expiry_that_was_overtaken_without_news_is_found_again() {
    let (mut ours, mut theirs) = pair();
    theirs.register(2, "orphan");
    let committed = theirs.batches();
    ours.others(&committed);
    let dead = ReplicaId::from_bits(2);
    let replicas = |alive: &[u64], elected| Replicas {
        own: ReplicaId::from_bits(1),
        alive: alive.iter().copied().map(ReplicaId::from_bits).collect(),
        elected,
    };
    ours.news(News::Replicas(replicas(&[1], true)));
    // Its time to live and the grace.
    ours.pass(15_000);
    let job = ours.job().expect("it ends");
    assert_eq!(job.dead, [dead]);
    ours.verdict(Verdict::Overtaken);
    ours.pass(900);
    assert!(ours.job().is_none());
    ours.pass(200);
    assert!(ours.job().is_none(), "from now on it may");
    ours.pass(200);
    assert_eq!(ours.job().expect("it is found again").dead, [dead]);
}

/// A replica that did not reach the store knows of no return: what the dead have left has its full time again.
#[test]
fn orphans_begin_anew_when_the_store_is_back() {
    let (mut ours, mut theirs) = pair();
    theirs.register(2, "orphan");
    let committed = theirs.batches();
    ours.others(&committed);
    let replicas = Replicas {
        own: ReplicaId::from_bits(1),
        alive: [ReplicaId::from_bits(1)].into(),
        elected: true,
    };
    ours.news(News::Replicas(replicas));
    ours.pass(14_000);
    ours.away(3_000);
    ours.pass(10_000);
    ours.news(News::Back);
    ours.pass(14_900);
    assert!(ours.job().is_none());
    ours.pass(200);
    assert_eq!(ours.batches().len(), 1);
}

/// A large group takes long to send, so one that others came before was late each time, and grew by what came meanwhile; and
/// with it the claims of leases that renewed here.
#[test]
fn who_was_overtaken_sends_less_at_once() {
    let (mut ours, mut theirs) = pair();
    theirs.register(9, "theirs");
    let mut committed = theirs.batches();
    theirs.verdict(Verdict::Durable);
    ours.others(&committed);
    let waiting: Vec<_> = (100..1_100).map(|n| ours.register(n, &n.to_string())).collect();
    ours.renew(9).expect("is answered at once");
    let mut sent = ours.batches().len();
    assert_eq!(sent, 1_001, "in one group");
    let mut lost = 0;
    // As long as it lasts: who has lost a thousand races was once sending a batch at a time for a thousand commits.
    for n in 0..100 {
        theirs.register(2_000 + n, &format!("theirs-{n}"));
        committed = theirs.batches();
        theirs.verdict(Verdict::Durable);
        ours.verdict(Verdict::Overtaken);
        ours.others(&committed);
        let batches = ours.batches();
        assert_eq!(batches[0].leases.len(), 1, "the claim comes first");
        assert!(batches[0].changes.is_empty(), "the claim comes first");
        lost += usize::from(batches.len() < sent);
        sent = sent.min(batches.len());
    }
    assert!(lost >= 4 && (2..200).contains(&sent), "{sent} after {lost} steps");
    ours.core.catalog.check_invariants();
    let mut groups = 1;
    ours.verdict(Verdict::Durable);
    while ours.job().is_some() {
        ours.verdict(Verdict::Durable);
        groups += 1;
    }
    assert!(groups < 12, "and more again once it is not: {groups}");
    waiting.into_iter().for_each(|waiting| drop(waiting.ok()));
}
