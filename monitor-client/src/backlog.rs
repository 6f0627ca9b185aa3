//! The reports that wait for the monitor: in order, bounded, the oldest dropped first. Pure.

use std::collections::VecDeque;

use crate::report::Interval;

/// Reports that wait at the most: of the default interval, ten minutes. A monitor that is restarted is away for seconds.
pub const MAX_REPORTS: usize = 60;
/// Series that wait at the most, in all reports together: of some 300 bytes each, 6 MB.
pub const MAX_SERIES: usize = 20_000;

/// A report with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbered {
    /// From 1, for ever growing.
    pub(crate) sequence: u64,
    /// What it says.
    pub(crate) interval: Interval,
}

/// What waits.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    waiting: VecDeque<Numbered>,
    series: usize,
    last: u64,
}

impl Backlog {
    /// Adds a report, and drops the oldest as far as there is no room; returns how many those are.
    pub(crate) fn push(&mut self, interval: Interval) -> u64 {
        self.last += 1;
        self.series += interval.series.len();
        self.waiting.push_back(Numbered {
            sequence: self.last,
            interval,
        });
        let mut dropped = 0;
        while self.waiting.len() > MAX_REPORTS || (self.series > MAX_SERIES && self.waiting.len() > 1) {
            self.pop();
            dropped += 1;
        }
        dropped
    }

    /// The next to send. It stays until [`Backlog::pop`]: an unanswered one is sent again as it was.
    pub(crate) fn next(&self) -> Option<&Numbered> {
        self.waiting.front()
    }

    /// The next one was answered, or never will be.
    pub(crate) fn pop(&mut self) {
        if let Some(gone) = self.waiting.pop_front() {
            self.series -= gone.interval.series.len();
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use telemetry::stats::{Delta, Key, Side};

    use super::*;

    fn interval(series: usize) -> Interval {
        let delta = Delta {
            key: Key {
                side: Side::Caller,
                service: "s".into(),
                method: "m".into(),
                peer: "".into(),
            },
            codes: vec![(0, 1)],
            latencies: vec![(1, 1)],
            total_micros: 1,
        };
        Interval {
            start: Duration::ZERO,
            length: Duration::from_secs(10),
            series: vec![delta; series],
        }
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let mut backlog = Backlog::default();
        for _ in 0..MAX_REPORTS {
            assert_eq!(backlog.push(interval(1)), 0);
        }
        assert_eq!(backlog.push(interval(1)), 1);
        assert_eq!(backlog.len(), MAX_REPORTS);
        assert_eq!(
            backlog.next().map(|next| next.sequence),
            Some(2),
            "the gap tells the monitor"
        );
        backlog.pop();
        assert_eq!(backlog.push(interval(1)), 0);
    }

    #[test]
    fn a_few_large_ones_are_too_many_as_well() {
        let mut backlog = Backlog::default();
        for _ in 0..40 {
            assert_eq!(backlog.push(interval(500)), 0);
        }
        assert_eq!(backlog.push(interval(500)), 1);
        assert_eq!(backlog.push(interval(1_200)), 3);
        while backlog.next().is_some() {
            backlog.pop();
        }
        assert_eq!((backlog.len(), backlog.series), (0, 0));
        assert_eq!(backlog.push(interval(MAX_SERIES + 1)), 0, "one always has room");
    }
}
