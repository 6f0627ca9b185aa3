//! What configs say of a channel as a whole, and what comes of it. Values; how they are read is in `balancing`, `protection`
//! and `routing`, and what is done about a change in `subject`.

use std::sync::Arc;

use super::{
    balancing, modes,
    problem::Spot,
    protection,
    reader::{Fields, Place, Reader},
    routing,
};
use crate::{
    CircuitBreaker, ConcurrencyLimit, OutlierDetection, Policy, RetryBudget, RetryThrottling, Routes, SlowStart,
    Subsetting, Throttling, ZonePreference, call::gate::GateSettings, pool::Care,
};

/// Of a service's name: what a person types.
const LONGEST_NAME: usize = 1024;

/// What a document says of a channel as a whole. Of what can be switched off, the inner `None` does that; the outer one says
/// nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ChannelRules {
    pub(crate) policy: Option<Policy>,
    /// gRPC's, of attempts.
    pub(crate) retry_throttling: Option<RetryThrottling>,
    pub(crate) outlier: Option<Option<OutlierDetection>>,
    pub(crate) slow_start: Option<Option<SlowStart>>,
    /// Of the service, whatever the method.
    pub(crate) breaker: Option<Option<CircuitBreaker>>,
    pub(crate) limit: Option<Option<ConcurrencyLimit>>,
    /// Of calls.
    pub(crate) throttling: Option<Option<Throttling>>,
    pub(crate) retry_budget: Option<RetryBudget>,
    pub(crate) hedging_budget: Option<RetryBudget>,
    pub(crate) routes: Option<Routes>,
    pub(crate) zone_preference: Option<Option<ZonePreference>>,
    pub(crate) subsetting: Option<Option<Subsetting>>,
    /// The service that instances are asked for.
    pub(crate) health_check: Option<Option<Arc<str>>>,
}

/// What holds for a channel as a whole.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChannelSettings {
    pub(crate) policy: Policy,
    pub(crate) retry_throttling: Option<RetryThrottling>,
    pub(crate) care: Care,
    pub(crate) gate: GateSettings,
    pub(crate) retry_budget: RetryBudget,
    pub(crate) hedging_budget: RetryBudget,
    pub(crate) routes: Routes,
    pub(crate) zone_preference: Option<ZonePreference>,
    pub(crate) subsetting: Option<Subsetting>,
    pub(crate) health_check: Option<Arc<str>>,
}

impl Default for ChannelSettings {
    /// Where nobody says anything.
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            retry_throttling: None,
            care: Care {
                outlier: Some(OutlierDetection::default()),
                slow_start: Some(SlowStart::default()),
            },
            gate: GateSettings::default(),
            retry_budget: RetryBudget::default(),
            // With the 95th percentile, as hedging begins by default, a twentieth would do; the rest is for attempts that failed.
            hedging_budget: RetryBudget::tenth(),
            routes: Routes::default(),
            zone_preference: None,
            subsetting: None,
            health_check: None,
        }
    }
}

impl ChannelRules {
    /// Takes what is open here from `next`, which counts less.
    pub(crate) fn fill_from(&mut self, next: &Self) {
        fn fill<T: Clone>(here: &mut Option<T>, next: &Option<T>) {
            if here.is_none() {
                here.clone_from(next);
            }
        }
        fill(&mut self.policy, &next.policy);
        fill(&mut self.retry_throttling, &next.retry_throttling);
        fill(&mut self.outlier, &next.outlier);
        fill(&mut self.slow_start, &next.slow_start);
        fill(&mut self.breaker, &next.breaker);
        fill(&mut self.limit, &next.limit);
        fill(&mut self.throttling, &next.throttling);
        fill(&mut self.retry_budget, &next.retry_budget);
        fill(&mut self.hedging_budget, &next.hedging_budget);
        fill(&mut self.routes, &next.routes);
        fill(&mut self.zone_preference, &next.zone_preference);
        fill(&mut self.subsetting, &next.subsetting);
        fill(&mut self.health_check, &next.health_check);
    }

    /// With the defaults where nothing is said.
    pub(crate) fn resolved(self) -> ChannelSettings {
        let base = ChannelSettings::default();
        ChannelSettings {
            policy: self.policy.unwrap_or(base.policy),
            retry_throttling: self.retry_throttling.or(base.retry_throttling),
            care: Care {
                outlier: self.outlier.unwrap_or(base.care.outlier),
                slow_start: self.slow_start.unwrap_or(base.care.slow_start),
            },
            gate: GateSettings {
                breaker: self.breaker.unwrap_or(base.gate.breaker),
                limit: self.limit.unwrap_or(base.gate.limit),
                throttling: self.throttling.unwrap_or(base.gate.throttling),
            },
            retry_budget: self.retry_budget.unwrap_or(base.retry_budget),
            hedging_budget: self.hedging_budget.unwrap_or(base.hedging_budget),
            routes: self.routes.unwrap_or(base.routes),
            zone_preference: self.zone_preference.unwrap_or(base.zone_preference),
            subsetting: self.subsetting.unwrap_or(base.subsetting),
            health_check: self.health_check.unwrap_or(base.health_check),
        }
    }

    /// What a document and the additions beside it say; and where it says what only a caller may.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        document: &mut Fields<'_, '_>,
        additions: Option<&mut Fields<'_, '_>>,
    ) -> (Self, Vec<Spot>) {
        let config = document.take("loadBalancingConfig");
        let name = document.take("loadBalancingPolicy");
        let throttling = document.take("retryThrottling");
        let health_check = document.take("healthCheckConfig");
        let config = config.map(|place| balancing::read_config(reader, &place));
        let name = name.and_then(|place| balancing::read_name(reader, &place));
        let config = config.unwrap_or_default();
        let mut rules = Self {
            policy: config.policy.or(name),
            outlier: config.outlier.map(Some),
            retry_throttling: throttling.and_then(|place| modes::read_throttling(reader, &place)),
            health_check: health_check.and_then(|place| read_health_check(reader, &place)),
            ..Self::default()
        };
        let mut callers = Vec::new();
        if let Some(additions) = additions {
            protection::read(reader, additions, &mut rules);
            routing::read(reader, additions, &mut rules, &mut callers);
        }
        (rules, callers)
    }
}

/// gRFC A17: without a name nobody is asked; an empty one asks for the server as a whole.
fn read_health_check(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<Option<Arc<str>>> {
    let mut fields = reader.object(place)?;
    let name = fields.take("serviceName");
    reader.finish(fields);
    let Some(place) = name else { return Some(None) };
    let name = reader.text(&place)?;
    if name.len() > LONGEST_NAME {
        reader.wrong(&place, format!("is longer than {LONGEST_NAME} bytes"));
        return None;
    }
    Some(Some(name.into()))
}
