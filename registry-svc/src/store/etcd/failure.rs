//! Why etcd has not answered, by what can be done about it.
//!
//! etcd's codes are shared by unlike errors and differ between its versions, so its texts decide where they must:
//! `api/v3rpc/rpctypes/error.go` of etcd.

use std::{error::Error, fmt};

use tonic::{Code, Status};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody who can answer was reached in time. A write may have happened.
    Away(String),
    /// etcd's quota is used up. A write may have happened: etcd answers so also after the one that went beyond it.
    NoSpace,
    /// The revision asked for is compacted.
    Compacted,
    /// We may not. Nothing has happened.
    Denied(String),
    /// The request is wrong, wherever and whenever it is made. Nothing has happened.
    Rejected(String),
}

impl Failure {
    pub(super) fn of(status: &Status) -> Self {
        let message = status.message();
        let says = |text| message.contains(text);
        if says("database space exceeded") {
            return Self::NoSpace;
        }
        if says("revision has been compacted") {
            return Self::Compacted;
        }
        let text = if message.is_empty() {
            status.code().description().to_owned()
        } else {
            message.to_owned()
        };
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied(text),
            _ if says("user name is empty") || says("authentication failed") => Self::Denied(text),
            // The next try has a new token.
            Code::InvalidArgument if says("revision of auth store is old") => Self::Away(text),
            Code::InvalidArgument | Code::Unimplemented => Self::Rejected(text),
            // All others are about the member and the moment: another one, or the same one later, may well answer. Above all
            // FAILED_PRECONDITION, as etcd 3.6 says of a learner and of a cluster that has no version yet.
            _ => match status.source() {
                Some(source) => Self::Away(format!("{text}: {}", chain(source))),
                None => Self::Away(text),
            },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(why) => write!(f, "no answer: {why}"),
            Self::NoSpace => f.write_str("etcd's space quota is used up"),
            Self::Compacted => f.write_str("etcd has compacted what was to be read"),
            Self::Denied(why) => write!(f, "etcd refuses: {why}"),
            Self::Rejected(why) => write!(f, "etcd rejects the request: {why}"),
        }
    }
}

/// What an error and its causes say.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Whether a new token may help.
pub(super) fn wants_a_token(status: &Status) -> bool {
    let message = status.message();
    [
        "invalid auth token",
        "user name is empty",
        "revision of auth store is old",
    ]
    .iter()
    .any(|text| message.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// etcd 3.6 answers FAILED_PRECONDITION where 3.4 and 3.5 answered UNAVAILABLE: from a learner, and from a cluster that has
    /// just been made. It was held for a wrong request, which ended the process, and never turned the client away from there.
    #[test]
    fn etcds_errors_are_told_apart() {
        let away = |text: &str| Failure::Away(text.to_owned());
        let denied = |text: &str| Failure::Denied(text.to_owned());
        let rejected = |text: &str| Failure::Rejected(text.to_owned());
        type Expected<'a> = &'a dyn Fn(&str) -> Failure;
        let no_space = |_: &str| Failure::NoSpace;
        let compacted = |_: &str| Failure::Compacted;
        // Version of etcd, code, text.
        let table: [(&str, Code, &str, Expected<'_>); 20] = [
            ("any", Code::Unavailable, "etcdserver: no leader", &away),
            ("any", Code::Unavailable, "etcdserver: request timed out", &away),
            ("any", Code::ResourceExhausted, "etcdserver: too many requests", &away),
            ("any", Code::DataLoss, "etcdserver: corrupt cluster", &away),
            (
                "3.5",
                Code::Unavailable,
                "etcdserver: rpc not supported for learner",
                &away,
            ),
            (
                "3.6",
                Code::FailedPrecondition,
                "etcdserver: rpc not supported for learner",
                &away,
            ),
            ("3.5", Code::Unavailable, "etcdserver: not capable", &away),
            ("3.6", Code::FailedPrecondition, "etcdserver: not capable", &away),
            (
                "any",
                Code::FailedPrecondition,
                "etcdserver: authentication is not enabled",
                &away,
            ),
            ("any", Code::NotFound, "etcdserver: requested lease not found", &away),
            (
                "any",
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
                &away,
            ),
            (
                "any",
                Code::InvalidArgument,
                "etcdserver: revision of auth store is old",
                &away,
            ),
            (
                "any",
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                &no_space,
            ),
            (
                "any",
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                &compacted,
            ),
            ("any", Code::PermissionDenied, "etcdserver: permission denied", &denied),
            ("any", Code::Unauthenticated, "etcdserver: invalid auth token", &denied),
            ("any", Code::InvalidArgument, "etcdserver: user name is empty", &denied),
            (
                "any",
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                &denied,
            ),
            (
                "any",
                Code::InvalidArgument,
                "etcdserver: request is too large",
                &rejected,
            ),
            (
                "none",
                Code::Unimplemented,
                "unknown service etcdserverpb.KV",
                &rejected,
            ),
        ];
        for (version, code, text, expected) in table {
            let found = Failure::of(&Status::new(code, text));
            assert_eq!(found, expected(text), "{version}: {code:?}");
        }
    }
}
