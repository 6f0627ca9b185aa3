//! The room that is kept for a full disk: who gets it, who does not, and how it is there again.

use std::{os::unix::fs::MetadataExt as _, path::PathBuf, sync::Arc};

use tempfile::TempDir;

use super::{
    disk::Disk,
    embedded::SMALL,
    model::{Model, after, batch},
};
use crate::{
    catalog::Batch,
    model::Revision,
    store::{Embedded, Store as _, StoreError, Verdict, embedded::Strides},
};

const MIB: usize = 256;

fn open(disk: &Disk, strides: Strides) -> Result<Embedded, StoreError> {
    Embedded::over(PathBuf::from("memory"), Box::new(disk.clone()), strides)
}

/// Commits, and says what became of it.
fn commit(store: &mut Embedded, model: &mut Model, wanted: &Batch) -> Verdict {
    let next = after(model.revision(), wanted);
    let verdict = store.commit(&[Arc::clone(&next)], Revision::ZERO).expect("is no error");
    if verdict == Verdict::Durable {
        model.apply(&next);
    }
    store.tidy().expect("is no error");
    verdict
}

/// A store of sixty instances.
fn filled(disk: &Disk, strides: Strides) -> (Embedded, Model) {
    let mut store = open(disk, strides).expect("opens");
    let mut model = Model::default();
    for id in 0..60 {
        assert_eq!(commit(&mut store, &mut model, &batch(1, id, false)), Verdict::Durable);
    }
    (store, model)
}

/// A deregistration on a disk that others had filled to the last byte was refused every other time. Also where the file system
/// does not tell how much room it has, or tells it late.
#[test]
fn deregistrations_find_room_on_a_full_disk() {
    for strides in [SMALL, Strides::default()] {
        let disk = Disk::new();
        disk.keeps(4, MIB / 4);
        let (mut store, mut model) = filled(&disk, strides);
        disk.leave(Some(0));
        disk.sticks();
        for id in 0..60 {
            let verdict = commit(&mut store, &mut model, &batch(1, id, true));
            assert_eq!(verdict, Verdict::Durable, "{id}");
        }
        assert!(disk.kept() < 4, "it was needed");
        assert_eq!(Model::of(&mut store), model);
        drop(store);
        assert_eq!(Model::of(&mut open(&disk, strides).expect("opens")), model);
    }
}

/// Others take the room before we do: no worse than without.
#[test]
fn others_may_be_faster() {
    let disk = Disk::new();
    disk.keeps(4, 0);
    let (mut store, mut model) = filled(&disk, SMALL);
    disk.sticks();
    let refused = (0..60).filter(|id| commit(&mut store, &mut model, &batch(1, *id, true)) != Verdict::Durable);
    assert_eq!((refused.count(), disk.kept()), (60, 0));
    disk.leave(None);
    assert_eq!(commit(&mut store, &mut model, &batch(1, 61, false)), Verdict::Durable);
    assert_eq!(Model::of(&mut store), model);
}

/// Where the file system tells, no write has to fail first: a file that is opened again is read as a whole.
#[test]
fn nothing_is_opened_again_where_the_room_is_known() {
    let disk = Disk::new();
    disk.keeps(4, MIB);
    let (mut store, mut model) = filled(&disk, Strides::default());
    disk.tells();
    disk.leave(Some(0));
    for id in 0..60 {
        let register = commit(&mut store, &mut model, &batch(1, id + 100, false));
        assert!(matches!(register, Verdict::NoRoom(_)), "what is kept is not for these");
        let verdict = commit(&mut store, &mut model, &batch(1, id, true));
        assert_eq!(verdict, Verdict::Durable, "{id}");
    }
    assert_eq!(disk.opened(), 1);
    assert!((1..4).contains(&disk.kept()), "{}", disk.kept());
    assert_eq!(Model::of(&mut store), model);
}

/// Where everything is written anew a store cannot even be opened without room.
#[test]
fn a_store_opens_with_the_room_that_is_kept() {
    let disk = Disk::new();
    let (store, model) = filled(&disk, SMALL);
    drop(store);
    disk.sticks();
    let error = open(&disk, SMALL).expect_err("has no room");
    assert!(matches!(error, StoreError::Directory { .. }), "{error}");
    disk.keeps(4, MIB);
    assert_eq!(Model::of(&mut open(&disk, SMALL).expect("opens")), model);
    assert_eq!(disk.kept(), 3);
}

/// What was given up is taken back when there is room for all of it and more, a slice with each commit.
#[test]
fn it_is_whole_again_when_there_is_room() {
    let disk = Disk::new();
    disk.keeps(4, MIB);
    let (mut store, mut model) = filled(&disk, Strides::default());
    disk.tells();
    for _ in 0..4 {
        disk.gives();
    }
    let mut tidied = |store: &mut Embedded, blocks: usize| {
        disk.leave(Some(blocks));
        commit(store, &mut model, &batch(1, 1, true));
        disk.kept()
    };
    // One for registrations, four to take back and four that stay.
    assert_eq!(tidied(&mut store, 9 * MIB - 1), 0);
    assert_eq!(tidied(&mut store, 9 * MIB + 100), 1);
    assert_eq!(tidied(&mut store, 8 * MIB - 1), 1);
    for slices in 2..=4 {
        assert_eq!(tidied(&mut store, 20 * MIB), slices);
    }
    assert_eq!(tidied(&mut store, 20 * MIB), 4);
}

/// The last megabyte, which is for those who deregister, went to a flush; and what that wrote in vain was read back as a whole.
#[test]
fn tidying_is_put_off_where_room_is_scarce() {
    let disk = Disk::new();
    let (mut store, mut model) = filled(&disk, SMALL);
    disk.tells();
    let runs = store.runs.clone();
    for id in 0..4 {
        disk.leave(Some(MIB / 2));
        commit(&mut store, &mut model, &batch(1, id, true));
    }
    assert_eq!(store.runs, runs);
    for id in 4..60 {
        disk.leave(Some(2 * MIB));
        commit(&mut store, &mut model, &batch(1, id, true));
    }
    assert_ne!(store.runs, runs);
    assert_eq!(disk.opened(), 1);
}

/// A file of 4 MiB that takes them, for nobody else to look into.
#[test]
fn it_is_a_file_beside_the_store() {
    let directory = TempDir::new().expect("a directory");
    let spare = directory.path().join("registry.spare");
    let whole = |spare: &PathBuf| {
        let found = std::fs::symlink_metadata(spare).expect("is there");
        (found.len(), found.mode() & 0o777) == (4 << 20, 0o600) && found.blocks() * 512 >= found.len()
    };
    let mut store = Embedded::open(directory.path()).expect("opens");
    assert!(whole(&spare));

    // Somebody needed the room.
    std::fs::remove_file(&spare).expect("deletes");
    let mut model = Model::default();
    for id in 0..4 {
        commit(&mut store, &mut model, &batch(1, id, false));
    }
    assert!(whole(&spare));
    drop(store);

    // What is there under its name and not ours is left alone.
    std::fs::remove_file(&spare).expect("deletes");
    let others = directory.path().join("others");
    std::fs::write(&others, "theirs").expect("writes");
    std::os::unix::fs::symlink(&others, &spare).expect("links");
    let mut store = Embedded::open(directory.path()).expect("opens");
    assert_eq!(Model::of(&mut store), model);
    assert_eq!(std::fs::read(&others).expect("reads"), b"theirs");
}
