//! How calls are to be made: what holds for which method. Values, their resolution and where they come from; it makes no call.
//!
//! ```text
//! text → json (values and their places) → reader (types, problems) → document (a ServiceConfig)
//!      → layers (who counts more) → Settings (a snapshot by method, read without a lock)
//! ```
//!
//! All of that is pure. What changes over time, a file or what instances announce, comes in through `governed` and `file`.

mod balancing;
mod channel;
mod document;
mod file;
mod governed;
mod json;
mod layers;
mod modes;
mod problem;
mod protection;
mod provider;
mod reader;
mod routing;
mod rules;
mod subject;

use std::{collections::HashMap, sync::Arc, time::Duration};

pub(crate) use channel::{ChannelRules, ChannelSettings};
pub use document::ServiceConfig;
pub(crate) use file::{Found, WatchedFile, read_file};
pub(crate) use governed::Governed;
pub(crate) use layers::Layer;
pub(crate) use problem::Spot;
pub use problem::{InvalidServiceConfig, Problem};
pub(crate) use rules::{Rules, Scope};
pub(crate) use subject::Subject;

use crate::{CircuitBreaker, Mode, degrade::Fallback};

/// As a ready timeout: longer than any deadline, and no instant overflows by it.
const UNTIL_THE_DEADLINE: Duration = crate::range::FOR_EVER;

/// What holds for the calls of one method.
#[derive(Clone, Debug, Default)]
pub(crate) struct MethodSettings {
    /// How long a call waits for an instance that is ready and has room.
    pub(crate) ready_timeout: Duration,
    /// The longest that a call may take, its response stream included.
    pub(crate) call_timeout: Option<Duration>,
    /// What becomes of a call that fails.
    pub(crate) mode: Mode,
    /// What stands in for the service.
    pub(crate) fallback: Option<Arc<Fallback>>,
    /// When its calls fail at once for a while.
    pub(crate) breaker: Option<CircuitBreaker>,
}

/// What holds for the calls of one method at this moment, of all configs together. See
/// [`Channel::settings_of`](crate::Channel::settings_of).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CallSettings {
    /// The longest that a call may take, its response stream included.
    pub timeout: Option<Duration>,
    /// How long a call waits for an instance that is ready and has room; `None` until its deadline.
    pub ready_timeout: Option<Duration>,
    /// What becomes of a call that fails.
    pub mode: Mode,
    /// What stands in for the service, and when: `fail: reply`.
    pub fallback: Option<String>,
    /// When calls of the method fail at once for a while; `None` never.
    pub circuit_breaker: Option<CircuitBreaker>,
}

impl MethodSettings {
    pub(crate) fn view(&self) -> CallSettings {
        let fallback = self.fallback.as_ref();
        CallSettings {
            timeout: self.call_timeout,
            ready_timeout: Some(self.ready_timeout).filter(|timeout| *timeout < UNTIL_THE_DEADLINE),
            mode: self.mode.clone(),
            fallback: fallback.map(|fallback| format!("{}: {}", fallback.rule().when.as_str(), fallback.name())),
            circuit_breaker: self.breaker,
        }
    }
}

/// What holds for the calls of a channel: an immutable snapshot, replaced as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    channel: ChannelSettings,
    every: Arc<MethodSettings>,
    services: HashMap<Box<str>, Arc<MethodSettings>>,
    /// By path.
    methods: HashMap<Box<str>, Arc<MethodSettings>>,
}

impl Settings {
    /// What holds for the channel as a whole.
    pub(crate) fn channel(&self) -> &ChannelSettings {
        &self.channel
    }

    /// What holds for the method with that path (`/package.Service/Method`).
    pub(crate) fn of(&self, path: &str) -> &Arc<MethodSettings> {
        // Most channels have no config, and then this is two loads.
        if !self.methods.is_empty()
            && let Some(found) = self.methods.get(path)
        {
            return found;
        }
        if !self.services.is_empty()
            && let Some(found) = service_of(path).and_then(|service| self.services.get(service))
        {
            return found;
        }
        &self.every
    }
}

/// The service of a path.
fn service_of(path: &str) -> Option<&str> {
    Some(path.strip_prefix('/')?.split_once('/')?.0)
}
