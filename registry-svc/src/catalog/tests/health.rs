//! What probes say of instances, as the catalog keeps it.

use super::*;
use crate::{
    fixtures::{draft, grant, heartbeat, key},
    model::Health,
};

fn judge(epoch: u64, health: Health) -> Command {
    Command::Judge(Judge {
        key: key("a", "1"),
        epoch: crate::model::Epoch::of(Revision::new(epoch)),
        health,
    })
}

#[test]
fn a_verdict_is_a_revision_and_only_of_the_registration_that_was_probed() {
    let mut catalog = catalog();
    register(&mut catalog, grant(1, heartbeat(1_000), vec![draft("a", "1", "")])).expect("registers");
    let before = catalog.content();
    let outcome = catalog.apply(&judge(1, Health::Failing), WALL);
    let batch = outcome.batch.expect("a revision");
    let [Change::Put { instance, left: None }] = batch.changes.as_slice() else {
        panic!("{batch:?}")
    };
    assert_eq!(
        (
            instance.health,
            instance.epoch.revision().get(),
            instance.revision.get()
        ),
        (Health::Failing, 1, 2)
    );
    assert!(!instance.is_callable());
    catalog.undo(outcome.undo);
    assert_eq!(catalog.content(), before);

    catalog.apply(&judge(1, Health::Failing), WALL).reply.expect("judges");
    let again = catalog.apply(&judge(1, Health::Failing), WALL);
    assert!(again.reply.is_ok() && again.batch.is_none(), "it says so already");
    // Whoever registers the name is another process, of which nothing is known.
    register(&mut catalog, grant(2, heartbeat(1_000), vec![draft("a", "1", "")])).expect("registers");
    let late = catalog.apply(&judge(1, Health::Failing), WALL);
    assert!(
        matches!(late.reply, Err(CatalogError::StaleEpoch(_))),
        "{:?}",
        late.reply
    );
    assert_eq!(catalog.content().0[&key("a", "1")].health, Health::Unprobed);
    catalog.check_invariants();
}
