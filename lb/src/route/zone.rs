//! How much of a caller's traffic stays in its zone. Pure.
//!
//! Calls within a zone are fast and free, but "always near" overloads the instances of a zone with many callers and few
//! instances. The rule is Envoy's zone aware routing: with `U` the share of instances (by weight) in a zone and `L` the share of
//! callers in it,
//!
//! - a caller in a zone with `U >= L` stays in it with all its calls;
//! - one in a zone with `U < L` stays with `U / L` of them, and the rest goes to the zones that have capacity to spare, each in
//!   proportion to `U - L` there.
//!
//! When callers are as busy as each other, every zone then gets exactly the share of calls that its instances are of all, and the
//! load on each instance is as even as without zones. How many callers there are in which zone a caller cannot see. It is told
//! ([`ZonePreference::callers`]), or it is assumed that they are spread evenly over the zones in which there are instances, and its
//! own; how even the load then is depends on how true that is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::several::{self, Rank};
use crate::pool::Attributes;

/// Envoy's `min_cluster_size`.
const MIN_INSTANCES: usize = 6;
/// What the weights of a set are brought to together when zones or registries shift them: fine enough for ten thousand
/// instances, and a sum that stays far from overflow.
const TOTAL: f64 = (1_u32 << 30) as f64;

/// That calls stay in the caller's zone as far as the load on every instance stays even. For
/// [`Builder::prefer_zone`](crate::Builder::prefer_zone); needs the caller's own zone ([`Builder::zone`](crate::Builder::zone)),
/// and shifts weights: a policy that does not look at them ([`Policy::Random`](crate::Policy::Random)) only leaves out zones that
/// get nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ZonePreference {
    min_instances: Option<usize>,
    callers: Option<BTreeMap<String, u32>>,
}

/// Why a preference was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the callers of a zone preference: at least one zone has to have some")]
pub struct InvalidZonePreference;

impl ZonePreference {
    /// Callers are taken to be spread evenly over the zones.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many callers there are in which zone; a zone that is not named has none. Only the proportions count.
    ///
    /// # Errors
    /// No zone has any.
    pub fn callers<Z: Into<String>>(
        self,
        callers: impl IntoIterator<Item = (Z, u32)>,
    ) -> Result<Self, InvalidZonePreference> {
        let callers: BTreeMap<String, u32> = callers.into_iter().map(|(zone, count)| (zone.into(), count)).collect();
        if callers.values().all(|count| *count == 0) {
            return Err(InvalidZonePreference);
        }
        Ok(Self {
            callers: Some(callers),
            ..self
        })
    }

    /// With fewer ready instances than this, zones do not count: each would get too few to even out. Default: 6.
    #[must_use]
    pub fn min_instances(self, min_instances: usize) -> Self {
        Self {
            min_instances: Some(min_instances),
            ..self
        }
    }

    /// The share of a caller's calls for each zone, given the shares of the instances; `None` when none of it is to be shifted.
    fn shares<'a>(&'a self, own: &'a str, instances: &BTreeMap<&'a str, f64>) -> BTreeMap<&'a str, f64> {
        let callers = self.caller_shares(own, instances);
        let caller = |zone: &str| callers.get(zone).copied().unwrap_or(0.0);
        let (near, here) = (instances.get(own).copied().unwrap_or(0.0), caller(own));
        if near > 0.0 && near >= here {
            return BTreeMap::from([(own, 1.0)]);
        }
        let spare = |zone: &str, share: f64| (share - caller(zone)).max(0.0);
        let total: f64 = instances.iter().map(|(zone, share)| spare(zone, *share)).sum();
        if total <= 0.0 {
            // Everywhere as many callers as instances, and none of them said to be here: nothing to go by.
            return instances.clone();
        }
        let stays = if here > 0.0 { near / here } else { 0.0 };
        let mut shares: BTreeMap<&str, f64> = instances
            .iter()
            .map(|(zone, share)| (*zone, (1.0 - stays) * spare(zone, *share) / total))
            .collect();
        if near > 0.0 {
            shares.insert(own, stays);
        }
        shares
    }

    fn caller_shares<'a>(&'a self, own: &'a str, instances: &BTreeMap<&'a str, f64>) -> BTreeMap<&'a str, f64> {
        match &self.callers {
            Some(callers) => {
                let total: f64 = callers.values().map(|count| f64::from(*count)).sum();
                let share = |(zone, count): (&'a String, &u32)| (zone.as_str(), f64::from(*count) / total);
                callers.iter().map(share).collect()
            }
            None => {
                let zones: BTreeSet<&str> = instances
                    .keys()
                    .copied()
                    .chain([own])
                    .filter(|zone| !zone.is_empty())
                    .collect();
                zones.iter().map(|zone| (*zone, 1.0 / zones.len() as f64)).collect()
            }
        }
    }
}

/// What shifts weights within the instances that a call may go to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refine {
    pub(crate) zone: Option<String>,
    pub(crate) preference: Option<ZonePreference>,
    /// By the number of the registry; one or none: nothing to choose.
    pub(crate) registries: Arc<[Rank]>,
}

impl Refine {
    pub(crate) fn is_active(&self) -> bool {
        self.registries.len() > 1 || (self.preference.is_some() && self.zone.is_some())
    }
}

/// One of the instances that a call may go to.
pub(crate) struct Weighed<'a> {
    pub(crate) attributes: &'a Attributes,
    pub(crate) registry: usize,
    pub(crate) weight: u32,
}

/// The weights that they have for this caller; 0 is for one that gets nothing, `None` says that all stay as they are. With too few
/// of the known instances ready (`is_panic`), zones do not count: near is worth less than alive.
pub(crate) fn refine(to: &Refine, instances: &[Weighed<'_>], is_panic: bool) -> Option<Vec<u32>> {
    let mut weights: Vec<f64> = instances.iter().map(|instance| f64::from(instance.weight)).collect();
    let mut is_shifted = false;
    if to.registries.len() > 1 {
        is_shifted = true;
        let mut sums = vec![0.0; to.registries.len()];
        for (instance, weight) in instances.iter().zip(&weights) {
            sums[instance.registry] += weight;
        }
        let present: Vec<bool> = sums.iter().map(|sum| *sum > 0.0).collect();
        let shares = several::shares(to.zone.as_deref(), &to.registries, &present);
        for (instance, weight) in instances.iter().zip(&mut weights) {
            *weight *= shares[instance.registry] / sums[instance.registry];
        }
    }
    let near = to.zone.as_deref().zip(to.preference.as_ref());
    if let Some((own, preference)) = near.filter(|_| !is_panic) {
        let count = weights.iter().filter(|weight| **weight > 0.0).count();
        if count >= preference.min_instances.unwrap_or(MIN_INSTANCES) {
            is_shifted = true;
            let total: f64 = weights.iter().sum();
            let mut zones: BTreeMap<&str, f64> = BTreeMap::new();
            for (instance, weight) in instances.iter().zip(&weights).filter(|(_, weight)| **weight > 0.0) {
                *zones.entry(&instance.attributes.zone).or_default() += weight / total;
            }
            let shares = preference.shares(own, &zones);
            for (instance, weight) in instances.iter().zip(&mut weights).filter(|(_, weight)| **weight > 0.0) {
                let zone = instance.attributes.zone.as_str();
                *weight *= shares.get(zone).copied().unwrap_or(0.0) / zones[zone];
            }
        }
    }
    is_shifted.then(|| {
        let total: f64 = weights.iter().sum();
        let whole = |weight: f64| {
            let scaled = (weight / total * TOTAL).round();
            // Saturates; and nobody who gets anything is rounded down to nothing.
            if weight > 0.0 { (scaled as u32).max(1) } else { 0 }
        };
        weights.into_iter().map(whole).collect()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attributes(zone: &str) -> Attributes {
        Attributes {
            zone: zone.to_owned(),
            ..Attributes::default()
        }
    }

    /// The shares of calls that go to each instance.
    fn refined(to: &Refine, instances: &[(&str, usize, u32)], is_panic: bool) -> Option<Vec<f64>> {
        let all: Vec<Attributes> = instances.iter().map(|(zone, _, _)| attributes(zone)).collect();
        let weighed: Vec<Weighed<'_>> = all
            .iter()
            .zip(instances)
            .map(|(attributes, (_, registry, weight))| Weighed {
                attributes,
                registry: *registry,
                weight: *weight,
            })
            .collect();
        let weights = refine(to, &weighed, is_panic)?;
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        Some(weights.iter().map(|weight| f64::from(*weight) / total).collect())
    }

    fn zoned(zone: &str, preference: ZonePreference) -> Refine {
        Refine {
            zone: Some(zone.to_owned()),
            preference: Some(preference.min_instances(1)),
            ..Refine::default()
        }
    }

    fn close(is: &[f64], expected: &[f64]) {
        assert_eq!(is.len(), expected.len());
        for (share, expected) in is.iter().zip(expected) {
            assert!((share - expected).abs() < 1e-6, "{is:?} is not what was expected");
        }
    }

    #[test]
    fn with_enough_instances_in_it_all_calls_stay_in_the_zone() {
        let to = zoned("a", ZonePreference::new());
        let instances = [("a", 0, 100), ("a", 0, 100), ("b", 0, 100)];
        close(&refined(&to, &instances, false).expect("shifted"), &[0.5, 0.5, 0.0]);
    }

    #[test]
    fn with_too_few_the_rest_goes_where_there_is_room() {
        // Of three instances one is here, of the callers half are: two thirds stay.
        let to = zoned("a", ZonePreference::new());
        let instances = [("a", 0, 100), ("b", 0, 100), ("b", 0, 100)];
        close(
            &refined(&to, &instances, false).expect("shifted"),
            &[2.0 / 3.0, 1.0 / 6.0, 1.0 / 6.0],
        );
        // With all callers here, there is nothing to prefer.
        let to = zoned("a", ZonePreference::new().callers([("a", 7)]).expect("some"));
        close(&refined(&to, &instances, false).expect("shifted"), &[1.0 / 3.0; 3]);
    }

    #[test]
    fn with_nobody_in_the_zone_all_goes_elsewhere() {
        let to = zoned("z", ZonePreference::new());
        let instances = [("a", 0, 100), ("b", 0, 300)];
        close(&refined(&to, &instances, false).expect("shifted"), &[0.0, 1.0]);
        // Not even callers, as far as it was told: it divided nothing by nothing, and all weights were.
        let to = zoned("z", ZonePreference::new().callers([("a", 1), ("b", 3)]).expect("some"));
        close(&refined(&to, &instances, false).expect("shifted"), &[0.25, 0.75]);
    }

    #[test]
    fn with_few_instances_or_in_panic_zones_do_not_count() {
        let instances = [("a", 0, 100), ("b", 0, 100)];
        assert_eq!(refined(&zoned("a", ZonePreference::new()), &instances, true), None);
        let few = Refine {
            preference: Some(ZonePreference::new()),
            ..zoned("a", ZonePreference::new())
        };
        assert_eq!(refined(&few, &instances, false), None);
        assert!(ZonePreference::new().callers([("a", 0)]).is_err());
    }

    #[test]
    fn registries_share_by_their_weights_and_not_by_how_many_instances_they_have() {
        let rank = |weight| Rank {
            weight,
            ..Rank::default()
        };
        let to = Refine {
            registries: [rank(1), rank(3)].into(),
            ..Refine::default()
        };
        let instances = [("", 0, 100), ("", 0, 100), ("", 1, 100)];
        close(
            &refined(&to, &instances, false).expect("shifted"),
            &[0.125, 0.125, 0.75],
        );
    }

    proptest! {
        /// The promise: whatever the zones are like, as long as the callers are where they are said to be, no instance gets more
        /// than its weight's share of all calls.
        #[test]
        fn the_load_on_every_instance_stays_even(
            instances in prop::collection::vec((0_usize..4, 1_u32..=1000), 1..30),
            callers in prop::collection::vec(0_u32..20, 4),
        ) {
            const ZONES: [&str; 4] = ["a", "b", "c", "d"];
            prop_assume!(callers.iter().any(|count| *count > 0));
            let rows: Vec<(&str, usize, u32)> = instances.iter().map(|(zone, weight)| (ZONES[*zone], 0, *weight)).collect();
            let total_weight: f64 = rows.iter().map(|(_, _, weight)| f64::from(*weight)).sum();
            let total_callers: f64 = callers.iter().map(|count| f64::from(*count)).sum();
            let preference = ZonePreference::new().callers(ZONES.into_iter().zip(callers.iter().copied())).expect("some");
            let mut load = vec![0.0; rows.len()];
            for (zone, count) in ZONES.iter().zip(&callers) {
                let shares = refined(&zoned(zone, preference.clone()), &rows, false).expect("shifted");
                for (load, share) in load.iter_mut().zip(shares) {
                    *load += share * f64::from(*count) / total_callers;
                }
            }
            for (load, (_, _, weight)) in load.iter().zip(&rows) {
                prop_assert!((load - f64::from(*weight) / total_weight).abs() < 1e-6, "{load} for {weight} of {total_weight}");
            }
        }
    }
}
