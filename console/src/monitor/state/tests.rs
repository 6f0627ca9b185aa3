//! Reports against a plain list of what was said: sums, duplicates, resolutions, ages and bounds.

use proptest::prelude::*;

use super::{
    super::{
        point::tests::{any_point, calls},
        report::Side,
    },
    *,
};

const NOW: u64 = 1_800_000_000;
const ROOMY: Bounds = Bounds {
    series: 100,
    bytes: 64 << 20,
    reporters: 10,
};

fn key(method: &str) -> Key {
    Key {
        side: Side::Provider,
        caller: "user-svc".into(),
        callee: "ticket-svc".into(),
        method: method.into(),
        instance: "t-1".into(),
    }
}

fn report(reporter: u128, sequence: u64, at: u64, series: Vec<(Key, Point)>) -> Report {
    Report {
        reporter: ReporterId(reporter),
        sequence,
        at,
        series,
    }
}

/// Everything of one resolution, together.
fn sum(state: &State, level: Level) -> Point {
    let mut sum = Point::default();
    for series in state.series() {
        for (_, packed) in series.points(level, 0, u32::MAX) {
            sum.add(&packed.unpack().expect("readable"));
        }
    }
    sum
}

/// What a state that was written with these changes would be after a restart, point by point.
fn written(changes: &[Change]) -> State {
    let mut series = BTreeMap::new();
    let mut points = BTreeMap::new();
    let mut reporters = HashMap::new();
    for change in changes.iter().cloned() {
        match change {
            Change::Series(id, key) => drop(series.insert(id, key)),
            Change::SeriesGone(id) => drop(series.remove(&id)),
            Change::Point(level, slot, id, packed) => drop(points.insert((level, slot, id), packed)),
            Change::Forget(level, before) => points.retain(|(of, slot, _), _| *of != level || *slot >= before),
            Change::Reporter(id, seen) => drop(reporters.insert(id, seen)),
            Change::ReporterGone(id) => drop(reporters.remove(&id)),
        }
    }
    let mut state = State::new(ROOMY);
    series
        .into_iter()
        .for_each(|(id, key)| state.restore(Change::Series(id, key)));
    for ((level, slot, id), packed) in points {
        state.restore(Change::Point(level, slot, id, packed));
    }
    for (id, seen) in reporters {
        state.restore(Change::Reporter(id, seen));
    }
    state
}

fn picture(state: &State) -> BTreeMap<(Key, Level, u32), Packed> {
    let mut all = BTreeMap::new();
    for series in state.series() {
        for level in Level::ALL {
            for (slot, packed) in series.points(level, 0, u32::MAX) {
                all.insert((series.key.clone(), level, slot), packed.clone());
            }
        }
    }
    all
}

proptest! {
    /// Reports of several reporters, some of them sent again, some late: every resolution has the same sum, which is the sum of
    /// what was said once, and what was written is what is in memory.
    #[test]
    fn every_resolution_has_the_exact_sum(
        said in prop::collection::vec((0_u128..3, 0_u64..20_000, 0_usize..3, any_point(), any::<bool>()), 1..25),
    ) {
        let mut state = State::new(ROOMY);
        let mut changes = Vec::new();
        let mut expected = Point::default();
        let mut sequences = [0_u64; 3];
        for (reporter, ago, method, point, again) in said {
            let sequence = &mut sequences[reporter as usize];
            *sequence += 1;
            let report = report(reporter, *sequence, NOW - ago, vec![(key(["a", "b", "c"][method]), point.clone())]);
            let first = state.apply(&report, NOW, &mut changes).expect("taken");
            prop_assert!(!first.duplicate);
            expected.add(&point);
            if again {
                let before = changes.len();
                let second = state.apply(&report, NOW, &mut changes).expect("taken");
                prop_assert!(second.duplicate);
                prop_assert_eq!(changes.len(), before);
            }
        }
        for level in Level::ALL {
            prop_assert_eq!(sum(&state, level), expected.clone(), "{:?}", level);
        }
        let again = written(&changes);
        prop_assert_eq!(picture(&again), picture(&state));
        prop_assert_eq!(again.bytes(), state.bytes());
    }

    /// Time passes: nothing older than its resolution allows is there, nothing younger is missing, on disk as in memory.
    #[test]
    fn what_is_old_goes_and_the_rest_stays(ages in prop::collection::vec(0_u64..40 * 24 * 3_600, 1..20)) {
        let mut state = State::new(ROOMY);
        let mut changes = Vec::new();
        for (number, age) in ages.iter().enumerate() {
            let at = NOW - age;
            let report = report(1, number as u64 + 1, at, vec![(key("a"), calls(0, &[1_000]))]);
            // Heard when it happened.
            state.apply(&report, at, &mut changes).expect("taken");
        }
        state.expire(NOW, &mut changes);
        for level in Level::ALL {
            let kept = ages.iter().filter(|age| level.slot(NOW - **age) >= level.horizon(NOW)).count();
            prop_assert_eq!(sum(&state, level).calls(), kept as u64, "{:?}", level);
        }
        prop_assert_eq!(picture(&written(&changes)), picture(&state));
    }
}

#[test]
fn a_gap_in_the_sequence_tells_of_what_was_dropped() {
    let mut state = State::new(ROOMY);
    let mut apply = |sequence| {
        let report = report(1, sequence, NOW, vec![]);
        state.apply(&report, NOW, &mut Vec::new()).expect("taken")
    };
    assert_eq!(apply(1).missed, 0);
    assert_eq!(apply(5).missed, 3);
    assert!(apply(3).duplicate, "it was given up, and another one counted instead");
}

#[test]
fn a_late_report_counts_where_it_is_still_kept() {
    let mut state = State::new(ROOMY);
    let late = report(1, 1, NOW - 10 * 3_600, vec![(key("a"), calls(0, &[5]))]);
    state.apply(&late, NOW, &mut Vec::new()).expect("taken");
    let counts = Level::ALL.map(|level| sum(&state, level).calls());
    assert_eq!(counts, [0, 1, 1]);
}

#[test]
fn the_future_and_a_crowd_are_refused() {
    let mut state = State::new(ROOMY);
    let early = report(1, 1, NOW + FUTURE + 1, vec![]);
    assert_eq!(state.apply(&early, NOW, &mut Vec::new()), Err(Refused::InTheFuture));
    for reporter in 0..ROOMY.reporters as u128 {
        state
            .apply(&report(reporter, 1, NOW, vec![]), NOW, &mut Vec::new())
            .expect("taken");
    }
    let one_more = report(99, 1, NOW, vec![]);
    assert_eq!(
        state.apply(&one_more, NOW, &mut Vec::new()),
        Err(Refused::TooManyReporters)
    );
    let tomorrow = NOW + SILENT + 60;
    state.expire(tomorrow, &mut Vec::new());
    state
        .apply(&one_more, tomorrow, &mut Vec::new())
        .expect("there is room");
}

#[test]
fn series_too_many_share_one_and_lose_no_call() {
    let mut state = State::new(Bounds { series: 5, ..ROOMY });
    let series = (0..50).map(|n| (key(&format!("m{n}")), calls(0, &[7]))).collect();
    state
        .apply(&report(1, 1, NOW, series), NOW, &mut Vec::new())
        .expect("taken");
    assert_eq!(state.len(), 6);
    assert_eq!(sum(&state, Level::Hours).calls(), 50);
}

#[test]
fn without_room_the_oldest_of_the_finest_go_first() {
    let tight = Bounds { bytes: 40_000, ..ROOMY };
    let mut state = State::new(tight);
    let mut changes = Vec::new();
    for step in 0..1_500_u64 {
        let at = NOW + 10 * step;
        let report = report(1, step + 1, at, vec![(key("a"), calls(0, &[900, 1_100]))]);
        state.apply(&report, at, &mut changes).expect("taken");
        assert!(state.bytes() <= tight.bytes, "{}", state.bytes());
    }
    assert_eq!(sum(&state, Level::Hours).calls(), 3_000);
    assert_eq!(sum(&state, Level::Minutes).calls(), 3_000);
    let fine = sum(&state, Level::Fine).calls();
    assert!((100..3_000).contains(&fine), "{fine}");
    assert_eq!(picture(&written(&changes)), picture(&state));
}

#[test]
fn a_series_without_points_goes() {
    let mut state = State::new(ROOMY);
    let mut changes = Vec::new();
    state
        .apply(&report(1, 1, NOW, vec![(key("a"), calls(0, &[5]))]), NOW, &mut changes)
        .expect("taken");
    let later = NOW + Level::Hours.retention() + 7_200;
    state.expire(later, &mut changes);
    assert_eq!((state.len(), state.bytes()), (0, 0));
    assert_eq!(written(&changes).len(), 0);
}
