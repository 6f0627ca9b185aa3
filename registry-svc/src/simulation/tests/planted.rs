//! Proof that the invariants can fail: a bug is planted, and the one that is meant to find it does.

use crate::simulation::{Options, Plant, run};

/// Histories that may pass by without the bug mattering: not every one restarts a registry, or has a repeat.
const SEEDS: u64 = 300;

/// The invariant that finds the bug first, over some histories.
fn finds(plant: Plant, invariant: &str) {
    let found = (0..SEEDS).find_map(|seed| {
        let options = Options {
            plant,
            ..Options::new(seed)
        };
        run(options).err()
    });
    let failure = found.unwrap_or_else(|| panic!("{plant:?} goes unnoticed"));
    assert_eq!(failure.violation.invariant, invariant, "{plant:?}: {failure}");
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

#[test]
fn a_restart_that_forgets() {
    finds(Plant::ForgetOnRestart, "durable");
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
    finds(Plant::NeverExpire, "ghosts");
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
