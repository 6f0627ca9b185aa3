//! What a disk does to the embedded store: it loses its power, has no room, or breaks.

use std::{path::PathBuf, sync::Arc};

use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    disk::{Disk, Late, State},
    embedded::SMALL,
    model::{Model, after, batch, groups},
};
use crate::{
    catalog::Batch,
    model::Revision,
    store::{Embedded, Store as _, StoreError, Verdict},
};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn open(disk: &Disk) -> Result<Embedded, StoreError> {
    Embedded::over(PathBuf::from("memory"), Box::new(disk.clone()), SMALL)
}

/// The groups of a seed.
fn groups_of(seed: u64) -> Vec<Vec<Arc<Batch>>> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    groups().new_tree(&mut runner).expect("groups").current()
}

/// Commits the groups and tidies; returns what the store must hold before the first and after each.
fn commit_all(disk: &Disk, store: &mut Embedded, groups: &[Vec<Arc<Batch>>], keep: u64) -> Vec<Model> {
    let mut models = vec![Model::default()];
    for group in groups {
        let mut model = models.last().expect("one").clone();
        group.iter().for_each(|batch| model.apply(batch));
        model.compact(Revision::new(model.revision().get().saturating_sub(keep)));
        let verdict = store.commit(group, model.compacted()).expect("commits");
        assert_eq!(verdict, Verdict::Durable);
        models.push(model);
        disk.acknowledge();
        store.tidy().expect("tidies");
    }
    models
}

/// Cuts of each history.
const CUTS: usize = 10;

/// Seeds of the histories. `TESSERA_SEED` is the first one, `TESSERA_SEEDS` says how many.
fn seeds() -> std::ops::Range<u64> {
    let number = |name, default| match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    };
    let first = number("TESSERA_SEED", 1);
    first..first + number("TESSERA_SEEDS", 200)
}

/// A power cut keeps what was synced and any part of what was not. Wherever it falls, within a commit, a flush, a merge or the
/// trimming of the log, the store opens again with every group that was acknowledged, and with the one under way as a whole or
/// not at all; its revision never goes back, also when the power goes again.
#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    for seed in seeds() {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = Disk::new();
        let mut store = open(&disk).expect("opens");
        disk.record();
        let models = commit_all(&disk, &mut store, &groups_of(seed), random.random_range(0..6));
        let (mut state, operations) = disk.recorded();
        let mut cuts: Vec<usize> = (0..CUTS).map(|_| random.random_range(0..=operations.len())).collect();
        cuts.sort_unstable();
        let mut done = 0;
        for cut in cuts {
            operations[done..cut]
                .iter()
                .for_each(|operation| state.perform(operation));
            done = cut;
            check_cut(&format!("seed {seed}, operation {cut}"), &state, &models, &mut random);
        }
    }
}

/// The same at every single operation of one history, among them those between a write and its fsync, after the fsync and
/// before the answer, and in the midst of tidying.
#[test]
fn a_crash_at_any_point_takes_nothing_that_was_acknowledged() {
    let groups: Vec<Vec<_>> = (1..=40)
        .map(|revision| {
            vec![batch(
                revision,
                u8::try_from(revision % 7).expect("small"),
                revision % 5 == 0,
            )]
        })
        .collect();
    let disk = Disk::new();
    let mut store = open(&disk).expect("opens");
    disk.record();
    let models = commit_all(&disk, &mut store, &groups, 3);
    let (runs, newest) = (store.runs.sizes.len(), store.runs.sizes.keys().next_back().copied());
    assert!(
        newest > Some(4) && runs < 5,
        "flushes and merges are among it: {runs}, {newest:?}"
    );
    let (mut state, operations) = disk.recorded();
    let mut random = StdRng::seed_from_u64(1);
    for (at, operation) in operations.iter().enumerate() {
        check_cut(&format!("operation {at}"), &state, &models, &mut random);
        state.perform(operation);
    }
}

/// `models`: what was there before the first group, and after each.
fn check_cut(place: &str, state: &State, models: &[Model], random: &mut StdRng) {
    let disk = Disk::with(state.survivors(random.random()));
    disk.record();
    let found = Model::of(&mut open(&disk).unwrap_or_else(|error| panic!("{place}: {error}")));
    let acknowledged = &models[state.acknowledged..];
    assert!(
        acknowledged.iter().take(2).any(|model| found == *model),
        "{place}: {found:?}"
    );

    // The power goes again while it opens.
    let (mut state, operations) = disk.recorded();
    let again = random.random_range(0..=operations.len());
    operations[..again]
        .iter()
        .for_each(|operation| state.perform(operation));
    let disk = Disk::with(state.survivors(random.random()));
    let mut store = open(&disk).unwrap_or_else(|error| panic!("{place}, again {again}: {error}"));
    assert_eq!(Model::of(&mut store), found, "{place}, again {again}");
    let mut found = found;
    let next = after(found.revision(), &batch(1, 3, true));
    found.apply(&next);
    store.commit(&[next], found.compacted()).expect("commits");
    assert_eq!(Model::of(&mut store), found, "{place}, and on");
}

/// A full disk ended the process. Now nothing is written, the store says so, holds what it held, and goes on when there is
/// room, whatever it was doing when the room ran out.
#[test]
fn a_full_disk_is_no_room_and_not_the_end() {
    let mut refused = 0;
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = Disk::new();
        // Some slices, which others may be faster to take.
        disk.keeps(random.random_range(0..5), random.random_range(0..30));
        let mut store = open(&disk).expect("opens");
        let mut model = Model::default();
        for round in 0..60 {
            if random.random_bool(0.2) {
                disk.leave(random.random_bool(0.7).then(|| random.random_range(0..6)));
            }
            let batch = after(model.revision(), &batch(1, round % 11, random.random_bool(0.3)));
            let compacted = Revision::new(model.revision().get().saturating_sub(3));
            match store.commit(&[Arc::clone(&batch)], compacted).expect("is no error") {
                Verdict::Durable => {
                    model.apply(&batch);
                    model.compact(compacted);
                }
                Verdict::NoRoom(why) => {
                    refused += 1;
                    assert!(why.contains("memory") && why.contains("make room"), "{why}");
                }
                Verdict::Overtaken => panic!("seed {seed}: nobody else is there"),
            }
            store.tidy().expect("is no error");
        }
        disk.leave(None);
        let last = after(model.revision(), &batch(1, 1, false));
        model.apply(&last);
        assert_eq!(
            store.commit(&[last], model.compacted()).expect("commits"),
            Verdict::Durable,
            "seed {seed}"
        );
        assert_eq!(Model::of(&mut store), model, "seed {seed}");
        drop(store);
        assert_eq!(
            Model::of(&mut open(&disk).expect("opens")),
            model,
            "seed {seed}, opened again"
        );
    }
    assert!(refused > 300, "{refused}");
}

/// redb goes on writing after the fsync of a commit, and may find no room for that. A flush or a merge of which that was said
/// was durable, and the store went on as if it was not: the next flush wrote a run of the same number over it, in other chunks,
/// and what was read back was neither.
#[test]
fn what_is_durable_and_then_finds_no_room_is_gone_on_from() {
    let (mut flushed, mut merged) = (0, 0);
    for seed in 0..100 {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = Disk::new();
        let mut store = open(&disk).expect("opens");
        let mut model = Model::default();
        for round in 0..60 {
            let batch = after(model.revision(), &batch(1, round % 11, random.random_bool(0.3)));
            let compacted = Revision::new(model.revision().get().saturating_sub(3));
            if random.random_bool(0.3) {
                disk.late(Late::Once);
            }
            if store.commit(&[Arc::clone(&batch)], compacted).expect("is no error") == Verdict::Durable {
                model.apply(&batch);
                model.compact(compacted);
            }
            let (failed, runs) = (disk.failed_late(), store.runs.sizes.len());
            disk.late(match random.random_range(0..3) {
                0 => Late::Never,
                1 => Late::Once,
                _ => Late::FromThenOn,
            });
            store.tidy().expect("is no error");
            disk.late(Late::Never);
            // Of what was said to have failed.
            if disk.failed_late() > failed {
                flushed += usize::from(store.runs.sizes.len() > runs);
                merged += usize::from(store.runs.sizes.len() < runs);
            }
        }
        let last = after(model.revision(), &batch(1, 1, false));
        model.apply(&last);
        let verdict = store.commit(&[last], model.compacted()).expect("commits");
        assert_eq!(verdict, Verdict::Durable, "seed {seed}");
        assert_eq!(Model::of(&mut store), model, "seed {seed}");
        drop(store);
        assert_eq!(
            Model::of(&mut open(&disk).expect("opens")),
            model,
            "seed {seed}, opened again"
        );
    }
    assert!(flushed > 50 && merged > 20, "{flushed} flushes, {merged} merges");
}

/// The same, and no room to open the file again. The group was refused although it was durable, and its revisions were given to
/// others. Whether it is there cannot be told then, so that is the end; a restart serves what is there.
#[test]
fn what_may_be_durable_is_not_refused() {
    let disk = Disk::new();
    let mut store = open(&disk).expect("opens");
    let mut model = Model::default();
    for round in 0..100 {
        let batch = after(model.revision(), &batch(1, round % 11, false));
        model.apply(&batch);
        disk.late(Late::FromThenOn);
        let committed = store.commit(&[batch], Revision::ZERO);
        disk.late(Late::Never);
        match committed {
            Ok(verdict) => assert_eq!(verdict, Verdict::Durable, "round {round}"),
            Err(error) => {
                assert!(matches!(error, StoreError::Engine { action: "commit", .. }), "{error}");
                drop(store);
                assert_eq!(Model::of(&mut open(&disk).expect("opens")), model);
                return;
            }
        }
        store.tidy().expect("is no error");
    }
    panic!("no commit had anything to write after its fsync");
}

/// "Make room there", and somebody deleted the file, or put a backup of it in its place. It was taken for the one that was left
/// there, or made again, empty; and the next commit was acknowledged into it.
#[test]
fn another_file_in_its_place_is_the_end() {
    // After two commits and after three.
    let images = || {
        let disk = Disk::new();
        [1..=2, 3..=3].map(|revisions| {
            let mut store = open(&disk).expect("opens");
            for revision in revisions {
                store
                    .commit(&[batch(revision, 1, false)], Revision::ZERO)
                    .expect("commits");
            }
            drop(store);
            disk.image()
        })
    };
    let ([older, same], [_, other]) = (images(), images());
    let next = batch(4, 1, false);

    let resumed = |image: &[u8]| {
        let disk = Disk::with(same.clone());
        let mut store = open(&disk).expect("opens");
        disk.sticks();
        let refused = store.commit(&[Arc::clone(&next)], Revision::ZERO).expect("is no error");
        assert!(matches!(refused, Verdict::NoRoom(_)), "{refused:?}");
        disk.exchange(image.to_vec());
        store.commit(&[Arc::clone(&next)], Revision::ZERO)
    };
    assert_eq!(resumed(&same).expect("is the same"), Verdict::Durable);
    for (image, says) in [
        (older, "it has revision"),
        (other, "it has another history"),
        (Vec::new(), "not found"),
    ] {
        let error = resumed(&image).expect_err("is another").to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// A registry that was started again on a full disk did not come up, so its readers had nothing to read until there was room.
#[test]
fn a_store_on_a_full_disk_opens_and_is_read() {
    let disk = Disk::new();
    let mut store = open(&disk).expect("opens");
    let models = commit_all(&disk, &mut store, &groups_of(7), 3);
    drop(store);
    disk.leave(Some(0));
    let mut store = open(&disk).expect("opens");
    assert_eq!(Model::of(&mut store), *models.last().expect("one"));
}

/// After a failed fsync nobody knows what the disk has: a second one may succeed without having written what the first lost.
#[test]
fn a_failed_fsync_is_the_end() {
    let disk = Disk::new();
    let mut store = open(&disk).expect("opens");
    store.commit(&[batch(1, 1, false)], Revision::ZERO).expect("commits");
    disk.breaks(EIO);
    let error = store.commit(&[batch(2, 2, false)], Revision::ZERO).expect_err("fails");
    assert!(matches!(error, StoreError::Engine { action: "commit", .. }), "{error}");
}

/// The process that is started next on the same machine found in the system's memory what the disk had lost, whole; went on
/// from it; and after the next power cut there was nothing to go on from.
#[test]
fn what_a_failed_fsync_has_lost_is_not_gone_on_from() {
    for seed in 0..50 {
        let disk = Disk::new();
        let mut store = open(&disk).expect("opens");
        let mut model = Model::default();
        for revision in 1..=20 {
            let batch = batch(revision, 1, false);
            store.commit(&[Arc::clone(&batch)], Revision::ZERO).expect("commits");
            model.apply(&batch);
        }
        disk.breaks(EIO);
        store.commit(&[batch(21, 2, false)], Revision::ZERO).expect_err("fails");
        drop(store);

        let mut store = open(&disk).expect("opens");
        assert_eq!(Model::of(&mut store), model);
        let next = batch(21, 3, false);
        disk.record();
        store.commit(&[Arc::clone(&next)], Revision::ZERO).expect("commits");
        disk.acknowledge();
        model.apply(&next);
        let (mut state, operations) = disk.recorded();
        operations.iter().for_each(|operation| state.perform(operation));
        let disk = Disk::with(state.survivors(seed));
        assert_eq!(Model::of(&mut open(&disk).expect("opens")), model, "seed {seed}");
    }
}

/// redb also writes what it need not, to make room in its memory, and goes on when that fails. A disk that was full then was
/// taken for the reason of an fsync that failed weeks later: the file was opened again, and what the fsync had lost was
/// acknowledged.
#[test]
fn a_write_that_failed_before_does_not_excuse_an_fsync() {
    for error in [EIO, ENOSPC] {
        let disk = Disk::new();
        let mut store = open(&disk).expect("opens");
        for revision in 1..=40 {
            let id = u8::try_from(revision).expect("small");
            store
                .commit(&[batch(revision, id, false)], Revision::ZERO)
                .expect("commits");
            store.tidy().expect("tidies");
        }
        disk.sticks();
        store.load().expect("reads");
        assert!(disk.failed_late() > 0, "nothing was written by the way");
        disk.late(Late::Never);
        disk.breaks(error);
        let error = store.commit(&[batch(41, 1, false)], Revision::ZERO).expect_err("fails");
        assert!(matches!(error, StoreError::Engine { action: "commit", .. }), "{error}");
    }
}
