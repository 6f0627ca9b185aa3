//! A fallback rule as it was written. Values only.

use std::fmt;

use tonic::Code;

use crate::{endpoint::Ending, settings::Spot};

/// When a fallback answers instead of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FallbackWhen {
    /// Always: the service is not called.
    Force,
    /// When the call has failed, all attempts included, and not by the business's own decision: UNAVAILABLE, INTERNAL, UNKNOWN,
    /// DATA_LOSS, DEADLINE_EXCEEDED and RESOURCE_EXHAUSTED, before anything of an answer has come.
    Fail,
}

/// A rule.
#[derive(Clone, Debug)]
pub(crate) struct FallbackRule {
    pub(crate) when: FallbackWhen,
    pub(crate) with: With,
    /// Where it was written: what it names may turn out not to be there.
    pub(crate) spot: Spot,
}

/// What answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum With {
    /// A message, as protobuf's JSON.
    Reply(String),
    /// What the code has given under that name.
    Handler(String),
    /// Another service of the same registry, or another version of the same one.
    Service {
        service: Option<String>,
        version: Option<String>,
    },
}

/// A rule that has only moved to another line is the same.
impl PartialEq for FallbackRule {
    fn eq(&self, other: &Self) -> bool {
        (self.when, &self.with) == (other.when, &other.with)
    }
}

impl FallbackWhen {
    /// Whether it answers instead of an error with that code.
    pub(crate) fn covers(self, code: Code) -> bool {
        self == Self::Force || matches!(Ending::of(code), Ending::Failed | Ending::Overloaded)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Force => "force",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for With {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(_) => f.write_str("reply"),
            Self::Handler(name) => write!(f, "handler {name}"),
            Self::Service { service, version } => {
                f.write_str("service")?;
                for part in [service, version].into_iter().flatten() {
                    write!(f, " {part}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_business_error_stands() {
        for code in [
            Code::Ok,
            Code::Cancelled,
            Code::NotFound,
            Code::InvalidArgument,
            Code::FailedPrecondition,
            Code::PermissionDenied,
            Code::Aborted,
        ] {
            assert!(!FallbackWhen::Fail.covers(code), "{code:?}");
        }
        for code in [
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::ResourceExhausted,
            Code::Internal,
            Code::Unknown,
            Code::DataLoss,
        ] {
            assert!(FallbackWhen::Fail.covers(code), "{code:?}");
        }
    }
}
