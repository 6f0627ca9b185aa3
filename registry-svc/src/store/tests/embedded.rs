//! The embedded store: the suite, and its own directory and formats. What a disk does to it is in [`super::faults`].

use std::sync::Arc;

use redb::{Database, ReadableTable as _, TableDefinition};
use tempfile::TempDir;

use super::{
    model::{Model, after, batch, plain},
    suite::{self, Shelf},
};
use crate::{
    catalog::Change,
    model::Revision,
    store::{
        Embedded, Store, StoreError, Verdict,
        embedded::{InDirectory, Medium, Strides, medium::Missing},
    },
};

/// So little that a handful of groups is flushed and merged.
pub(super) const SMALL: Strides = Strides {
    flush: 1_500,
    chunk: 400,
    young: 2_500,
    step: 700,
    pause: 2,
    cache: 4_096,
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

/// The same suite with a store that tidies after each commit, in strides of a few entries.
mod in_small_strides {
    use super::*;

    #[derive(Debug)]
    struct Tidy(Embedded);

    impl Store for Tidy {
        fn load(&mut self) -> Result<crate::store::Loaded, StoreError> {
            self.0.load()
        }

        fn history(&mut self) -> Result<Vec<crate::catalog::Batch>, StoreError> {
            self.0.history()
        }

        fn commit(
            &mut self,
            batches: &[std::sync::Arc<crate::catalog::Batch>],
            compacted: Revision,
        ) -> Result<Verdict, StoreError> {
            let verdict = self.0.commit(batches, compacted)?;
            self.0.tidy()?;
            Ok(verdict)
        }
    }

    struct Small(TempDir);

    impl Shelf for Small {
        type Store = Tidy;

        fn new() -> Option<Self> {
            Some(Self(TempDir::new().expect("a directory")))
        }

        fn open(&self) -> Tidy {
            let medium = InDirectory::new(self.0.path().join("registry.redb"));
            Tidy(Embedded::over(self.0.path().to_owned(), Box::new(medium), SMALL).expect("opens"))
        }

        fn raw(&self) -> Vec<u8> {
            std::fs::read(self.0.path().join("registry.redb")).expect("reads")
        }
    }

    suite::suite!(Small, 200);

    /// A step of a merge came with a commit that had nothing to flush. With groups as large as what is flushed at once none came,
    /// and a storm of registrations left one run for each of its groups.
    #[test]
    fn large_groups_are_merged_too() {
        let shelf = Small::new().expect("a directory");
        let mut store = shelf.open();
        let mut model = Model::default();
        for round in 0..120 {
            let group: Vec<_> = (1..=20_u8)
                .map(|n| after(Revision::new(20 * round + u64::from(n) - 1), &batch(1, n % 17, false)))
                .collect();
            group.iter().for_each(|batch| model.apply(batch));
            model.compact(model.revision());
            store.commit(&group, model.compacted()).expect("commits");
            let runs = store.0.runs.sizes.len();
            assert!(runs < 12, "{runs} runs in round {round}");
        }
        assert_eq!(Model::of(&mut store), model);
    }

    /// What was left when nobody committed any more stayed as it was, and the next start read all of it.
    #[test]
    fn an_idle_store_ends_its_merge() {
        let shelf = Small::new().expect("a directory");
        let mut store = shelf.open();
        let mut model = Model::default();
        let mut revision = 0;
        while !store.0.tidy().expect("tidies") {
            revision += 1;
            let batch = batch(revision, u8::try_from(revision % 40).expect("small"), false);
            model.apply(&batch);
            model.compact(Revision::new(revision));
            store.0.commit(&[batch], model.compacted()).expect("commits");
        }
        let before = store.0.runs.sizes.len();
        while store.0.idle().expect("merges") {}
        let after = store.0.runs.sizes.len();
        assert!(after == 1 && before > 1, "{after} runs of {before}");
        assert_eq!(Model::of(&mut store), model);
        drop(store);
        assert_eq!(Model::of(&mut shelf.open()), model);
    }

    #[test]
    fn the_log_is_put_in_order_and_what_has_ended_leaves_no_trace() {
        let shelf = Small::new().expect("a directory");
        let mut store = shelf.open();
        let mut model = Model::default();
        let (mut most, mut merged) = (0, 0);
        for revision in 1..=600 {
            let id = u8::try_from(revision % 40).expect("small");
            let batch = batch(revision, id, revision > 560);
            model.apply(&batch);
            model.compact(Revision::new(revision.saturating_sub(5)));
            store.commit(&[batch], model.compacted()).expect("commits");
            let runs = store.0.runs.sizes.len();
            merged += usize::from(runs < most);
            most = runs;
            // With the log's history and what is not yet merged there is never much more than what lives.
            let stored: u64 = store.0.runs.sizes.values().sum();
            assert!(stored < 60_000, "{stored} bytes at {revision}");
        }
        assert!(merged > 5, "{merged} merges");
        assert_eq!(Model::of(&mut store), model);
        drop(store);
        let mut store = shelf.open();
        assert_eq!(Model::of(&mut store), model);
        // A merge more, and what the 40 had is gone.
        for revision in 601..=700 {
            store
                .commit(&[batch(revision, 50, false)], Revision::new(revision))
                .expect("commits");
        }
        let stored: u64 = store.0.runs.sizes.values().sum();
        assert!(stored < 5_000, "{stored} bytes");
    }
}

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

/// While the file was opened again after a full disk nothing kept others out, and the instant was enough for a second registry.
#[test]
fn a_directory_is_locked_whatever_becomes_of_its_file() {
    let directory = TempDir::new().expect("a directory");
    let store = Embedded::open(directory.path()).expect("opens");
    let file = directory.path().join("registry.redb");
    std::fs::rename(&file, file.with_extension("elsewhere")).expect("renames");
    let error = Embedded::open(directory.path()).expect_err("is in use");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop(store);
    Embedded::open(directory.path()).expect("opens");
}

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Changes a closed store's numbers.
fn with_meta(directory: &TempDir, change: impl FnOnce(&mut redb::Table<'_, &str, u64>)) {
    let database = Database::create(directory.path().join("registry.redb")).expect("opens");
    let write = database.begin_write().expect("begins");
    change(&mut write.open_table(META).expect("opens"));
    write.commit().expect("commits");
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let directory = TempDir::new().expect("a directory");
    with_meta(&directory, |meta| {
        meta.insert("format", 4).expect("inserts");
    });
    let error = Embedded::open(directory.path()).expect_err("newer");
    assert!(
        matches!(error, StoreError::NewerFormat { found: 4, known: 3, .. }),
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
    with_meta(&directory, |meta| {
        meta.remove("history").expect("removes");
    });
    let second = id();
    assert_ne!(second, first);
    assert_eq!(id(), second);
}

/// A directory with a store of format 1, which had a table for each of instances, leases and history. Its history has what
/// came after `compacted`, but for the revision `lost`.
fn format_1(compacted: u64, lost: Option<u64>) -> (TempDir, Model) {
    use prost::Message as _;

    use crate::{
        catalog::LeaseChange,
        store::record::oracle::{BatchRecord, InstanceRecord, LeaseTermsRecord},
    };

    const INSTANCES: TableDefinition<'_, (&str, &str, &str), &[u8]> = TableDefinition::new("instances");
    const LEASES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("leases");
    const HISTORY: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("history");

    let directory = TempDir::new().expect("a directory");
    let mut model = Model::default();
    let database = Database::create(directory.path().join("registry.redb")).expect("creates");
    let write = database.begin_write().expect("begins");
    {
        let mut instances = write.open_table(INSTANCES).expect("opens");
        let mut leases = write.open_table(LEASES).expect("opens");
        let mut history = write.open_table(HISTORY).expect("opens");
        for revision in 1..=30 {
            let batch = plain(&batch(
                revision,
                u8::try_from(revision % 9).expect("small"),
                revision % 4 == 0,
            ));
            model.apply(&batch);
            for change in &batch.changes {
                let key = change.key();
                let key = (key.namespace.as_str(), key.service.as_str(), key.id.as_str());
                match change {
                    Change::Put { instance, .. } => {
                        let record = InstanceRecord::from(&**instance).encode_to_vec();
                        instances.insert(key, record.as_slice()).expect("inserts");
                    }
                    Change::Removed(_) => drop(instances.remove(key).expect("removes")),
                }
            }
            for change in &batch.leases {
                match change {
                    LeaseChange::Kept(lease) | LeaseChange::Lost(lease) => {
                        let record = LeaseTermsRecord::from(lease).encode_to_vec();
                        leases.insert(lease.id.bits(), record.as_slice()).expect("inserts");
                    }
                    LeaseChange::Ended(id) => drop(leases.remove(id.bits()).expect("removes")),
                }
            }
            if revision > compacted && Some(revision) != lost {
                let past = BatchRecord::of_format_1(&batch).encode_to_vec();
                history.insert(revision, past.as_slice()).expect("inserts");
            }
        }
        let mut meta = write.open_table(META).expect("opens");
        for (key, number) in [
            ("format", 1),
            ("revision", 30),
            ("compacted", compacted),
            ("history", 77),
        ] {
            meta.insert(key, number).expect("inserts");
        }
    }
    write.commit().expect("commits");
    drop(database);
    model.compact(Revision::new(compacted));
    (directory, model)
}

/// What a store of format 1 holds must all be there when the present version has opened it, and go on from there.
#[test]
fn a_store_of_format_1_is_read_and_goes_on() {
    for compacted in [0, 7, 30] {
        let (directory, mut model) = format_1(compacted, None);
        let mut store = Embedded::open(directory.path()).expect("opens");
        assert_eq!(store.load().expect("loads").history_id.to_string(), "000000000000004d");
        assert_eq!(Model::of(&mut store), model, "compacted {compacted}");
        let next = after(model.revision(), &batch(1, 3, true));
        model.apply(&next);
        store.commit(&[next], model.compacted()).expect("commits");
        drop(store);
        assert_eq!(Model::of(&mut Embedded::open(directory.path()).expect("opens")), model);
    }
}

/// Whoever never lays anything over an instance can go back to the version that knew no overrides; that version must not open
/// what it would lose.
#[test]
fn a_store_changes_its_format_with_its_first_override() {
    let directory = TempDir::new().expect("a directory");
    for (revision, id, format) in [(1, 1, 2), (2, 3, 3), (3, 1, 3)] {
        let mut store = Embedded::open(directory.path()).expect("opens");
        let batch = if format == 2 {
            Arc::new(plain(&batch(revision, id, false)))
        } else {
            batch(revision, id, false)
        };
        store.commit(&[batch], Revision::ZERO).expect("commits");
        drop(store);
        assert_eq!(format_of(&directory), format);
    }
    let file = directory.path().join("backup");
    let saved = crate::backup::save(directory.path(), &file).expect("is read");
    assert_eq!(saved.overrides, 1);
    let (restored, mut loaded) = (TempDir::new().expect("a directory"), Vec::new());
    let data_dir = restored.path().join("data");
    crate::backup::restore(&file, &data_dir).expect("restores");
    for directory in [directory.path(), &data_dir] {
        loaded.push(Model::of(&mut Embedded::open(directory).expect("opens")));
    }
    assert_eq!(loaded[0], loaded[1], "a backup has them too");
}

/// What a closed store says of its format.
fn format_of(directory: &TempDir) -> u64 {
    let mut found = None;
    with_meta(directory, |meta| {
        found = meta.get("format").expect("reads").map(|format| format.value());
    });
    found.expect("has one")
}

/// The backup that one takes before an upgrade, with the new version and of the directory, converted the store: from there on
/// the old version could not go back to it.
#[test]
fn a_backup_of_an_older_store_leaves_it_as_it_is() {
    let (directory, _) = format_1(7, None);
    let file = directory.path().join("backup");
    let error = crate::backup::save(directory.path(), &file).expect_err("is older");
    assert!(
        error
            .to_string()
            .contains("has format 1: take the backup with the version that wrote it"),
        "{error}"
    );
    assert_eq!(format_of(&directory), 1);
    assert!(!file.exists());
}

/// A store that the present version cannot go on from was found out about at its first start, once the conversion was
/// committed, and then no version could.
#[test]
fn an_older_store_that_is_damaged_is_not_converted() {
    let (directory, _) = format_1(7, Some(19));
    let error = Embedded::open(directory.path()).expect_err("damaged").to_string();
    assert!(
        error.ends_with("the record of revision 19 is damaged: it is missing"),
        "{error}"
    );
    assert_eq!(format_of(&directory), 1);
}

/// The old tables and the new ones are there at once. A disk without room for that was filled to its last byte before the
/// conversion gave up, and then had none for the old version either.
#[test]
fn an_older_store_is_converted_only_where_there_is_room() {
    #[derive(Debug)]
    struct Full(InDirectory);

    impl Medium for Full {
        fn open(&self, missing: Missing) -> std::io::Result<Box<dyn redb::StorageBackend>> {
            self.0.open(missing)
        }

        fn free(&self) -> Option<u64> {
            Some(0)
        }
    }

    let (directory, _) = format_1(7, None);
    let file = directory.path().join("registry.redb");
    let bytes = || std::fs::metadata(&file).expect("is there").len();
    let before = bytes();
    let medium = Box::new(Full(InDirectory::new(file.clone())));
    let error = Embedded::over(directory.path().to_owned(), medium, SMALL).expect_err("is full");
    assert!(error.to_string().contains("make room there"), "{error}");
    assert_eq!(bytes(), before);
    assert_eq!(format_of(&directory), 1);
}

/// What merges free stays in the file, and the disk shows none of it. On a volume that the file had nearly filled once, merges waited
/// for room for ever, and the file grew by what they would have dropped.
#[test]
fn a_merge_does_not_wait_for_ever_for_room_that_the_file_may_have() {
    #[derive(Debug)]
    struct Tight(InDirectory);

    impl Medium for Tight {
        fn open(&self, missing: Missing) -> std::io::Result<Box<dyn redb::StorageBackend>> {
            self.0.open(missing)
        }

        fn free(&self) -> Option<u64> {
            // Enough for a registration, and too little for a step.
            Some(1024 * 1024 + 1_300)
        }
    }

    let directory = TempDir::new().expect("a directory");
    let medium = Tight(InDirectory::new(directory.path().join("registry.redb")));
    let mut store = Embedded::over(directory.path().to_owned(), Box::new(medium), SMALL).expect("opens");
    let mut model = Model::default();
    for revision in 1..=2_000 {
        let batch = batch(revision, u8::try_from(revision % 40).expect("small"), false);
        model.apply(&batch);
        model.compact(Revision::new(revision));
        assert_eq!(
            store.commit(&[batch], model.compacted()).expect("commits"),
            Verdict::Durable
        );
        store.tidy().expect("tidies");
        let runs = store.runs.sizes.len();
        assert!(runs < 20, "{runs} runs at {revision}");
    }
    assert_eq!(Model::of(&mut store), model);
}

/// What a restart reads of the log and what it reads of the runs was kept twice: up to 64 MiB of history that a registry which
/// was never restarted shares with its instances.
#[test]
fn after_a_restart_the_history_has_no_copies_of_what_is_there() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("registry.redb");
    let open = || {
        let medium = Box::new(InDirectory::new(file.clone()));
        Embedded::over(directory.path().to_owned(), medium, SMALL).expect("opens")
    };
    let mut store = open();
    let mut model = Model::default();
    for revision in 1..=60 {
        let batch = batch(revision, u8::try_from(revision % 50).expect("small"), false);
        model.apply(&batch);
        store.commit(&[batch], model.compacted()).expect("commits");
        store.tidy().expect("tidies");
    }
    assert!(!store.runs.sizes.is_empty(), "some of it is in a run");
    drop(store);

    let mut store = open();
    let loaded = store.load().expect("loads");
    let mut history = store.history().expect("reads");
    loaded.lend_to(&mut history);
    for known in &loaded.instances {
        let told = history.iter().flat_map(|batch| &batch.changes).rev();
        let newest = told.filter_map(|change| match change {
            Change::Put { instance, .. } => Some(instance),
            Change::Removed(_) => None,
        });
        let newest = newest.into_iter().find(|instance| instance.key == known.key);
        assert!(Arc::ptr_eq(known, newest.expect("is in the history")), "{}", known.key);
    }
    assert_eq!(Model::of(&mut store), model, "and nothing else is changed");
    let mut again = store.history().expect("reads");
    loaded.lend_to(&mut again);
    assert_eq!(again, history);
}

/// An instance whose lease is not there would never end; a store that has one is damaged, and says which.
#[test]
fn an_instance_without_its_lease_is_damage() {
    let directory = TempDir::new().expect("a directory");
    let mut store = Embedded::open(directory.path()).expect("opens");
    let mut orphan = (*batch(1, 1, false)).clone();
    orphan.leases.clear();
    store.commit(&[orphan.into()], Revision::ZERO).expect("commits");
    let error = store.load().expect_err("damaged").to_string();
    assert!(
        error.ends_with("the record of instance default/a-svc/i1 is damaged: its lease is missing"),
        "{error}"
    );
}
