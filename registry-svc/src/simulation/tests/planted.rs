//! Proof that the invariants can fail: a bug is planted, and the one that is meant to find it does.

use crate::simulation::{Options, Plant, run};

/// Histories that may pass by without the bug mattering: not every one restarts a registry, or has a repeat.
const SEEDS: u64 = 300;

/// The invariant that is meant to find the bug does, in one of some histories, and is the first to see it in each.
fn finds(plant: Plant, invariant: &str) {
    finds_before(plant, invariant, "");
}

/// As [`finds`], but in a history that ends too early another invariant may see what has become of it.
fn finds_before(plant: Plant, invariant: &str, aftermath: &str) {
    finds_within(SEEDS, plant, invariant, aftermath);
}

fn finds_within(seeds: u64, plant: Plant, invariant: &str, aftermath: &str) {
    for seed in 0..seeds {
        let options = Options {
            plant,
            ..Options::new(seed)
        };
        let Err(failure) = run(options) else { continue };
        if failure.violation.invariant == invariant {
            return;
        }
        assert_eq!(failure.violation.invariant, aftermath, "{plant:?}: {failure}");
    }
    panic!("{plant:?} goes unnoticed");
}

#[test]
fn what_is_shown_before_it_is_durable() {
    finds(Plant::PublishBeforeDurable, "unheard");
}

#[test]
fn what_is_answered_before_it_is_durable() {
    finds(Plant::AnswerBeforeDurable, "unheard");
}

/// Once our own: with a replacement on its way to a disk that then had no room, the owner was told that it was fenced, and its
/// lease lapsed although it lived and had renewed in time. Found as an instance that was gone; by now it is seen at the answer.
#[test]
fn a_refusal_of_what_is_not_durable() {
    finds(Plant::HearAtOnce, "linearizable");
}

/// Once our own: a registry that was behind told the owner of a lease that had just been granted elsewhere that there is none.
#[test]
fn a_refusal_of_the_past() {
    // An owner has to change its registry just before the news does.
    finds_within(20 * SEEDS, Plant::RefuseBehind, "linearizable", "");
}

/// Once our own: after some seconds without the store owners were refused for what was never made durable.
#[test]
fn a_refusal_in_doubt() {
    finds(Plant::RefuseInDoubt, "linearizable");
}

/// Once our own: a registry that alone did not reach the store went on to answer its owners, whose leases another one ended.
#[test]
fn a_promise_that_another_breaks() {
    finds(Plant::PromiseInDoubt, "ownership");
}

#[test]
fn leases_that_do_not_follow_their_owners() {
    finds_before(Plant::NeverClaim, "ownership", "lifetime");
}

#[test]
fn a_store_without_a_fence() {
    finds(Plant::NoFence, "revisions");
}

#[test]
fn a_resume_where_less_has_happened() {
    finds(Plant::ServeBehind, "ordered");
}

#[test]
fn a_restart_that_forgets() {
    finds(Plant::ForgetOnRestart, "durable");
}

#[test]
fn a_restart_that_forgets_what_was_decided() {
    finds(Plant::ForgetOverrides, "overrides");
}

#[test]
fn a_restart_that_brings_back_what_was_lifted() {
    finds_within(20 * SEEDS, Plant::BringBack, "resurrected", "");
}

#[test]
fn a_decision_that_comes_back_by_itself() {
    finds(Plant::DecideAgain, "resurrected");
}

#[test]
fn an_undrain_that_takes_the_weight_along() {
    finds(Plant::DropTheOther, "apart");
}

#[test]
fn a_verdict_on_somebody_elses_probes() {
    finds(Plant::JudgeTheSuccessor, "probes");
}

#[test]
fn a_decision_that_never_ends() {
    finds(Plant::NeverEndOverrides, "overrides");
}

#[test]
fn a_repeat_that_registers_again() {
    finds(Plant::ForgetRequestIds, "idempotent");
}

#[test]
fn a_stale_epoch_that_wins() {
    finds(Plant::StaleEpochWins, "fencing");
}

#[test]
fn expiry_during_recovery() {
    finds(Plant::ShortLivesAfterRestart, "recovery");
}

#[test]
fn a_pause_that_is_charged() {
    finds(Plant::ChargePauses, "lifetime");
}

#[test]
fn silence_that_is_never_noticed() {
    finds_before(Plant::NeverExpire, "ghosts", "healing");
}

#[test]
fn a_zone_that_goes_at_once() {
    finds(Plant::ProtectNobody, "protection");
}

#[test]
fn a_read_of_the_past() {
    finds(Plant::StaleReads, "linearizable");
}

#[test]
fn a_delta_that_is_told_twice() {
    finds(Plant::TellTwice, "unique");
}

#[test]
fn a_delta_that_is_left_out() {
    finds(Plant::SkipDelta, "reliable");
}

#[test]
fn a_delta_in_two_parts() {
    finds(Plant::SplitDelta, "atomic");
}

#[test]
fn a_watch_that_goes_back() {
    finds(Plant::TravelInTime, "ordered");
}

#[test]
fn a_bookmark_that_is_too_early() {
    finds(Plant::BookmarkAhead, "bookmarkable");
}

#[test]
fn a_resume_that_begins_anew() {
    finds(Plant::ResumeWithSnapshot, "resumable");
}

#[test]
fn a_history_that_is_not_trimmed() {
    finds(Plant::KeepHistory, "memory");
}

#[test]
fn a_registry_that_refuses_everything() {
    finds(Plant::RefuseAll, "progress");
}

#[test]
fn a_registry_that_stays_down() {
    finds(Plant::StayDown, "convergence");
}

#[test]
fn providers_that_give_up() {
    finds(Plant::GiveUp, "healing");
}
