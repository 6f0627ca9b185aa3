//! How often a call is made, out of a config: gRPC's `retryPolicy` and `hedgingPolicy`, and the modes beside them.

use tonic::Code;

use super::reader::{Fields, Place, Reader};
use crate::{FailbackPolicy, Forks, HedgingDelay, HedgingPolicy, Mode, RetryBackoff, RetryPolicy, RetryThrottling};

/// What an entry says in gRPC's words, until it is known what it says in ours.
#[derive(Debug, Default)]
pub(super) struct Attempts<'n, 't> {
    retry: Option<(Place<'n, 't>, Option<RetryPolicy>)>,
    hedging: Option<(Place<'n, 't>, Option<HedgingPolicy>)>,
}

/// More than five count as five (gRFC A6); so many more are a mistake.
const MOST_ATTEMPTS: u32 = 1000;

const MODES: [(&str, &str); 7] = [
    ("failfast", "failfast"),
    ("failover", "failover"),
    ("failsafe", "failsafe"),
    ("failback", "failback"),
    ("forking", "forking"),
    ("broadcast", "broadcast"),
    ("hedging", "hedging"),
];

impl<'n, 't> Attempts<'n, 't> {
    /// Takes gRPC's two policies out of an entry of `methodConfig`.
    pub(super) fn read(reader: &mut Reader<'_>, entry: &mut Fields<'n, 't>) -> Self {
        let read = Self {
            retry: entry.take("retryPolicy").map(|place| {
                let policy = read_retry(reader, &place);
                (place, policy)
            }),
            hedging: entry.take("hedgingPolicy").map(|place| {
                let policy = read_hedging(reader, &place);
                (place, policy)
            }),
        };
        if let (Some(_), Some((place, _))) = (&read.retry, &read.hedging) {
            // gRFC A6: one of them, not both.
            reader.wrong(place, "contradicts the retryPolicy of the same entry");
        }
        read
    }

    /// What both come to, together with the `mode` beside them, if there is one.
    pub(super) fn with_mode(self, reader: &mut Reader<'_>, mode: Option<&Place<'_, '_>>) -> Option<Mode> {
        let Some(place) = mode else {
            let retry = self.retry.and_then(|(_, policy)| policy).map(Mode::Failover);
            return retry.or_else(|| self.hedging.and_then(|(_, policy)| policy).map(Mode::Hedging));
        };
        let (mode, name) = read_mode(reader, place)?;
        for (policy, belongs_to) in [
            (self.retry.as_ref().map(|(place, _)| place), "failover"),
            (self.hedging.as_ref().map(|(place, _)| place), "hedging"),
        ] {
            if let Some(policy) = policy
                && name != belongs_to
            {
                reader.wrong(policy, format!("contradicts the mode {name} of the same entry"));
            }
        }
        Some(match (mode, self.retry, self.hedging) {
            (Mode::Failover(_), Some((_, Some(policy))), _) => Mode::Failover(policy),
            (Mode::Hedging(ours), _, Some((_, Some(policy)))) if ours == HedgingPolicy::default() => {
                Mode::Hedging(policy)
            }
            (Mode::Hedging(_), _, Some((policy, _))) => {
                reader.wrong(&policy, "says the same as the mode of the same entry, otherwise");
                return None;
            }
            (mode, _, _) => mode,
        })
    }
}

/// `"mode": "failfast"`, or with settings `"mode": {"failback": {"every": "5s", "times": 3}}`.
fn read_mode(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<(Mode, &'static str)> {
    if reader.is_text(place) {
        let name = reader.word(place, &MODES)?;
        return Some((default_of(name), name));
    }
    let mut fields = reader.object(place)?;
    let before = reader.count();
    let mut read = Vec::new();
    for (name, _) in MODES {
        if let Some(settings) = fields.take(name)
            && let Some(mut settings) = reader.object(&settings)
        {
            let mode = read_settings(reader, name, &mut settings);
            reader.finish(settings);
            read.extend(mode.map(|mode| (mode, name)));
        }
    }
    reader.finish(fields);
    if reader.count() == before && read.len() != 1 {
        reader.wrong(place, "must have exactly one mode, as {\"failback\": {\"times\": 3}}");
    }
    read.pop()
}

fn default_of(name: &str) -> Mode {
    match name {
        "failover" => Mode::Failover(RetryPolicy::default()),
        "failsafe" => Mode::Failsafe,
        "failback" => Mode::Failback(FailbackPolicy::default()),
        "forking" => Mode::Forking(Forks::default()),
        "broadcast" => Mode::Broadcast,
        "hedging" => Mode::Hedging(HedgingPolicy::default()),
        _ => Mode::Failfast,
    }
}

fn read_settings(reader: &mut Reader<'_>, name: &str, settings: &mut Fields<'_, '_>) -> Option<Mode> {
    let at = settings.at();
    let path = settings.path().to_owned();
    match name {
        "failback" => {
            let every = settings.take("every").map(|place| reader.positive(&place));
            let times = settings.take("times").map(|place| reader.number(&place, 1, 100));
            let (every, times) = (
                every.unwrap_or(Some(std::time::Duration::from_secs(5)))?,
                times.unwrap_or(Some(3))?,
            );
            or_wrong(reader, at, &path, FailbackPolicy::try_new(every, times)).map(Mode::Failback)
        }
        "forking" => {
            let instances = settings.take("instances").map(|place| reader.number(&place, 2, 16));
            or_wrong(reader, at, &path, Forks::try_new(instances.unwrap_or(Some(2))?)).map(Mode::Forking)
        }
        "hedging" => {
            let attempts = settings
                .take("maxAttempts")
                .map(|place| reader.number(&place, 2, MOST_ATTEMPTS));
            let share = settings
                .take("percentile")
                .map(|place| reader.number(&place, 0.001, 0.9999));
            let codes = settings.take("nonFatalStatusCodes").map(|place| reader.codes(&place));
            let delay = HedgingDelay::Percentile(share.unwrap_or(Some(0.95))?);
            let codes = codes.unwrap_or_else(|| vec![Code::Unavailable]);
            let policy = HedgingPolicy::try_new(attempts.unwrap_or(Some(2))?, delay, codes);
            or_wrong(reader, at, &path, policy).map(Mode::Hedging)
        }
        // The others have none: what is there is unknown.
        name => Some(default_of(name)),
    }
}

/// gRFC A6, "Retry Policy": all of its members are needed.
fn read_retry(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<RetryPolicy> {
    let mut fields = reader.object(place)?;
    let attempts = fields.need(reader, "maxAttempts");
    let initial = fields.need(reader, "initialBackoff");
    let max = fields.need(reader, "maxBackoff");
    let multiplier = fields.need(reader, "backoffMultiplier");
    let codes = fields.need(reader, "retryableStatusCodes");
    if let Some(place) = fields.take("perAttemptRecvTimeout") {
        reader.wrong(&place, "is not supported");
    }
    reader.finish(fields);
    // gRFC A6: more than five are treated as five, without an error.
    let attempts = attempts.and_then(|place| reader.number(&place, 2, MOST_ATTEMPTS));
    let initial = initial.and_then(|place| reader.positive(&place));
    let max = max.and_then(|place| reader.positive(&place));
    let multiplier = multiplier.and_then(|place| reader.number(&place, 0.001, 1000.0));
    let codes = codes.map(|place| {
        let codes = reader.codes(&place);
        if codes.is_empty() {
            reader.wrong(&place, "must have at least one status code");
        }
        codes
    });
    let at = place.node.at;
    let backoff = RetryBackoff::try_new(initial?, max?, multiplier?);
    let backoff = or_wrong(reader, at, &place.path, backoff)?;
    let codes = codes.filter(|codes| !codes.is_empty())?;
    // gRPC's clients go back to an instance that has had the call, if there is no other one.
    or_wrong(reader, at, &place.path, RetryPolicy::try_new(attempts?, backoff, codes)).map(RetryPolicy::revisiting)
}

/// gRFC A6, "Hedging Policy".
fn read_hedging(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<HedgingPolicy> {
    let mut fields = reader.object(place)?;
    let attempts = fields.need(reader, "maxAttempts");
    let delay = fields.take("hedgingDelay").map(|place| reader.duration(&place));
    let codes = fields.take("nonFatalStatusCodes").map(|place| reader.codes(&place));
    reader.finish(fields);
    let attempts = attempts.and_then(|place| reader.number(&place, 2, MOST_ATTEMPTS))?;
    let delay = HedgingDelay::After(delay.unwrap_or(Some(std::time::Duration::ZERO))?);
    let policy = HedgingPolicy::try_new(attempts, delay, codes.unwrap_or_default());
    or_wrong(reader, place.node.at, &place.path, policy)
}

/// gRFC A6, "Throttling".
pub(super) fn read_throttling(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<RetryThrottling> {
    let mut fields = reader.object(place)?;
    let tokens = fields.need(reader, "maxTokens");
    let ratio = fields.need(reader, "tokenRatio");
    reader.finish(fields);
    let tokens = tokens.and_then(|place| reader.number(&place, 1, 1000));
    let ratio = ratio.and_then(|place| reader.number(&place, 0.001, 1000.0));
    or_wrong(
        reader,
        place.node.at,
        &place.path,
        RetryThrottling::try_new(tokens?, ratio?),
    )
}

/// What the mechanism itself refuses.
fn or_wrong<T, E: std::fmt::Display>(reader: &mut Reader<'_>, at: usize, path: &str, made: Result<T, E>) -> Option<T> {
    made.map_err(|error| reader.wrong_at(at, path, format!("cannot be: {error}")))
        .ok()
}
