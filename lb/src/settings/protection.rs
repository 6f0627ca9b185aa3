//! Protection out of a config: outlier detection, slow start, circuit breakers, limits and budgets. The names are those of the
//! setters, their ranges are checked by the setters themselves.

use std::{fmt::Display, time::Duration};

use super::{
    ChannelRules,
    json::Value,
    reader::{Fields, Place, Reader},
};
use crate::{
    Backoff, CircuitBreaker, ConcurrencyLimit, FailurePercentage, OutlierDetection, RetryBudget, SlowStart,
    SuccessRate, Throttling,
};

/// Takes the settings of protection out of the additions of a document. Outlier detection may have been set in gRPC's words.
pub(super) fn read(reader: &mut Reader<'_>, additions: &mut Fields<'_, '_>, rules: &mut ChannelRules) {
    if let Some(place) = additions.take("outlierDetection") {
        let grpc = rules.outlier.flatten();
        let ours = switched(reader, &place, |reader, fields| {
            read_outlier(reader, fields, Words::Ours { beside: grpc })
        });
        if grpc.is_some() && matches!(ours, Some(None)) {
            reader.wrong(
                &place,
                "contradicts outlier_detection_experimental in loadBalancingConfig",
            );
        }
        rules.outlier = ours;
    }
    let mut part = |name| additions.take(name);
    rules.slow_start = part("slowStart").and_then(|place| switched(reader, &place, read_slow_start));
    rules.breaker = part("circuitBreaker").and_then(|place| read_breaker(reader, &place));
    rules.limit = part("concurrencyLimit").and_then(|place| switched(reader, &place, read_limit));
    rules.throttling = part("throttling").and_then(|place| switched(reader, &place, read_throttling));
    rules.retry_budget = part("retryBudget").and_then(|place| read_budget(reader, &place));
    rules.hedging_budget = part("hedgingBudget").and_then(|place| read_budget(reader, &place));
}

/// `false` switches off, `true` means the defaults, an object sets some of them.
pub(super) fn switched<T>(
    reader: &mut Reader<'_>,
    place: &Place<'_, '_>,
    read: impl FnOnce(&mut Reader<'_>, &mut Fields<'_, '_>) -> Option<T>,
) -> Option<Option<T>> {
    if let Value::Bool(is_on) = place.node.value {
        if !is_on {
            return Some(None);
        }
        return read(reader, &mut Fields::none(place)).map(Some);
    }
    let mut fields = reader.object(place)?;
    let value = read(reader, &mut fields);
    reader.finish(fields);
    value.map(Some)
}

/// A circuit breaker, of a method or of the service.
pub(super) fn read_breaker(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<Option<CircuitBreaker>> {
    switched(reader, place, |reader, fields| {
        let mut made = CircuitBreaker::default();
        let to = &mut made;
        set(reader, fields, "window", to, duration, CircuitBreaker::window);
        set(reader, fields, "minimumCalls", to, count, CircuitBreaker::minimum_calls);
        set(reader, fields, "errorRatio", to, number, CircuitBreaker::error_ratio);
        set(reader, fields, "probes", to, count, CircuitBreaker::probes);
        set(
            reader,
            fields,
            "slowCalls",
            to,
            |reader, place| {
                let mut fields = reader.object(place)?;
                let from = fields.need(reader, "from").and_then(|place| reader.duration(&place));
                let ratio = fields.need(reader, "ratio").and_then(|place| number(reader, &place));
                reader.finish(fields);
                Some((from?, ratio?))
            },
            |breaker, (from, ratio)| breaker.slow_calls(from, ratio),
        );
        set(reader, fields, "open", to, read_open, |breaker, open| {
            Ok::<_, std::convert::Infallible>(breaker.open(open))
        });
        Some(made)
    })
}

/// `{"min": "5s", "max": "60s", "jitter": 0.2}`
fn read_open(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<Backoff> {
    let mut fields = reader.object(place)?;
    let min = fields.need(reader, "min").and_then(|place| reader.duration(&place));
    let max = fields.need(reader, "max").and_then(|place| reader.duration(&place));
    let jitter = fields.take("jitter").map(|place| number(reader, &place));
    reader.finish(fields);
    Backoff::try_new(min?, max?, jitter.unwrap_or(Some(0.2))?)
        .map_err(|error| reader.wrong(place, format!("cannot be: {error}")))
        .ok()
}

/// Whose words outlier detection is set in.
pub(super) enum Words {
    /// gRFC A50's: what is not there is off.
    Grpc,
    /// Ours: what is not there is as by default, or as gRPC's words beside them say.
    Ours { beside: Option<OutlierDetection> },
}

/// What gRPC's `outlier_detection_experimental` (gRFC A50) and our `outlierDetection` have in common, and what only ours has.
pub(super) fn read_outlier(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_, '_>,
    words: Words,
) -> Option<OutlierDetection> {
    type Detection = OutlierDetection;
    let mut made = match &words {
        Words::Ours { beside: Some(grpc) } => *grpc,
        _ => Detection::default(),
    };
    let to = &mut made;
    if let Words::Ours { beside: Some(_) } = words {
        for name in [
            "interval",
            "baseEjectionTime",
            "maxEjectionTime",
            "maxEjectionPercent",
            "successRateEjection",
            "failurePercentageEjection",
        ] {
            if let Some(place) = fields.take(name) {
                reader.wrong(
                    &place,
                    "contradicts outlier_detection_experimental in loadBalancingConfig, which has a say in it",
                );
            }
        }
    } else {
        set(reader, fields, "interval", to, duration, Detection::interval);
        set(
            reader,
            fields,
            "baseEjectionTime",
            to,
            duration,
            Detection::base_ejection,
        );
        set(
            reader,
            fields,
            "maxEjectionTime",
            to,
            |reader: &mut Reader<'_>, place: &Place<'_, '_>| reader.positive(place),
            |detection, longest| Ok::<_, std::convert::Infallible>(detection.max_ejection(longest)),
        );
        set(
            reader,
            fields,
            "maxEjectionPercent",
            to,
            percent,
            Detection::max_ejection_percent,
        );
        let is_grpc = matches!(words, Words::Grpc);
        let mut part = |name| {
            let place = fields.take(name);
            // Null is as good as nothing.
            place.is_some().then_some(place).flatten()
        };
        let success = part("successRateEjection");
        let failures = part("failurePercentageEjection");
        if is_grpc {
            *to = to.success_rate(None).failure_percentage(None);
        }
        if let Some(rate) = success.and_then(|place| switched(reader, &place, read_success_rate)) {
            *to = to.success_rate(rate);
        }
        if let Some(share) = failures.and_then(|place| switched(reader, &place, read_failures)) {
            *to = to.failure_percentage(share);
        }
    }
    if let Words::Ours { .. } = words {
        let failures = |reader: &mut Reader<'_>, place: &Place<'_, '_>| match place.node.value {
            Value::Bool(false) => Some(None),
            _ => count(reader, place).map(Some),
        };
        set(
            reader,
            fields,
            "consecutiveFailures",
            to,
            failures,
            Detection::consecutive_failures,
        );
        set(
            reader,
            fields,
            "panicThresholdPercent",
            to,
            percent,
            Detection::panic_threshold_percent,
        );
    }
    Some(made)
}

/// gRFC A50's defaults for what is not there.
fn read_success_rate(reader: &mut Reader<'_>, fields: &mut Fields<'_, '_>) -> Option<SuccessRate> {
    let at = (fields.at(), fields.path().to_owned());
    let mut whole = |name, or| whole(reader, fields, name, or);
    let factor = whole("stdevFactor", 1900);
    let enforcement = whole("enforcementPercentage", 100);
    let (hosts, volume) = (whole("minimumHosts", 5), whole("requestVolume", 100));
    let enforcement = u8::try_from(enforcement?).unwrap_or(u8::MAX);
    made(reader, at, SuccessRate::try_new(factor?, enforcement, hosts?, volume?))
}

fn read_failures(reader: &mut Reader<'_>, fields: &mut Fields<'_, '_>) -> Option<FailurePercentage> {
    let at = (fields.at(), fields.path().to_owned());
    let mut whole = |name, or| whole(reader, fields, name, or);
    let (threshold, enforcement) = (whole("threshold", 85), whole("enforcementPercentage", 100));
    let (hosts, volume) = (whole("minimumHosts", 5), whole("requestVolume", 50));
    let percent = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
    made(
        reader,
        at,
        FailurePercentage::try_new(percent(threshold?), percent(enforcement?), hosts?, volume?),
    )
}

fn read_slow_start(reader: &mut Reader<'_>, fields: &mut Fields<'_, '_>) -> Option<SlowStart> {
    let mut made = SlowStart::default();
    let to = &mut made;
    set(reader, fields, "window", to, duration, SlowStart::window);
    set(reader, fields, "minShare", to, number, SlowStart::min_share);
    set(reader, fields, "aggression", to, number, SlowStart::aggression);
    Some(made)
}

fn read_limit(reader: &mut Reader<'_>, fields: &mut Fields<'_, '_>) -> Option<ConcurrencyLimit> {
    let at = (fields.at(), fields.path().to_owned());
    let (min, max) = (whole(reader, fields, "min", 20), whole(reader, fields, "max", 200));
    let mut limit = made(reader, at, ConcurrencyLimit::default().bounds(min?, max?))?;
    set(
        reader,
        fields,
        "tolerance",
        &mut limit,
        number,
        ConcurrencyLimit::tolerance,
    );
    Some(limit)
}

fn read_throttling(reader: &mut Reader<'_>, fields: &mut Fields<'_, '_>) -> Option<Throttling> {
    let mut made = Throttling::default();
    let to = &mut made;
    set(reader, fields, "window", to, duration, Throttling::window);
    set(reader, fields, "k", to, number, Throttling::k);
    set(reader, fields, "most", to, number, Throttling::most);
    Some(made)
}

/// `{"ratio": 0.2, "perSecond": 10}`, both needed: half of a budget is none.
fn read_budget(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<RetryBudget> {
    let mut fields = reader.object(place)?;
    let ratio = fields.need(reader, "ratio").and_then(|place| number(reader, &place));
    let per_second = fields.need(reader, "perSecond").and_then(|place| count(reader, &place));
    reader.finish(fields);
    let at = (place.node.at, place.path.clone());
    made(reader, at, RetryBudget::try_new(ratio?, per_second?))
}

/// Takes a setting, if it is there, and sets it.
fn set<T: Copy, V, E: Display>(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_, '_>,
    name: &'static str,
    to: &mut T,
    read: impl FnOnce(&mut Reader<'_>, &Place<'_, '_>) -> Option<V>,
    with: impl FnOnce(T, V) -> Result<T, E>,
) {
    let Some(place) = fields.take(name) else { return };
    let Some(value) = read(reader, &place) else { return };
    match with(*to, value) {
        Ok(made) => *to = made,
        Err(error) => reader.wrong(&place, format!("cannot be: {error}")),
    }
}

/// What the mechanism itself refuses.
fn made<T, E: Display>(reader: &mut Reader<'_>, (at, path): (usize, String), made: Result<T, E>) -> Option<T> {
    made.map_err(|error| reader.wrong_at(at, &path, format!("cannot be: {error}")))
        .ok()
}

fn whole(reader: &mut Reader<'_>, fields: &mut Fields<'_, '_>, name: &'static str, or: u32) -> Option<u32> {
    fields.take(name).map_or(Some(or), |place| count(reader, &place))
}

fn count(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<u32> {
    reader.number(place, 0, u32::MAX)
}

fn duration(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<Duration> {
    reader.duration(place)
}

fn percent(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<u8> {
    reader.number(place, 0, 100)
}

/// Any finite number: what it may be is the setter's to say.
fn number(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<f64> {
    reader.number(place, f64::MIN, f64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{OutlierDetection, ServiceConfig, SuccessRate, settings::channel::ChannelSettings};

    fn settings(text: &str) -> ChannelSettings {
        let config: ServiceConfig = text.parse().expect(text);
        config.channel.resolved()
    }

    fn refused(text: &str) -> String {
        text.parse::<ServiceConfig>().expect_err(text).to_string()
    }

    /// gRFC A50's own document: what it leaves out is off, and its child is the policy.
    const A50: &str = r#"[{"outlier_detection_experimental": {"interval": "5s", "maxEjectionPercent": 50,
        "successRateEjection": {"stdevFactor": 1000}, "childPolicy": [{"grpclb": {}}, {"round_robin": {}}]}}]"#;

    #[test]
    fn grpcs_outlier_detection_is_read_as_it_is_and_ours_beside_it() {
        let of_grpc = OutlierDetection::default()
            .interval(Duration::from_secs(5))
            .and_then(|it| it.max_ejection_percent(50))
            .expect("valid")
            .success_rate(SuccessRate::try_new(1000, 100, 5, 100).expect("valid"))
            .failure_percentage(None);
        let read = settings(&format!(r#"{{"loadBalancingConfig": {A50}}}"#));
        assert_eq!(read.policy, crate::Policy::RoundRobin);
        assert_eq!(read.care.outlier, Some(of_grpc));
        let both = settings(&format!(
            r#"{{"loadBalancingConfig": {A50}, "tessera": {{"outlierDetection": {{"consecutiveFailures": false}}}}}}"#
        ));
        assert_eq!(both.care.outlier, of_grpc.consecutive_failures(None).ok());
        for contradiction in ["false", "{\"interval\": \"1s\"}"] {
            let text =
                format!("{{\"loadBalancingConfig\": {A50},\n\"tessera\": {{\"outlierDetection\": {contradiction}}}}}");
            let error = refused(&text);
            assert!(error.contains("contradicts outlier_detection_experimental"), "{error}");
            assert!(error.starts_with("line 3"), "{error}");
        }
    }

    #[test]
    fn everything_can_be_set_switched_off_and_left_alone() {
        let base = ChannelSettings::default();
        assert_eq!(settings(r#"{"tessera": {}}"#), base);
        let off = settings(
            r#"{"tessera": {"outlierDetection": false, "slowStart": false, "circuitBreaker": false,
                "concurrencyLimit": false, "throttling": false, "zonePreference": false, "subset": false}}"#,
        );
        assert_eq!((off.care.outlier, off.care.slow_start), (None, None));
        let on = settings(
            r#"{"tessera": {"outlierDetection": {"consecutiveFailures": 3, "successRateEjection": false},
                "slowStart": {"window": "60s", "minShare": 0.1, "aggression": 2},
                "circuitBreaker": {"window": "5s", "minimumCalls": 7, "errorRatio": 0.25, "probes": 1,
                    "slowCalls": {"from": "0.5s", "ratio": 0.8}, "open": {"min": "1s", "max": "9s"}},
                "concurrencyLimit": {"min": 1, "max": 9, "tolerance": 2}, "throttling": true,
                "retryBudget": {"ratio": 0.5, "perSecond": 3}, "hedgingBudget": {"ratio": 0, "perSecond": 0}}}"#,
        );
        let outlier = OutlierDetection::default().success_rate(None).consecutive_failures(3);
        assert_eq!(on.care.outlier, outlier.ok());
        let slow_start = crate::SlowStart::default()
            .window(Duration::from_secs(60))
            .and_then(|it| it.min_share(0.1))
            .and_then(|it| it.aggression(2.0));
        assert_eq!(on.care.slow_start, slow_start.ok());
        let open = crate::Backoff::try_new(Duration::from_secs(1), Duration::from_secs(9), 0.2).expect("valid");
        let breaker = crate::CircuitBreaker::default()
            .window(Duration::from_secs(5))
            .and_then(|it| it.minimum_calls(7))
            .and_then(|it| it.error_ratio(0.25))
            .and_then(|it| it.probes(1))
            .and_then(|it| it.slow_calls(Duration::from_millis(500), 0.8))
            .expect("valid")
            .open(open);
        assert_eq!(on.gate.breaker, Some(breaker));
        let limit = crate::ConcurrencyLimit::default()
            .bounds(1, 9)
            .and_then(|it| it.tolerance(2.0));
        assert_eq!(on.gate.limit, limit.ok());
        assert_eq!(on.gate.throttling, Some(crate::Throttling::default()));
        assert_eq!(Ok(on.retry_budget), crate::RetryBudget::try_new(0.5, 3));
        assert_eq!(Ok(on.hedging_budget), crate::RetryBudget::try_new(0.0, 0));
    }

    #[test]
    fn what_cannot_be_is_told_with_its_line() {
        for (setting, expected) in [
            (
                "\"slowStart\": 7",
                "tessera.slowStart is a number; it must be an object",
            ),
            (
                "\"slowStart\": {\n\"minShare\": 2}",
                "line 2, column 13: tessera.slowStart.minShare cannot be: the least share must be 0.01 to 1, not 2.0",
            ),
            ("\"slowStart\": {\"windw\": \"1s\"}", "did you mean window?"),
            (
                "\"outlierDetection\": {\"consecutiveFailures\": 0}",
                "failures in a row must be at least 1",
            ),
            (
                "\"outlierDetection\": {\"maxEjectionPercent\": 101}",
                "it must be a number from 0 to 100",
            ),
            (
                "\"outlierDetection\": {\"failurePercentageEjection\": {\"threshold\": 101}}",
                "the threshold must be at most 100 percent",
            ),
            ("\"concurrencyLimit\": {\"min\": 300}", "at most its maximum"),
            (
                "\"circuitBreaker\": {\"slowCalls\": {\"from\": \"1s\"}}",
                "tessera.circuitBreaker.slowCalls has no ratio",
            ),
            (
                "\"circuitBreaker\": {\"open\": {\"min\": \"2s\", \"max\": \"1s\"}}",
                "is longer than the longest",
            ),
            ("\"retryBudget\": {\"ratio\": 0.2}", "has no perSecond"),
            ("\"throttling\": {\"k\": 0.5}", "K must be at least 1"),
        ] {
            let error = refused(&format!("{{\"tessera\": {{{setting}}}}}"));
            assert!(error.contains(expected), "{setting}: {error}");
        }
    }

    /// The types of the setters are wider than what they take: every number has to come out as a problem, none as a panic.
    #[test]
    fn extreme_numbers_are_problems_or_settings_and_nothing_else() {
        for number in [
            "0",
            "-1",
            "1e999",
            "1e308",
            "4294967295",
            "4294967296",
            "0.0000001",
            "\"NaN\"",
            "\"inf\"",
        ] {
            for (of, member) in [
                ("slowStart", "minShare"),
                ("circuitBreaker", "errorRatio"),
                ("circuitBreaker", "minimumCalls"),
                ("concurrencyLimit", "max"),
                ("throttling", "k"),
                ("outlierDetection", "panicThresholdPercent"),
            ] {
                let text = format!("{{\"tessera\": {{\"{of}\": {{\"{member}\": {number}}}}}}}");
                if let Err(error) = text.parse::<ServiceConfig>() {
                    assert!(error.to_string().contains(member), "{text}: {error}");
                }
            }
        }
    }
}
