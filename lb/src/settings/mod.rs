//! How calls are to be made: what holds for which method. Values and their resolution; it makes no call.

use std::{sync::Arc, time::Duration};

/// What holds for the calls of one method.
#[derive(Clone, Debug)]
pub(crate) struct MethodSettings {
    /// How long a call waits for an instance that is ready and has room.
    pub(crate) ready_timeout: Duration,
    /// The longest that a call may take, its response stream included.
    pub(crate) call_timeout: Option<Duration>,
}

/// What holds for the calls of a channel: an immutable snapshot, replaced as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    every: Arc<MethodSettings>,
}

impl Settings {
    /// The same for every method.
    pub(crate) fn uniform(every: MethodSettings) -> Self {
        Self { every: Arc::new(every) }
    }

    /// What holds for the method with that path (`/package.Service/Method`).
    pub(crate) fn of(&self, _path: &str) -> &Arc<MethodSettings> {
        &self.every
    }
}
