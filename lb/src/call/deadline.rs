//! When a call must be over: the earliest of what the request asks for, what is left of the call we are working for, and the
//! channel's own limit. Computing, not enforcing.

use std::time::Duration;

use http::HeaderMap;
use telemetry::deadline::{Deadline, GRPC_TIMEOUT, parse_grpc_timeout};

/// The deadline of a call with those request headers, or none.
///
/// A `grpc-timeout` that cannot be read is passed on untouched and not enforced: the server is the one to refuse it.
pub(crate) fn of(headers: &HeaderMap, ambient: Option<Deadline>, limit: Option<Duration>) -> Option<Deadline> {
    let asked = headers
        .get(GRPC_TIMEOUT)
        .and_then(|value| parse_grpc_timeout(value.to_str().ok()?).ok())
        .map(Deadline::after);
    [asked, ambient, limit.map(Deadline::after)].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_earliest_counts() {
        let seconds = Duration::from_secs;
        let headers = |value: &'static str| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static(GRPC_TIMEOUT),
                HeaderValue::from_static(value),
            )])
        };
        let after = |secs| Some(Deadline::after(seconds(secs)));
        assert_eq!(of(&HeaderMap::new(), None, None), None);
        assert_eq!(of(&headers("2S"), None, None), after(2));
        assert_eq!(of(&headers("2S"), after(1), Some(seconds(3))), after(1));
        assert_eq!(of(&headers("2S"), after(5), Some(seconds(1))), after(1));
        assert_eq!(of(&headers("2S"), after(5), Some(seconds(3))), after(2));
        assert_eq!(of(&headers("soon"), None, None), None);
        assert_eq!(of(&headers("soon"), None, Some(seconds(3))), after(3));
    }
}
