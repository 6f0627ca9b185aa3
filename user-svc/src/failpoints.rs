//! The places where the crash tests let this service die. Adds nothing to a release build.

use service_store::failpoint;

use crate::domain::saga::Step;

/// All of them, sorted. `call` is around a request to the ticket service, `commit` around a transaction of the store,
/// `send` around the delivery of a batch of events.
pub const FAILPOINTS: &[&str] = &[
    "outbox.send.after",
    "outbox.send.before",
    "user.ask.commit.after",
    "user.ask.commit.before",
    "user.begin.commit.after",
    "user.begin.commit.before",
    "user.confirm.call.after",
    "user.confirm.call.before",
    "user.confirm.commit.after",
    "user.confirm.commit.before",
    "user.debit.commit.after",
    "user.debit.commit.before",
    "user.hold.call.after",
    "user.hold.call.before",
    "user.hold.commit.after",
    "user.hold.commit.before",
    "user.record.commit.after",
    "user.record.commit.before",
    "user.refund.commit.after",
    "user.refund.commit.before",
    "user.release.call.after",
    "user.release.call.before",
    "user.release.commit.after",
    "user.release.commit.before",
    "user.repay.commit.after",
    "user.repay.commit.before",
    "user.revoke.call.after",
    "user.revoke.call.before",
    "user.revoke.commit.after",
    "user.revoke.commit.before",
];

/// Before what came of `step` is recorded.
pub(crate) async fn before_commit(step: &Step) {
    match step {
        Step::Begin => failpoint("user.begin.commit.before").await,
        Step::Hold => failpoint("user.hold.commit.before").await,
        Step::Confirm => failpoint("user.confirm.commit.before").await,
        Step::Release(_) => failpoint("user.release.commit.before").await,
        Step::Revoke(_) => failpoint("user.revoke.commit.before").await,
        // These are recorded with their effect; the driver has their places.
        Step::Debit | Step::Refund(_) | Step::Repay(_) => {}
        Step::Succeeded(_) | Step::Refunded(_) | Step::Failed(_) => {}
    }
}

/// After what came of `step` is recorded.
pub(crate) async fn after_commit(step: &Step) {
    match step {
        Step::Begin => failpoint("user.begin.commit.after").await,
        Step::Hold => failpoint("user.hold.commit.after").await,
        Step::Confirm => failpoint("user.confirm.commit.after").await,
        Step::Release(_) => failpoint("user.release.commit.after").await,
        Step::Revoke(_) => failpoint("user.revoke.commit.after").await,
        Step::Debit | Step::Refund(_) | Step::Repay(_) => {}
        Step::Succeeded(_) | Step::Refunded(_) | Step::Failed(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_every_place_and_no_other() {
        let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let own = service_store::failpoints_in(sources.as_ref());
        let all: Vec<&str> = outbox::FAILPOINTS
            .iter()
            .copied()
            .chain(own.iter().map(String::as_str))
            .collect();
        assert_eq!(all, FAILPOINTS);
    }
}
