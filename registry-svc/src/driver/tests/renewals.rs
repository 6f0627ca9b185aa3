//! What a heartbeat is told: at once where nothing can take it back, and else when it is certain.

use std::sync::Arc;

use super::stage::Stage;
use crate::{
    access::{Bounds, Principal},
    catalog::{Command, LeaseChange, RenewError, Renewed},
    driver::NotRenewed,
    fixtures::{draft, join, owner},
    model::{PeerKey, ReplicaId},
    store::{News, Verdict},
    tokens::{Secret, Token},
};

fn refused(why: RenewError) -> Result<Renewed, NotRenewed> {
    Err(NotRenewed::Refused(why))
}

const UNDECIDED: Result<Renewed, NotRenewed> = Err(NotRenewed::Undecided);

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
    assert_eq!(renewed.try_recv().expect("answered"), [refused(RenewError::Fenced)]);
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

/// After five seconds without the store its owner was told that it is fenced, by a replacement that then had no room. And who
/// asked later waited until the store was back, and with it all leases of its stream.
#[test]
fn nobody_waits_for_a_store_that_is_away() {
    let mut stage = Stage::of(ReplicaId::from_bits(1));
    let kept = stage.register(1, "x");
    stage.commit_all();
    kept.ok();
    let _replacement = stage.register(2, "x");
    stage.batches();
    let mut doubtful = stage.hear(1);
    assert!(stage.hear(2).try_recv().expect("at once")[0].is_ok());
    stage.away(3_000);
    stage.pass(2_000);
    assert_eq!(doubtful.try_recv().expect("answered"), [UNDECIDED]);
    assert_eq!(stage.hear(1).try_recv().expect("at once"), [UNDECIDED]);
    stage.pass(60_000);
    stage.verdict(Verdict::NoRoom("full".into()));
    stage.news(News::Back);
    assert!(stage.hear(1).try_recv().expect("at once")[0].is_ok());
    assert_eq!(stage.ids(), ["x"]);
}

/// Nobody is told that a lease has ended before that is durable; but its owner was heard, answered or not.
#[test]
fn who_was_heard_in_doubt_has_its_full_time() {
    let mut stage = Stage::of(ReplicaId::from_bits(1));
    let kept = stage.register(1, "x");
    stage.commit_all();
    kept.ok();
    stage.pass(5_000);
    stage.batches();
    stage.away(3_000);
    stage.pass(2_000);
    drop(stage.hear(1));
    stage.verdict(Verdict::Overtaken);
    stage.news(News::Back);
    stage.pass(4_900);
    assert!(stage.job().is_none());
    stage.pass(1_200);
    assert_eq!(stage.batches().len(), 1, "and no more");
}

/// A lease in a round with one that is refused waited with it for longer than it lives, and lapsed meanwhile.
#[test]
fn who_waits_with_others_is_kept() {
    let mut stage = kept();
    let healthy = stage.register(3, "y");
    stage.commit_all();
    healthy.ok();
    stage.pass(4_000);
    let _slow = stage.register(4, "z");
    stage.batches();
    let _replacement = stage.register(2, "x");
    let mut round = stage.hear_all(&[1, 3]);
    stage.pass(5_500);
    stage.verdict(Verdict::Durable);
    assert!(round.try_recv().is_err());
    let sent = stage.batches();
    let lapsed = |lease: &LeaseChange| matches!(lease, LeaseChange::Ended(id) if *id == owner(3).lease);
    assert!(!sent.iter().flat_map(|batch| &batch.leases).any(lapsed), "{sent:?}");
    stage.verdict(Verdict::Durable);
    let answer = round.try_recv().expect("answered");
    assert_eq!(answer[0], refused(RenewError::Fenced));
    assert!(answer[1].is_ok());
    assert!(stage.renew(3).is_ok());
}

/// A round that waited was told of a name that had come to the lease meanwhile as if it had been compared with what binds the
/// caller, who then never was asked about it again.
#[test]
fn a_name_that_comes_while_a_round_waits_is_compared_too() {
    let mut stage = kept();
    let other = stage.register(3, "y");
    stage.commit_all();
    other.ok();
    let scope = "register:default/a".parse().expect("a scope");
    let token = Token::new(&Secret::draw(), "test", vec![scope], 0, None);
    let bounds = Bounds::of(Some(Principal::Token(Arc::new(token))), None);
    let _replacement = stage.register(4, "y");
    stage.batches();
    let mut round = stage.hear_within(bounds, None, &[1, 3]);
    assert!(round.try_recv().is_err(), "it waits for what took y");
    let joined = stage.submit(Command::Register(join(1, vec![draft("b", "1", "")])));
    stage.verdict(Verdict::Durable);
    let answer = round.try_recv().expect("answered");
    assert_eq!(answer, [refused(RenewError::NotCovered), refused(RenewError::Fenced)]);
    stage.commit_all();
    joined.ok();
    assert!(stage.renew(1).is_ok(), "whom nothing binds");
}

/// A stranger made all leases of its stream wait for a commit that had nothing to do with them.
#[test]
fn a_stranger_waits_for_no_disk() {
    let mut stage = kept();
    let _slow = stage.register(2, "y");
    stage.batches();
    let answer = stage.hear_all(&[1, 9]).try_recv().expect("at once");
    assert!(answer[0].is_ok());
    assert_eq!(answer[1], refused(RenewError::Unknown));
}

/// A replica that is behind told owners of leases that had just been granted elsewhere that there are none.
#[test]
fn a_replica_that_is_behind_finds_out_before_it_refuses() {
    let (mut ours, mut theirs) = (Stage::of(ReplicaId::from_bits(1)), Stage::of(ReplicaId::from_bits(2)));
    let committed = [theirs.commits(1, "x"), theirs.commits(2, "y")].concat();
    let mut renewed = ours.hear(1);
    let mut ended = ours.end(2);
    assert!(renewed.try_recv().is_err() && ended.is_open());
    let job = ours.job().expect("it asks");
    assert!(job.batches.is_empty() && job.base.get() == 0);
    ours.verdict(Verdict::Overtaken);
    ours.others(&committed);
    ours.commit_all();
    assert!(renewed.try_recv().expect("answered")[0].is_ok());
    ended.ok();
    // And what is so is said.
    let mut refused_now = ours.hear(2);
    assert!(ours.job().is_some_and(|job| job.batches.is_empty()));
    ours.verdict(Verdict::Durable);
    assert_eq!(
        refused_now.try_recv().expect("answered"),
        [refused(RenewError::Unknown)]
    );
}

/// An owner that came from another replica was told at once that all is well, while the claim lost one race after the other: the
/// replica that it had left ended the lease. It waits until the lease is ours, and so does who asks again meanwhile.
#[test]
fn an_owner_who_comes_from_another_replica_is_told_when_its_lease_is_ours() {
    let (mut ours, mut theirs) = (Stage::of(ReplicaId::from_bits(1)), Stage::of(ReplicaId::from_bits(2)));
    ours.others(&theirs.commits(1, "x"));
    let mut first = ours.hear(1);
    assert!(first.try_recv().is_err(), "nothing is claimed yet");
    let job = ours.job().expect("claims it");
    assert_eq!(job.batches.len(), 1);
    let mut second = ours.hear(1);
    ours.verdict(Verdict::Overtaken);
    assert!(
        first.try_recv().is_err() && second.try_recv().is_err(),
        "it is still theirs"
    );
    ours.others(&theirs.commits(2, "y"));
    let mut third = ours.hear(1);
    ours.commit_all();
    for round in [&mut first, &mut second, &mut third] {
        assert!(round.try_recv().expect("answered")[0].is_ok());
    }
    assert!(ours.hear(1).try_recv().expect("at once")[0].is_ok(), "it is ours");
}

/// More owners came at once than one group claims, and those beyond were told that all is well with what nobody had claimed.
#[test]
fn more_owners_than_one_group_claims_wait_for_the_next() {
    let (mut ours, mut theirs) = (Stage::of(ReplicaId::from_bits(1)), Stage::of(ReplicaId::from_bits(2)));
    const OWNERS: u128 = 3_000;
    for n in 1..=OWNERS {
        let granted = theirs.commits(n, &n.to_string());
        ours.others(&granted);
    }
    let mut rounds: Vec<_> = (1..=OWNERS).map(|n| ours.hear(n)).collect();
    let mut told = Vec::new();
    while let Some(job) = ours.job() {
        assert!(
            rounds.iter_mut().all(|round| round.try_recv().is_err()),
            "nothing is durable yet"
        );
        let claimed: usize = job.batches.iter().map(|batch| batch.leases.len()).sum();
        ours.verdict(Verdict::Durable);
        let before = rounds.len();
        rounds.retain_mut(|round| match round.try_recv() {
            Ok(answer) => {
                assert!(answer[0].is_ok());
                false
            }
            Err(_) => true,
        });
        assert_eq!(
            before - rounds.len(),
            claimed,
            "those whose leases are ours now, and no others"
        );
        told.push(claimed);
    }
    assert!(rounds.is_empty());
    assert_eq!(told, [2_048, OWNERS as usize - 2_048]);
}

/// One who stops claims nothing any more, and promises nothing.
#[test]
fn who_stops_sends_owners_elsewhere() {
    let (mut ours, mut theirs) = (Stage::of(ReplicaId::from_bits(1)), Stage::of(ReplicaId::from_bits(2)));
    ours.others(&theirs.commits(1, "x"));
    ours.core.stop();
    assert_eq!(ours.hear(1).try_recv().expect("at once"), [UNDECIDED]);
}

/// Where there is no room for the claim nobody can promise anything: the owner is to go on where it came from.
#[test]
fn an_owner_whose_lease_cannot_be_claimed_goes_elsewhere() {
    let (mut ours, mut theirs) = (Stage::of(ReplicaId::from_bits(1)), Stage::of(ReplicaId::from_bits(2)));
    ours.others(&theirs.commits(1, "x"));
    let mut round = ours.hear(1);
    ours.job().expect("claims it");
    ours.verdict(Verdict::NoRoom("full".into()));
    assert!(ours.job().is_none());
    assert_eq!(round.try_recv().expect("answered"), [UNDECIDED]);
}

/// One of several replicas was cut off, and answered its owners for a minute that all was well, while the elected one held it
/// for dead and ended their leases. It must send them away in time.
#[test]
fn who_is_cut_off_sends_owners_elsewhere() {
    let (mut ours, mut theirs) = (Stage::of(ReplicaId::from_bits(1)), Stage::of(ReplicaId::from_bits(2)));
    theirs.register(2, "theirs");
    let committed = theirs.batches();
    ours.others(&committed);
    ours.register(1, "ours");
    ours.commit_all();
    ours.away(3_000);
    assert!(ours.hear(1).try_recv().expect("at once")[0].is_ok());
    let foreign = ours.hear(2).try_recv().expect("at once");
    assert_eq!(foreign, [UNDECIDED], "it cannot be taken over");
    assert_eq!(
        ours.hear(9).try_recv().expect("at once"),
        [UNDECIDED],
        "it may be granted"
    );
    ours.pass(2_000);
    assert_eq!(ours.hear(1).try_recv().expect("at once"), [UNDECIDED]);
    ours.pass(60_000);
    assert_eq!(ours.hear(1).try_recv().expect("at once"), [UNDECIDED]);
    ours.news(News::Back);
    assert!(ours.hear(1).try_recv().expect("at once")[0].is_ok());
    ours.pass(100);
    assert!(
        ours.job().is_none(),
        "it lives, and nothing is claimed for what was heard meanwhile"
    );
}

/// Rounds that wait are bounded, and those whose callers have gone make room first.
#[test]
fn no_more_rounds_wait_than_there_is_room_for() {
    let mut stage = kept();
    let _replacement = stage.register(2, "x");
    stage.batches();
    for _ in 0..50_000 {
        drop(stage.hear(1));
    }
    let waiting: Vec<_> = (0..50_000).map(|_| stage.hear(1)).collect();
    let answered = |mut round: tokio::sync::oneshot::Receiver<Vec<_>>| round.try_recv().ok();
    let answers: Vec<_> = waiting.into_iter().filter_map(answered).collect();
    // Of one heartbeat each, which counts three; all from the same peer, which has half of what there is.
    assert_eq!(answers.len(), 50_000 - 65_536_usize.div_ceil(3));
    assert!(answers.iter().all(|answer| *answer == [UNDECIDED]));
}

/// One peer asked for leases that nobody had granted, a thousand at once, while the store was slow to say so, and had all the
/// room there was: the owners of others, whose leases moved to this replica, were sent away.
#[test]
fn one_peer_has_half_of_what_waits() {
    let mut ours = Stage::of(ReplicaId::from_bits(1));
    let mut theirs = Stage::of(ReplicaId::from_bits(2));
    ours.others(&theirs.commits(1, "x"));
    let peer = |n: u8| Some(PeerKey::new([192, 0, 2, n].into()));
    let invented: Vec<u128> = (1_000..2_000).collect();
    let flood: Vec<_> = (0..200).map(|_| ours.hear_from(peer(1), &invented)).collect();
    let waits = |round: &mut tokio::sync::oneshot::Receiver<Vec<_>>| round.try_recv().is_err();
    let mut flood: Vec<_> = flood
        .into_iter()
        .filter_map(|mut round| waits(&mut round).then_some(round))
        .collect();
    // What it had when half of the room was taken.
    assert_eq!(flood.len(), 65_536_usize.div_ceil(1_002));
    let mut moved = ours.hear_from(peer(2), &[1]);
    assert!(waits(&mut moved), "there is room for others");
    ours.commit_all();
    assert!(moved.try_recv().expect("answered")[0].is_ok());
    assert!(!flood.iter_mut().any(waits), "it was told as well");
    let mut again = ours.hear_from(peer(1), &invented);
    assert!(waits(&mut again), "there is room again");
}

/// Nothing is on its way: a stranger is refused at once.
#[test]
fn a_stranger_is_refused_at_once_when_all_is_durable() {
    let mut stage = kept();
    assert_eq!(
        stage.hear(9).try_recv().expect("at once"),
        [refused(RenewError::Unknown)]
    );
}
