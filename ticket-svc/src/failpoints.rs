//! The places where the crash tests let this service die. Adds nothing to a release build.

/// All of its own, sorted; those of the outbox are beside them here as in every service that writes events. After a commit: it is done,
/// and nobody is told.
pub const FAILPOINTS: &[&str] = &[
    "ticket.confirm.commit.after",
    "ticket.confirm.commit.before",
    "ticket.hold.commit.after",
    "ticket.hold.commit.before",
    "ticket.release.commit.after",
    "ticket.release.commit.before",
    "ticket.revoke.commit.after",
    "ticket.revoke.commit.before",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_every_place_and_no_other() {
        let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        assert_eq!(service_store::failpoints_in(sources.as_ref()), FAILPOINTS);
    }
}
