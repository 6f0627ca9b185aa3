//! The embedded store: the suite, and its own directory, format and power cuts.

use std::path::PathBuf;

use proptest::prelude::*;
use redb::Database;
use tempfile::TempDir;

use super::{
    disk::Disk,
    model::{Model, groups},
    suite::{self, Shelf},
};
use crate::{
    model::Revision,
    store::{Embedded, Store as _, StoreError},
};

/// A directory.
struct Directory(TempDir);

impl Shelf for Directory {
    type Store = Embedded;

    fn new() -> Option<Self> {
        Some(Self(TempDir::new().expect("a directory")))
    }

    fn open(&self) -> Embedded {
        Embedded::open(self.0.path()).expect("opens")
    }

    fn raw(&self) -> Vec<u8> {
        std::fs::read(self.0.path().join("registry.redb")).expect("reads")
    }
}

suite::suite!(Directory, 64);

/// The names of a file and of its directory have to reach the disk as its contents do. A file that is there was taken for one
/// whose name is safe, which it is not after a crash between the two; whether it is shows in no test without such a crash, so
/// this one shows that looking after it keeps no directory from being opened.
#[test]
fn directories_are_made_and_opened_again_at_any_depth() {
    let root = TempDir::new().expect("a directory");
    let deep = root.path().join("a/b/c");
    for directory in [deep.clone(), deep, root.path().join("a/../a/b"), root.path().to_owned()] {
        let mut store = Embedded::open(&directory).expect("opens");
        store.load().expect("loads");
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("registry.redb");
    let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    let database = Database::create(&file).expect("creates");
    let write = database.begin_write().expect("begins");
    write
        .open_table(meta)
        .expect("opens")
        .insert("format", 2)
        .expect("inserts");
    write.commit().expect("commits");
    drop(database);
    let error = Embedded::open(directory.path()).expect_err("newer");
    assert!(
        matches!(error, StoreError::NewerFormat { found: 2, known: 1, .. }),
        "{error}"
    );
}

/// Directories of before histories had names must open, and keep the name that they get then.
#[test]
fn a_store_without_a_history_id_gets_one_that_stays() {
    let directory = TempDir::new().expect("a directory");
    let id = || {
        Embedded::open(directory.path())
            .expect("opens")
            .load()
            .expect("loads")
            .history_id
    };
    let first = id();
    assert_eq!(id(), first);

    let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    let database = Database::create(directory.path().join("registry.redb")).expect("opens");
    let write = database.begin_write().expect("begins");
    write
        .open_table(meta)
        .expect("opens")
        .remove("history")
        .expect("removes");
    write.commit().expect("commits");
    drop(database);
    let second = id();
    assert_ne!(second, first);
    assert_eq!(id(), second);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A power cut keeps what was synced and any part of what was not. Wherever it falls, the store opens again with every
    /// group that was acknowledged, and with the one under way as a whole or not at all.
    #[test]
    fn a_power_cut_takes_nothing_that_was_acknowledged(
        groups in groups(),
        cut_at in 0..400_usize,
        keeps in proptest::collection::vec(any::<u8>(), 1..64),
    ) {
        let disk = Disk::new(cut_at, keeps);
        let database = Database::builder().create_with_backend(disk.clone()).expect("creates");
        let mut store = Embedded::over(PathBuf::from("memory"), database).expect("opens");
        disk.lock().armed = true;
        let mut models = vec![Model::default()];
        for group in &groups {
            store.commit(group, Revision::ZERO).expect("commits");
            let mut model = models.last().expect("one").clone();
            group.iter().for_each(|batch| model.apply(batch));
            models.push(model);
            disk.lock().acknowledged += 1;
        }
        let (image, acknowledged) = {
            let mut disk = disk.lock();
            let now = disk.acknowledged;
            // All was over before the cut: it falls now.
            disk.cut.take().unwrap_or_else(|| (disk.survivors(), now))
        };
        let disk = Disk::new(usize::MAX, vec![0]);
        disk.lock().live = image;
        let database = Database::builder().create_with_backend(disk).expect("opens again");
        let found = Model::of(&mut Embedded::over(PathBuf::from("memory"), database).expect("opens"));
        let next = models.get(acknowledged + 1);
        prop_assert!(found == models[acknowledged] || next.is_some_and(|next| found == *next));
    }
}
