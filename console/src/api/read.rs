//! Reads requests: names that fit, numbers within their limits, all violations at once.

use std::collections::BTreeMap;

use proto::monitor::v1;
use service_host::status;
use service_store::{Page, PageSizes, Violations};
use telemetry::stats::buckets;
use tonic::Status;

use crate::monitor::{
    GroupBy, Grouped, Key, LONGEST, MAX_CODE, MAX_POINTS, Order, Point, Report, ReporterId, Selection, Side, Steps,
    Window,
};

const MAX_SERIES: usize = 500;
const MAX_INTERVAL: std::time::Duration = std::time::Duration::from_secs(3_600);
const NAME: &str = "must have 1 to 63 letters, digits, `-`, `_` or `.`";
const INSTANCE: &str = "must have 1 to 128 visible characters";
const METHOD: &str = "must be package.Service/Method, 1 to 256 visible characters";
/// Between the names of a page token; names have none.
const BETWEEN: char = '\u{1f}';

/// What a query asks for.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) selection: Selection,
    pub(super) steps: Steps,
    pub(super) group_by: GroupBy,
    pub(super) page: Page<Grouped>,
}

/// Which part of the graph is asked for.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) service: Option<String>,
    pub(super) window: Window,
    /// After this caller and callee.
    pub(super) page: Page<(String, String)>,
}

pub(super) fn report(request: v1::ReportRequest) -> Result<(String, Report), Status> {
    let mut violations = Violations::default();
    let reporter = violations.uuid("reporter_id", &request.reporter_id);
    let sequence = (request.sequence > 0).then_some(request.sequence);
    let sequence = violations.check("sequence", sequence.ok_or("must be 1 or more"));
    let service = violations.check("service", name(&request.service));
    let instance = violations.check("instance_id", visible(&request.instance_id, 128).ok_or(INSTANCE));
    let at = request.interval_start.and_then(|at| u64::try_from(at.seconds).ok());
    let at = violations.check("interval_start", at.ok_or("must be set, and after 1970"));
    let interval = request
        .interval
        .and_then(|interval| std::time::Duration::try_from(interval).ok());
    let interval = interval.filter(|interval| !interval.is_zero() && *interval <= MAX_INTERVAL);
    violations.check("interval", interval.ok_or("must be above 0, and 1 h at the most"));
    if request.series.len() > MAX_SERIES {
        violations.add(
            "series",
            "must be 500 at the most; send a further report for the others",
        );
        return Err(status::invalid(violations));
    }
    let mut series = Vec::with_capacity(request.series.len());
    if let (Some(service), Some(instance)) = (service, instance) {
        for (index, delta) in request.series.iter().enumerate() {
            series.extend(one(&mut violations, index, delta, service, instance));
        }
    }
    let report = reporter.zip(sequence).zip(at).map(|((reporter, sequence), at)| Report {
        reporter: ReporterId(reporter.as_u128()),
        sequence,
        at,
        series,
    });
    sound(violations, report).map(|report| (request.service, report))
}

/// The value, unless anything was wrong.
fn sound<T>(violations: Violations, value: Option<T>) -> Result<T, Status> {
    let all: Vec<(String, String)> = violations.into_iter().collect();
    match value {
        Some(value) if all.is_empty() => Ok(value),
        _ => Err(status::invalid(all)),
    }
}

fn one(
    violations: &mut Violations,
    index: usize,
    delta: &v1::SeriesDelta,
    reporter: &str,
    instance: &str,
) -> Option<(Key, Point)> {
    let field = |name: &str| format!("series[{index}].{name}");
    let method = violations.check(field("method"), visible(&delta.method, 256).ok_or(METHOD))?;
    let key = |side, caller: &str, callee: &str, instance: &str| Key {
        side,
        caller: caller.into(),
        callee: callee.into(),
        method: method.into(),
        instance: instance.into(),
    };
    let key = match delta.side() {
        v1::Side::Caller => {
            let callee = violations.check(field("service"), name(&delta.service))?;
            key(Side::Caller, reporter, callee, "")
        }
        v1::Side::Attempt => {
            let callee = violations.check(field("service"), name(&delta.service))?;
            let peer = violations.check(field("peer"), visible(&delta.peer, 128).ok_or(INSTANCE))?;
            key(Side::Attempt, reporter, callee, peer)
        }
        v1::Side::Provider => {
            let caller = match delta.peer.as_str() {
                "" => "",
                peer => violations.check(field("peer"), name(peer))?,
            };
            key(Side::Provider, caller, reporter, instance)
        }
        v1::Side::Unspecified => return violations.check(field("side"), Err("must be one of those that there are")),
    };
    let point = violations.check(field("codes or latencies"), point(delta))?;
    Some((key, point))
}

fn point(delta: &v1::SeriesDelta) -> Result<Point, &'static str> {
    let mut codes = BTreeMap::new();
    for v1::CodeCount { code, calls } in &delta.codes {
        if *code > MAX_CODE || *calls == 0 || codes.insert(*code, *calls).is_some() {
            return Err("must have codes 0 to 16, each once, with a count above 0");
        }
    }
    let histogram = delta.latencies.as_ref();
    let (buckets, counts) = histogram.map_or((&[][..], &[][..]), |all| (&all.buckets, &all.counts));
    let is_growing = buckets.is_sorted_by(|one, next| one < next);
    let is_known = buckets.last().is_none_or(|last| (*last as usize) < buckets::COUNT);
    if !is_growing || !is_known || buckets.len() != counts.len() || counts.contains(&0) {
        return Err("must have buckets 0 to 463 that grow, each with a count above 0");
    }
    Ok(Point {
        codes,
        latencies: buckets.iter().copied().zip(counts.iter().copied()).collect(),
        total_micros: histogram.map_or(0, |histogram| histogram.total_micros),
    })
}

pub(super) fn query(request: v1::QueryRequest, now: u64) -> Result<Query, Status> {
    let mut violations = Violations::default();
    let selection = selection(&mut violations, request.selection.unwrap_or_default());
    if selection
        .as_ref()
        .is_some_and(|selection| selection.callee.is_none() && selection.caller.is_none())
    {
        violations.add("selection", "must name a service or a caller");
    }
    let window = window(&mut violations, request.window, now);
    let step = request.step.map(|step| {
        let step = std::time::Duration::try_from(step).ok();
        let seconds = step.map(|step| step.as_secs()).filter(|seconds| *seconds >= 10);
        violations.check("step", seconds.ok_or("must be 10 s at least"))
    });
    let group_by = group_by(&mut violations, &request.group_by);
    let sizes = PageSizes { default: 50, max: 200 };
    let page = Page::read(&mut violations, sizes, request.page_size, &request.page_token, grouped);
    let steps = window.and_then(|window| {
        let steps = Steps::of(window, step.flatten(), now);
        let too_many = format!("must be so that there are {MAX_POINTS} points at the most");
        violations.check("step", steps.map_err(|_| too_many))
    });
    let query = (|| {
        Some(Query {
            selection: selection?,
            steps: steps?,
            group_by: group_by?,
            page: page?,
        })
    })();
    sound(violations, query)
}

pub(super) fn dependencies(request: v1::DependenciesRequest, now: u64) -> Result<Graph, Status> {
    let mut violations = Violations::default();
    let window = window(&mut violations, request.window, now);
    let service = optional(&mut violations, "service", request.service, 63);
    let sizes = PageSizes {
        default: 100,
        max: 1_000,
    };
    let page = Page::read(
        &mut violations,
        sizes,
        request.page_size,
        &request.page_token,
        |token| {
            let (caller, callee) = token.split_once(BETWEEN)?;
            Some((caller.to_owned(), callee.to_owned()))
        },
    );
    let read = (|| {
        Some(Graph {
            service: service?,
            window: window?,
            page: page?,
        })
    })();
    sound(violations, read)
}

pub(super) fn top(request: v1::TopRequest, now: u64) -> Result<(Selection, Window, Order, usize), Status> {
    let mut violations = Violations::default();
    let order = match request.order() {
        v1::Order::Unspecified | v1::Order::Calls => Order::Calls,
        v1::Order::P99 => Order::P99,
        v1::Order::Errors => Order::Errors,
    };
    let known = v1::Order::try_from(request.order).map(|_| order);
    let order = violations.check("order", known.map_err(|_| "must be one of those that there are"));
    let window = window(&mut violations, request.window, now);
    let selection = selection(&mut violations, request.selection.unwrap_or_default());
    let limit = match request.limit {
        0 => Ok(20),
        limit => usize::try_from(limit)
            .ok()
            .filter(|limit| *limit <= 500)
            .ok_or("must be 1 to 500, or 0 for 20"),
    };
    let limit = violations.check("limit", limit);
    let read = (|| Some((selection?, window?, order?, limit?)))();
    sound(violations, read)
}

pub(super) fn edge_token(caller: &str, callee: &str) -> String {
    format!("{caller}{BETWEEN}{callee}")
}

pub(super) fn grouped_token(name: &Grouped) -> String {
    let Grouped {
        callee,
        caller,
        method,
        instance,
    } = name;
    format!("{callee}{BETWEEN}{caller}{BETWEEN}{method}{BETWEEN}{instance}")
}

fn grouped(token: &str) -> Option<Grouped> {
    let mut parts = token.split(BETWEEN).map(Box::<str>::from);
    let name = Grouped {
        callee: parts.next()?,
        caller: parts.next()?,
        method: parts.next()?,
        instance: parts.next()?,
    };
    parts.next().is_none().then_some(name)
}

fn selection(violations: &mut Violations, selection: v1::Selection) -> Option<Selection> {
    let known = v1::Side::try_from(selection.side).map_err(|_| "must be one of those that there are");
    let side = match violations.check("selection.side", known)? {
        v1::Side::Caller => Side::Caller,
        v1::Side::Attempt => Side::Attempt,
        v1::Side::Unspecified | v1::Side::Provider => Side::Provider,
    };
    if side == Side::Caller && !selection.instance.is_empty() {
        violations.add(
            "selection.instance",
            "must be empty: a call over all attempts has no one instance",
        );
    }
    Some(Selection {
        side,
        callee: optional(violations, "selection.service", selection.service, 63)?,
        caller: optional(violations, "selection.caller", selection.caller, 63)?,
        method: optional(violations, "selection.method", selection.method, 256)?,
        instance: optional(violations, "selection.instance", selection.instance, 128)?,
    })
}

fn window(violations: &mut Violations, window: Option<v1::Window>, now: u64) -> Option<Window> {
    let window = window.unwrap_or_default();
    let mut second = |field: &str, at: Option<prost_types::Timestamp>| match at {
        None => Some(None),
        Some(at) => {
            let seconds = u64::try_from(at.seconds).ok();
            // The width of the coarsest point beyond now: room for clocks that differ, and for nonsense none.
            let sane = seconds.filter(|seconds| *seconds <= now + 3_600);
            violations
                .check(field, sane.ok_or("must be after 1970, and not in the future"))
                .map(Some)
        }
    };
    let until = second("window.until", window.until);
    let since = second("window.since", window.since);
    let until = until?.unwrap_or(now + 1);
    let since = since?.unwrap_or(until.saturating_sub(3_600));
    let is_kept = since + LONGEST.as_secs() >= now;
    violations.check(
        "window.since",
        is_kept.then_some(()).ok_or("must be within the last 35 days"),
    )?;
    let is_forward = since < until;
    violations.check(
        "window.until",
        is_forward.then_some(()).ok_or("must be after window.since"),
    )?;
    Some(Window { since, until })
}

fn group_by(violations: &mut Violations, all: &[i32]) -> Option<GroupBy> {
    let mut group_by = GroupBy::default();
    for (index, by) in all.iter().enumerate() {
        let by = v1::GroupBy::try_from(*by).unwrap_or(v1::GroupBy::Unspecified);
        let flag = match by {
            v1::GroupBy::Service => Some(&mut group_by.callee),
            v1::GroupBy::Caller => Some(&mut group_by.caller),
            v1::GroupBy::Method => Some(&mut group_by.method),
            v1::GroupBy::Instance => Some(&mut group_by.instance),
            v1::GroupBy::Unspecified => None,
        };
        let new = flag.filter(|flag| !**flag).map(|flag| *flag = true);
        // After a mistake the list, however long, has been looked at long enough.
        violations.check(
            format!("group_by[{index}]"),
            new.ok_or("must be one of those that there are, and each once"),
        )?;
    }
    Some(group_by)
}

/// `Some(None)` when it is not set.
fn optional(violations: &mut Violations, field: &str, text: String, max: usize) -> Option<Option<String>> {
    if text.is_empty() {
        return Some(None);
    }
    let fits = visible(&text, max).is_some();
    let must = format!("must have {max} visible characters at the most");
    violations.check(field, fits.then_some(Some(text)).ok_or(must))
}

fn name(text: &str) -> Result<&str, &'static str> {
    let letter = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_' | b'.');
    let is_name = (1..=63).contains(&text.len()) && text.bytes().all(letter);
    is_name.then_some(text).ok_or(NAME)
}

fn visible(text: &str, max: usize) -> Option<&str> {
    let fits = (1..=max).contains(&text.len()) && text.bytes().all(|letter| letter.is_ascii_graphic());
    fits.then_some(text)
}
