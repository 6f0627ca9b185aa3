//! What can be asked: series in steps, who calls whom, and the top of all methods. Pure; it reads the state and changes nothing.

use std::collections::BTreeMap;

use super::{
    level::Level,
    point::{Packed, Point},
    report::{Key, Side},
    state::State,
};

/// Most points of one answered series.
pub(crate) const MAX_POINTS: u64 = 11_000;
/// Most points of one page.
pub(crate) const MAX_PAGE_POINTS: u64 = 50_000;
/// Points of a series where no step was asked for: as many as a wide chart shows.
const DEFAULT_POINTS: u64 = 360;

/// Which calls. `None` narrows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    /// The end whose counts are read.
    pub(crate) side: Side,
    /// The service that was called.
    pub(crate) callee: Option<String>,
    /// The service that called.
    pub(crate) caller: Option<String>,
    /// The method.
    pub(crate) method: Option<String>,
    /// The instance.
    pub(crate) instance: Option<String>,
}

/// From one second since 1970 to another one, exclusive; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// The first that belongs to it.
    pub(crate) since: u64,
    /// The first that does not.
    pub(crate) until: u64,
}

/// What tells series apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct GroupBy {
    /// The service that was called.
    pub(crate) callee: bool,
    /// The service that called.
    pub(crate) caller: bool,
    /// The method.
    pub(crate) method: bool,
    /// The instance.
    pub(crate) instance: bool,
}

/// A window in steps: its ends are multiples of the step, and the step is one of the resolution's points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Steps {
    /// The window, its ends moved outwards.
    pub(crate) window: Window,
    /// Seconds of a step.
    pub(crate) step: u64,
    level: Level,
}

/// The steps would be more than [`MAX_POINTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

/// The names of a series of an answer; those that it was not grouped by are empty. They order the series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Grouped {
    pub(crate) callee: Box<str>,
    pub(crate) caller: Box<str>,
    pub(crate) method: Box<str>,
    pub(crate) instance: Box<str>,
}

/// One series of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Answer {
    /// By the second that a step begins with; steps without a call are not there.
    pub(crate) points: BTreeMap<u64, Point>,
    /// All of them together.
    pub(crate) total: Point,
}

/// Who calls whom, and how it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) caller: Box<str>,
    pub(crate) callee: Box<str>,
    /// The end that counted.
    pub(crate) side: Side,
    pub(crate) total: Point,
}

/// By what methods are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The busiest first.
    Calls,
    /// The slowest first.
    P99,
    /// The most failures first.
    Errors,
}

/// A method of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MethodRow {
    pub(crate) callee: Box<str>,
    pub(crate) method: Box<str>,
    pub(crate) total: Point,
}

impl Selection {
    fn takes(&self, key: &Key) -> bool {
        let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        key.side == self.side
            && is(&self.callee, &key.callee)
            && is(&self.caller, &key.caller)
            && is(&self.method, &key.method)
            && is(&self.instance, &key.instance)
    }
}

impl Window {
    /// Its length in seconds.
    pub(crate) fn seconds(self) -> u64 {
        self.until - self.since
    }

    /// The ends moved outwards to multiples of `width`.
    fn widened(self, width: u64) -> Self {
        Self {
            since: self.since / width * width,
            until: self.until.div_ceil(width) * width,
        }
    }
}

impl Steps {
    /// The steps of a window: `step` seconds, or without one so many that there are at most [`DEFAULT_POINTS`]; moved up to what is
    /// kept of that time.
    ///
    /// # Errors
    /// There would be too many.
    pub(crate) fn of(window: Window, step: Option<u64>, now: u64) -> Result<Self, TooMany> {
        let kept = Level::finest(window.since, now).width();
        let wanted = step.unwrap_or_else(|| window.seconds().div_ceil(DEFAULT_POINTS));
        let step = wanted.max(1).div_ceil(kept).saturating_mul(kept);
        let window = window.widened(step);
        if window.seconds() / step > MAX_POINTS {
            return Err(TooMany);
        }
        Ok(Self {
            window,
            step,
            level: Level::for_step(step),
        })
    }

    /// How many there are.
    pub(crate) fn count(self) -> u64 {
        self.window.seconds() / self.step
    }
}

impl GroupBy {
    fn name(self, key: &Key) -> Grouped {
        let name = |wanted: bool, name: &str| -> Box<str> { if wanted { name.into() } else { "".into() } };
        Grouped {
            callee: name(self.callee, &key.callee),
            caller: name(self.caller, &key.caller),
            method: name(self.method, &key.method),
            instance: name(self.instance, &key.instance),
        }
    }
}

impl State {
    /// The series of a selection in steps, those after `after` only, at most `limit`; and whether there are more.
    pub(crate) fn query(
        &self,
        selection: &Selection,
        steps: Steps,
        group_by: GroupBy,
        after: Option<&Grouped>,
        limit: usize,
    ) -> (Vec<(Grouped, Answer)>, bool) {
        let Steps { window, step, level } = steps;
        // Names first: only the series of this page are unpacked.
        let mut groups: BTreeMap<Grouped, Vec<&super::state::Series>> = BTreeMap::new();
        for series in self.series().filter(|series| selection.takes(&series.key)) {
            let name = group_by.name(&series.key);
            let is_later = after.is_none_or(|after| name > *after);
            if is_later && points(series, level, window).next().is_some() {
                groups.entry(name).or_default().push(series);
            }
        }
        let more = groups.len() > limit;
        let answered = groups.into_iter().take(limit).map(|(name, members)| {
            let mut answer = Answer::default();
            for (slot, packed) in members.into_iter().flat_map(|series| points(series, level, window)) {
                let Ok(point) = packed.unpack() else { continue };
                let start = level.start(slot) / step * step;
                answer.points.entry(start).or_default().add(&point);
                answer.total.add(&point);
            }
            (name, answer)
        });
        (answered.collect(), more)
    }

    /// Who calls whom: as callers count, and as providers do where no caller has reported. By caller and callee. The window is
    /// answered as it was read, its ends moved outwards.
    pub(crate) fn edges(&self, service: Option<&str>, window: Window, now: u64) -> (Vec<Edge>, Window) {
        let level = Level::for_window(window.since, window.until, now);
        let window = window.widened(level.width());
        let mut sums: BTreeMap<(&str, &str), [Option<Point>; 2]> = BTreeMap::new();
        for series in self.series() {
            let Key {
                side, caller, callee, ..
            } = &series.key;
            let from = match side {
                Side::Caller => 0,
                Side::Provider => 1,
                Side::Attempt => continue,
            };
            if service.is_some_and(|service| service != &**caller && service != &**callee) {
                continue;
            }
            for (_, packed) in points(series, level, window) {
                let Ok(point) = packed.unpack() else { continue };
                let sums = sums.entry((caller, callee)).or_default();
                sums[from].get_or_insert_default().add(&point);
            }
        }
        let edges = sums.into_iter().filter_map(|((caller, callee), [called, answered])| {
            let (side, total) = match (called, answered) {
                (Some(total), _) => (Side::Caller, total),
                (None, total) => (Side::Provider, total?),
            };
            Some(Edge {
                caller: caller.into(),
                callee: callee.into(),
                side,
                total,
            })
        });
        (edges.collect(), window)
    }

    /// All methods of a selection in an order, each service's apart.
    pub(crate) fn top(
        &self,
        selection: &Selection,
        window: Window,
        order: Order,
        now: u64,
    ) -> (Vec<MethodRow>, Window) {
        let level = Level::for_window(window.since, window.until, now);
        let window = window.widened(level.width());
        let mut sums: BTreeMap<(&str, &str), Point> = BTreeMap::new();
        for series in self.series().filter(|series| selection.takes(&series.key)) {
            for (_, packed) in points(series, level, window) {
                let Ok(point) = packed.unpack() else { continue };
                sums.entry((&series.key.callee, &series.key.method))
                    .or_default()
                    .add(&point);
            }
        }
        let mut rows: Vec<MethodRow> = sums
            .into_iter()
            .map(|((callee, method), total)| MethodRow {
                callee: callee.into(),
                method: method.into(),
                total,
            })
            .collect();
        // Stable: rows that are equal stay in the order of their names, so that a table does not jump.
        rows.sort_by_key(|row| {
            std::cmp::Reverse(match order {
                Order::Calls => u128::from(row.total.calls()),
                Order::P99 => row.total.quantile(0.99).unwrap_or_default().as_nanos(),
                Order::Errors => u128::from(row.total.errors(|code| selection.side.is_error(code))),
            })
        });
        (rows, window)
    }
}

fn points(series: &super::state::Series, level: Level, window: Window) -> impl Iterator<Item = (u32, &Packed)> {
    series.points(level, level.slot(window.since), level.slot(window.until))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            point::tests::calls,
            report::{Report, ReporterId},
            state::Bounds,
        },
        *,
    };

    /// A whole hour, so that every resolution has a point that begins there.
    const NOW: u64 = 1_800_000_000;

    fn key(side: Side, caller: &str, callee: &str, method: &str, instance: &str) -> Key {
        Key {
            side,
            caller: caller.into(),
            callee: callee.into(),
            method: method.into(),
            instance: instance.into(),
        }
    }

    /// Two ticket services that user-svc calls, and a caller that does not say who it is.
    fn state() -> State {
        let mut state = State::new(Bounds {
            series: 100,
            bytes: 1 << 20,
            reporters: 10,
        });
        let provider = |caller, method, instance| key(Side::Provider, caller, "ticket-svc", method, instance);
        let said = [
            (100, provider("user-svc", "Hold", "t-1"), calls(0, &[1_000, 2_000])),
            (95, provider("user-svc", "Hold", "t-2"), calls(14, &[50_000])),
            (20, provider("user-svc", "Confirm", "t-1"), calls(5, &[700])),
            (20, provider("", "List", "t-1"), calls(0, &[300; 9])),
            (
                100,
                key(Side::Caller, "user-svc", "ticket-svc", "Hold", ""),
                calls(0, &[3_000; 2]),
            ),
            (
                100,
                key(Side::Attempt, "user-svc", "ticket-svc", "Hold", "t-1"),
                calls(0, &[3_000; 2]),
            ),
        ];
        for (sequence, (ago, key, point)) in (1..).zip(said) {
            let report = Report {
                reporter: ReporterId(1),
                sequence,
                at: NOW - ago,
                series: vec![(key, point)],
            };
            state.apply(&report, NOW, &mut Vec::new()).expect("taken");
        }
        state
    }

    fn of(side: Side) -> Selection {
        Selection {
            side,
            callee: None,
            caller: None,
            method: None,
            instance: None,
        }
    }

    const LAST_MINUTES: Window = Window {
        since: NOW - 200,
        until: NOW,
    };

    #[test]
    fn series_are_grouped_and_stepped() {
        let state = state();
        let steps = Steps::of(LAST_MINUTES, Some(10), NOW).expect("few");
        let by_method = GroupBy {
            method: true,
            ..GroupBy::default()
        };
        let (answer, more) = state.query(&of(Side::Provider), steps, by_method, None, 10);
        assert!(!more);
        let told: Vec<_> = answer
            .iter()
            .map(|(name, answer)| {
                let points = answer.points.iter().map(|(at, point)| (NOW - at, point.calls()));
                (&*name.method, answer.total.calls(), points.collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("Confirm", 1, vec![(20, 1)]),
                ("Hold", 3, vec![(100, 3)]),
                ("List", 9, vec![(20, 9)])
            ]
        );
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        let state = state();
        let steps = Steps::of(LAST_MINUTES, None, NOW).expect("few");
        let by = GroupBy {
            caller: true,
            method: true,
            instance: true,
            callee: true,
        };
        let mut names = Vec::new();
        loop {
            let (page, more) = state.query(&of(Side::Provider), steps, by, names.last(), 1);
            names.extend(page.into_iter().map(|(name, _)| name));
            if !more {
                break;
            }
        }
        let (all, _) = state.query(&of(Side::Provider), steps, by, None, 100);
        assert_eq!(names, all.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
        assert_eq!(names.len(), 4);
    }

    #[test]
    fn a_selection_narrows() {
        let state = state();
        let steps = Steps::of(LAST_MINUTES, None, NOW).expect("few");
        let calls = |selection: Selection| {
            let (answer, _) = state.query(&selection, steps, GroupBy::default(), None, 10);
            answer.first().map_or(0, |(_, answer)| answer.total.calls())
        };
        let provider = || of(Side::Provider);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(calls(provider()), 13);
        assert_eq!(
            calls(Selection {
                caller: some("user-svc"),
                ..provider()
            }),
            4
        );
        assert_eq!(
            calls(Selection {
                instance: some("t-2"),
                ..provider()
            }),
            1
        );
        assert_eq!(
            calls(Selection {
                method: some("List"),
                ..provider()
            }),
            9
        );
        assert_eq!(
            calls(Selection {
                callee: some("user-svc"),
                ..provider()
            }),
            0
        );
        assert_eq!(calls(of(Side::Attempt)), 2);
    }

    #[test]
    fn edges_go_by_the_caller_and_else_by_the_provider() {
        let (edges, window) = state().edges(None, LAST_MINUTES, NOW);
        assert_eq!(window, LAST_MINUTES);
        let told: Vec<_> = edges
            .iter()
            .map(|edge| (&*edge.caller, &*edge.callee, edge.side, edge.total.calls()))
            .collect();
        assert_eq!(
            told,
            [
                ("", "ticket-svc", Side::Provider, 9),
                ("user-svc", "ticket-svc", Side::Caller, 2)
            ]
        );
        assert_eq!(state().edges(Some("user-svc"), LAST_MINUTES, NOW).0.len(), 1);
    }

    #[test]
    fn the_top_is_by_what_was_asked() {
        let state = state();
        let first = |order| {
            let (rows, _) = state.top(&of(Side::Provider), LAST_MINUTES, order, NOW);
            assert_eq!(rows.len(), 3);
            rows[0].method.to_string()
        };
        assert_eq!(first(Order::Calls), "List");
        assert_eq!(first(Order::P99), "Hold");
        assert_eq!(first(Order::Errors), "Hold");
    }

    #[test]
    fn steps_are_what_is_kept_and_not_too_many() {
        let hour = 3_600;
        let step = |ago: u64, step| {
            let window = Window {
                since: NOW - ago,
                until: NOW,
            };
            Steps::of(window, step, NOW).map(|steps| (steps.step, steps.count()))
        };
        assert_eq!(step(hour, None), Ok((10, 360)));
        assert_eq!(step(6 * hour, None), Ok((60, 360)));
        assert_eq!(step(6 * hour, Some(10)), Ok((10, 2_160)));
        assert_eq!(step(7 * hour, Some(10)), Ok((60, 420)));
        assert_eq!(step(30 * 24 * hour, None), Ok((2 * hour, 360)));
        assert_eq!(step(hour, Some(25)), Ok((30, 120)));
        assert_eq!(step(hour, Some(u64::MAX)).map(|(_, count)| count), Ok(1));
        let long = Window { since: 0, until: NOW };
        assert_eq!(Steps::of(long, Some(hour), NOW), Err(TooMany));
    }
}
