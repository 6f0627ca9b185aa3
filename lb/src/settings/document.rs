//! A service config as a document: gRPC's JSON with Tessera's additions, read and validated. It is bound to no channel yet.

use std::{collections::BTreeMap, str::FromStr};

use super::{
    channel::ChannelRules,
    json,
    problem::{InvalidServiceConfig, Problem, Spot},
    reader::{Fields, Place, Reader},
    rules::{Entry, Rules, Scope, read_names},
};
use crate::degrade::FallbackRule;

/// More than any config needs; reading takes the caller's time.
const MAX_LENGTH: usize = 1 << 20;

/// How calls are to be made, by method, by service and for all: [gRPC's service config], read as it is, with Tessera's own
/// settings beside gRPC's under the key `tessera`. `docs/service-config.md` has all of it.
///
/// Of several entries of `methodConfig` the one that names the method counts, else the one that names its service, else the one
/// with an empty name, and as in gRPC it counts as a whole; `"tessera": {"inherit": true}` takes what it leaves open from the
/// wider ones. How it is combined with other configs of the same channel is told at [`Builder::service_config`].
///
/// ```
/// use lb::ServiceConfig;
///
/// let config: ServiceConfig = r#"{"methodConfig": [
///     {"name": [{"service": "tessera.ticket.v1.TicketService"}], "timeout": "1.5s", "waitForReady": true}
/// ]}"#.parse()?;
///
/// let refused = "{\"methodConfig\": [\n {\"name\": [{}], \"timeOut\": \"1.5s\"}\n]}";
/// let error = refused.parse::<ServiceConfig>().expect_err("no such setting");
/// assert_eq!(
///     error.to_string(),
///     "line 2, column 17: methodConfig[0].timeOut is no known setting; did you mean timeout?"
/// );
/// # Ok::<(), lb::InvalidServiceConfig>(())
/// ```
///
/// [gRPC's service config]: https://github.com/grpc/grpc/blob/master/doc/service_config.md
/// [`Builder::service_config`]: crate::Builder::service_config
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceConfig {
    pub(crate) entries: BTreeMap<Scope, Entry>,
    pub(crate) channel: ChannelRules,
    pub(crate) check: Option<bool>,
    /// Where it says what instances may not say of themselves, fallbacks aside.
    callers: Vec<Spot>,
}

impl FromStr for ServiceConfig {
    type Err = InvalidServiceConfig;

    /// # Errors
    /// What is no JSON, unknown, out of its range, contradictory or not supported, with the line of each.
    fn from_str(text: &str) -> Result<Self, InvalidServiceConfig> {
        let mut reader = Reader::new(text);
        let config = if text.len() > MAX_LENGTH {
            reader.wrong_at(0, "", format!("it is longer than {MAX_LENGTH} bytes"));
            Self::default()
        } else {
            match json::read(text) {
                Ok(root) => read(&mut reader, &Place::root(&root)),
                Err(malformed) => {
                    reader.wrong_at(malformed.at, "", format!("this is no JSON: {}", malformed.reason));
                    Self::default()
                }
            }
        };
        let problems = reader.into_problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(InvalidServiceConfig::new(problems))
        }
    }
}

impl ServiceConfig {
    /// As one that instances announce of themselves: they may not say what stands in for them, which of them are called, nor when
    /// their callers start.
    ///
    /// # Errors
    /// If it says so.
    pub(crate) fn into_announced(self) -> Result<Self, InvalidServiceConfig> {
        let fallbacks = self.entries.values().filter_map(|entry| entry.fallback.as_ref());
        let reserved = fallbacks.map(|fallback| &fallback.spot).chain(&self.callers);
        let problems: Vec<Problem> = reserved
            .map(|spot| Problem::new(spot.clone(), "is the caller's to set"))
            .collect();
        if problems.is_empty() {
            Ok(Self { check: None, ..self })
        } else {
            Err(InvalidServiceConfig::new(problems))
        }
    }
}

fn read(reader: &mut Reader<'_>, root: &Place<'_, '_>) -> ServiceConfig {
    let mut config = ServiceConfig::default();
    let Some(mut fields) = reader.object(root) else {
        return config;
    };
    let mut inherits = false;
    let mut additions = fields.take("tessera").and_then(|place| reader.object(&place));
    if let Some(additions) = &mut additions {
        config.check = additions.take("check").and_then(|place| reader.flag(&place));
        inherits = inherit(reader, additions).unwrap_or(false);
    }
    (config.channel, config.callers) = ChannelRules::read(reader, &mut fields, additions.as_mut());
    if let Some(additions) = additions {
        reader.finish(additions);
    }
    let entries = fields.take("methodConfig").map(|place| reader.list(&place));
    let mut lines: BTreeMap<Scope, usize> = BTreeMap::new();
    for place in entries.unwrap_or_default() {
        let Some(mut fields) = reader.object(&place) else {
            continue;
        };
        let names = fields.take("name");
        let entry = read_entry(reader, fields, inherits);
        let Some(names) = names else {
            reader.wrong(&place, "has no name, so it is about no call; [{}] is about all");
            continue;
        };
        for (scope, place) in read_names(reader, &names) {
            // gRFC A2 refuses the whole config for that, too.
            if let Some(line) = lines.get(&scope) {
                reader.wrong(&place, format!("is named for the second time, after line {line}"));
                continue;
            }
            lines.insert(scope.clone(), reader.line(place.node.at));
            config.entries.insert(scope, entry.clone());
        }
    }
    reader.finish(fields);
    config
}

fn read_entry(reader: &mut Reader<'_>, mut fields: Fields<'_, '_>, inherits: bool) -> Entry {
    let additions = fields.take("tessera");
    let mut additions = additions.and_then(|place| reader.object(&place));
    let mut entry = Entry {
        rules: Rules::read(reader, &mut fields, additions.as_mut()),
        fallback: None,
        inherits,
    };
    if let Some(mut additions) = additions {
        entry.inherits = inherit(reader, &mut additions).unwrap_or(inherits);
        entry.fallback = additions
            .take("fallback")
            .and_then(|place| read_fallback(reader, &place));
        reader.finish(additions);
    }
    reader.finish(fields);
    entry
}

fn inherit(reader: &mut Reader<'_>, additions: &mut Fields<'_, '_>) -> Option<bool> {
    additions.take("inherit").and_then(|place| reader.flag(&place))
}

/// `{"when": "force" | "fail", "reply": {...} | "handler": "..." | "service": "...", "version": "..."}`
fn read_fallback(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<FallbackRule> {
    use crate::degrade::{FallbackWhen, With};

    let mut fields = reader.object(place)?;
    let before = reader.count();
    let words = [("force", FallbackWhen::Force), ("fail", FallbackWhen::Fail)];
    let when = match fields.take("when") {
        Some(place) => reader.word(&place, &words),
        None => {
            reader.wrong(place, "does not say when: \"force\" or \"fail\"");
            None
        }
    };
    let mut spot = reader.spot(place);
    let reply = fields.take("reply").and_then(|place| match &place.node.value {
        json::Value::Object(_, written) => {
            spot = reader.spot(&place);
            Some(With::Reply((*written).to_owned()))
        }
        other => {
            let kind = other.kind();
            reader.wrong(&place, format!("is {kind}; it must be a message as an object"));
            None
        }
    });
    let mut text = |reader: &mut Reader<'_>, fields: &mut Fields<'_, '_>, name| {
        let place = fields.take(name)?;
        spot = reader.spot(&place);
        let text = reader.text(&place)?.to_owned();
        if text.is_empty() {
            reader.wrong(&place, "is empty");
        }
        Some(text)
    };
    let handler = text(reader, &mut fields, "handler").map(With::Handler);
    let service = text(reader, &mut fields, "service");
    let version = text(reader, &mut fields, "version");
    reader.finish(fields);
    let elsewhere = (service.is_some() || version.is_some()).then_some(With::Service { service, version });
    let mut all = [reply, handler, elsewhere].into_iter().flatten();
    let with = all.next();
    if (with.is_none() && reader.count() == before) || all.next().is_some() {
        reader.wrong(
            place,
            "needs one of reply, handler and service (or version), and no more than one",
        );
    }
    Some(FallbackRule {
        when: when?,
        with: with?,
        spot,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;

    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let error = text.parse::<ServiceConfig>().expect_err("must be refused");
        error.problems().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_problem_names_its_line_and_its_path() {
        let check = |text: &str, expected: &[&str]| assert_eq!(problems(text), expected, "{text}");
        check(
            "{\n  \"methodConfig\" []\n}",
            &["line 2, column 18: this is no JSON: expected `:`"],
        );
        check("[]", &["line 1, column 1: is a list; it must be an object"]);
        check(
            "{\n\"methodconfig\": []}",
            &["line 2, column 1: methodconfig is no known setting; did you mean methodConfig?"],
        );
        check(
            "{\"methodConfig\": [{\"timeout\": \"1s\"}]}",
            &["line 1, column 19: methodConfig[0] has no name, so it is about no call; [{}] is about all"],
        );
        check(
            "{\"methodConfig\": [\n{\"name\": [{\"method\": \"M\"}],\n\"timeout\": \"0s\",\n\"waitForReady\": \"yes\"}]}",
            &[
                "line 3, column 12: methodConfig[0].timeout must be above zero",
                "line 4, column 17: methodConfig[0].waitForReady is a string; it must be true or false",
                "line 2, column 22: methodConfig[0].name[0].method names the method M of no service",
            ],
        );
        check(
            "{\"methodConfig\": [{\"name\": [{}]},\n{\"name\": [{\"service\": \"a/b\"},\n{}]}]}",
            &[
                "line 2, column 23: methodConfig[1].name[0].service is \"a/b\"; a '/' has no place in it",
                "line 3, column 1: methodConfig[1].name[1] is named for the second time, after line 1",
            ],
        );
        check(
            "{\"methodConfig\": [{\"name\": [{}], \"timeout\": 1,\n\"timeout\": \"1s\"}]}",
            &[
                "line 2, column 1: methodConfig[0].timeout is here for the second time, after line 1",
                "line 1, column 45: methodConfig[0].timeout is a number; it must be a duration such as \"1.5s\"",
            ],
        );
    }

    #[test]
    fn a_fallback_says_when_and_with_what() {
        let fallback = |rule: &str| {
            format!("{{\"methodConfig\": [{{\"name\": [{{}}],\n\"tessera\": {{\"fallback\": {rule}}}}}]}}")
        };
        for (rule, expected) in [
            (r#"{"reply": {}}"#, "does not say when"),
            (r#"{"when": "fail"}"#, "needs one of reply, handler"),
            (r#"{"when": "fail", "reply": {}, "handler": "h"}"#, "no more than one"),
            (r#"{"when": "faill", "reply": {}}"#, "did you mean fail?"),
            (r#"{"when": "force", "reply": 7}"#, "must be a message"),
            (r#"{"when": "force", "handler": ""}"#, "is empty"),
        ] {
            let problems = problems(&fallback(rule));
            assert!(
                problems.len() == 1 && problems[0].contains(expected) && problems[0].starts_with("line 2"),
                "{rule}: {problems:?}"
            );
        }
        let config: ServiceConfig = fallback(r#"{"when": "fail", "version": "1.0.0"}"#)
            .parse()
            .expect("good");
        let error = config.into_announced().expect_err("not by a provider");
        assert!(
            error.to_string().contains("fallback.version is the caller's to set"),
            "{error}"
        );
    }

    #[test]
    fn retries_hedges_and_modes_are_one_answer() {
        use crate::{FailbackPolicy, HedgingDelay, HedgingPolicy, Mode, RetryBackoff, RetryPolicy};

        const RETRY: &str = r#""retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s",
            "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE", 13, "aborted"]}"#;
        const HEDGE: &str =
            r#""hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "0.5s", "nonFatalStatusCodes": [14]}"#;
        let entry = |inside: &str| format!("{{\"methodConfig\": [{{\"name\": [{{}}],\n{inside}}}]}}");
        let mode = |inside: &str| {
            let config: ServiceConfig = entry(inside).parse().expect(inside);
            config.entries[&Scope::Every].rules.mode.clone()
        };
        let backoff = RetryBackoff::try_new(Duration::from_millis(100), Duration::from_secs(1), 2.0).expect("good");
        let codes = [Code::Unavailable, Code::Internal, Code::Aborted];
        let retry = Mode::Failover(RetryPolicy::try_new(4, backoff, codes).expect("good").revisiting());
        let delay = HedgingDelay::After(Duration::from_millis(500));
        let hedge = Mode::Hedging(HedgingPolicy::try_new(3, delay, [Code::Unavailable]).expect("good"));
        let failback = FailbackPolicy::try_new(Duration::from_secs(1), 3).expect("good");
        for (inside, expected) in [
            (r#""timeout": "1s""#, None),
            (RETRY, Some(retry.clone())),
            (&format!(r#"{RETRY}, "tessera": {{"mode": "failover"}}"#), Some(retry)),
            (HEDGE, Some(hedge.clone())),
            (&format!(r#"{HEDGE}, "tessera": {{"mode": "hedging"}}"#), Some(hedge)),
            (
                r#""tessera": {"mode": "failover"}"#,
                Some(Mode::Failover(RetryPolicy::default())),
            ),
            (
                r#""tessera": {"mode": {"failback": {"every": "1s"}}}"#,
                Some(Mode::Failback(failback)),
            ),
            (r#""tessera": {"mode": {"broadcast": {}}}"#, Some(Mode::Broadcast)),
        ] {
            assert_eq!(mode(inside), expected, "{inside}");
        }
        for (inside, expected) in [
            (
                format!("{RETRY},\n{HEDGE}"),
                "hedgingPolicy contradicts the retryPolicy",
            ),
            (
                format!(r#"{RETRY}, "tessera": {{"mode": "forking"}}"#),
                "retryPolicy contradicts the mode forking",
            ),
            (
                r#""retryPolicy": {"maxAttempts": 1}"#.to_owned(),
                "maxAttempts is 1; it must be a number from 2",
            ),
            (
                RETRY.replace("13", "77"),
                "retryableStatusCodes[1] is no gRPC status code",
            ),
            (RETRY.replace("13", "14"), "lists UNAVAILABLE twice"),
            (RETRY.replace("aborted", "ABORTDE"), "did you mean ABORTED?"),
            (r#""tessera": {"mode": "failovr"}"#.to_owned(), "did you mean failover?"),
            (r#""tessera": {"mode": {}}"#.to_owned(), "exactly one mode"),
            (
                r#""tessera": {"mode": {"forking": {"instances": 1}}}"#.to_owned(),
                "must be a number from 2 to 16",
            ),
        ] {
            let problems = problems(&entry(&inside));
            assert!(
                problems.iter().any(|problem| problem.contains(expected)),
                "{inside}: {problems:?}"
            );
        }
    }

    #[test]
    fn the_first_balancing_policy_that_is_known_counts() {
        use crate::{LeastRequest, Policy, RetryThrottling};

        let of = |inside: &str| {
            let config: ServiceConfig = format!("{{{inside}}}").parse().expect(inside);
            config.channel
        };
        let least = Policy::LeastRequest(LeastRequest::try_new(3).expect("good"));
        for (inside, expected) in [
            (r#""loadBalancingConfig": [{"round_robin": {}}]"#, Policy::RoundRobin),
            (
                r#""loadBalancingConfig": [{"grpclb": {"x": 1}}, {"least_request": {"choiceCount": 3}}]"#,
                least,
            ),
            (r#""loadBalancingPolicy": "ROUND_ROBIN""#, Policy::RoundRobin),
            (
                r#""loadBalancingPolicy": "random", "loadBalancingConfig": [{"peak_ewma": {}}]"#,
                Policy::default(),
            ),
        ] {
            assert_eq!(of(inside).policy, Some(expected), "{inside}");
        }
        let throttling = of(r#""retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}"#).retry_throttling;
        assert_eq!(throttling, RetryThrottling::try_new(10, 0.1).ok());
        for (inside, expected) in [
            (
                r#"{"loadBalancingConfig": [{"grpclb": {}}]}"#,
                "no policy that is known here",
            ),
            (
                r#"{"loadBalancingConfig": [{"random": {}, "round_robin": {}}]}"#,
                "exactly one policy",
            ),
            (
                r#"{"loadBalancingConfig": [{"least_request": {"choiceCont": 3}}]}"#,
                "did you mean choiceCount?",
            ),
            (
                r#"{"loadBalancingConfig": [{"ring_hash": {"boundedLoad": 1}}]}"#,
                "boundedLoad is 1",
            ),
            (
                r#"{"loadBalancingPolicy": "best"}"#,
                "no load balancing policy \"best\"",
            ),
            (r#"{"retryThrottling": {"maxTokens": 1001}}"#, "has no tokenRatio"),
        ] {
            let problems = problems(inside);
            assert!(
                problems.iter().any(|problem| problem.contains(expected)),
                "{inside}: {problems:?}"
            );
        }
    }

    /// The page that people copy from.
    #[test]
    fn the_documented_example_says_what_its_page_says() {
        let page = include_str!("../../../docs/service-config.md");
        let example = page.split("```json").nth(1).and_then(|rest| rest.split("```").next());
        let config: ServiceConfig = example.expect("an example").parse().expect("a good example");
        assert_eq!(config.check, Some(false));
        assert!(matches!(config.channel.policy, Some(crate::Policy::LeastRequest(_))));
        assert_eq!(config.entries.len(), 4);
        let method = Scope::Method("/tessera.ticket.v1.TicketService/ListEvents".into());
        let entry = &config.entries[&method];
        assert!(entry.inherits && entry.fallback.is_some());
        assert!(matches!(entry.rules.mode, Some(crate::Mode::Failover(_))));
        let service = Scope::Service("tessera.ticket.v1.TicketService".into());
        assert!(matches!(config.entries[&service].rules.breaker, Some(Some(_))));
        let channel = config.channel.resolved();
        assert_eq!(channel.routes.len(), 2);
        assert!(channel.zone_preference.is_some() && channel.subsetting.is_some());
        assert!(channel.gate.limit.is_some() && channel.gate.throttling.is_some() && channel.gate.breaker.is_none());
        assert_eq!(channel.hedging_budget, crate::RetryBudget::tenth());
        let outlier = crate::OutlierDetection::default().success_rate(None);
        assert_eq!(channel.care.outlier, Some(outlier), "what A50's words leave out is off");
    }

    #[test]
    fn twenty_problems_are_enough() {
        let entries = "7,".repeat(100);
        assert_eq!(problems(&format!("{{\"methodConfig\": [{entries}7]}}")).len(), 20);
    }

    #[test]
    fn nothing_and_null_say_nothing() {
        let empty: ServiceConfig = r#"{"methodConfig": null, "tessera": null}"#.parse().expect("good");
        assert_eq!(empty, ServiceConfig::default());
        let config: ServiceConfig = r#"{"methodConfig": [{"name": [{"service": ""}], "timeout": "0.5s"}]}"#
            .parse()
            .expect("good");
        assert_eq!(
            config.entries[&Scope::Every].rules.timeout,
            Some(Duration::from_millis(500))
        );
    }
}
