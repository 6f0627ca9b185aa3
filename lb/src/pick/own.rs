//! Policies that are not of this crate: what they are asked, and what they may look at. A read-only view; nothing here chooses.

use std::{fmt, sync::Arc, time::Duration};

use super::{Candidates, Draw, HashKey, random};
use crate::{load::Tick, pool::Attributes};

/// How the instance of a call is chosen, where none of the policies of this crate does: for [`Policy::own`](crate::Policy::own).
///
/// It is asked for every attempt, in the task of the call: it must not block, and should not allocate. What it has to remember it keeps
/// in atomics. Outlier ejection, slow start (by weights), routes, zones and the room on connections are seen to before and after it.
///
/// ```
/// use lb::{Choose, Draw, Instances};
///
/// /// The instance with the fewest calls in flight in the largest machine.
/// #[derive(Debug)]
/// struct BySize;
///
/// impl Choose for BySize {
///     fn name(&self) -> &'static str {
///         "by_size"
///     }
///
///     fn choose(&self, instances: &Instances<'_>, _: &Draw) -> Option<usize> {
///         let cores = |index: usize| instances.get(index)?.metadata("cores")?.parse::<u32>().ok();
///         (0..instances.len()).max_by_key(|index| (cores(*index), std::cmp::Reverse(instances.in_flight(*index))))
///     }
/// }
///
/// let policy = lb::Policy::own(BySize);
/// # assert_eq!(policy, policy.clone());
/// ```
pub trait Choose: fmt::Debug + Send + Sync + 'static {
    /// The index of the instance that the call goes to, below [`Instances::len`], which is at least one. `None`, and any other number,
    /// is no opinion: then it is one of them at random, in proportion to their weights.
    ///
    /// An instance that has had the call already, or has no room for it, is passed over after this: then the next one in order that
    /// may have it is taken, or this is asked again of those with room.
    fn choose(&self, instances: &Instances<'_>, draw: &Draw) -> Option<usize>;

    /// What explanations, events and metrics call it. Default: `own`.
    fn name(&self) -> &'static str {
        "own"
    }

    /// What it goes by, in words, for explanations.
    fn criterion(&self) -> &'static str {
        "as a policy of the caller's own has it"
    }

    /// By what calls are to be told apart: the digest of that is [`Draw::key`]. Asked when the policy is set, and for every call.
    /// Default: nothing, and no call has a key.
    fn key(&self) -> Option<&HashKey> {
        None
    }
}

/// A [`Choose`] as part of a [`Policy`](crate::Policy). It is equal to its clones, and to nothing else.
#[derive(Clone, Debug)]
pub struct OwnPolicy(pub(super) Arc<dyn Choose>);

impl PartialEq for OwnPolicy {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl OwnPolicy {
    pub(crate) fn chooser(&self) -> &dyn Choose {
        &*self.0
    }

    pub(super) fn pick(&self, candidates: &impl Candidates, draw: Draw) -> Option<usize> {
        let count = candidates.len();
        if count == 0 {
            return None;
        }
        let instances = Instances {
            of: candidates,
            now: draw.now,
        };
        let chosen = self.0.choose(&instances, &draw).filter(|index| *index < count);
        chosen.or_else(|| random::weighted(candidates, draw.bits))
    }
}

/// The instances that a call may go to: connected, in service, on its route. At least one.
///
/// Their order stays while the set stays. Numbers change under the eyes of who reads them, as calls begin and end.
pub struct Instances<'a> {
    of: &'a dyn Candidates,
    now: Tick,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct InstanceRef<'a> {
    pub(crate) id: &'a str,
    pub(crate) address: &'a str,
    pub(crate) weight: u32,
    pub(crate) attributes: &'a Attributes,
}

impl Instances<'_> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether there are none. A policy is not asked then.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What there is to know of the one at `index`; `None` from [`Instances::len`] on.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<InstanceRef<'_>> {
        (index < self.len()).then(|| self.of.about(index))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = InstanceRef<'_>> {
        (0..self.len()).map(|index| self.of.about(index))
    }

    /// Calls of this channel under way on the one at `index`, each until its response has ended; 0 from [`Instances::len`] on.
    #[must_use]
    pub fn in_flight(&self, index: usize) -> u32 {
        if index < self.len() {
            self.of.in_flight(index)
        } else {
            0
        }
    }

    /// How long a call to the one at `index` is to be expected to take until its answer: a moving average of what this channel's calls
    /// took, in which failures count as slow ([`PeakEwma`](crate::PeakEwma) has its rules and its defaults). `None` if nothing is known.
    #[must_use]
    pub fn expected_latency(&self, index: usize) -> Option<Duration> {
        let micros = (index < self.len()).then(|| self.of.latency(index, self.now))??;
        Some(Duration::from_micros(micros as u64))
    }
}

impl fmt::Debug for Instances<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> InstanceRef<'a> {
    /// Its id; of a fixed target, its address. The same for as long as it lives, wherever it moves.
    #[must_use]
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> &'a str {
        self.address
    }

    /// Its share of the calls in relation to the others', above 0: what it was registered with (100 by default), less while it starts
    /// slowly, shifted where zones or several registries count.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Its version, as it says itself; may be empty.
    #[must_use]
    pub fn version(&self) -> &'a str {
        &self.attributes.version
    }

    /// Where it runs; may be empty.
    #[must_use]
    pub fn zone(&self) -> &'a str {
        &self.attributes.zone
    }

    /// Its group; may be empty.
    #[must_use]
    pub fn group(&self) -> &'a str {
        &self.attributes.group
    }

    /// Its traffic tag; empty means untagged.
    #[must_use]
    pub fn tag(&self) -> &'a str {
        &self.attributes.tag
    }

    /// What its metadata have under `key`.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&'a str> {
        self.attributes.metadata.get(key).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Policy,
        pick::testing::{Table, close, proportional, shares, spread},
    };

    /// A policy that is one function.
    struct By<F>(F);

    impl<F> fmt::Debug for By<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("By")
        }
    }

    impl<F: Fn(&Instances<'_>, &Draw) -> Option<usize> + Send + Sync + 'static> Choose for By<F> {
        fn choose(&self, instances: &Instances<'_>, draw: &Draw) -> Option<usize> {
            self.0(instances, draw)
        }
    }

    fn next(policy: &Policy, table: &Table, bits: u64) -> Option<usize> {
        let draw = Draw {
            bits,
            now: Tick::ZERO,
            key: None,
        };
        policy.pick(table, || 0, draw)
    }

    #[test]
    fn it_sees_what_there_is_to_see_and_decides() {
        let policy = Policy::own(By(|instances: &Instances<'_>, draw: &Draw| {
            assert_eq!((instances.len(), instances.is_empty(), draw.random()), (3, false, 7));
            let [first, .., last] = &instances.iter().collect::<Vec<_>>()[..] else {
                panic!("three")
            };
            assert_eq!((first.weight(), last.weight(), last.id()), (100, 300, "2"));
            assert_eq!(instances.in_flight(1), 5);
            assert_eq!(instances.expected_latency(1), Some(Duration::from_millis(2)));
            assert!(instances.get(3).is_none() && instances.expected_latency(0).is_none());
            Some(1)
        }));
        let mut table = Table::new(&[100, 200, 300]);
        table.loads[1] = 5;
        table.latencies[1] = Some(2000.0);
        assert_eq!(next(&policy, &table, 7), Some(1));
    }

    #[test]
    fn no_opinion_and_nonsense_are_random_by_weight_and_nobody_is_not_asked() {
        let weights = [100, 300, 200];
        for opinion in [None, Some(3), Some(usize::MAX)] {
            let policy = Policy::own(By(move |_: &Instances<'_>, _: &Draw| opinion));
            let got = shares(Table::new(&weights), 20_000, 0, |table, bits| {
                next(&policy, table, bits)
            });
            close(&got, &proportional(&weights), 0.02);
            assert_eq!(next(&policy, &Table::new(&[]), spread(1)), None);
        }
    }
}
