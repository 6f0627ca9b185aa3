//! What every store promises, tested through the trait alone. A store's own tests say `suite!(ItsShelf, cases)` and have all
//! of these.

use std::sync::Arc;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::model::{Model, after, batch, groups, large, secret};
use crate::{
    catalog::Batch,
    model::Revision,
    store::{Store, Verdict},
};

/// Where one store lives between its openings.
pub(in crate::store) trait Shelf: Sized {
    /// What lives there.
    type Store: Store;

    /// An empty one; `None`, with the reason printed, where this machine cannot have one.
    fn new() -> Option<Self>;

    /// Opens what is there. One at a time is open.
    fn open(&self) -> Self::Store;

    /// Every byte that is kept. The store is closed.
    fn raw(&self) -> Vec<u8>;
}

/// All of them as tests of a shelf; so many random histories.
macro_rules! suite {
    ($shelf:ty, $cases:expr) => {
        $crate::store::tests::suite::suite!(@ $shelf, $cases;
            what_was_committed_comes_back
            any_history_comes_back
            the_history_is_pruned_with_the_commit
            pruned_history_takes_no_state_with_it
            nothing_is_committed_at_once
            a_secret_is_not_kept
            the_history_keeps_its_name
            a_group_of_megabytes_is_one_commit
        );
    };
    (@ $shelf:ty, $cases:expr; $($test:ident)*) => {
        $(
            #[test]
            fn $test() {
                let Some(shelf) = <$shelf as $crate::store::tests::suite::Shelf>::new() else { return };
                $crate::store::tests::suite::$test(&shelf, $cases);
            }
        )*
    };
}
pub(in crate::store) use suite;

/// A commit that the store takes.
fn commit(store: &mut impl Store, batches: &[Arc<Batch>], compacted: Revision) {
    assert_eq!(store.commit(batches, compacted).expect("commits"), Verdict::Durable);
}

pub(in crate::store) fn what_was_committed_comes_back(shelf: &impl Shelf, _: u32) {
    let mut model = Model::default();
    let mut revision = 0;
    for round in 0..3 {
        let mut store = shelf.open();
        assert_eq!(Model::of(&mut store), model, "round {round}");
        for id in 0..10 {
            revision += 1;
            let batch = batch(revision, id, round == 1 && id % 3 == 0);
            commit(&mut store, &[Arc::clone(&batch)], Revision::ZERO);
            model.apply(&batch);
        }
    }
}

pub(in crate::store) fn any_history_comes_back(shelf: &impl Shelf, cases: u32) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let model = std::cell::RefCell::new(Model::default());
    // One store for all cases: what one leaves behind is where the next begins.
    let result = TestRunner::new(config).run(&(groups(), any::<u64>()), |(groups, keep)| {
        let mut model = model.borrow_mut();
        let mut store = shelf.open();
        prop_assert_eq!(&Model::of(&mut store), &*model);
        for group in &groups {
            let mut next = |batch: &Arc<Batch>| {
                let batch = after(model.revision(), batch);
                model.apply(&batch);
                batch
            };
            let group: Vec<_> = group.iter().map(&mut next).collect();
            let compacted = Revision::new(model.revision().get().saturating_sub(keep % 8)).max(model.compacted());
            model.compact(compacted);
            prop_assert_eq!(store.commit(&group, compacted).expect("commits"), Verdict::Durable);
        }
        drop(store);
        prop_assert_eq!(&Model::of(&mut shelf.open()), &*model);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

pub(in crate::store) fn the_history_is_pruned_with_the_commit(shelf: &impl Shelf, _: u32) {
    let mut store = shelf.open();
    store.load().expect("loads");
    let batches: Vec<_> = (1..=10).map(|revision| batch(revision, 1, false)).collect();
    commit(&mut store, &batches, Revision::new(7));
    let kept = |store: &mut dyn Store| -> Vec<u64> {
        let kept = store.history().expect("reads");
        kept.iter().map(|batch| batch.revision.get()).collect()
    };
    assert_eq!(kept(&mut store), [8, 9, 10]);
    commit(&mut store, &[], Revision::new(9));
    assert_eq!(
        kept(&mut store),
        [8, 9, 10],
        "nothing was committed, so nothing is forgotten"
    );
    drop(store);
    let mut store = shelf.open();
    assert_eq!(store.load().expect("loads").compacted.get(), 7);
    assert_eq!(kept(&mut store), [8, 9, 10]);
}

pub(in crate::store) fn pruned_history_takes_no_state_with_it(shelf: &impl Shelf, _: u32) {
    let mut model = Model::default();
    let mut store = shelf.open();
    store.load().expect("loads");
    for revision in 1..=20 {
        let batch = batch(revision, u8::try_from(revision).expect("small"), false);
        model.apply(&batch);
        model.compact(Revision::new(revision));
        commit(&mut store, &[batch], Revision::new(revision));
    }
    drop(store);
    assert_eq!(Model::of(&mut shelf.open()), model);
}

pub(in crate::store) fn nothing_is_committed_at_once(shelf: &impl Shelf, _: u32) {
    let mut store = shelf.open();
    store.load().expect("loads");
    commit(&mut store, &[], Revision::ZERO);
    assert_eq!(Model::of(&mut store), Model::default());
}

pub(in crate::store) fn a_secret_is_not_kept(shelf: &impl Shelf, _: u32) {
    let mut store = shelf.open();
    store.load().expect("loads");
    commit(&mut store, &[batch(1, 1, false), batch(2, 1, false)], Revision::ZERO);
    drop(store);
    let raw = shelf.raw();
    let secret = secret(Revision::new(2));
    let finds = |needle: &[u8]| raw.windows(needle.len()).any(|window| window == needle);
    assert!(finds(secret.hash().as_bytes()), "its hash is");
    assert!(!finds(secret.reveal().as_bytes()));
    let bits = u128::from_str_radix(&secret.reveal(), 16).expect("hexadecimal");
    assert!(!finds(&bits.to_be_bytes()) && !finds(&bits.to_le_bytes()));
}

pub(in crate::store) fn the_history_keeps_its_name(shelf: &impl Shelf, _: u32) {
    let id = || shelf.open().load().expect("loads").history_id;
    assert_eq!(id(), id());
}

pub(in crate::store) fn a_group_of_megabytes_is_one_commit(shelf: &impl Shelf, _: u32) {
    let mut model = Model::default();
    let mut store = shelf.open();
    store.load().expect("loads");
    // Larger than any limit of a request or a page, also a single batch of it.
    let group: Vec<_> = (1..=6).map(|revision| large(revision, 100)).collect();
    for batch in &group {
        model.apply(batch);
    }
    commit(&mut store, &group, Revision::ZERO);
    let after = batch(7, 2, true);
    model.apply(&after);
    commit(&mut store, &[after], Revision::ZERO);
    assert_eq!(Model::of(&mut store), model, "as it is");
    drop(store);
    assert_eq!(Model::of(&mut shelf.open()), model, "opened again");
}
