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
    backup::{Error, Unfinished, restore, save, verify},
    catalog::{Batch, Change},
    fixtures::WALL,
    model::Revision,
    store::{
        BackupError, Embedded, Restored, Store as _, Verdict,
        archive::{self, Archive, ArchiveError, Head, Part},
        record,
    },
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
        (contents.revision, contents.bytes),
        (model.revision().get(), bytes.len() as u64)
    );
    let since = contents.taken.duration_since(std::time::UNIX_EPOCH);
    assert_eq!(since.expect("after 1970").as_secs().cast_signed(), WALL.seconds);

    let mut other = restored(&file, &directory.path().join("a/b"));
    assert_eq!(Model::of(&mut other), model);
    let (old, new) = (store.load().expect("loads"), other.load().expect("loads"));
    assert_eq!(old.history_id.to_string(), contents.history_id);
    assert_ne!(old.history_id, new.history_id, "its revisions go on in another way");
    assert_eq!(contents.instances, new.instances.len() as u64);
    assert_eq!(contents.leases, new.leases.len() as u64);

    // It goes on from there, and can be backed up in turn.
    let next = after(model.revision(), &batch(1, 3, false));
    model.apply(&next);
    other.commit(&[next], model.compacted()).expect("commits");
    std::fs::remove_file(&file).expect("is there");
    let (again, _) = taken(&other, &directory);
    assert_eq!(Model::of(&mut restored(&again, &directory.path().join("c"))), model);

    // Also where nobody serves.
    drop(other);
    let saved = directory.path().join("saved");
    save(&directory.path().join("a/b"), &saved).expect("saves");
    assert_eq!(Model::of(&mut restored(&saved, &directory.path().join("d"))), model);
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
    assert!(refused(b"PK").ends_with(": it is not a backup of a registry"));
    let error = refused(&[&bytes[..], b"x"].concat());
    assert!(error.contains("goes on after its end"), "{error}");
    let newer = [b"tessera-backup 2\n", &bytes[17..]].concat();
    assert!(refused(&newer).contains("knows more"));
}

#[test]
fn a_directory_with_anything_in_it_is_left_alone() {
    let directory = TempDir::new().expect("a directory");
    let (store, _) = store(&Disk::new());
    let (file, _) = taken(&store, &directory);
    let error = restore(&file, directory.path()).expect_err("there is the backup");
    assert!(matches!(error, Error::NotEmpty { .. }), "{error}");
    assert!(!Embedded::is_in(directory.path()));
    // The root of a file system has this as a rule, and is what one restores to.
    let root = directory.path().join("root");
    std::fs::create_dir_all(root.join("lost+found")).expect("makes");
    restore(&file, &root).expect("is empty");
}

/// A restored store was renamed over whatever had the name by then. A registry that a supervisor had started meanwhile went on
/// committing to a file without a name, and all that it acknowledged was gone with it.
#[test]
fn a_registry_that_starts_while_a_store_is_restored_keeps_its_own() {
    let directory = TempDir::new().expect("a directory");
    let (store, _) = store(&Disk::new());
    let (file, bytes) = taken(&store, &directory);
    let contents = archive::verify(bytes.as_slice()).expect("is whole");
    let to = directory.path().join("to");
    std::fs::create_dir(&to).expect("makes");
    let prepared = Restored::of(bytes.as_slice(), &contents, &to).expect("fills");

    let mut model = Model::default();
    let mut other = Embedded::open(&to).expect("opens");
    commit(&mut other, &mut model, batch(1, 3, false));
    let error = prepared.finish().expect_err("is in the way");
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}");
    commit(&mut other, &mut model, batch(2, 4, false));
    drop(other);
    assert_eq!(Model::of(&mut Embedded::open(&to).expect("opens")), model);
    assert!(!to.join("registry.restoring").exists(), "nothing is left of it");
    assert!(matches!(restore(&file, &to), Err(Error::NotEmpty { .. })));
}

/// Two backups to one name wrote one file: the second cut off what the first had verified, and the first gave it its name.
/// And a file that came meanwhile was replaced, although it may have been the only good backup.
#[test]
fn one_backup_at_a_time_gets_a_name_and_none_replaces_a_file() {
    let directory = TempDir::new().expect("a directory");
    let (store, _) = store(&Disk::new());
    let (_, bytes) = taken(&store, &directory);
    let name = directory.path().join("name");
    let mut first = Unfinished::create(&name).expect("is free");
    first.write(&bytes).expect("writes");
    let error = Unfinished::create(&name).expect_err("the first is at it");
    assert!(matches!(error, Error::Busy { .. }), "{error}");

    std::fs::write(&name, "another").expect("writes");
    let error = first.finish().expect_err("has come meanwhile");
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    assert_eq!(std::fs::read(&name).expect("reads"), b"another");
    assert!(!directory.path().join("name.part").exists());

    std::fs::remove_file(&name).expect("removes");
    let mut second = Unfinished::create(&name).expect("is free");
    second.write(&bytes).expect("writes");
    second.finish().expect("is whole");
    assert_eq!(std::fs::read(&name).expect("reads"), bytes);
}

/// The checksum of a backup says that it is what was written, not that it is a state to start from: a store that was damaged made
/// backups that were verified and restored, and the registry over them ended at its start.
#[test]
fn a_backup_of_what_no_registry_can_start_from_is_none() {
    let head = Head {
        history_id: crate::model::HistoryId::from_random(1),
        revision: Revision::new(2),
        compacted: Revision::ZERO,
        taken: WALL,
    };
    let batches = [batch(1, 1, false), batch(2, 2, false)];
    let instances = batches.each_ref().map(|batch| match &batch.changes[..] {
        [Change::Put { instance, .. }] => Arc::clone(instance),
        other => panic!("{other:?}"),
    });
    let mut leases = batches.each_ref().map(|batch| match &batch.leases[..] {
        [crate::catalog::LeaseChange::Kept(lease)] => lease.clone(),
        other => panic!("{other:?}"),
    });
    leases.sort_by_key(|lease| lease.id);
    let check = |order: &[usize], leases_of: &[usize], past: &[(u64, &[Arc<Batch>])], expected: &str| {
        let mut bytes = Vec::new();
        let mut to = |piece: Vec<u8>| {
            bytes.extend(piece);
            Ok(())
        };
        let mut archive = Archive::begin(&mut to, head).expect("begins");
        for at in order {
            let record = record::encode_instance(&instances[*at]);
            archive.instance(&record).expect("writes");
        }
        for at in leases_of {
            archive
                .lease(leases[*at].id, &record::encode_lease(&leases[*at]))
                .expect("writes");
        }
        for (last, group) in past {
            archive
                .past(Revision::new(*last), &record::encode_group(group))
                .expect("writes");
        }
        archive.end().expect("ends");
        let found = archive::verify(bytes.as_slice()).map_or_else(|error| error.to_string(), |_| String::new());
        assert!(
            found.contains(expected) && found.is_empty() == expected.is_empty(),
            "{found}"
        );
    };
    let whole: [(u64, &[Arc<Batch>]); 2] = [(1, &batches[..1]), (2, &batches[1..])];
    check(&[0, 1], &[0, 1], &whole, "");
    check(&[0, 1], &[0, 1], &[(2, &batches)], "");
    check(&[1, 0], &[0, 1], &whole, "not in order");
    check(&[0, 0], &[0, 1], &whole, "not in order");
    check(&[0, 1], &[1, 0], &whole, "not in order");
    check(&[0, 1], &[0], &whole, "is missing");
    check(&[0, 1], &[0, 1], &whole[..1], "revision 2 is missing");
    check(&[0, 1], &[0, 1], &whole[1..], "revision 1 is missing");
    check(&[0, 1], &[0, 1], &[(1, &batches)], "is missing");
}

/// A group in which everything lapsed at once was one entry of the log, whatever its size, and one part of a backup; beyond
/// 64 MiB no backup was whole for as long as the history had it.
#[test]
fn a_group_of_any_size_is_kept_in_parts() {
    let directory = TempDir::new().expect("a directory");
    let mut store = Embedded::open(&directory.path().join("first")).expect("opens");
    let mut model = Model::default();
    let group: Vec<_> = (1..=9).map(|revision| large(revision, 64)).collect();
    group.iter().for_each(|batch| model.apply(batch));
    let verdict = store.commit(&group, model.compacted()).expect("commits");
    assert_eq!(verdict, Verdict::Durable);
    let (file, bytes) = taken(&store, &directory);
    let mut parts = Vec::new();
    archive::read(bytes.as_slice(), |part| -> Result<(), ArchiveError> {
        if let Part::Past(last, group) = part {
            parts.push((last.get(), group.len()));
        }
        Ok(())
    })
    .expect("is whole");
    let all: usize = parts.iter().map(|(_, bytes)| bytes).sum();
    assert!(all > 8 << 20, "{parts:?}");
    assert!(parts.iter().all(|(_, bytes)| *bytes <= 4 << 20), "{parts:?}");
    assert_eq!(parts.last().map(|(last, _)| *last), Some(9));
    assert_eq!(Model::of(&mut restored(&file, &directory.path().join("second"))), model);
    drop(store);
    let mut store = Embedded::open(&directory.path().join("first")).expect("opens");
    assert_eq!(Model::of(&mut store), model);
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
    assert!(error.to_string().contains("no room"), "{error}");
}
