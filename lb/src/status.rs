//! The one place where failures of a channel become gRPC statuses.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::Error;

/// Whose reasons these are.
const DOMAIN: &str = "tessera";
/// Details travel in headers, which have their limits.
const MOST_LISTED: usize = 50;
/// When to come again if nobody was there: endpoints are redialled within their back-off, new instances appear within
/// moments.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<Error> for Status {
    /// The code, with an `ErrorInfo` (domain `tessera`) that tells the reason apart, and a `RetryInfo` if the call was never
    /// processed.
    ///
    /// | error | code | reason |
    /// | --- | --- | --- |
    /// | `NoInstances` | UNAVAILABLE | NO_INSTANCES |
    /// | `NotReady` | UNAVAILABLE | NOT_READY |
    /// | `NoRoute` | UNAVAILABLE | NO_ROUTE |
    /// | `NoRoom` | UNAVAILABLE | NO_ROOM |
    /// | `NotTaken` | UNAVAILABLE | NOT_TAKEN |
    /// | `CircuitOpen` | UNAVAILABLE | CIRCUIT_OPEN |
    /// | `ConcurrencyLimit` | RESOURCE_EXHAUSTED | CONCURRENCY_LIMIT |
    /// | `Throttled` | RESOURCE_EXHAUSTED | THROTTLED |
    /// | `DeadlineExceeded` | DEADLINE_EXCEEDED | DEADLINE_EXCEEDED |
    /// | `Malformed` | INTERNAL | MALFORMED |
    /// | `NotRepeatable` | FAILED_PRECONDITION | NOT_REPEATABLE |
    /// | `BroadcastFailed` | that of the first that failed | BROADCAST_FAILED, and each that failed with its code |
    /// | `BrokenOff` | by its HTTP/2 reason, UNAVAILABLE for a lost connection | BROKEN_OFF |
    fn from(error: Error) -> Self {
        let (code, reason, key, value) = match &error {
            Error::NoInstances { service, .. } => (Code::Unavailable, "NO_INSTANCES", "service", service),
            Error::NotReady { service, .. } => (Code::Unavailable, "NOT_READY", "service", service),
            Error::NoRoute { service, .. } => (Code::Unavailable, "NO_ROUTE", "service", service),
            Error::NoRoom { service, .. } => (Code::Unavailable, "NO_ROOM", "service", service),
            Error::NotTaken { service, .. } => (Code::Unavailable, "NOT_TAKEN", "service", service),
            Error::CircuitOpen { service, .. } => (Code::Unavailable, "CIRCUIT_OPEN", "service", service),
            // Whoever calls us is asking too much. UNAVAILABLE would look as if we had failed, and get us ejected.
            Error::ConcurrencyLimit { service, .. } => {
                (Code::ResourceExhausted, "CONCURRENCY_LIMIT", "service", service)
            }
            Error::Throttled { service } => (Code::ResourceExhausted, "THROTTLED", "service", service),
            Error::DeadlineExceeded { service, .. } => {
                (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "service", service)
            }
            Error::Malformed { service, .. } => (Code::Internal, "MALFORMED", "service", service),
            Error::NotRepeatable { service } => (Code::FailedPrecondition, "NOT_REPEATABLE", "service", service),
            Error::BroadcastFailed { service, results } => {
                let first = results.failures().next();
                let code = first.map_or(Code::Unknown, |(_, status)| status.code());
                (code, "BROADCAST_FAILED", "service", service)
            }
            Error::BrokenOff { address, source, .. } => (code_of(source), "BROKEN_OFF", "address", address),
        };
        let mut metadata = HashMap::from([(key.to_owned(), value.to_string())]);
        if let Error::BroadcastFailed { results, .. } = &error {
            let failed = results.failures().take(MOST_LISTED);
            metadata.extend(
                failed.map(|(result, status)| (result.instance_id.to_string(), format!("{:?}", status.code()))),
            );
        }
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
        if error.never_processed() {
            details.set_retry_info(Some(match &error {
                Error::CircuitOpen { retry_after, .. } => *retry_after,
                _ => RETRY_AFTER,
            }));
        }
        Self::with_error_details(code, error.to_string(), details)
    }
}

/// gRPC over HTTP/2, section "Errors": reasons of RST_STREAM and what they mean to a caller. Whatever has no reason was the
/// connection itself.
pub(crate) fn code_of(error: &h2::Error) -> Code {
    // The reason of a connection that ended says why it ended, and nothing about this call.
    let reason = error.is_reset().then(|| error.reason()).flatten();
    match reason {
        None | Some(h2::Reason::REFUSED_STREAM) => Code::Unavailable,
        Some(h2::Reason::CANCEL) => Code::Cancelled,
        Some(h2::Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(h2::Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        Some(_) => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn no_instances() -> Error {
        Error::NoInstances {
            service: "tickets".into(),
            waited: Duration::ZERO,
            known: 0,
            discovery: "fixed".to_owned(),
        }
    }

    #[test]
    fn an_empty_set_and_an_unreachable_one_are_told_apart() {
        let not_ready = Error::NotReady {
            service: "tickets".into(),
            waited: Duration::ZERO,
            endpoints: Vec::new(),
            discovery: "fixed".to_owned(),
        };
        for (error, reason) in [(no_instances(), "NO_INSTANCES"), (not_ready, "NOT_READY")] {
            let status = Status::from(error);
            let details = status.get_error_details();
            assert_eq!(status.code(), Code::Unavailable);
            let info = details.error_info().expect("an ErrorInfo");
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "tessera"));
            assert_eq!(info.metadata.get("service").map(String::as_str), Some("tickets"));
            assert!(details.retry_info().is_some());
        }
    }

    #[test]
    fn a_call_that_was_not_let_through_says_when_to_come_again() {
        let service = || Arc::from("tickets");
        let open = Error::CircuitOpen {
            service: service(),
            method: Some("/t.T/Buy".into()),
            retry_after: Duration::from_secs(4),
        };
        assert!(
            open.to_string().starts_with("/t.T/Buy of tickets is not called"),
            "{open}"
        );
        let full = Error::ConcurrencyLimit {
            service: service(),
            limit: 20,
        };
        let throttled = Error::Throttled { service: service() };
        for (error, code, reason, retry_after) in [
            (open, Code::Unavailable, "CIRCUIT_OPEN", Duration::from_secs(4)),
            (full, Code::ResourceExhausted, "CONCURRENCY_LIMIT", RETRY_AFTER),
            (throttled, Code::ResourceExhausted, "THROTTLED", RETRY_AFTER),
        ] {
            assert!(error.never_processed());
            let status = Status::from(error);
            let details = status.get_error_details();
            assert_eq!(status.code(), code);
            assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some(reason));
            assert_eq!(
                details.retry_info().and_then(|info| info.retry_delay),
                Some(retry_after)
            );
        }
    }

    #[test]
    fn a_passed_deadline_invites_no_retry() {
        let error = Error::DeadlineExceeded {
            service: "tickets".into(),
            waiting_for: "a response".to_owned(),
        };
        let status = Status::from(error);
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.get_error_details().retry_info().is_none());
    }
}
