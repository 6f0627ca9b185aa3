//! What a [`Builder`] is told about routing. It only collects; `build` hands it on.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::{Caller, Routes, Subsetting, ZonePreference};
use crate::{Builder, Channel};

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) caller: Caller,
    /// Where the last good set is kept.
    pub(crate) cache_dir: Option<PathBuf>,
}

impl Builder {
    /// The zone that this process runs in: what rules about the caller's zone and [`Builder::prefer_zone`] go by. Empty: none.
    /// Default: none.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.routing.caller.zone = Some(zone.into()).filter(|zone| !zone.is_empty());
        self
    }

    /// The service that this process is: what rules about callers go by. Empty: none. Default: none.
    pub fn caller(mut self, service: impl Into<String>) -> Self {
        self.routing.caller.service = Some(service.into()).filter(|service| !service.is_empty());
        self
    }

    /// Which calls go to which instances. Default: no rules. [`Channel::set_routes`] replaces them.
    pub fn routes(mut self, routes: Routes) -> Self {
        self.channel.routes = Some(routes);
        self
    }

    /// Keeps calls in the caller's zone, as far as that keeps the load on every instance even. Default: zones do not count.
    pub fn prefer_zone(mut self, preference: impl Into<Option<ZonePreference>>) -> Self {
        self.channel.zone_preference = Some(preference.into());
        self
    }

    /// Keeps the last good set of instances in this directory, one file for each target, so that a process that starts while the
    /// registry is away can call: at once when the registry cannot be reached, after a moment when it is silent. One directory is
    /// for the services of one registry; several processes may share it. A file older than a week, or torn, is not believed.
    /// Default: nothing is kept.
    pub fn cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.routing.cache_dir = Some(dir.into());
        self
    }

    /// Connects to some of the instances only. Default: to all.
    pub fn subset(mut self, subsetting: impl Into<Option<Subsetting>>) -> Self {
        self.channel.subsetting = Some(subsetting.into());
        self
    }
}

impl Channel {
    /// For how long the registry has not stood by the set of instances that calls go by: since it was lost, or, of a set from disk,
    /// since that was kept. `None` while it does, where there is none, and before its first word. Of several, the longest.
    #[must_use]
    pub fn set_age(&self) -> Option<Duration> {
        self.shared.pool.origin().age(SystemTime::now())
    }

    /// Where the set of instances comes from and how that source is, in words: what errors say, too.
    #[must_use]
    pub fn set_origin(&self) -> String {
        self.shared.pool.origin().to_string()
    }

    /// Routes calls by these rules from here on, on all clones; calls under way go on as they were routed. It is a live config
    /// that has only these: [`Channel::configure`] takes it back, or replaces it by routes of its own.
    pub fn set_routes(&self, routes: &Routes) {
        self.shared.settings.set_live_routes(routes.clone());
    }
}
