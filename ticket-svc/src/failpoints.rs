//! The places where the crash tests let this service die. Adds nothing to a release build.

/// All of them, sorted. After a commit: it is done, and nobody is told. `send` is around the delivery of a batch of events.
pub const FAILPOINTS: &[&str] = &[
    "outbox.send.after",
    "outbox.send.before",
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
        let own = service_store::failpoints_in(sources.as_ref());
        let all: Vec<&str> = outbox::FAILPOINTS
            .iter()
            .copied()
            .chain(own.iter().map(String::as_str))
            .collect();
        assert_eq!(all, FAILPOINTS);
    }
}
