//! What a disk does to the embedded store: it loses its power, has no room, or breaks.

use std::{path::PathBuf, sync::Arc};

use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    disk::Disk,
    embedded::SMALL,
    model::{Model, after, batch, groups},
};
use crate::{
    catalog::Batch,
    model::Revision,
    store::{Embedded, Store as _, StoreError, Verdict},
};

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
        disk.lock().acknowledged += 1;
        store.tidy().expect("tidies");
    }
    models
}

/// Seeds of the power cuts. `TESSERA_SEED` is the first one, `TESSERA_SEEDS` says how many.
fn seeds() -> std::ops::Range<u64> {
    let number = |name, default| match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    };
    let first = number("TESSERA_SEED", 1);
    first..first + number("TESSERA_SEEDS", 2_000)
}

/// A power cut keeps what was synced and any part of what was not. Wherever it falls, within a commit, a flush, a merge or the
/// trimming of the log, the store opens again with every group that was acknowledged, and with the one under way as a whole or
/// not at all; its revision never goes back, also when the power goes again.
#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    for seed in seeds() {
        let mut random = StdRng::seed_from_u64(seed);
        let (groups, keep) = (groups_of(seed), random.random_range(0..6));
        // How long it is in all, so that the cut can fall anywhere in it.
        let disk = Disk::new();
        let mut store = open(&disk).expect("opens");
        disk.arm(usize::MAX, 0);
        let models = commit_all(&disk, &mut store, &groups, keep);
        let length = disk.operations();

        let disk = Disk::new();
        let mut store = open(&disk).expect("opens");
        disk.arm(random.random_range(0..=length), random.random());
        commit_all(&disk, &mut store, &groups, keep);
        let (image, acknowledged) = disk.cut();
        check_cut(seed, image, &models[acknowledged..], &mut random);
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
    disk.arm(usize::MAX, 0);
    let models = commit_all(&disk, &mut store, &groups, 3);
    let length = disk.operations();
    assert!(store.runs.sizes.len() < 10, "merges are among it");
    for at in 0..=length {
        let disk = Disk::new();
        let mut store = open(&disk).expect("opens");
        disk.arm(at, at as u64);
        commit_all(&disk, &mut store, &groups, 3);
        let (image, acknowledged) = disk.cut();
        check_cut(
            at as u64,
            image,
            &models[acknowledged..],
            &mut StdRng::seed_from_u64(at as u64),
        );
    }
}

/// `models`: what was acknowledged, and what came after.
fn check_cut(seed: u64, image: Vec<u8>, models: &[Model], random: &mut StdRng) {
    let disk = Disk::with(image);
    disk.arm(random.random_range(0..40), random.random());
    let found = Model::of(&mut open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}")));
    assert!(
        models.iter().take(2).any(|model| found == *model),
        "seed {seed}: {found:?}"
    );
    // The power goes again while it opens.
    let (image, _) = disk.cut();
    let mut store = open(&Disk::with(image)).unwrap_or_else(|error| panic!("seed {seed}, again: {error}"));
    assert_eq!(Model::of(&mut store), found, "seed {seed}, again");
    let mut found = found;
    let next = after(found.revision(), &batch(1, 3, true));
    found.apply(&next);
    store.commit(&[next], found.compacted()).expect("commits");
    assert_eq!(Model::of(&mut store), found, "seed {seed}, and on");
}

/// A full disk ended the process. Now nothing is written, the store says so, holds what it held, and goes on when there is
/// room, whatever it was doing when the room ran out.
#[test]
fn a_full_disk_is_no_room_and_not_the_end() {
    let mut refused = 0;
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = Disk::new();
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

/// After a failed fsync nobody knows what the disk has: a second one may succeed without having written what the first lost.
#[test]
fn a_failed_fsync_is_the_end() {
    let disk = Disk::new();
    let mut store = open(&disk).expect("opens");
    store.commit(&[batch(1, 1, false)], Revision::ZERO).expect("commits");
    disk.breaks();
    let error = store.commit(&[batch(2, 2, false)], Revision::ZERO).expect_err("fails");
    assert!(matches!(error, StoreError::Engine { action: "commit", .. }), "{error}");
}
