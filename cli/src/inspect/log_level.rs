//! `tessera log-level`: what a running process logs, and changing that.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::admin::{self, Question};
use crate::{
    args::LogLevelArgs,
    failure::Failure,
    output::{self, Output},
};

/// What the page `/log-level` has.
#[derive(Debug, Deserialize, Serialize)]
struct Page {
    filter: String,
    started_with: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends_in_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    then: Option<String>,
}

/// Shows the filter, or sets it, or takes it back.
pub(crate) async fn run(args: &LogLevelArgs, output: Output) -> Result<(), Failure> {
    let path = match args.lasting {
        // In the smallest unit, so that nothing is rounded away.
        Some(lasting) => format!("/log-level?for={}ms", lasting.as_millis()),
        None => "/log-level".to_owned(),
    };
    let question = match (&args.filter, args.reset) {
        (Some(filter), _) => Question {
            method: "PUT",
            path: &path,
            body: filter,
        },
        (None, true) => Question {
            method: "DELETE",
            path: &path,
            body: "",
        },
        (None, false) => Question::get(&path),
    };
    let text = admin::ask(&args.address, &question, args.timeout).await?;
    let page: Page = serde_json::from_str(&text).map_err(|error| {
        Failure::new(format!("{} has a page /log-level that is not ours", args.address))
            .because(&error)
            .advice("ask a process of this version")
    })?;
    output.print(&page, || human(&page))
}

fn human(page: &Page) -> String {
    let mut text = output::plain(&page.filter);
    if let (Some(left), Some(then)) = (page.ends_in_ms, &page.then) {
        let left = output::duration(Duration::from_millis(left));
        text.push_str(&format!(" for another {left}, then {}", output::plain(then)));
    }
    if page.filter != page.started_with {
        text.push_str(&format!(" (started with {})", output::plain(&page.started_with)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_what_holds_and_what_follows() {
        let mut page = Page {
            filter: "info".to_owned(),
            started_with: "info".to_owned(),
            ends_in_ms: None,
            then: None,
        };
        assert_eq!(human(&page), "info");
        page.filter = "debug".to_owned();
        assert_eq!(human(&page), "debug (started with info)");
        page.ends_in_ms = Some(90_000);
        page.then = Some("warn".to_owned());
        let left = output::duration(Duration::from_secs(90));
        assert_eq!(
            human(&page),
            format!("debug for another {left}, then warn (started with info)")
        );
    }
}
