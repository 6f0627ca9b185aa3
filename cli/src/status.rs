//! A gRPC error as a person reads it: the code, the message, and what the rich details (google.rpc) say about the cause
//! and the cure.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::failure::{Exit, Failure};

/// The failure of a call: one line, a line for each violated field, and exit code 64 + code.
pub(crate) fn failure(what: &str, status: &Status) -> Failure {
    let details = status.get_error_details();
    let mut why = code_name(status.code()).to_owned();
    if let Some(info) = details
        .error_info()
        .filter(|info| !info.reason.is_empty() && info.reason != why)
    {
        why.push_str(&format!(", {}", info.reason));
    }
    if !status.message().is_empty() {
        why.push_str(&format!(": {}", status.message()));
    }
    let failure = Failure::new(what).why(why).exit(Exit::Grpc(status.code()));
    // The message may have said all of it.
    let unsaid = |violation: &Violation| !status.message().contains(&violation.1);
    let violations: Vec<Violation> = violations(&details).into_iter().filter(unsaid).collect();
    let failure = match advice(status, &details, &violations) {
        Some(advice) => failure.advice(advice),
        None => failure,
    };
    let lines = violations
        .into_iter()
        .map(|(field, problem)| format!("{field}: {problem}"));
    lines.chain(metadata(status, &details)).fold(failure, Failure::detail)
}

/// A field (or a subject), and what is wrong with it.
type Violation = (String, String);

/// `key: value` of what the server adds to its reason, where the message does not have it already.
fn metadata(status: &Status, details: &ErrorDetails) -> Vec<String> {
    let info = details.error_info();
    let mut pairs: Vec<(&String, &String)> = info.iter().flat_map(|info| &info.metadata).collect();
    pairs.sort();
    let unsaid = |(_, value): &(&String, &String)| !status.message().contains(value.as_str());
    let line = |(key, value): (&String, &String)| format!("{key}: {value}");
    pairs.into_iter().filter(unsaid).map(line).collect()
}

fn violations(details: &ErrorDetails) -> Vec<Violation> {
    let of_fields = details.bad_request().into_iter().flat_map(|bad| &bad.field_violations);
    let of_state = details
        .precondition_failure()
        .into_iter()
        .flat_map(|failed| &failed.violations);
    of_fields
        .map(|violation| (violation.field.clone(), violation.description.clone()))
        .chain(of_state.map(|violation| (violation.subject.clone(), violation.description.clone())))
        .collect()
}

fn advice(status: &Status, details: &ErrorDetails, violations: &[Violation]) -> Option<String> {
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        return Some(format!("try again in {}", crate::output::duration(delay)));
    }
    let reason = details.error_info().map(|info| info.reason.as_str());
    match (status.code(), reason) {
        (Code::Unauthenticated, Some("TOKEN_MISSING" | "TOKEN_INVALID" | "TOKEN_EXPIRED" | "SESSION_ENDED")) => {
            return Some("sign in (UserService/SignIn), and pass its sessionToken with --bearer @FILE".to_owned());
        }
        (Code::PermissionDenied, Some("ROLE_MISSING")) => {
            return Some(
                "have an operator give the role (UserService/SetRoles); `tessera account grant` makes the first one"
                    .to_owned(),
            );
        }
        (Code::PermissionDenied, Some("NOT_YOURS")) => {
            return Some("pass the token of the account that it belongs to, or of an operator".to_owned());
        }
        _ => {}
    }
    match status.code() {
        Code::InvalidArgument if violations.is_empty() => Some("correct the request".to_owned()),
        Code::InvalidArgument => Some("correct the fields below".to_owned()),
        Code::DeadlineExceeded => Some("pass a longer --timeout, or look at the trace for what is slow".to_owned()),
        Code::Unavailable => Some("see who is there with `tessera instances`".to_owned()),
        Code::Unimplemented => Some("it is part of the wire, but this server does not do it yet".to_owned()),
        _ => None,
    }
}

/// A code as the specification writes it: `NOT_FOUND`.
pub(crate) fn code_name(code: Code) -> &'static str {
    telemetry::rpc::code_name(code.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_told_with_its_field() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("INVALID_ARGUMENT", "tessera", [] as [(String, String); 0])
            .add_bad_request_violation("page_size", "must be 1 to 200");
        let status = Status::with_error_details(Code::InvalidArgument, "the request is not valid", details);
        let failure = failure("the call failed", &status);
        assert_eq!(
            failure.to_string(),
            "the call failed (INVALID_ARGUMENT: the request is not valid); correct the fields below"
        );
        let said = Status::with_error_details(
            Code::InvalidArgument,
            "page_size: must be 1 to 200",
            status.get_error_details(),
        );
        assert!(
            super::failure("the call failed", &said)
                .to_string()
                .ends_with("; correct the request")
        );
    }

    #[test]
    fn a_reason_and_a_delay_are_told() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("OVERLOADED", "tessera", [] as [(String, String); 0])
            .set_retry_info(Some(std::time::Duration::from_secs(2)));
        let status = Status::with_error_details(Code::Unavailable, "too many calls", details);
        let failure = failure("the call failed", &status);
        assert_eq!(
            failure.to_string(),
            "the call failed (UNAVAILABLE, OVERLOADED: too many calls); try again in 2.0 s"
        );
    }
}
