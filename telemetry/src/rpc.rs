//! What the RPC conventions make of a gRPC path and status. Pure; no spans, no metrics.

use http::HeaderMap;

/// A gRPC status code's number in UPPER_SNAKE text, the value of `rpc.response.status_code`. Numbers outside the
/// specification's 0 to 16 read as `UNKNOWN`, as gRPC libraries treat them.
pub fn code_name(code: i32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    usize::try_from(code)
        .ok()
        .and_then(|index| NAMES.get(index))
        .copied()
        .unwrap_or("UNKNOWN")
}

/// The status in headers or trailers, or `None` if there is none. A value that is not a number is `UNKNOWN` (2).
pub fn code_in(headers: &HeaderMap) -> Option<i32> {
    let value = headers.get("grpc-status")?;
    Some(
        value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(UNKNOWN),
    )
}

/// `pkg.Service/Method` of a request path `/pkg.Service/Method`.
pub fn method_of(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

/// Health checks and reflection: so frequent, or so far from the domain, that spans of them would hide the rest.
pub fn is_infrastructure(method: &str) -> bool {
    method.starts_with("grpc.health.") || method.starts_with("grpc.reflection.")
}

/// Whether a client span with this status is an error: any but `OK`.
pub fn is_client_error(code: i32) -> bool {
    code != 0
}

/// Whether a server span with this status is an error: only what the server is to blame for. `NOT_FOUND` or
/// `INVALID_ARGUMENT` are correct answers.
pub fn is_server_error(code: i32) -> bool {
    // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS; and whatever is no code at all.
    matches!(code, 2 | 4 | 12..=15) || !(0..=16).contains(&code)
}

pub(crate) const OK: i32 = 0;
pub(crate) const CANCELLED: i32 = 1;
pub(crate) const UNKNOWN: i32 = 2;
pub(crate) const UNIMPLEMENTED: i32 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_names_and_blame() {
        for (code, name, client, server) in [
            (0, "OK", false, false),
            (1, "CANCELLED", true, false),
            (2, "UNKNOWN", true, true),
            (3, "INVALID_ARGUMENT", true, false),
            (4, "DEADLINE_EXCEEDED", true, true),
            (5, "NOT_FOUND", true, false),
            (8, "RESOURCE_EXHAUSTED", true, false),
            (12, "UNIMPLEMENTED", true, true),
            (13, "INTERNAL", true, true),
            (14, "UNAVAILABLE", true, true),
            (15, "DATA_LOSS", true, true),
            (16, "UNAUTHENTICATED", true, false),
            (17, "UNKNOWN", true, true),
            (-1, "UNKNOWN", true, true),
        ] {
            assert_eq!(code_name(code), name);
            assert_eq!(is_client_error(code), client, "client {name}");
            assert_eq!(is_server_error(code), server, "server {name}");
        }
    }

    #[test]
    fn a_status_that_is_no_number_is_unknown() {
        let mut headers = HeaderMap::new();
        assert_eq!(code_in(&headers), None);
        headers.insert("grpc-status", http::HeaderValue::from_static("5"));
        assert_eq!(code_in(&headers), Some(5));
        headers.insert("grpc-status", http::HeaderValue::from_static("five"));
        assert_eq!(code_in(&headers), Some(UNKNOWN));
    }
}
