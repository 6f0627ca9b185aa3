//! What is written is read, whatever way the file was left.

use std::{collections::BTreeMap, fs};

use super::*;
use crate::monitor::{Bounds, Point, Report, State};

const NOW: u64 = 1_800_000_000;
const ROOMY: Bounds = Bounds {
    series: 100,
    bytes: 1 << 20,
    reporters: 10,
};

fn report(sequence: u64, at: u64) -> Report {
    let key = Key {
        side: Side::Provider,
        caller: "user-svc".into(),
        callee: "ticket-svc".into(),
        method: "a.B/C".into(),
        instance: "t-1".into(),
    };
    let point = Point {
        codes: BTreeMap::from([(0, 2)]),
        latencies: BTreeMap::from([(100, 2)]),
        total_micros: 5_000,
    };
    Report {
        reporter: ReporterId(7),
        sequence,
        at,
        series: vec![(key, point)],
    }
}

/// Calls of each resolution.
fn calls(state: &State) -> [u64; 3] {
    Level::ALL.map(|level| {
        let points = state.series().flat_map(|series| series.points(level, 0, u32::MAX));
        points
            .map(|(_, packed)| packed.unpack().expect("readable").calls())
            .sum()
    })
}

fn loaded(store: &Store) -> State {
    let mut state = State::new(ROOMY);
    store.load(|change| state.restore(change)).expect("loads");
    state
}

#[test]
fn a_file_is_what_was_written_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("monitor.redb");
    let mut state = State::new(ROOMY);
    let store = Store::open(&file).expect("opens");
    for sequence in 1..=50 {
        let mut changes = Vec::new();
        let at = NOW + 60 * sequence;
        state.apply(&report(sequence, at), at, &mut changes).expect("taken");
        store.write(&changes).expect("written");
    }
    let mut changes = Vec::new();
    state.expire(NOW + Level::Fine.retention() + 60 * 25, &mut changes);
    store.write(&changes).expect("written");
    drop(store);
    let mut again = loaded(&Store::open(&file).expect("opens"));
    assert_eq!(calls(&again), calls(&state));
    assert_eq!(calls(&again)[1..], [100, 100]);
    assert!((40..60).contains(&calls(&again)[0]), "{:?}", calls(&again));
    let repeated = again
        .apply(&report(50, NOW), NOW + 3_600, &mut Vec::new())
        .expect("taken");
    assert!(repeated.duplicate, "reporters are remembered over a restart");
}

/// A crash is the file as it was at some moment: here after every commit, while the process still had it open.
#[test]
fn a_crash_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("monitor.redb");
    let store = Store::open(&file).expect("opens");
    let mut state = State::new(ROOMY);
    for sequence in 1..=10 {
        let mut changes = Vec::new();
        state.apply(&report(sequence, NOW), NOW, &mut changes).expect("taken");
        store.write(&changes).expect("written");
        let torn = folder.path().join(format!("crash-{sequence}.redb"));
        fs::copy(&file, &torn).expect("copied");
        let after = loaded(&Store::open(&torn).expect("repairs itself"));
        assert_eq!(calls(&after), [2 * sequence; 3]);
    }
}

#[test]
fn a_file_in_use_or_of_another_program_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("monitor.redb");
    let store = Store::open(&file).expect("opens");
    assert!(matches!(Store::open(&file), Err(StoreError::Taken)));
    let write = store.database.begin_write().expect("begins");
    write
        .open_table(META)
        .expect("there")
        .insert(FORMAT, 99)
        .expect("written");
    write.commit().expect("committed");
    drop(store);
    assert!(matches!(Store::open(&file), Err(StoreError::Newer(99))));
    fs::write(&file, b"something else").expect("written");
    assert!(matches!(Store::open(&file), Err(StoreError::Engine(_))));
}
