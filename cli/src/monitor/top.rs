//! `tessera top`: what is called now, how fast, how well, and by whom. On a terminal a live table, else one look.

use std::{io::IsTerminal as _, time::Duration};

use proto::monitor::v1::{Dependency, Method, Order, Selection, Side, TopRequest};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    client::{Monitor, now, window},
    figures,
    screen::Screen,
};
use crate::{
    args::{Sort, TopArgs},
    failure::Failure,
    output::{Output, Table, plain},
    signals,
};

/// Points are of 10 s, and a process reports within 2 s of their end: what is younger is not there yet.
const POINT: u64 = 10;
const LATE: u64 = 3;
/// How often the screen is drawn: new points come every 10 s, a person who waits for them looks more often.
const EVERY: Duration = Duration::from_secs(2);

/// One look.
#[derive(Debug, Clone, Default)]
struct Picture {
    since: u64,
    until: u64,
    methods: Vec<Method>,
    found: u32,
    edges: Vec<Dependency>,
}

/// Shows it, once or until it is interrupted.
pub(crate) async fn run(args: &TopArgs, output: Output) -> Result<(), Failure> {
    let monitor = Monitor::open(&args.discovery)?;
    if args.once || (output.is_for_people() && !std::io::stdout().is_terminal()) {
        return print(&look(&monitor, args).await?, args, output);
    }
    let shutdown = signals::install()?;
    let watching = async {
        match output.is_for_people() {
            true => live(&monitor, args).await,
            false => loop {
                print(&look(&monitor, args).await?, args, output)?;
                tokio::time::sleep(EVERY).await;
            },
        }
    };
    tokio::select! {
        ended = watching => ended,
        // The screen is given back as it is dropped.
        () = shutdown.wait() => Ok(()),
    }
}

fn print(picture: &Picture, args: &TopArgs, output: Output) -> Result<(), Failure> {
    output.print(&document(picture, args), || lines(picture, args).join("\n"))
}

async fn live(monitor: &Monitor, args: &TopArgs) -> Result<(), Failure> {
    let mut resized = signal(SignalKind::window_change())
        .map_err(|error| Failure::new("the terminal cannot be followed").because(&error))?;
    // Before the screen is taken: what is wrong from the start is said in the usual way.
    let mut text = lines(&look(monitor, args).await?, args);
    let screen = Screen::take()?;
    loop {
        screen.draw(&text)?;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => match look(monitor, args).await {
                Ok(picture) => text = lines(&picture, args),
                // The last picture stays, and says that it is old.
                Err(failure) => {
                    text.truncate(text.iter().position(|line| line.starts_with("! ")).unwrap_or(text.len()));
                    text.push(format!("! {}", plain(&failure.to_string())));
                }
            },
            _ = resized.recv() => {}
        }
    }
}

async fn look(monitor: &Monitor, args: &TopArgs) -> Result<Picture, Failure> {
    let until = now().saturating_sub(LATE) / POINT * POINT;
    let since = until.saturating_sub(args.window.as_secs().max(POINT));
    let service = args.service.clone().unwrap_or_default();
    let request = TopRequest {
        window: Some(window(since, until)),
        selection: Some(Selection {
            side: Side::from(args.side).into(),
            service: service.clone(),
            ..Selection::default()
        }),
        order: Order::from(args.sort).into(),
        limit: i32::from(args.limit),
    };
    let (methods, edges) = tokio::try_join!(monitor.methods(request), monitor.edges(window(since, until), &service))?;
    Ok(Picture {
        since,
        until,
        methods: methods.methods,
        found: methods.found,
        edges,
    })
}

fn document(picture: &Picture, args: &TopArgs) -> Value {
    let methods = picture.methods.iter().map(|method| {
        let mut told = figures::json(method.figures.as_ref());
        told["service"] = method.service.clone().into();
        told["method"] = method.method.clone().into();
        told
    });
    let edges = picture.edges.iter().map(|edge| {
        let mut told = figures::json(edge.figures.as_ref());
        told["caller"] = edge.caller.clone().into();
        told["callee"] = edge.callee.clone().into();
        told["side"] = figures::side(edge.side()).into();
        told
    });
    json!({
        "since": picture.since,
        "until": picture.until,
        "side": figures::side(args.side.into()),
        "methods": methods.collect::<Vec<_>>(),
        "methods_found": picture.found,
        "dependencies": edges.collect::<Vec<_>>(),
    })
}

/// Lines without control sequences: the screen cuts them to its width.
fn lines(picture: &Picture, args: &TopArgs) -> Vec<String> {
    let seconds = picture.until - picture.since;
    let [calls, rate, errors, p50, p90, p99] = figures::HEADER;
    let counted = match Side::from(args.side) {
        Side::Caller => "as callers count them",
        Side::Attempt => "each attempt, as callers count them",
        Side::Provider | Side::Unspecified => "as providers count them",
    };
    let mut lines = vec![format!("Calls of {seconds} s, {counted}."), String::new()];
    let mut table = Table::new(["service", "method", rate, calls, errors, p50, p90, p99]);
    for method in &picture.methods {
        let [calls, rate, errors, p50, p90, p99] = figures::cells(method.figures.as_ref());
        let (service, name) = (method.service.clone(), short(&method.method));
        table.row([service, name, rate, calls, errors, p50, p90, p99]);
    }
    add(&mut lines, &table);
    let more = u64::from(picture.found).saturating_sub(picture.methods.len() as u64);
    if picture.methods.is_empty() {
        lines.push("Nothing was called, or nobody has reported yet.".to_owned());
    } else if more > 0 {
        lines.push(format!("and {more} more; --limit shows them"));
    }
    if !picture.edges.is_empty() {
        lines.push(String::new());
        let mut table = Table::new(["who calls", "", "whom", rate, calls, errors, p50, p99]);
        for edge in &picture.edges {
            let [calls, rate, errors, p50, _, p99] = figures::cells(edge.figures.as_ref());
            let caller = match edge.caller.as_str() {
                "" => "(unknown)".to_owned(),
                caller => caller.to_owned(),
            };
            table.row([
                caller,
                "→".to_owned(),
                edge.callee.clone(),
                rate,
                calls,
                errors,
                p50,
                p99,
            ]);
        }
        add(&mut lines, &table);
    }
    lines
}

fn add(lines: &mut Vec<String>, table: &Table) {
    let text = anstream::adapter::strip_str(&table.render()).to_string();
    lines.extend(text.lines().map(str::to_owned));
}

/// `Service/Method` without the package, which is the same for most of them.
fn short(method: &str) -> String {
    let (service, name) = method.split_once('/').unwrap_or(("", method));
    let service = service.rsplit('.').next().unwrap_or_default();
    match service {
        "" => name.to_owned(),
        service => format!("{service}/{name}"),
    }
}

impl From<Sort> for Order {
    fn from(sort: Sort) -> Self {
        match sort {
            Sort::Calls => Self::Calls,
            Sort::P99 => Self::P99,
            Sort::Errors => Self::Errors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_named_without_their_package() {
        assert_eq!(
            short("tessera.ticket.v1.TicketService/HoldSeats"),
            "TicketService/HoldSeats"
        );
        assert_eq!(short("_OTHER"), "_OTHER");
    }
}
