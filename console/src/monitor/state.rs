//! The time series of a namespace, in memory: reports are added, the old is forgotten, and all of it is bounded. Pure: time is an
//! argument, and what has to be written is returned as [`Change`]s.
//!
//! A report is added to its point of every resolution at once, so that coarse points are exact sums of fine ones and nothing has
//! to be rolled up later. What a crash can lose is therefore only what was not written yet, and that was not acknowledged.

use std::collections::{BTreeMap, HashMap};

use super::{
    level::Level,
    point::{Packed, Point},
    report::{Key, Report, ReporterId},
};

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Series; what comes after shares one for each side.
    pub(crate) series: usize,
    /// Bytes of points; beyond, the oldest of the finest go.
    pub(crate) bytes: usize,
    /// Reporters that are remembered.
    pub(crate) reporters: usize,
}

/// Why a report is not taken. Nothing of it was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Its clock or ours is wrong.
    #[error("the interval begins more than 5 min in the future; set the clocks")]
    InTheFuture,
    /// There is no room for one more.
    #[error("the monitor knows as many reporters as it can; those that are silent for a day are forgotten")]
    TooManyReporters,
}

/// What has to be written, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A series is there.
    Series(u32, Key),
    /// A series has no point any more.
    SeriesGone(u32),
    /// A point is this now.
    Point(Level, u32, u32, Packed),
    /// Points below this one are forgotten.
    Forget(Level, u32),
    /// A reporter was heard up to this sequence, at that second.
    Reporter(ReporterId, Seen),
    /// A reporter is forgotten.
    ReporterGone(ReporterId),
}

/// How far a reporter was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its last sequence that was counted.
    pub(crate) last: u64,
    /// When, in seconds since 1970.
    pub(crate) at: u64,
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Applied {
    /// It was counted before.
    pub(crate) duplicate: bool,
    /// Reports of this reporter that never came, by the gap in its sequence.
    pub(crate) missed: u64,
}

/// Clocks of one house are seconds apart, not minutes.
const FUTURE: u64 = 300;
/// After so many seconds a silent reporter is forgotten: far longer than any backlog, so that no report is counted twice.
const SILENT: u64 = 24 * 3_600;
/// What a point takes beside its bytes: its place in the map and the block that holds it.
const OVERHEAD: usize = 48;
/// What stands for all names that are too many.
const OTHER: &str = "_OTHER";
/// When there is no room, so many of the oldest points of each series go at once.
const BLOCK: u32 = 60;

/// The state.
#[derive(Debug)]
pub(crate) struct State {
    bounds: Bounds,
    ids: HashMap<Key, u32>,
    series: BTreeMap<u32, Series>,
    next: u32,
    reporters: HashMap<ReporterId, Seen>,
    bytes: usize,
    /// The minute in which the old was forgotten last.
    swept: u64,
}

/// The points of one key, by resolution.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) key: Key,
    levels: [BTreeMap<u32, Packed>; 3],
}

impl State {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            ids: HashMap::new(),
            series: BTreeMap::new(),
            next: 0,
            reporters: HashMap::new(),
            bytes: 0,
            swept: 0,
        }
    }

    /// As it was, from what was written.
    pub(crate) fn restore(&mut self, change: Change) {
        match change {
            Change::Series(id, key) => {
                self.next = self.next.max(id.saturating_add(1));
                self.insert(id, key);
            }
            Change::Point(level, slot, id, packed) => self.put(level, slot, id, packed),
            Change::Reporter(reporter, seen) => {
                self.reporters.insert(reporter, seen);
            }
            // These are never written.
            Change::SeriesGone(_) | Change::Forget(..) | Change::ReporterGone(_) => {}
        }
    }

    /// Adds a report. What has to be written is added to `changes`; nothing is when it is refused or a duplicate.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn apply(&mut self, report: &Report, now: u64, changes: &mut Vec<Change>) -> Result<Applied, Refused> {
        if report.at > now.saturating_add(FUTURE) {
            return Err(Refused::InTheFuture);
        }
        let seen = self.reporters.get(&report.reporter);
        if seen.is_some_and(|seen| report.sequence <= seen.last) {
            return Ok(Applied {
                duplicate: true,
                missed: 0,
            });
        }
        if seen.is_none() && self.reporters.len() >= self.bounds.reporters {
            return Err(Refused::TooManyReporters);
        }
        let missed = report.sequence - seen.map_or(0, |seen| seen.last) - 1;
        let seen = Seen {
            last: report.sequence,
            at: now,
        };
        self.reporters.insert(report.reporter, seen);
        changes.push(Change::Reporter(report.reporter, seen));
        for (key, point) in &report.series {
            let id = self.id(key, changes);
            for level in Level::ALL {
                let slot = level.slot(report.at);
                if slot < level.horizon(now) {
                    continue;
                }
                let mut sum = self.point(level, slot, id).unwrap_or_default();
                sum.add(point);
                let packed = sum.pack();
                self.put(level, slot, id, packed.clone());
                changes.push(Change::Point(level, slot, id, packed));
            }
        }
        self.keep_bounds(changes);
        Ok(Applied {
            duplicate: false,
            missed,
        })
    }

    /// Forgets what is too old. Looks once a minute.
    pub(crate) fn expire(&mut self, now: u64, changes: &mut Vec<Change>) {
        if now / 60 == self.swept {
            return;
        }
        self.swept = now / 60;
        for level in Level::ALL {
            self.forget(level, level.horizon(now), changes);
        }
        let silent = |seen: &Seen| seen.at.saturating_add(SILENT) < now;
        let gone: Vec<ReporterId> = self
            .reporters
            .iter()
            .filter(|(_, seen)| silent(seen))
            .map(|(id, _)| *id)
            .collect();
        for reporter in gone {
            self.reporters.remove(&reporter);
            changes.push(Change::ReporterGone(reporter));
        }
        self.drop_empty(changes);
    }

    /// All series, in no order that means anything.
    pub(crate) fn series(&self) -> impl Iterator<Item = &Series> {
        self.series.values()
    }

    /// How many series there are.
    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    /// Bytes of points.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn id(&mut self, key: &Key, changes: &mut Vec<Change>) -> u32 {
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let other = || -> Box<str> { OTHER.into() };
        let key = match self.series.len() < self.bounds.series {
            true => key.clone(),
            false => Key {
                side: key.side,
                caller: other(),
                callee: other(),
                method: other(),
                instance: other(),
            },
        };
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let id = self.next;
        self.next += 1;
        changes.push(Change::Series(id, key.clone()));
        self.insert(id, key);
        id
    }

    fn insert(&mut self, id: u32, key: Key) {
        self.ids.insert(key.clone(), id);
        let levels = std::array::from_fn(|_| BTreeMap::new());
        self.series.insert(id, Series { key, levels });
    }

    fn point(&self, level: Level, slot: u32, id: u32) -> Option<Point> {
        let packed = self.series.get(&id)?.levels[usize::from(level.number())].get(&slot)?;
        // What is here was made or read by `Packed`, which refuses what is none.
        packed.unpack().ok()
    }

    fn put(&mut self, level: Level, slot: u32, id: u32, packed: Packed) {
        let Some(series) = self.series.get_mut(&id) else { return };
        self.bytes += packed.bytes().len() + OVERHEAD;
        if let Some(before) = series.levels[usize::from(level.number())].insert(slot, packed) {
            self.bytes -= before.bytes().len() + OVERHEAD;
        }
    }

    fn forget(&mut self, level: Level, before: u32, changes: &mut Vec<Change>) {
        let mut any = false;
        for series in self.series.values_mut() {
            let points = &mut series.levels[usize::from(level.number())];
            while let Some(oldest) = points.first_entry().filter(|oldest| *oldest.key() < before) {
                self.bytes -= oldest.remove().bytes().len() + OVERHEAD;
                any = true;
            }
        }
        if any {
            changes.push(Change::Forget(level, before));
        }
    }

    /// The finest first: weeks are worth more than the seconds of some hours ago.
    fn keep_bounds(&mut self, changes: &mut Vec<Change>) {
        for level in Level::ALL {
            while self.bytes > self.bounds.bytes {
                let oldest = self.series.values().filter_map(|series| series.oldest(level)).min();
                let Some(oldest) = oldest else { break };
                self.forget(level, oldest.saturating_add(BLOCK), changes);
            }
        }
    }

    fn drop_empty(&mut self, changes: &mut Vec<Change>) {
        let is_empty = |series: &Series| series.levels.iter().all(BTreeMap::is_empty);
        let gone: Vec<u32> = self
            .series
            .iter()
            .filter(|(_, series)| is_empty(series))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            if let Some(series) = self.series.remove(&id) {
                self.ids.remove(&series.key);
            }
            changes.push(Change::SeriesGone(id));
        }
    }
}

impl Series {
    /// The points of a resolution from one to another one, exclusive.
    pub(crate) fn points(&self, level: Level, from: u32, to: u32) -> impl Iterator<Item = (u32, &Packed)> {
        let points = &self.levels[usize::from(level.number())];
        let range = (from < to).then(|| points.range(from..to));
        range.into_iter().flatten().map(|(slot, packed)| (*slot, packed))
    }

    fn oldest(&self, level: Level) -> Option<u32> {
        self.levels[usize::from(level.number())].keys().next().copied()
    }
}

#[cfg(test)]
mod tests;
