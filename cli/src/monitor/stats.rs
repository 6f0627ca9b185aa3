//! `tessera stats`: the time series of a service.

use proto::monitor::v1::{GroupBy, QueryRequest, QueryResponse, Selection, Series, Side};
use serde_json::{Value, json};

use super::{
    client::{Monitor, now, window},
    figures,
};
use crate::{
    args::{By, StatsArgs},
    failure::Failure,
    output::{Output, Table},
};

/// Prints the series.
pub(crate) async fn run(args: &StatsArgs, output: Output) -> Result<(), Failure> {
    let monitor = Monitor::open(&args.discovery)?;
    let now = now();
    let mut request = QueryRequest {
        selection: Some(Selection {
            side: Side::from(args.side).into(),
            service: args.service.clone(),
            caller: args.caller.clone().unwrap_or_default(),
            method: args.method.clone().unwrap_or_default(),
            instance: args.instance.clone().unwrap_or_default(),
        }),
        // What is counted in this second belongs to it as well.
        window: Some(window(now.saturating_sub(args.since.as_secs()), now + 1)),
        step: args.step.and_then(|step| step.try_into().ok()),
        group_by: args.by.iter().map(|by| GroupBy::from(*by).into()).collect(),
        ..QueryRequest::default()
    };
    let mut answer = monitor.query(request.clone()).await?;
    while !answer.next_page_token.is_empty() {
        request.page_token = std::mem::take(&mut answer.next_page_token);
        let next = monitor.query(request.clone()).await?;
        answer.series.extend(next.series);
        answer.next_page_token = next.next_page_token;
    }
    let document = document(args, &answer);
    output.print(&document, || human(args, &answer))
}

fn document(args: &StatsArgs, answer: &QueryResponse) -> Value {
    let series = answer.series.iter().map(|series| {
        let points = series.points.iter().map(|point| {
            let mut told = figures::json(point.figures.as_ref());
            told["start"] = point.start.map(|start| start.seconds).into();
            told
        });
        json!({
            "service": named(&series.service),
            "caller": named(&series.caller),
            "method": named(&series.method),
            "instance": named(&series.instance),
            "points": points.collect::<Vec<_>>(),
            "total": figures::json(series.total.as_ref()),
        })
    });
    json!({
        "service": args.service,
        "side": figures::side(args.side.into()),
        "since": answer.since.map(|at| at.seconds),
        "until": answer.until.map(|at| at.seconds),
        "step_seconds": answer.step.map(|step| step.seconds),
        "series": series.collect::<Vec<_>>(),
    })
}

/// A name that the series was not grouped by is none.
fn named(name: &str) -> Option<&str> {
    (!name.is_empty()).then_some(name)
}

fn human(args: &StatsArgs, answer: &QueryResponse) -> String {
    if answer.series.is_empty() {
        return format!("No calls of {} were counted in that time.\n", args.service);
    }
    let [calls, rate, errors, p50, p90, p99] = figures::HEADER;
    let mut text = String::new();
    for series in &answer.series {
        let mut table = Table::new(["from (UTC)", calls, rate, errors, p50, p90, p99]);
        for point in &series.points {
            table.row(row(
                moment(point.start.as_ref()),
                figures::cells(point.figures.as_ref()),
            ));
        }
        table.row(row("all".to_owned(), figures::cells(series.total.as_ref())));
        if !args.by.is_empty() {
            text.push_str(&format!("{}\n", title(series)));
        }
        text.push_str(&table.render());
        text.push('\n');
    }
    text
}

fn title(series: &Series) -> String {
    let names = [&series.service, &series.caller, &series.method, &series.instance];
    let named: Vec<String> = names
        .into_iter()
        .filter(|name| !name.is_empty())
        .map(|name| crate::output::plain(name))
        .collect();
    match named.is_empty() {
        true => "(no name)".to_owned(),
        false => named.join("  "),
    }
}

/// To the second, since points of 10 s are told apart by it.
fn moment(at: Option<&prost_types::Timestamp>) -> String {
    let at = at.and_then(|at| jiff::Timestamp::from_second(at.seconds).ok());
    at.map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn row(first: String, [calls, rate, errors, p50, p90, p99]: [String; 6]) -> [String; 7] {
    [first, calls, rate, errors, p50, p90, p99]
}

impl From<By> for GroupBy {
    fn from(by: By) -> Self {
        match by {
            By::Caller => Self::Caller,
            By::Method => Self::Method,
            By::Instance => Self::Instance,
        }
    }
}
