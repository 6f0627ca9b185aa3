//! Builders for the errors that our APIs answer with, so that all of them look alike to a client.
//!
//! Every error carries an `ErrorInfo` with the domain [`DOMAIN`] and a reason in UPPER_SNAKE (AIP-193); what is wrong with
//! the request is listed as `BadRequest` violations, and `RetryInfo` says when trying again makes sense. The mapping from
//! a service's domain errors to these stays in that service.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The `ErrorInfo` domain of every error that Tessera makes.
pub const DOMAIN: &str = "tessera";

/// An error with a reason, for example `error(Code::FailedPrecondition, "SEAT_TAKEN", "seat A-12 is held by somebody else")`.
pub fn error(code: Code, reason: &'static str, message: impl Into<String>) -> Status {
    error_with(code, reason, message, [])
}

/// Like [`error`], with metadata for programs: `[("limit", "4096")]`.
pub fn error_with(
    code: Code,
    reason: &'static str,
    message: impl Into<String>,
    metadata: impl IntoIterator<Item = (&'static str, String)>,
) -> Status {
    Status::with_error_details(code, message, info(reason, metadata))
}

/// An error after which the same call may be tried again, but not before `retry_after`.
pub fn retryable(code: Code, reason: &'static str, message: impl Into<String>, retry_after: Duration) -> Status {
    let mut details = info(reason, []);
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(code, message, details)
}

/// RESOURCE_EXHAUSTED for who has as much as one may have, with one `QuotaFailure` violation of the subject, for example
/// `token:4f2a`. Trying again makes no sense until something is given back.
pub fn over_quota(reason: &'static str, message: impl Into<String>, subject: impl Into<String>) -> Status {
    let message = message.into();
    let mut details = info(reason, []);
    details.add_quota_failure_violation(subject, message.clone());
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// Errors travel in headers: what is listed must fit there twice, as text and as details in base64, below the 16 KiB of
/// headers that clients commonly accept. So many violations and bytes are listed, and the rest is counted.
const MOST_VIOLATIONS: usize = 20;
/// Of fields and descriptions together. The message escapes what is not ASCII threefold and the details grow by a third
/// and their framing: 2 KiB become at most 6 + 4 KiB.
const MOST_BYTES: usize = 2 << 10;
/// So that the first violation is listed whatever it says.
const LONGEST_DESCRIPTION: usize = 512;

/// INVALID_ARGUMENT with one `BadRequest` violation for each `(field, description)`. A field is named as in the proto
/// (`seats[2].row`); a description says what would be right, limits included. At most 20 violations, or 2 KiB of them, are
/// listed; the message counts the others.
pub fn invalid(violations: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>) -> Status {
    let mut details = info("INVALID_ARGUMENT", []);
    let mut message = String::new();
    let (mut listed, mut unlisted, mut bytes) = (0, 0_usize, 0);
    for (field, description) in violations {
        let (field, description) = (field.into(), description.into());
        // A description is our own words, a field may be the caller's.
        let (field, description) = (excerpt(&field), shortened(&description, LONGEST_DESCRIPTION));
        bytes += field.len() + description.len();
        // Once one is left out, so are those after it: what is listed is the beginning, not a selection.
        if unlisted > 0 || listed == MOST_VIOLATIONS || bytes > MOST_BYTES {
            unlisted += 1;
            continue;
        }
        listed += 1;
        if !message.is_empty() {
            message.push_str("; ");
        }
        message.push_str(&field);
        message.push_str(": ");
        message.push_str(&description);
        details.add_bad_request_violation(field, description);
    }
    if message.is_empty() {
        message.push_str("the request is not valid");
    }
    if unlisted > 0 {
        message.push_str(&format!("; and {unlisted} more"));
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// UNIMPLEMENTED for an RPC that the wire promises and this version does not have yet.
pub fn unimplemented(what: &str) -> Status {
    error(Code::Unimplemented, "NOT_YET", format!("{what} is not implemented yet"))
}

/// What a caller sent, short enough to be sent back: names here have far fewer than 128 bytes, and whatever a peer can make
/// an answer repeat, it can make it repeat in headers that other peers refuse.
pub(crate) fn excerpt(text: &str) -> Cow<'_, str> {
    shortened(text, 128)
}

/// At most `longest` bytes of the text, and how long it was.
fn shortened(text: &str, longest: usize) -> Cow<'_, str> {
    if text.len() <= longest {
        return text.into();
    }
    let end = (0..=longest)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or_default();
    format!("{}… ({} bytes)", &text[..end], text.len()).into()
}

fn info(reason: &'static str, metadata: impl IntoIterator<Item = (&'static str, String)>) -> ErrorDetails {
    debug_assert!(
        !reason.is_empty()
            && reason.len() <= 63
            && reason
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'),
        "{reason} is not an UPPER_SNAKE reason of at most 63 characters (AIP-193)"
    );
    let metadata: HashMap<String, String> = metadata
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_reason_in_our_domain() {
        for (status, code, reason) in [
            (
                error(Code::NotFound, "NO_SUCH_EVENT", "no"),
                Code::NotFound,
                "NO_SUCH_EVENT",
            ),
            (
                retryable(Code::Unavailable, "BUSY", "later", Duration::from_millis(250)),
                Code::Unavailable,
                "BUSY",
            ),
            (
                invalid([("name", "must not be empty")]),
                Code::InvalidArgument,
                "INVALID_ARGUMENT",
            ),
            (unimplemented("Drain"), Code::Unimplemented, "NOT_YET"),
        ] {
            assert_eq!(status.code(), code);
            let info = status.get_details_error_info().expect("has ErrorInfo");
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, DOMAIN));
        }
    }

    #[test]
    fn violations_are_in_the_details_and_in_the_message() {
        let status = invalid([("seats", "at most 8"), ("event_id", "must not be empty")]);
        assert_eq!(status.message(), "seats: at most 8; event_id: must not be empty");
        let bad = status.get_details_bad_request().expect("has BadRequest");
        assert_eq!(bad.field_violations.len(), 2);
        assert_eq!(bad.field_violations[0].field, "seats");
    }

    /// An event with 38 bad sections was answered in more than the 16 KiB of headers that clients accept: they saw a reset
    /// stream instead of what was wrong.
    #[test]
    fn however_much_is_wrong_the_answer_fits_into_headers() {
        let check = |field: &str, description: &str, count: usize, listed: usize| {
            let status = invalid((0..count).map(|number| (format!("{field}[{number}]"), description)));
            let mut headers = http::HeaderMap::new();
            status.add_header(&mut headers).expect("valid headers");
            let size: usize = headers
                .iter()
                // RFC 9113, section 6.5.2: a field counts 32 bytes more than it has.
                .map(|(name, value)| name.as_str().len() + value.len() + 32)
                .sum();
            assert!(size < 12 << 10, "{size} bytes of headers");
            let bad = status.get_details_bad_request().expect("has BadRequest");
            assert_eq!(bad.field_violations.len(), listed);
            assert!(
                status.message().ends_with(&format!("; and {} more", count - listed)),
                "{}",
                status.message()
            );
        };
        check("sections", "must have 1 to 100 rows", 38, MOST_VIOLATIONS);
        check(&"é".repeat(500), &"ü".repeat(5_000), 1_000, 3);
    }

    #[test]
    fn an_excerpt_ends_between_characters() {
        assert_eq!(excerpt("a.A"), "a.A");
        assert_eq!(excerpt(&"x".repeat(128)), "x".repeat(128));
        assert_eq!(excerpt(&"é".repeat(100)), format!("{}… (200 bytes)", "é".repeat(64)));
        assert_eq!(excerpt(&format!("x{}", "é".repeat(100))).find('…'), Some(127));
    }

    #[test]
    fn a_retryable_error_says_when() {
        let status = retryable(Code::Unavailable, "BUSY", "later", Duration::from_millis(250));
        let retry = status.get_details_retry_info().expect("has RetryInfo");
        assert_eq!(retry.retry_delay, Some(Duration::from_millis(250)));
    }
}
