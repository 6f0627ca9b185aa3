//! `/log-level`: what this process logs, and changing it while it runs.
//!
//! GET shows the filter; PUT (or POST) sets the one in the body, with `?for=10m` for a while; DELETE goes back to what the
//! process was started with. Everybody who reaches the endpoint may look. Only this machine may change, whatever address the
//! endpoint listens on: it asks nobody who they are, and whoever may turn on `trace` can fill a disk and read in the log what
//! others ask. A web page that a browser on this machine shows is not this machine: browsers say `Origin` with every request
//! that changes something, and those are refused.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use telemetry::logs::{self, FilterError};

use super::Answer;

/// The page's path.
pub(super) const PATH: &str = "/log-level";

/// Answers a request for the page by `from`, whose body may take `patience` to arrive.
pub(super) async fn answer<B>(request: Request<B>, from: IpAddr, patience: Duration) -> Answer
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let is_change = match *request.method() {
        Method::GET | Method::HEAD => false,
        Method::PUT | Method::POST | Method::DELETE => true,
        _ => return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "only GET, PUT, POST and DELETE\n"),
    };
    if !is_change {
        return match logs::filter() {
            Some(filter) => Answer::json(filter.to_json()),
            None => refused(&FilterError::NotInstalled),
        };
    }
    if let Err(why) = may_change(from, request.headers()) {
        return Answer::text(StatusCode::FORBIDDEN, why);
    }
    if request.method() == Method::DELETE {
        return changed(logs::reset_filter());
    }
    let lasting = match lasting(request.uri().query()) {
        Ok(lasting) => lasting,
        Err(why) => return Answer::text(StatusCode::BAD_REQUEST, format!("{why}\n")),
    };
    let body = Limited::new(request.into_body(), logs::MAX_FILTER).collect();
    let body = match tokio::time::timeout(patience, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return refused(&FilterError::Long),
        Ok(Err(_)) => return Answer::text(StatusCode::BAD_REQUEST, "the filter did not arrive as a whole\n"),
        Err(_) => return Answer::text(StatusCode::REQUEST_TIMEOUT, "the filter did not arrive in time\n"),
    };
    match std::str::from_utf8(&body) {
        Ok(filter) => changed(logs::set_filter(filter, lasting)),
        Err(_) => Answer::text(StatusCode::BAD_REQUEST, "the filter is no text\n"),
    }
}

fn changed(outcome: Result<logs::Filter, FilterError>) -> Answer {
    match outcome {
        Ok(filter) => Answer::json(filter.to_json()),
        Err(error) => refused(&error),
    }
}

fn refused(error: &FilterError) -> Answer {
    let status = match error {
        FilterError::NotInstalled => StatusCode::NOT_FOUND,
        FilterError::Long => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    Answer::text(status, format!("{error}\n"))
}

/// Whether somebody there may change what is logged.
fn may_change(from: IpAddr, headers: &HeaderMap) -> Result<(), &'static str> {
    if !from.to_canonical().is_loopback() {
        return Err("only from the machine (or container) itself, at its loopback address\n");
    }
    if headers.contains_key(header::ORIGIN) {
        return Err("not from a web page\n");
    }
    Ok(())
}

/// How long the filter is to hold: `for=90s`, a whole number of ms, s, m, h or d.
fn lasting(query: Option<&str>) -> Result<Option<Duration>, String> {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return Ok(None);
    };
    let Some(("for", text)) = query.split_once('=') else {
        return Err(format!("{query:?} means nothing here; an example is ?for=10m"));
    };
    let unit_at = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(millis))
        .filter(|total| *total > 0)
        .map(|total| Some(Duration::from_millis(total)))
        .ok_or_else(|| format!("{text:?} is no time; examples are 90s, 10m and 2h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_whole_number_with_a_unit() {
        for (query, expected) in [
            (None, Ok(None)),
            (Some(""), Ok(None)),
            (Some("for=1500ms"), Ok(Some(1_500))),
            (Some("for=10m"), Ok(Some(600_000))),
            (Some("for=2h"), Ok(Some(7_200_000))),
            (Some("for=0s"), Err(())),
            (Some("for=10"), Err(())),
            (Some("for=m"), Err(())),
            (Some("for=-1s"), Err(())),
            (Some("for=1s&for=2s"), Err(())),
            (Some("for=99999999999999999999d"), Err(())),
            (Some("until=10m"), Err(())),
            (Some("10m"), Err(())),
        ] {
            let found = lasting(query).map(|lasting| lasting.map(|lasting| lasting.as_millis()));
            assert_eq!(found.map_err(drop), expected, "{query:?}");
        }
    }

    #[test]
    fn only_this_machine_changes_and_no_web_page_does() {
        let mut headers = HeaderMap::new();
        let may = |from: &str, headers: &HeaderMap| may_change(from.parse().expect("an address"), headers).is_ok();
        for (from, expected) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.7", false),
            ("::ffff:10.0.0.7", false),
            ("fe80::1", false),
        ] {
            assert_eq!(may(from, &headers), expected, "{from}");
        }
        headers.insert(header::ORIGIN, http::HeaderValue::from_static("http://127.0.0.1:9101"));
        assert!(!may("127.0.0.1", &headers));
    }
}
