//! What a target says exists: the pool's input. Not who is reachable.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::uri::Authority;

use super::PassedOver;

/// All callable backends of a target at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    /// Only callable ones: up, not drained, weight above zero.
    pub(crate) backends: Vec<Backend>,
    /// How many are known, callable or not.
    pub(crate) known: usize,
    /// Known, and not callable: for explanations.
    pub(crate) passed_over: Vec<PassedOver>,
    /// Of those that would take calls, what keeps some from being called: for error messages.
    pub(crate) unspoken: Option<String>,
    pub(crate) origin: Origin,
}

/// Where a roster comes from and how that source is: what an error message says about it.
#[derive(Clone, Debug, Default)]
pub(crate) enum Origin {
    /// Nothing was asked yet.
    #[default]
    Unasked,
    Fixed,
    /// The registry's first answer is awaited.
    Connecting,
    Fresh {
        revision: i64,
    },
    /// The last good set of a registry that cannot be heard.
    Stale {
        since: Instant,
        reason: String,
        revision: i64,
    },
    /// What was kept on disk, instead of what the registry says.
    Disk {
        /// When the registry last stood by it.
        at: SystemTime,
        revision: i64,
        instead_of: Box<Origin>,
    },
    /// One of each place of a target that has several.
    Several(Vec<Origin>),
    /// The channel was closed.
    Closed,
}

impl Origin {
    /// For how long nobody has stood by the set; `None` while its source does, or where there is none to.
    pub(crate) fn age(&self, now: SystemTime) -> Option<Duration> {
        match self {
            Self::Stale { since, revision, .. } if *revision > 0 => Some(since.elapsed()),
            Self::Disk { at, .. } => Some(now.duration_since(*at).unwrap_or_default()),
            Self::Several(each) => each.iter().filter_map(|origin| origin.age(now)).max(),
            _ => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unasked => f.write_str("not looked up yet"),
            Self::Fixed => f.write_str("a fixed list of addresses"),
            Self::Connecting => f.write_str("the registry has not answered yet"),
            Self::Fresh { revision } => write!(f, "the registry answers, at revision {revision}"),
            Self::Stale {
                since,
                reason,
                revision,
            } => {
                write!(f, "the registry is away since {:.1?}: {reason}; ", since.elapsed())?;
                match revision {
                    0 => f.write_str("it never answered"),
                    revision => write!(f, "last known revision {revision}"),
                }
            }
            Self::Disk {
                at,
                revision,
                instead_of,
            } => {
                let age = SystemTime::now().duration_since(*at).unwrap_or_default();
                write!(
                    f,
                    "by what was kept on disk {age:.0?} ago, at revision {revision}: {instead_of}"
                )
            }
            Self::Several(each) => {
                for (index, origin) in each.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "; " };
                    write!(f, "{separator}({}) {origin}", index + 1)?;
                }
                Ok(())
            }
            Self::Closed => f.write_str("the channel is closed"),
        }
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) key: Key,
    pub(crate) authority: Authority,
    /// Whose certificate is expected; `None` without TLS.
    pub(crate) secured: Option<tls::Expected>,
    /// Relative share of the calls, at least 1.
    pub(crate) weight: u32,
    pub(crate) attributes: Arc<Attributes>,
    /// Changes when the instance has registered anew: a restarted process in the same place.
    pub(crate) epoch: i64,
    /// The number of the registry that it is known from, where a target has several.
    pub(crate) registry: usize,
}

/// What an instance says of itself that has a say in who is sent there. Nothing of a fixed target says anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Semantic version; may be empty.
    pub(crate) version: String,
    /// The same, if it is one.
    pub(crate) semver: Option<semver::Version>,
    /// Variant that is not interchangeable with others; may be empty.
    pub(crate) group: String,
    /// Where it runs; may be empty.
    pub(crate) zone: String,
    /// Traffic tag; empty means untagged.
    pub(crate) tag: String,
    pub(crate) metadata: BTreeMap<String, String>,
    /// When its process started, if it says so.
    pub(crate) started_at: Option<SystemTime>,
}

/// What makes two backends the same: an instance that moves to another address needs another connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) instance_id: Arc<str>,
    pub(crate) address: Arc<str>,
    /// An instance that begins to speak TLS at its address needs another connection, too.
    pub(crate) is_secured: bool,
}
