//! From answers of the core to messages.

use std::time::Duration;

use proto::monitor::v1;

use crate::monitor::{Answer, Edge, Grouped, MethodRow, Point, Side, Steps};

pub(super) fn series(name: Grouped, answer: &Answer, side: Side, steps: Steps) -> v1::Series {
    let points = answer.points.iter().map(|(at, point)| v1::Point {
        start: Some(timestamp(*at)),
        figures: Some(figures(point, side, steps.step)),
    });
    v1::Series {
        service: name.callee.into(),
        caller: name.caller.into(),
        method: name.method.into(),
        instance: name.instance.into(),
        points: points.collect(),
        total: Some(figures(&answer.total, side, steps.window.seconds())),
    }
}

pub(super) fn edge(edge: Edge, seconds: u64) -> v1::Dependency {
    v1::Dependency {
        figures: Some(figures(&edge.total, edge.side, seconds)),
        side: self::side(edge.side).into(),
        caller: edge.caller.into(),
        callee: edge.callee.into(),
    }
}

pub(super) fn method(row: MethodRow, side: Side, seconds: u64) -> v1::Method {
    v1::Method {
        figures: Some(figures(&row.total, side, seconds)),
        service: row.callee.into(),
        method: row.method.into(),
    }
}

pub(super) fn timestamp(seconds: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: 0,
    }
}

pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or_default()
}

fn side(side: Side) -> v1::Side {
    match side {
        Side::Caller => v1::Side::Caller,
        Side::Attempt => v1::Side::Attempt,
        Side::Provider => v1::Side::Provider,
    }
}

fn figures(point: &Point, side: Side, seconds: u64) -> v1::Figures {
    let calls = point.calls();
    let errors = point.errors(|code| side.is_error(code));
    let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let quantile = |share| point.quantile(share).map(duration);
    let codes = point.codes.iter();
    v1::Figures {
        calls,
        errors,
        rate: ratio(calls, seconds),
        error_ratio: ratio(errors, calls),
        codes: codes
            .map(|(code, calls)| v1::CodeCount {
                code: *code,
                calls: *calls,
            })
            .collect(),
        latency: point.mean().map(|mean| v1::Latency {
            mean: Some(duration(mean)),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
        }),
    }
}
