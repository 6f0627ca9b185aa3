//! What a change of the settings of a channel as a whole is done to. It performs; what holds was decided before.

use std::sync::Arc;

use tokio::sync::watch;

use super::channel::ChannelSettings;
use crate::{
    Subsetting,
    call::{Retries, gate::Gate},
    pool::Pool,
    route::{Caller, Rank, Refine, Table},
};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) pool: Arc<Pool>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) retries: Arc<Retries>,
    /// Who calls: what routes are made for.
    pub(crate) caller: Caller,
    /// By the number of the registry.
    pub(crate) registries: Arc<[Rank]>,
    /// How many instances are connected to: the keeper's to perform.
    pub(crate) subsetting: watch::Sender<Option<Subsetting>>,
}

impl Subject {
    /// From here on it goes by `new`. What is as `before` is left alone, and keeps what it has learnt.
    pub(super) fn follow(&self, new: &ChannelSettings, before: Option<&ChannelSettings>) {
        fn differs<T: PartialEq>(
            new: &ChannelSettings,
            before: Option<&ChannelSettings>,
            part: impl Fn(&ChannelSettings) -> &T,
        ) -> bool {
            before.is_none_or(|before| part(before) != part(new))
        }
        if differs(new, before, |it| &it.policy) {
            self.pool.set_policy(&new.policy);
        }
        if differs(new, before, |it| &it.care) {
            self.pool.set_care(new.care);
        }
        if differs(new, before, |it| &it.routes) {
            self.pool.set_routes(Table::new(&new.routes, &self.caller));
        }
        if differs(new, before, |it| &it.zone_preference) {
            self.pool.set_refine(Refine {
                zone: self.caller.zone.clone(),
                preference: new.zone_preference.clone(),
                registries: Arc::clone(&self.registries),
            });
        }
        if differs(new, before, |it| &it.gate) {
            self.gate.set(new.gate);
        }
        if differs(new, before, |it| &it.health_check) {
            self.pool.set_health_check(new.health_check.clone());
        }
        self.retries.set_budgets(new.retry_budget, new.hedging_budget);
        self.retries.set_throttling(new.retry_throttling);
        self.subsetting.send_if_modified(|current| {
            let is_other = *current != new.subsetting;
            *current = new.subsetting;
            is_other
        });
    }
}
