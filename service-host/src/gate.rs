//! Who may call what: the seam between this host, which knows HTTP, and whoever decides, who knows callers.
//!
//! The decision is taken before any routing, for every path, health and reflection included. It sees the path and nothing else
//! of the URI: tonic routes `/Service/Method?x` to the method, so whoever compares the whole URI compares something else than
//! what is called. Not here: what a request's body asks for, which only its service can read.

use std::fmt;

use http::{Extensions, HeaderMap, header};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status};

use crate::status;

/// The longest `authorization` header that is read, in bytes: a token of ours takes 67, one of anybody's less than 4 KiB.
const MAX_AUTHORIZATION: usize = 4 << 10;

/// Decides about each call of a server. See [`Config::gate`](crate::Config::gate).
pub trait Gate: fmt::Debug + Send + Sync + 'static {
    /// Whether this call may go on. Runs for every call, so it neither blocks nor waits.
    ///
    /// `path` is the URI's path as it came, without its query. Paths that are not exactly a method that is known are not to be
    /// guessed at: they are refused. `extensions` are the request's: whoever the caller turned out to be goes in there, for the
    /// service to read.
    ///
    /// # Errors
    /// The status that the caller is told. Nothing of the call runs then, and its body is not read.
    fn admit(&self, path: &str, credentials: Credentials<'_>, extensions: &mut Extensions) -> Result<Pass, Status>;
}

/// What a request's `authorization` header says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credentials<'a> {
    /// There is none.
    None,
    /// `Bearer` and a token, which nobody has looked at yet.
    Bearer(&'a str),
    /// Another scheme, several headers, more than 4 KiB, or what is no text: not to be taken for an anonymous call.
    Unreadable,
}

impl<'a> Credentials<'a> {
    /// Reads a request's headers.
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (value, more) = (values.next(), values.next());
        let Some(value) = value else {
            return Self::None;
        };
        if more.is_some() || value.len() > MAX_AUTHORIZATION {
            return Self::Unreadable;
        }
        // RFC 9110, 11.1: the scheme is case-insensitive, and one or more spaces follow it.
        let bearer = value.to_str().ok().and_then(|text| text.split_once(' '));
        match bearer {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Self::Bearer(token.trim_start_matches(' '))
            }
            _ => Self::Unreadable,
        }
    }
}

/// Never what was sent.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Bearer(_) => "Bearer([redacted])",
            Self::Unreadable => "Unreadable",
        })
    }
}

/// How far an admitted call may go.
#[derive(Debug, Clone)]
pub enum Pass {
    /// To its end: for calls that are short, and for those whom nothing is taken away from.
    ToItsEnd,
    /// Until this fires. A stream that is open then ends with UNAUTHENTICATED (reason `TOKEN_REVOKED`).
    Until(Revocation),
}

/// Fires once, when what a caller was admitted with is no longer good. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Revocation(CancellationToken);

impl Revocation {
    /// One that has not fired.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the calls that were admitted until it fires.
    pub fn revoke(&self) {
        self.0.cancel();
    }

    /// Whether it has fired.
    pub fn is_revoked(&self) -> bool {
        self.0.is_cancelled()
    }

    pub(crate) fn into_wait(self) -> WaitForCancellationFutureOwned {
        self.0.cancelled_owned()
    }
}

/// What a stream ends with when its caller's credentials have been taken away.
pub(crate) fn revoked() -> Status {
    status::error(
        Code::Unauthenticated,
        "TOKEN_REVOKED",
        "what this stream was opened with has been revoked, changed or has expired: open it again with a token or a certificate that is valid",
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn one_readable_bearer_token_is_a_token_and_everything_else_is_not() {
        let long = format!("Bearer {}", "x".repeat(MAX_AUTHORIZATION));
        let check = |values: &[&str], expected: Credentials<'_>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a header"));
            }
            assert!(Credentials::of(&headers) == expected, "{values:?}");
        };
        check(&[], Credentials::None);
        check(&["Bearer a"], Credentials::Bearer("a"));
        check(&["bEARER   a"], Credentials::Bearer("a"));
        check(&["Bearer "], Credentials::Bearer(""));
        check(&["Bearer"], Credentials::Unreadable);
        check(&[""], Credentials::Unreadable);
        check(&["Basic a"], Credentials::Unreadable);
        check(&["Bearer a", "Bearer a"], Credentials::Unreadable);
        check(&[&long], Credentials::Unreadable);
        check(&["Bearer \u{e9}"], Credentials::Unreadable);
    }

    #[test]
    fn credentials_are_never_shown() {
        assert_eq!(format!("{:?}", Credentials::Bearer("secret")), "Bearer([redacted])");
    }
}
