//! Single cases of what operators lay over instances. What becomes of it in any history is in [`super::histories`].

use super::*;
use crate::{
    fixtures::{draft, end, grant, heartbeat, key},
    model::{Act, Detail, Override, OverrideRecord, Weight, Who},
};

fn wall(seconds: i64) -> WallTime {
    WallTime {
        seconds: WALL.seconds + seconds,
        ..WALL
    }
}

fn govern(catalog: &mut Catalog, id: &str, decision: Decision, why: &str) -> Result<Revision, CatalogError> {
    let govern = Govern {
        key: key("a", id),
        decision,
        who: Who::try_new("ann").expect("a name"),
        why: Detail::of(why),
    };
    let reply = catalog.apply(&Command::Govern(govern), WALL).reply;
    catalog.check_invariants();
    match reply? {
        Reply::Governed { revision, .. } => Ok(revision),
        other => panic!("{other:?}"),
    }
}

fn laid(catalog: &Catalog, id: &str) -> Option<Arc<Override>> {
    catalog.overrides.get(&key("a", id)).cloned()
}

const DRAIN: Decision = Decision::Drain { until: None };

#[test]
fn the_same_decision_again_answers_the_same() {
    let mut catalog = catalog();
    register(&mut catalog, grant(1, heartbeat(1_000), vec![draft("a", "1", "")])).expect("registers");
    let first = govern(&mut catalog, "1", DRAIN, "disk").expect("drains");
    register(&mut catalog, grant(2, heartbeat(1_000), vec![draft("a", "2", "")])).expect("registers");
    assert_eq!(govern(&mut catalog, "1", DRAIN, "disk"), Ok(first));
    let other = govern(&mut catalog, "1", DRAIN, "two disks").expect("drains");
    assert!(other > first, "another reason is another decision");
    let until = Decision::Drain { until: Some(wall(9)) };
    assert!(govern(&mut catalog, "1", until, "two disks").expect("drains") > other);
    let back = govern(&mut catalog, "1", Decision::Undrain, "").expect("undrains");
    assert_eq!(
        govern(&mut catalog, "1", Decision::Undrain, ""),
        Ok(back),
        "there is nothing to take back"
    );
    assert!(laid(&catalog, "1").is_none());
}

#[test]
fn of_who_is_not_there_only_what_is_kept_can_be_taken_back() {
    let mut catalog = catalog();
    let unknown = |result| matches!(result, Err(CatalogError::InstanceUnknown(_)));
    let set = Decision::SetWeight {
        weight: Weight::try_new(3).expect("a weight"),
        until: None,
    };
    for decision in [DRAIN, set, Decision::Undrain, Decision::OwnWeight] {
        assert!(unknown(govern(&mut catalog, "1", decision, "")), "{decision:?}");
    }
    register(&mut catalog, grant(1, heartbeat(1_000), vec![draft("a", "1", "")])).expect("registers");
    govern(&mut catalog, "1", DRAIN, "").expect("drains");
    govern(&mut catalog, "1", set, "").expect("sets");
    catalog
        .apply(&Command::Deregister(end(1, &[])), WALL)
        .reply
        .expect("ends");
    assert!(unknown(govern(&mut catalog, "1", DRAIN, "")));
    govern(&mut catalog, "1", Decision::Undrain, "").expect("undrains");
    assert_eq!(laid(&catalog, "1").expect("kept").weight().map(Weight::get), Some(3));
    govern(&mut catalog, "1", Decision::OwnWeight, "").expect("clears");
    assert!(
        unknown(govern(&mut catalog, "1", Decision::Undrain, "")),
        "nothing is kept of it any more"
    );
}

/// Ids that the registry chooses never come back: what was laid over them would be kept for ever.
#[test]
fn what_is_kept_of_the_absent_is_bounded_and_the_oldest_goes_first() {
    let settings = Settings {
        capacity: Capacity {
            overrides_of_service: 2,
            ..Capacity::default()
        },
        ..Settings::default()
    };
    let mut catalog = Catalog::restore(settings, Revision::ZERO, Vec::new(), &[], now(0).moment);
    for n in 1..=4_u32 {
        let drafts = vec![draft("a", &n.to_string(), "")];
        register(&mut catalog, grant(n.into(), heartbeat(1_000), drafts)).expect("registers");
    }
    // Decided on in another order than they leave in.
    for id in ["3", "1", "2", "4"] {
        govern(&mut catalog, id, DRAIN, "").expect("drains");
    }
    let mut leaves = |n: u128| {
        let outcome = catalog.apply(&Command::Deregister(end(n, &[])), WALL);
        catalog.check_invariants();
        let batch = outcome.batch.expect("changes");
        let forgotten = batch.overrides.iter();
        forgotten
            .map(|change| (change.key.id.to_string(), change.act))
            .collect::<Vec<_>>()
    };
    assert_eq!(leaves(1), []);
    assert_eq!(leaves(2), []);
    assert_eq!(
        leaves(4),
        [("1".to_owned(), Act::Forgotten)],
        "3 is registered, so it stays"
    );
    assert_eq!(leaves(3), [("3".to_owned(), Act::Forgotten)]);
    register(
        &mut catalog,
        grant(9, heartbeat(1_000), vec![draft("a", "2", ""), draft("a", "1", "")]),
    )
    .expect("registers");
    let drained = |id: &str| catalog.instance(&key("a", id)).expect("is there").governance.is_some();
    assert!(drained("2") && !drained("1"));
}

#[test]
fn what_ends_at_the_same_time_is_one_change_for_watchers() {
    let mut catalog = catalog();
    register(&mut catalog, grant(1, heartbeat(1_000), vec![draft("a", "1", "")])).expect("registers");
    let until = Some(wall(5));
    govern(&mut catalog, "1", Decision::Drain { until }, "").expect("drains");
    let weight = Weight::try_new(0).expect("a weight");
    govern(&mut catalog, "1", Decision::SetWeight { weight, until }, "").expect("sets");
    assert!(catalog.end_overrides(wall(4)).is_empty());
    let ended = catalog.end_overrides(wall(5));
    let [(batch, _)] = ended.as_slice() else {
        panic!("{ended:?}")
    };
    assert_eq!((batch.changes.len(), batch.overrides.len()), (1, 2));
    assert!(batch.overrides.iter().all(|change| change.now.is_none()));
    catalog.check_invariants();
    // A thousand of them are not one revision: a delta must fit into a message.
    let drafts = |n: u128| {
        (0..50)
            .map(move |i| draft("b", &format!("{n}-{i}"), ""))
            .collect::<Vec<_>>()
    };
    for n in 2..5 {
        register(&mut catalog, grant(n, heartbeat(1_000), drafts(n))).expect("registers");
    }
    for key in (2..5).flat_map(drafts).map(|draft| draft.key) {
        let govern = Govern {
            key,
            decision: Decision::Drain { until },
            who: Who::of("ann"),
            why: Detail::of(""),
        };
        catalog.apply(&Command::Govern(govern), WALL).reply.expect("drains");
    }
    let sizes: Vec<usize> = catalog
        .end_overrides(wall(6))
        .iter()
        .map(|(batch, _)| batch.changes.len())
        .collect();
    assert_eq!(sizes, [64, 64, 22]);
}

#[test]
fn a_restart_brings_it_back() {
    let mut catalog = catalog();
    register(
        &mut catalog,
        grant(1, heartbeat(1_000), vec![draft("a", "1", ""), draft("a", "2", "")]),
    )
    .expect("registers");
    for id in ["1", "2"] {
        govern(&mut catalog, id, Decision::Drain { until: Some(wall(5)) }, "disk").expect("drains");
    }
    catalog
        .apply(&Command::Deregister(end(1, &["2"])), WALL)
        .reply
        .expect("ends");
    let (instances, leases, overrides) = catalog.content();
    let instances: Vec<_> = instances.into_values().collect();
    let records = overrides.iter().map(|(key, laid)| OverrideRecord {
        key: key.clone(),
        laid: Arc::clone(laid),
    });
    let leases = leases.into_values().collect();
    let mut again = Catalog::restore(Settings::default(), catalog.revision, leases, &instances, now(0).moment)
        .with_overrides(records.collect());
    again.check_invariants();
    assert_eq!(again.content(), catalog.content());
    assert_eq!(again.overrides(), 2);
    let [(batch, _)] = &again.end_overrides(wall(5))[..] else {
        panic!("ends both at once")
    };
    assert_eq!(
        (batch.changes.len(), batch.overrides.len()),
        (1, 2),
        "who is absent is told to nobody"
    );
    assert_eq!(again.overrides(), 0);
}
