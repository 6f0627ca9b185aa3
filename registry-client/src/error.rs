//! What may go wrong between a process and its registry, whose fault it was, and whether another try may help. Nothing here
//! names `tonic::Status`: `wire` turns one into an [`Error`].

use std::time::Duration;

use tonic::Code;

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A registry handle was made of an empty list.
    #[error("no registry endpoint is given; give at least one, for example http://127.0.0.1:7000")]
    NoEndpoint,
    /// An endpoint is not of the form `http://host:port`.
    #[error("registry endpoint {endpoint:?} cannot be used: {problem}")]
    InvalidEndpoint {
        /// The endpoint as given.
        endpoint: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A token would be sent to a place where others can read it.
    #[error(
        "a token would be sent to {endpoint} in the clear, where everybody on the way can take it: use https:// (--tls-ca), or \
         --insecure in a network that you trust"
    )]
    TokenInTheClear {
        /// The endpoint.
        endpoint: String,
    },
    /// No connection, or it broke before the answer was complete.
    #[error("registry {endpoint} cannot be reached: {problem}")]
    Unreachable {
        /// The endpoint that was tried last.
        endpoint: String,
        /// What the transport said.
        problem: String,
    },
    /// No answer in time. Whether the call had an effect is not known.
    #[error("registry {endpoint} did not answer within {after:?}")]
    Deadline {
        /// The endpoint that was tried last.
        endpoint: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The registry said no.
    #[error(transparent)]
    Answered(#[from] Box<Answer>),
    /// The registry's answer breaks its contract.
    #[error("registry {endpoint} sent an answer that makes no sense: {problem}")]
    Malformed {
        /// The endpoint that answered.
        endpoint: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The registry's answer is larger than this client reads (64 MiB).
    #[error("registry {endpoint} sent an answer that is too large to be read: {problem}")]
    AnswerTooLarge {
        /// The endpoint that answered.
        endpoint: String,
        /// How large it is, and what the limit is.
        problem: String,
    },
    /// [`Registrar::registered`](crate::Registrar::registered) waited in vain; the registrar goes on trying.
    #[error("not registered within {after:?}: {last}")]
    NotRegistered {
        /// How long it was waited for.
        after: Duration,
        /// Why the last attempt failed.
        last: String,
    },
    /// The task behind the handle has ended.
    #[error("the task behind this handle has ended")]
    Closed,
}

/// An error answer of the registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("registry {endpoint} answered {code:?}{}: {message}{}", self.reason_in_brackets(), self.violations_in_words())]
pub struct Answer {
    /// The endpoint that answered.
    pub endpoint: String,
    /// The gRPC code.
    pub code: Code,
    /// `google.rpc.ErrorInfo.reason` (UPPER_SNAKE); empty when the answer has none.
    pub reason: String,
    /// For people.
    pub message: String,
    /// `google.rpc.RetryInfo`: not before this delay. `None` when the answer has none.
    pub retry_after: Option<Duration>,
    /// `google.rpc.BadRequest`: field and what is wrong with it.
    pub violations: Vec<(String, String)>,
}

impl Answer {
    fn reason_in_brackets(&self) -> String {
        if self.reason.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.reason)
        }
    }

    fn violations_in_words(&self) -> String {
        self.violations
            .iter()
            // A registry may have put them into its message already.
            .filter(|(field, problem)| !(self.message.contains(field) && self.message.contains(problem)))
            .map(|(field, problem)| format!("; {field}: {problem}"))
            .collect()
    }
}

/// What an error means for the lease of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseVerdict {
    /// Nothing is said about it.
    Standing,
    /// The registry does not know it (any more).
    Unknown,
    /// Somebody else has registered the instance since.
    Taken,
}

impl Error {
    /// True when the same call may succeed later without anybody changing it: the registry is away, slow or busy.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Deadline { .. } | Self::NotRegistered { .. } => true,
            Self::Answered(answer) => matches!(
                answer.code,
                Code::Unavailable
                    | Code::ResourceExhausted
                    | Code::Aborted
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::Internal
                    // What follows from time passing: leases end, ids are registered anew.
                    | Code::NotFound
                    | Code::FailedPrecondition
                    | Code::AlreadyExists
                    | Code::OutOfRange
            ),
            Self::NoEndpoint
            | Self::InvalidEndpoint { .. }
            | Self::TokenInTheClear { .. }
            | Self::Malformed { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Closed => false,
        }
    }

    /// The delay that the registry asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answered(answer) => answer.retry_after,
            _ => None,
        }
    }

    /// `ErrorInfo.reason` of an answer; empty for every other error.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Answered(answer) => &answer.reason,
            _ => "",
        }
    }

    /// The gRPC code that says the same; used where an error travels on to another caller.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NoEndpoint | Self::InvalidEndpoint { .. } | Self::TokenInTheClear { .. } => Code::InvalidArgument,
            Self::Unreachable { .. } => Code::Unavailable,
            Self::Deadline { .. } | Self::NotRegistered { .. } => Code::DeadlineExceeded,
            Self::Answered(answer) => answer.code,
            Self::Malformed { .. } => Code::Internal,
            Self::AnswerTooLarge { .. } => Code::ResourceExhausted,
            Self::Closed => Code::Cancelled,
        }
    }

    /// True when another endpoint may do better: this one is away, slow, or says UNAVAILABLE.
    pub(crate) fn is_endpoints_fault(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Deadline { .. } => true,
            Self::Answered(answer) => answer.code == Code::Unavailable,
            _ => false,
        }
    }

    /// True when a watch that ended so is better opened at another endpoint. More than in a call, which others may have to
    /// answer as well: a watch is opened again in any case. Not what any registry would say to the same request.
    pub(crate) fn speaks_against_the_endpoint(&self) -> bool {
        match self {
            Self::Malformed { .. } => true,
            Self::Answered(answer) => matches!(
                answer.code,
                Code::Unavailable
                    | Code::Internal
                    | Code::Unknown
                    | Code::Cancelled
                    | Code::DeadlineExceeded
                    // What answers is no registry, or one of another age.
                    | Code::Unimplemented
            ),
            _ => self.is_endpoints_fault(),
        }
    }

    /// True when the call may have had an effect although it failed.
    pub(crate) fn is_in_doubt(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Deadline { .. } => true,
            Self::Answered(answer) => {
                matches!(
                    answer.code,
                    Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled
                )
            }
            _ => false,
        }
    }

    pub(crate) fn lease_verdict(&self) -> LeaseVerdict {
        match self {
            Self::Answered(answer) => match (answer.code, answer.reason.as_str()) {
                (_, "STALE_EPOCH") => LeaseVerdict::Taken,
                // A registry that does not tell reasons is still understood by its codes.
                (Code::NotFound, _) => LeaseVerdict::Unknown,
                (Code::FailedPrecondition, _) => LeaseVerdict::Taken,
                // The secret is not the lease's: the lease is another one by now.
                (Code::PermissionDenied, "LEASE_UNKNOWN") => LeaseVerdict::Unknown,
                _ => LeaseVerdict::Standing,
            },
            _ => LeaseVerdict::Standing,
        }
    }

    /// The registry has never got as far as the revision that was to be resumed from: it lost its state, is another one, or is a
    /// replica that is behind.
    ///
    /// Only with its reason: others give the code for other limits, and what follows is that the set held is doubted.
    pub(crate) fn is_revision_in_future(&self) -> bool {
        matches!(self, Self::Answered(answer)
            if answer.code == Code::OutOfRange && answer.reason == "REVISION_IN_FUTURE")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: Code, reason: &str) -> Error {
        Error::Answered(Box::new(Answer {
            endpoint: "http://r:7000".into(),
            code,
            reason: reason.into(),
            message: "no".into(),
            retry_after: None,
            violations: vec![("port".into(), "must be 1 to 65535".into())],
        }))
    }

    #[test]
    fn an_answer_says_all_it_knows() {
        assert_eq!(
            answered(Code::InvalidArgument, "INVALID_ARGUMENT").to_string(),
            "registry http://r:7000 answered InvalidArgument (INVALID_ARGUMENT): no; port: must be 1 to 65535"
        );
    }

    #[test]
    fn an_answer_says_nothing_twice() {
        let Error::Answered(mut answer) = answered(Code::InvalidArgument, "") else {
            panic!()
        };
        answer.message = "port: must be 1 to 65535".into();
        assert_eq!(
            answer.to_string(),
            "registry http://r:7000 answered InvalidArgument: port: must be 1 to 65535"
        );
    }

    #[test]
    fn what_an_answer_means_for_the_lease() {
        let cases = [
            (Code::NotFound, "LEASE_UNKNOWN", LeaseVerdict::Unknown),
            (Code::NotFound, "", LeaseVerdict::Unknown),
            (Code::FailedPrecondition, "STALE_EPOCH", LeaseVerdict::Taken),
            (Code::FailedPrecondition, "", LeaseVerdict::Taken),
            (Code::Unavailable, "", LeaseVerdict::Standing),
            (Code::InvalidArgument, "INVALID_ARGUMENT", LeaseVerdict::Standing),
        ];
        for (code, reason, expected) in cases {
            assert_eq!(answered(code, reason).lease_verdict(), expected, "{code:?} {reason}");
        }
    }

    /// Any OUT_OF_RANGE was taken for it, also the one that tonic itself raises when a message is too large.
    #[test]
    fn a_revision_is_in_the_future_only_when_the_registry_says_so() {
        assert!(answered(Code::OutOfRange, "REVISION_IN_FUTURE").is_revision_in_future());
        assert!(!answered(Code::OutOfRange, "").is_revision_in_future());
        assert!(!answered(Code::OutOfRange, "PAGE_TOO_LARGE").is_revision_in_future());
        assert!(!answered(Code::Unavailable, "REVISION_IN_FUTURE").is_revision_in_future());
    }

    #[test]
    fn what_any_registry_would_say_speaks_against_none() {
        let endpoint = || "http://r:7000".to_owned();
        let problem = || "nonsense".to_owned();
        for code in [
            Code::InvalidArgument,
            Code::PermissionDenied,
            Code::Unauthenticated,
            Code::NotFound,
            Code::ResourceExhausted,
            Code::OutOfRange,
        ] {
            assert!(!answered(code, "").speaks_against_the_endpoint(), "{code:?}");
        }
        let too_large = Error::AnswerTooLarge {
            endpoint: endpoint(),
            problem: problem(),
        };
        assert!(!too_large.speaks_against_the_endpoint());
        for code in [Code::Unavailable, Code::Internal, Code::Unknown, Code::Cancelled] {
            assert!(answered(code, "").speaks_against_the_endpoint(), "{code:?}");
        }
        for error in [
            Error::Malformed {
                endpoint: endpoint(),
                problem: problem(),
            },
            Error::Unreachable {
                endpoint: endpoint(),
                problem: problem(),
            },
        ] {
            assert!(error.speaks_against_the_endpoint(), "{error}");
        }
    }

    #[test]
    fn bad_input_is_not_worth_a_retry() {
        assert!(!answered(Code::InvalidArgument, "").is_retryable());
        assert!(!answered(Code::PermissionDenied, "").is_retryable());
        assert!(!answered(Code::Unimplemented, "").is_retryable());
        assert!(answered(Code::Unavailable, "").is_retryable());
        assert!(
            Error::Deadline {
                endpoint: String::new(),
                after: Duration::ZERO
            }
            .is_retryable()
        );
    }
}
