//! From what was counted in an interval to reports of a size that a monitor takes. Pure.

use std::time::Duration;

use telemetry::stats::Delta;

/// Series of one report, as the contract has it.
const MAX_SERIES: usize = 500;
/// What the series of one report may take on the wire, at the most; a monitor reads 256 KiB.
const MAX_BYTES: usize = 192 << 10;
/// The method by which reports travel: not counted, or a platform without calls would report its own reports for ever.
const REPORT: &str = "tessera.monitor.v1.MonitorService/Report";

/// What one interval, or a part of it, has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interval {
    /// When it began, since 1970.
    pub(crate) start: Duration,
    /// How long it was.
    pub(crate) length: Duration,
    /// What was counted.
    pub(crate) series: Vec<Delta>,
}

/// The reports of an interval; none where nothing was counted.
pub(crate) fn reports(start: Duration, length: Duration, counted: Vec<Delta>) -> Vec<Interval> {
    let mut reports: Vec<Interval> = Vec::new();
    let mut room = 0;
    for delta in counted {
        if &*delta.key.method == REPORT {
            continue;
        }
        let size = size(&delta);
        match reports.last_mut() {
            Some(last) if last.series.len() < MAX_SERIES && size <= room => {
                room -= size;
                last.series.push(delta);
            }
            _ => {
                room = MAX_BYTES.saturating_sub(size);
                reports.push(Interval {
                    start,
                    length,
                    series: vec![delta],
                });
            }
        }
    }
    reports
}

/// At most what a series takes on the wire: its names, and for each number what the largest of its kind takes.
fn size(delta: &Delta) -> usize {
    let key = &delta.key;
    40 + key.service.len() + key.method.len() + key.peer.len() + 15 * delta.codes.len() + 12 * delta.latencies.len()
}

#[cfg(test)]
mod tests {
    use telemetry::stats::{Key, Side};

    use super::*;

    fn delta(method: &str, buckets: u32) -> Delta {
        Delta {
            key: Key {
                side: Side::Caller,
                service: "s".into(),
                method: method.into(),
                peer: "".into(),
            },
            codes: vec![(0, 1)],
            latencies: (0..buckets).map(|bucket| (bucket, u64::MAX)).collect(),
            total_micros: u64::MAX,
        }
    }

    #[test]
    fn an_interval_of_many_series_is_several_reports_that_fit() {
        let check = |count: usize, buckets, expected: usize| {
            let counted: Vec<Delta> = (0..count).map(|n| delta(&format!("a.B/{n}"), buckets)).collect();
            let reports = reports(Duration::ZERO, Duration::from_secs(10), counted.clone());
            assert_eq!(reports.len(), expected);
            for report in &reports {
                let bytes = crate::wire::encoded_len(report);
                assert!(bytes < 256 << 10, "{bytes}");
            }
            let all: Vec<Delta> = reports.into_iter().flat_map(|report| report.series).collect();
            assert_eq!(all, counted);
        };
        check(0, 0, 0);
        check(1, 464, 1);
        check(500, 1, 1);
        check(501, 1, 2);
        check(100, 464, 3);
    }

    #[test]
    fn reports_are_not_reported() {
        let counted = vec![delta(REPORT, 1)];
        assert_eq!(reports(Duration::ZERO, Duration::from_secs(10), counted), []);
    }
}
