//! A set of status codes. It has no opinion on which.

use tonic::Code;

use super::InvalidRetry;

/// A set of status codes, OK not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Codes(u32);

impl Codes {
    pub(crate) fn try_new(codes: impl IntoIterator<Item = Code>) -> Result<Self, InvalidRetry> {
        codes.into_iter().try_fold(Self::default(), |set, code| match code {
            Code::Ok => Err(InvalidRetry::OkIsNoFailure),
            code => Ok(set.with(code)),
        })
    }

    pub(crate) const fn with(self, code: Code) -> Self {
        Self(self.0 | 1 << code as u32)
    }

    pub(crate) fn contains(self, code: Code) -> bool {
        self.0 & 1 << code as u32 != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}
