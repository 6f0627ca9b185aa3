//! Backups of the embedded store: what they hold, when they are taken, and what becomes of damaged ones.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::TempDir;

use super::{
    disk::Disk,
    embedded::SMALL,
    model::{Model, after, batch, large},
};
use crate::{
    catalog::Batch,
    fixtures::WALL,
    model::Revision,
    store::{BackupError, Embedded, Store as _, restore, verify},
};

/// A store that has been flushed and merged, and what it holds.
fn store(disk: &Disk) -> (Embedded, Model) {
    let mut store = Embedded::over(PathBuf::from("memory"), Box::new(disk.clone()), SMALL).expect("opens");
    let mut model = Model::default();
    for revision in 1..=120 {
        let id = u8::try_from(revision % 23).expect("small");
        commit(&mut store, &mut model, batch(revision, id, revision % 6 == 0));
    }
    (store, model)
}

fn commit(store: &mut Embedded, model: &mut Model, batch: Arc<Batch>) {
    model.apply(&batch);
    model.compact(Revision::new(model.revision().get().saturating_sub(9)));
    store.commit(&[batch], model.compacted()).expect("commits");
    store.tidy().expect("tidies");
}

/// A backup's file.
fn taken(store: &Embedded, directory: &TempDir) -> (PathBuf, Vec<u8>) {
    let mut bytes = Vec::new();
    let backup = store.backup().expect("is possible");
    backup
        .write(WALL, &mut |piece| {
            bytes.extend(piece);
            Ok(())
        })
        .expect("writes");
    let file = directory.path().join("backup");
    std::fs::write(&file, &bytes).expect("writes");
    (file, bytes)
}

/// Restores it, and opens what that makes.
fn restored(file: &Path, directory: &Path) -> Embedded {
    restore(file, directory).expect("restores");
    Embedded::open(directory).expect("opens")
}

#[test]
fn a_backup_brings_everything_back_under_another_name() {
    let directory = TempDir::new().expect("a directory");
    let (mut store, mut model) = store(&Disk::new());
    let (file, bytes) = taken(&store, &directory);
    let contents = verify(&file).expect("is whole");
    assert_eq!(
        (contents.head.revision, contents.bytes),
        (model.revision(), bytes.len() as u64)
    );
    assert_eq!(contents.head.taken, WALL);

    let mut other = restored(&file, &directory.path().join("a/b"));
    assert_eq!(Model::of(&mut other), model);
    let (old, new) = (store.load().expect("loads"), other.load().expect("loads"));
    assert_eq!(old.history_id, contents.head.history_id);
    assert_ne!(old.history_id, new.history_id, "its revisions go on in another way");
    assert_eq!(contents.instances, new.instances.len() as u64);
    assert_eq!(contents.leases, new.leases.len() as u64);

    // It goes on from there, and can be backed up in turn.
    let next = after(model.revision(), &batch(1, 3, false));
    model.apply(&next);
    other.commit(&[next], model.compacted()).expect("commits");
    std::fs::remove_file(&file).expect("is there");
    let (file, _) = taken(&other, &directory);
    assert_eq!(Model::of(&mut restored(&file, &directory.path().join("c"))), model);
}

#[test]
fn an_empty_store_and_one_of_megabytes_are_backed_up_too() {
    let directory = TempDir::new().expect("a directory");
    let mut store = Embedded::open(&directory.path().join("first")).expect("opens");
    let mut model = Model::default();
    let (file, _) = taken(&store, &directory);
    assert_eq!(Model::of(&mut restored(&file, &directory.path().join("empty"))), model);
    for revision in 1..=3 {
        commit(&mut store, &mut model, large(revision, 200));
    }
    let (file, _) = taken(&store, &directory);
    assert_eq!(Model::of(&mut restored(&file, &directory.path().join("large"))), model);
    // A history of nothing: the revision is there all the same.
    let last = after(model.revision(), &batch(1, 3, false));
    model.apply(&last);
    model.compact(last.revision);
    store.commit(&[last], model.compacted()).expect("commits");
    let (file, _) = taken(&store, &directory);
    assert_eq!(Model::of(&mut restored(&file, &directory.path().join("past"))), model);
}

/// A backup shows one revision, however much is committed, flushed and merged while it is being taken.
#[test]
fn commits_go_on_while_a_backup_is_taken() {
    let directory = TempDir::new().expect("a directory");
    let (mut store, model) = store(&Disk::new());
    let backup = store.backup().expect("is possible");
    let mut later = model.clone();
    let mut bytes = Vec::new();
    let mut write = |piece: Vec<u8>| {
        for id in 0..40 {
            let next = after(later.revision(), &batch(1, id, id % 2 == 0));
            commit(&mut store, &mut later, next);
        }
        bytes.extend(piece);
        Ok(())
    };
    backup.write(WALL, &mut write).expect("writes");
    assert!(
        later.revision().get() > model.revision().get() + 100,
        "much was committed"
    );
    let file = directory.path().join("backup");
    std::fs::write(&file, &bytes).expect("writes");
    assert_eq!(Model::of(&mut restored(&file, &directory.path().join("store"))), model);
    assert_eq!(Model::of(&mut store), later);
}

#[test]
fn what_was_cut_off_or_changed_is_not_restored() {
    let directory = TempDir::new().expect("a directory");
    let (store, _) = store(&Disk::new());
    let (file, bytes) = taken(&store, &directory);
    let to = directory.path().join("store");
    let refused = |bytes: &[u8]| {
        std::fs::write(&file, bytes).expect("writes");
        let error = restore(&file, &to).expect_err("is damaged");
        assert!(!to.exists(), "{error}: it left something behind");
        error.to_string()
    };
    for length in (0..bytes.len()).step_by(37) {
        refused(&bytes[..length]);
    }
    for at in (0..bytes.len()).step_by(41) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        refused(&bytes);
    }
    assert_eq!(refused(b"PK"), "it is not a backup of a registry");
    let newer = [b"tessera-backup 2\n", &bytes[17..]].concat();
    assert!(refused(&newer).contains("knows more"));
}

#[test]
fn a_directory_with_anything_in_it_is_left_alone() {
    let directory = TempDir::new().expect("a directory");
    let (store, _) = store(&Disk::new());
    let (file, _) = taken(&store, &directory);
    let error = restore(&file, directory.path()).expect_err("there is the backup");
    assert!(matches!(error, BackupError::NotEmpty), "{error}");
    assert!(!Embedded::is_in(directory.path()));
}

/// A reader that has gone ends the backup, and the store is free to use its old pages again.
#[test]
fn a_backup_that_nobody_takes_ends() {
    let (store, _) = store(&Disk::new());
    let backup = store.backup().expect("is possible");
    let error = backup
        .write(WALL, &mut |_| Err(std::io::ErrorKind::BrokenPipe.into()))
        .expect_err("ends");
    assert!(matches!(error, BackupError::Io(_)), "{error}");
    drop(store);
    let error = backup.write(WALL, &mut |_| Ok(())).expect_err("there is no store");
    assert!(matches!(error, BackupError::Store(_)), "{error}");
}
