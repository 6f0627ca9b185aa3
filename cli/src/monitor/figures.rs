//! What is told of a number of calls: cells of a table for people, an object for machines.

use std::time::Duration;

use proto::monitor::v1::{Figures, Side};
use serde_json::{Value, json};

use crate::output;

/// The column names of [`cells`].
pub(super) const HEADER: [&str; 6] = ["calls", "rate", "errors", "p50", "p90", "p99"];

/// For a row.
pub(super) fn cells(figures: Option<&Figures>) -> [String; 6] {
    let Some(figures) = figures else {
        return Default::default();
    };
    let latency = figures.latency.unwrap_or_default();
    let errors = match figures.errors {
        0 => "0".to_owned(),
        errors => format!("{errors} ({:.1}%)", figures.error_ratio * 100.0),
    };
    [
        figures.calls.to_string(),
        rate(figures.rate),
        errors,
        duration(latency.p50),
        duration(latency.p90),
        duration(latency.p99),
    ]
}

/// As JSON; durations in milliseconds.
pub(super) fn json(figures: Option<&Figures>) -> Value {
    let Some(figures) = figures else { return Value::Null };
    let codes: serde_json::Map<String, Value> = figures
        .codes
        .iter()
        .map(|code| {
            let number = i32::try_from(code.code).unwrap_or(-1);
            (telemetry::rpc::code_name(number).to_owned(), code.calls.into())
        })
        .collect();
    let millis = |duration: Option<prost_types::Duration>| read(duration).map(|duration| duration.as_secs_f64() * 1e3);
    json!({
        "calls": figures.calls,
        "errors": figures.errors,
        "rate": figures.rate,
        "error_ratio": figures.error_ratio,
        "codes": codes,
        "latency_ms": figures.latency.map(|latency| json!({
            "mean": millis(latency.mean),
            "p50": millis(latency.p50),
            "p90": millis(latency.p90),
            "p99": millis(latency.p99),
            "p999": millis(latency.p999),
        })),
    })
}

/// The end that counted, in a word.
pub(super) fn side(side: Side) -> &'static str {
    match side {
        Side::Caller => "caller",
        Side::Attempt => "attempt",
        Side::Provider | Side::Unspecified => "provider",
    }
}

fn rate(rate: f64) -> String {
    match rate {
        0.0..10.0 => format!("{rate:.2}/s"),
        10.0..100.0 => format!("{rate:.1}/s"),
        _ => format!("{rate:.0}/s"),
    }
}

fn duration(duration: Option<prost_types::Duration>) -> String {
    read(duration).map(output::duration).unwrap_or_default()
}

fn read(duration: Option<prost_types::Duration>) -> Option<Duration> {
    Duration::try_from(duration?).ok()
}

#[cfg(test)]
mod tests {
    use proto::monitor::v1::{CodeCount, Latency};

    use super::*;

    #[test]
    fn people_and_machines_are_told_the_same() {
        let millis = |millis| Duration::from_millis(millis).try_into().ok();
        let figures = Figures {
            calls: 8,
            errors: 2,
            rate: 0.8,
            error_ratio: 0.25,
            codes: vec![CodeCount { code: 0, calls: 6 }, CodeCount { code: 14, calls: 2 }],
            latency: Some(Latency {
                p50: millis(2),
                p99: millis(40),
                ..Latency::default()
            }),
        };
        let cells = cells(Some(&figures));
        assert_eq!(
            cells,
            ["8", "0.80/s", "2 (25.0%)", "2.0 ms", "", "40 ms"].map(str::to_owned)
        );
        let json = json(Some(&figures));
        assert_eq!(json["codes"], json!({ "OK": 6, "UNAVAILABLE": 2 }));
        assert_eq!(json["latency_ms"]["p99"], json!(40.0));
        assert_eq!(json["latency_ms"]["p90"], Value::Null);
        assert_eq!(cells.len(), HEADER.len());
    }
}
