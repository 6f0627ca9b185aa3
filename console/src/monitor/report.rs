//! What reporters say, once it was read: names that fit, counts that add up. Pure.

use super::point::Point;

/// From which end calls were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    /// By the caller, over all attempts.
    Caller,
    /// By the caller, each attempt.
    Attempt,
    /// By the provider.
    Provider,
}

impl Side {
    /// Whether a code counts as a failure there: a caller has failed with any but OK, a provider with what it is to blame for.
    pub(crate) fn is_error(self, code: i32) -> bool {
        match self {
            Self::Caller | Self::Attempt => telemetry::rpc::is_client_error(code),
            Self::Provider => telemetry::rpc::is_server_error(code),
        }
    }

    /// As the store has it.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Caller => 1,
            Self::Attempt => 2,
            Self::Provider => 3,
        }
    }

    /// From the store.
    pub(crate) fn of_number(number: u8) -> Option<Self> {
        let all = [Self::Caller, Self::Attempt, Self::Provider];
        all.into_iter().find(|side| side.number() == number)
    }
}

/// What a series is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// The end that counted.
    pub(crate) side: Side,
    /// The service that calls; empty where a provider does not know.
    pub(crate) caller: Box<str>,
    /// The service that is called.
    pub(crate) callee: Box<str>,
    /// `package.Service/Method`.
    pub(crate) method: Box<str>,
    /// Of an attempt the instance tried, of a provider itself; of a caller empty.
    pub(crate) instance: Box<str>,
}

/// A process, since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ReporterId(pub(crate) u128);

/// One report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// Who reports.
    pub(crate) reporter: ReporterId,
    /// Which of its reports, from 1.
    pub(crate) sequence: u64,
    /// When its interval began, in seconds since 1970.
    pub(crate) at: u64,
    /// What was counted.
    pub(crate) series: Vec<(Key, Point)>,
}
