//! Watches at the edges of the history: below it, at it, beyond it.

use super::*;

fn resumed(hub: &Arc<Hub>, service: &str, after: u64) -> String {
    let from = WatchFrom::Revision(Revision::new(after));
    let mut watcher = hub.watch(&scope(service), from).expect("has happened");
    next(&mut watcher).expect("whoever begins is told something")
}

/// Row 11 of the fault plan; etcd lost events here (#18089, #19179).
#[test]
fn at_and_below_the_compacted_revision() {
    let hub = hub();
    for id in 0..9 {
        publish(&hub, vec![put(&instance(&hub, "a", &id.to_string()))]);
    }
    assert_eq!(hub.read().past.compacted(), Revision::new(3));
    assert_eq!(resumed(&hub, "a", 2), "Compacted snapshot of 9 at 9");
    assert_eq!(resumed(&hub, "a", 3), "delta of 1 at 4", "it has seen all that is lost");
    assert_eq!(resumed(&hub, "a", 9), "bookmark at 9");
    assert_eq!(resumed(&hub, "b", 2), "Compacted snapshot of 0 at 9");
    assert_eq!(resumed(&hub, "b", 3), "bookmark at 9");
}

/// A removal in the very revision that was compacted is not lost: the snapshot is without the instance.
#[test]
fn a_removal_at_the_compacted_revision_is_not_lost() {
    let hub = hub();
    let gone = instance(&hub, "a", "gone");
    publish(&hub, vec![put(&gone)]);
    publish(&hub, vec![removed(&gone)]);
    churn(&hub, "b", LIMITS.revisions);
    assert_eq!(hub.read().past.compacted(), Revision::new(2));
    assert_eq!(resumed(&hub, "a", 1), "Compacted snapshot of 0 at 8");
    assert_eq!(resumed(&hub, "a", 2), "bookmark at 8");
}

#[test]
fn the_future_is_refused() {
    let hub = hub();
    churn(&hub, "a", 2);
    let error = hub
        .watch(&scope("a"), WatchFrom::Revision(Revision::new(3)))
        .expect_err("has not happened");
    let (asked, present) = (Revision::new(3), Revision::new(2));
    assert_eq!(error, FutureRevision { asked, present });
    assert_eq!(hub.feeds().iter().count(), 0, "and is not watched");
}

/// A quiet service's watchers fell behind the history by what others did, and when their service changed at last each of them
/// was sent all of it.
#[test]
fn the_churn_of_others_coalesces_nobody() {
    let hub = hub();
    let mut watcher = watching(&hub, "quiet");
    churn(&hub, "busy", 10 * LIMITS.revisions);
    publish(&hub, vec![put(&instance(&hub, "quiet", "1"))]);
    assert_eq!(next(&mut watcher).expect("told"), "delta of 1 at 61");

    // But it is, when something of its own was lost.
    publish(&hub, vec![put(&instance(&hub, "quiet", "2"))]);
    churn(&hub, "busy", LIMITS.revisions);
    assert_eq!(next(&mut watcher).expect("told"), "Coalesced snapshot of 2 at 68");
}

#[test]
fn the_store_is_told_what_the_history_will_have_lost() {
    let hub = hub();
    let batches: Vec<_> = (1..=9)
        .map(|revision| {
            Arc::new(Batch {
                revision: Revision::new(revision),
                at: WALL,
                changes: vec![put(&instance(&hub, "a", "1"))],
                leases: Vec::new(),
                overrides: Vec::new(),
                by: None,
                trace: None,
            })
        })
        .collect();
    let told = hub.compacted_after(&batches);
    hub.publish(&batches);
    let state = hub.read();
    assert_eq!(
        (told.get(), state.past.compacted().get(), state.past.batches().len()),
        (3, 3, 6)
    );
    state.past.check_invariants();
}
