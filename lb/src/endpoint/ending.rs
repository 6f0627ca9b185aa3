//! How an attempt ended, as far as it tells about the instance. Pure.

use tonic::Code;

/// What the end of an attempt says of the instance that had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The instance did its work: OK, or an error that is the business's own (NOT_FOUND, INVALID_ARGUMENT ...).
    Served,
    /// It was asked too much: RESOURCE_EXHAUSTED.
    Overloaded,
    /// It, or the way to it, failed: UNAVAILABLE, INTERNAL, UNKNOWN, DATA_LOSS, DEADLINE_EXCEEDED.
    Failed,
    /// The caller went away first, which tells nothing.
    Cancelled,
}

impl Ending {
    /// The end with that status. gRFC A50 counts whatever is not OK as a failure; here the codes that handlers use for the
    /// caller's own mistakes do not, since a caller with bad requests must not take good instances out of service.
    pub(crate) fn of(code: Code) -> Self {
        match code {
            Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss | Code::DeadlineExceeded => {
                Self::Failed
            }
            Code::ResourceExhausted => Self::Overloaded,
            Code::Cancelled => Self::Cancelled,
            Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => Self::Served,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_own_mistakes_are_no_failures_of_the_instance() {
        for code in [Code::Ok, Code::NotFound, Code::InvalidArgument, Code::Unauthenticated] {
            assert_eq!(Ending::of(code), Ending::Served, "{code:?}");
        }
        for code in [Code::Unavailable, Code::Internal, Code::DeadlineExceeded, Code::Unknown] {
            assert_eq!(Ending::of(code), Ending::Failed, "{code:?}");
        }
        assert_eq!(Ending::of(Code::ResourceExhausted), Ending::Overloaded);
        assert_eq!(Ending::of(Code::Cancelled), Ending::Cancelled);
    }
}
