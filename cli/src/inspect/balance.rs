//! `tessera lb` and `tessera explain call`: whom a caller would call, and why not the others. The one asks a process that runs, the
//! other looks for itself, as a caller that starts now.

use std::time::Duration;

use http::HeaderMap;
use lb::{Explanation, InstanceView};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::admin;
use crate::{
    args::{ExplainCallArgs, LbArgs},
    channel,
    failure::Failure,
    instances,
    output::{self, Output, Table},
    registry,
};

/// How long `explain call` waits for instances that are being dialled: a second is what one attempt takes.
const SETTLED: Duration = Duration::from_millis(1_500);

/// What the page `/lb` has.
#[derive(Deserialize)]
struct Page {
    channels: Vec<Explanation>,
    #[serde(default)]
    more: usize,
}

/// The live view of a running process.
pub(crate) async fn run(args: &LbArgs, output: Output) -> Result<(), Failure> {
    let text = admin::ask(&args.admin, &admin::Question::get("/lb"), args.timeout).await?;
    let page: Page = serde_json::from_str(&text).map_err(|error| {
        Failure::new(format!("{} has a page /lb that is not ours", args.admin))
            .because(&error)
            .advice("ask a process of this version")
    })?;
    let shown = of(&page, args)?;
    output.print(&shown, || {
        let mut text = shown.iter().map(|shown| human(shown)).collect::<Vec<_>>().join("\n");
        if page.more > 0 {
            text.push_str(&format!(
                "\nThe process has {} channels more than it shows.\n",
                page.more
            ));
        }
        text
    })
}

fn of<'a>(page: &'a Page, args: &LbArgs) -> Result<Vec<&'a Explanation>, Failure> {
    let Some(service) = &args.service else {
        return match page.channels.as_slice() {
            [] => Err(Failure::new(format!("the process at {} calls nobody", args.admin))),
            all => Ok(all.iter().collect()),
        };
    };
    let found: Vec<&Explanation> = page.channels.iter().filter(|open| open.target == *service).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let mut known: Vec<&str> = page.channels.iter().map(|open| &*open.target).collect();
    known.dedup();
    let failure = Failure::new(format!("the process at {} has no channel to {service}", args.admin));
    Err(match known.as_slice() {
        [] => failure.why("it calls nobody"),
        known => failure.advice(format!("it calls {}", known.join(", "))),
    })
}

/// Explains the choice of a call that is not made.
pub(crate) async fn explain(args: &ExplainCallArgs, output: Output) -> Result<(), Failure> {
    let registry = registry::open(&args.discovery)?;
    let known = registry
        .list_services()
        .await
        .map_err(|error| registry::failure(&registry, &error))?;
    if !known.iter().any(|known| known.service == args.service) {
        let known = known.iter().map(|known| known.service.as_str());
        return Err(instances::unknown_service(&args.service, known));
    }
    let channel = channel::to_service(&registry, &args.service);
    settle(&channel).await;
    let path = args.method.as_ref().map(|method| format!("/{method}"));
    let explanation = channel.explain_call(path.as_deref().unwrap_or("/"), &headers(args)?);
    output.print(&explanation, || human(&explanation))
}

/// Waits until every instance is connected or was tried, or long enough.
async fn settle(channel: &lb::Channel) {
    // Without anybody to call it says so below.
    let _ = channel.ready(SETTLED).await;
    let until = Instant::now() + SETTLED;
    let is_underway = |instance: &InstanceView| {
        let state = instance.state;
        state.is_some_and(|state| matches!(state, lb::EndpointState::Idle | lb::EndpointState::Connecting))
    };
    while Instant::now() < until && channel.explain().instances.iter().any(is_underway) {
        sleep(Duration::from_millis(10)).await;
    }
}

fn headers(args: &ExplainCallArgs) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (key, value) in &args.header {
        let wrong = |what: &str| Failure::usage(format!("{key}={value} is no header: the {what} is wrong"));
        let name: http::HeaderName = key.parse().map_err(|_| wrong("name"))?;
        let value: http::HeaderValue = value.parse().map_err(|_| wrong("value"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn human(shown: &Explanation) -> String {
    let mut text = format!(
        "{}: {} of {} can be called now, by {}: {}.\nThe set: {}. The call: {}.\n",
        output::plain(&shown.target),
        shown.candidates,
        shown.known,
        output::plain(&shown.policy),
        output::plain(&shown.criterion),
        output::plain(&shown.discovery.text),
        output::plain(&shown.route),
    );
    if !shown.instances.is_empty() {
        let mut table = Table::new([
            "instance",
            "address",
            "state",
            "weight",
            "in flight",
            "expected",
            "served",
            "failed",
            "version",
            "zone",
            "tag",
            "why not",
        ]);
        for instance in &shown.instances {
            table.row(row(instance));
        }
        text.push_str(&format!("\n{}", table.render()));
    }
    if shown.more > 0 {
        text.push_str(&format!("And {} more.\n", shown.more));
    }
    text
}

fn row(instance: &InstanceView) -> [String; 12] {
    let state = instance.state.and_then(|state| serde_json::to_value(state).ok());
    let weight = match instance.effective_weight {
        Some(now) if now != instance.weight => format!("{now} of {}", instance.weight),
        _ => instance.weight.to_string(),
    };
    [
        instance.instance_id.clone(),
        instance.address.clone(),
        state
            .and_then(|state| state.as_str().map(str::to_owned))
            .unwrap_or_default(),
        weight,
        instance.in_flight.to_string(),
        instance.expected_latency().map(output::duration).unwrap_or_default(),
        instance.served.to_string(),
        instance.failed.to_string(),
        instance.version.clone(),
        instance.zone.clone(),
        instance.tag.clone(),
        instance
            .removed
            .as_ref()
            .map(|removed| format!("{}: {}", removed.by, removed.why))
            .unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page() -> Page {
        let instances = json!([
            { "instance_id": "ticket-1", "address": "10.0.0.1:7101", "state": "READY", "weight": 100,
              "effective_weight": 40, "in_flight": 2, "expected_latency_us": 1500, "served": 7 },
            { "instance_id": "ticket-2", "address": "10.0.0.2:7101", "weight": 100,
              "removed": { "by": "DRAIN", "why": "by ann: disk\u{1b}[31m is failing" } },
        ]);
        let page = json!({ "channels": [{
            "target": "ticket-svc", "policy": "peak_ewma", "criterion": "the cheapest", "route": "no tag",
            "discovery": { "text": "the registry answers", "revision": 7, "stale_for_ms": null },
            "known": 2, "candidates": 1, "instances": instances,
        }] });
        serde_json::from_value(page).expect("a page")
    }

    fn asked(service: Option<&str>) -> LbArgs {
        LbArgs {
            service: service.map(str::to_owned),
            admin: "127.0.0.1:9200".to_owned(),
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn people_see_who_is_called_and_why_the_others_are_not() {
        let page = page();
        let text = human(of(&page, &asked(Some("ticket-svc"))).expect("known")[0]);
        for expected in [
            "ticket-svc: 1 of 2 can be called now, by peak_ewma: the cheapest.",
            "The set: the registry answers. The call: no tag.",
            "40 of 100",
            "READY",
            "1.5",
            "drained: by ann: disk",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        assert!(!text.contains("[31m"), "{text}");
    }

    #[test]
    fn a_service_that_is_not_called_is_answered_with_those_that_are() {
        let page = page();
        let failure = of(&page, &asked(Some("tickets-svc"))).expect_err("unknown").to_string();
        assert!(failure.contains("no channel to tickets-svc"), "{failure}");
        assert!(failure.contains("it calls ticket-svc"), "{failure}");
        assert_eq!(of(&page, &asked(None)).expect("all").len(), 1);
    }
}
