//! Whom a caller connects to when there are more instances than connections are worth: gRFC A68's random subsetting. Pure.
//!
//! Rendezvous hashing: each caller ranks all instances by XXH64 of the address with a seed of its own and keeps the first ones.
//! An instance that comes or goes changes at most one place of a caller's subset, and over many callers every instance is kept
//! about equally often. The well-known alternative, dealing instances out by the caller's index, shuffles far more and needs
//! somebody to number the callers.

use std::{collections::BTreeMap, sync::Arc};

use twox_hash::XxHash64;

use crate::pool::{Attributes, Backend};

/// How many instances a channel connects to at most. Default: to all of them.
///
/// The bound holds for each kind of instances by itself: those that agree in version, group and tag. A canary would otherwise be in
/// few subsets or none, and routes to it would lead nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subsetting {
    size: usize,
    seed: Option<u64>,
}

/// Why a subset was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a subset of {size} instances: at least 2 are needed, or the loss of one stops all calls")]
pub struct InvalidSubsetting {
    size: usize,
}

impl Subsetting {
    /// Of each kind this many, at least 2. Small subsets are uneven: with as many callers as instances, each instance has so many
    /// callers on average, with a standard deviation of the square root. 20 is a good beginning.
    ///
    /// # Errors
    /// Fewer than 2.
    pub fn try_new(size: usize) -> Result<Self, InvalidSubsetting> {
        if size < 2 {
            return Err(InvalidSubsetting { size });
        }
        Ok(Self { size, seed: None })
    }

    /// Two channels with the same seed keep the same instances. Default: drawn at random for each channel.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self {
            seed: Some(seed),
            ..self
        }
    }

    /// With a seed, of which `draw` is the default.
    pub(crate) fn seeded(self, draw: u64) -> Self {
        self.seed(self.seed.unwrap_or(draw))
    }

    /// Those that are kept, in their order.
    pub(crate) fn keep(&self, backends: Vec<Backend>) -> Vec<Backend> {
        let kind = |backend: &Backend| Arc::clone(&backend.attributes);
        let seed = self.seed.unwrap_or_default();
        let mut ranks: BTreeMap<Kind, Vec<(u64, usize)>> = BTreeMap::new();
        for (index, backend) in backends.iter().enumerate() {
            let rank = XxHash64::oneshot(seed, backend.key.address.as_bytes());
            ranks.entry(Kind::of(&kind(backend))).or_default().push((rank, index));
        }
        let mut is_kept = vec![false; backends.len()];
        for ranked in ranks.values_mut() {
            let kept = if ranked.len() > self.size {
                // The smallest hashes, in no order: that is all that is asked.
                ranked.select_nth_unstable(self.size - 1);
                &ranked[..self.size]
            } else {
                &ranked[..]
            };
            kept.iter().for_each(|(_, index)| is_kept[*index] = true);
        }
        let kept = backends.into_iter().zip(is_kept);
        kept.filter_map(|(backend, is_kept)| is_kept.then_some(backend))
            .collect()
    }
}

/// What makes instances interchangeable to a route.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    version: String,
    group: String,
    tag: String,
}

impl Kind {
    fn of(attributes: &Attributes) -> Self {
        Self {
            version: attributes.version.clone(),
            group: attributes.group.clone(),
            tag: attributes.tag.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::uri::Authority;
    use proptest::prelude::*;

    use super::*;
    use crate::pool::Key;

    fn backend(port: u16, tag: &str) -> Backend {
        let address = format!("10.0.0.1:{port}");
        Backend {
            authority: address.parse::<Authority>().expect("an address"),
            key: Key {
                instance_id: address.as_str().into(),
                address: address.into(),
                is_secured: false,
            },
            secured: None,
            weight: 100,
            attributes: Arc::new(Attributes {
                tag: tag.to_owned(),
                ..Attributes::default()
            }),
            epoch: 0,
            registry: 0,
        }
    }

    fn kept(size: usize, seed: u64, ports: impl IntoIterator<Item = u16>) -> BTreeSet<u16> {
        let subsetting = Subsetting::try_new(size).expect("large enough").seed(seed);
        let backends = ports.into_iter().map(|port| backend(port, "")).collect();
        let kept = subsetting.keep(backends);
        kept.iter().filter_map(|backend| backend.authority.port_u16()).collect()
    }

    #[test]
    fn each_kind_has_a_subset_of_its_own() {
        let backends = (1..=50)
            .map(|port| backend(port, if port <= 3 { "gray" } else { "" }))
            .collect();
        let kept = Subsetting::try_new(5).expect("large enough").keep(backends);
        let gray = kept.iter().filter(|backend| backend.attributes.tag == "gray").count();
        assert_eq!((gray, kept.len()), (3, 8));
        assert!(Subsetting::try_new(1).is_err());
    }

    #[test]
    fn every_instance_is_kept_about_equally_often() {
        let mut counts = BTreeMap::new();
        for seed in 0..2000 {
            for port in kept(10, seed, 1..=40) {
                *counts.entry(port).or_insert(0_u32) += 1;
            }
        }
        // Expected are 500 each, with a standard deviation of 19.
        assert_eq!(counts.len(), 40);
        assert!(counts.values().all(|count| (400..600).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn an_instance_that_goes_changes_at_most_one_place(
            ports in prop::collection::btree_set(1_u16..1000, 2..60),
            size in 2_usize..20,
            seed in any::<u64>(),
            gone in any::<prop::sample::Index>(),
        ) {
            let before = kept(size, seed, ports.clone());
            prop_assert_eq!(before.len(), ports.len().min(size));
            let gone = *gone.get(&ports.iter().copied().collect::<Vec<_>>());
            let after = kept(size, seed, ports.iter().copied().filter(|port| *port != gone));
            prop_assert!(before.difference(&after).all(|port| *port == gone));
            prop_assert!(after.difference(&before).count() <= 1);
        }
    }
}
