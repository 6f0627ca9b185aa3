//! Where a rule sends calls: a narrowing of the instances, or several by weight. What a narrowing admits, and which part of a
//! split a key belongs to; not which rule applies.

use std::{collections::BTreeMap, fmt};

use http::HeaderName;
use semver::VersionReq;
use twox_hash::XxHash64;

use super::rule::{InvalidRoute, header_name};
use crate::pool::Attributes;

/// Each part is looked at for every call that is split.
const MAX_PARTS: usize = 16;
/// As the weights of instances.
const MAX_WEIGHT: u32 = 1000;

/// Some of the instances, by what they say of themselves. All that is asked has to hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subset {
    version: Option<VersionReq>,
    group: Option<String>,
    zone: Option<String>,
    tag: Option<String>,
    metadata: BTreeMap<String, String>,
}

/// Several narrowings, each with its share of the calls. A [`Subset`] alone is a split of one part.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// With the hash of what it says: that a part is moved in the list moves no calls.
    parts: Vec<Part>,
    key: Option<HeaderName>,
}

#[derive(Clone, Debug, PartialEq)]
struct Part {
    subset: Subset,
    weight: u32,
    hash: u64,
}

impl Subset {
    /// Every instance that the call's tag lets it reach.
    #[must_use]
    pub fn every() -> Self {
        Self::default()
    }

    /// Instances whose version lies in `range`, as Cargo writes ranges: `>=1.4.0, <2.0.0`, `^2`, `~1.4`, `=1.4.2`. A bare `1.4` is
    /// `^1.4`. An instance without a semantic version is in no range, and a pre-release only in one that names a pre-release of
    /// the same version.
    ///
    /// # Errors
    /// `range` is not one.
    pub fn version(self, range: &str) -> Result<Self, InvalidRoute> {
        let version = VersionReq::parse(range).map_err(|source| InvalidRoute::Version {
            range: range.to_owned(),
            source,
        })?;
        Ok(Self {
            version: Some(version),
            ..self
        })
    }

    /// Instances of this group.
    #[must_use]
    pub fn group(self, group: impl Into<String>) -> Self {
        Self {
            group: Some(group.into()),
            ..self
        }
    }

    /// Instances in this zone.
    #[must_use]
    pub fn zone(self, zone: impl Into<String>) -> Self {
        Self {
            zone: Some(zone.into()),
            ..self
        }
    }

    /// Instances with this tag, whatever the call's own is. Like a call's own tag it falls back to untagged instances unless the
    /// rule is forced.
    #[must_use]
    pub fn tag(self, tag: impl Into<String>) -> Self {
        Self {
            tag: Some(tag.into()),
            ..self
        }
    }

    /// Instances whose metadata have this pair.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The tag that it asks for.
    pub(crate) fn wanted_tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Whether such an instance is in it, its tag aside.
    pub(crate) fn admits(&self, instance: &Attributes) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        let version = || match (&self.version, &instance.semver) {
            (None, _) => true,
            (Some(range), Some(version)) => range.matches(version),
            (Some(_), None) => false,
        };
        let pairs = || {
            let mut wanted = self.metadata.iter();
            wanted.all(|(key, value)| instance.metadata.get(key) == Some(value))
        };
        same(&self.group, &instance.group) && same(&self.zone, &instance.zone) && version() && pairs()
    }
}

impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = false;
        let mut say = |f: &mut fmt::Formatter<'_>, what: &str, value: &dyn fmt::Display| {
            let comma = if std::mem::replace(&mut said, true) { ", " } else { "" };
            write!(f, "{comma}{what} {value}")
        };
        if let Some(version) = &self.version {
            say(f, "version", version)?;
        }
        for (what, value) in [("group", &self.group), ("zone", &self.zone), ("tag", &self.tag)] {
            if let Some(value) = value {
                say(f, what, &format_args!("{value:?}"))?;
            }
        }
        for (key, value) in &self.metadata {
            say(f, "metadata", &format_args!("{key}={value:?}"))?;
        }
        if said { Ok(()) } else { f.write_str("every instance") }
    }
}

impl Split {
    /// Each subset with its weight, 0 to 1000: it gets that share of the sum.
    ///
    /// # Errors
    /// No parts or more than 16, a weight above 1000, or none above 0.
    pub fn try_new(parts: impl IntoIterator<Item = (Subset, u32)>) -> Result<Self, InvalidRoute> {
        let part = |(subset, weight): (Subset, u32)| Part {
            hash: XxHash64::oneshot(0, subset.to_string().as_bytes()),
            subset,
            weight,
        };
        let parts: Vec<Part> = parts.into_iter().map(part).collect();
        if parts.is_empty() || parts.len() > MAX_PARTS {
            return Err(InvalidRoute::Parts { count: parts.len() });
        }
        let weights = || parts.iter().map(|part| part.weight);
        if weights().any(|weight| weight > MAX_WEIGHT) || weights().all(|weight| weight == 0) {
            return Err(InvalidRoute::Weights);
        }
        Ok(Self { parts, key: None })
    }

    /// Calls with the same value of this header go to the same part. When weights change, no more of the values move than have to:
    /// one that stays in a part that grows stays there. A call without the header is drawn at random.
    ///
    /// # Errors
    /// `header` cannot be the name of one.
    pub fn sticky_by(self, header: &str) -> Result<Self, InvalidRoute> {
        Ok(Self {
            key: Some(header_name(header)?),
            ..self
        })
    }

    pub(crate) fn subsets(&self) -> impl Iterator<Item = &Subset> {
        self.parts.iter().map(|part| &part.subset)
    }

    /// The index of the part that a call goes to. `draw` is 64 random bits, for calls without a key.
    pub(crate) fn choose(&self, headers: &http::HeaderMap, draw: u64) -> usize {
        if self.parts.len() == 1 {
            return 0;
        }
        match self.key.as_ref().and_then(|key| headers.get(key)) {
            Some(value) => self.part_of(value.as_bytes()),
            None => self.drawn(draw),
        }
    }

    fn drawn(&self, draw: u64) -> usize {
        let total: u64 = self.parts.iter().map(|part| u64::from(part.weight)).sum();
        // Multiplication instead of division: even enough for weights of at most 1000, with 32 random bits.
        let mut point = ((draw >> 32) * total) >> 32;
        for (index, part) in self.parts.iter().enumerate() {
            match point.checked_sub(u64::from(part.weight)) {
                Some(rest) => point = rest,
                None => return index,
            }
        }
        self.parts.len() - 1
    }

    /// Weighted rendezvous hashing: each part draws, from the key, an exponentially distributed waiting time with its weight as the
    /// rate, and the first one has it (Schindelhauer, Schomaker, "Weighted Distributed Hash Tables", 2005). That one's share is
    /// its weight's, and a change of a weight moves values only to or from its part.
    fn part_of(&self, key: &[u8]) -> usize {
        let (mut best, mut shortest) = (0, f64::INFINITY);
        for (index, part) in self.parts.iter().enumerate().filter(|(_, part)| part.weight > 0) {
            let hash = XxHash64::oneshot(part.hash, key);
            // The upper 53 bits as a number in (0, 1]: its logarithm is finite.
            let unit = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
            let wait = -unit.ln() / f64::from(part.weight);
            if wait < shortest {
                (best, shortest) = (index, wait);
            }
        }
        best
    }
}

impl From<Subset> for Split {
    fn from(subset: Subset) -> Self {
        Self {
            parts: vec![Part {
                subset,
                weight: 1,
                hash: 0,
            }],
            key: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    fn attributes(version: &str) -> Attributes {
        Attributes {
            semver: version.parse().ok(),
            version: version.to_owned(),
            group: "blue".to_owned(),
            zone: "a".to_owned(),
            metadata: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
            ..Attributes::default()
        }
    }

    fn split(weights: &[u32]) -> Split {
        let part = |(n, weight): (usize, &u32)| (Subset::every().group(format!("g{n}")), *weight);
        Split::try_new(weights.iter().enumerate().map(part)).expect("good weights")
    }

    #[test]
    fn versions_are_compared_as_semantic_versions() {
        for (range, version, expected) in [
            (">=1.4.0, <2.0.0", "1.10.0", true),
            (">=1.4.0, <2.0.0", "2.0.0", false),
            ("^2", "2.7.1", true),
            ("~1.4", "1.4.9", true),
            ("~1.4", "1.5.0", false),
            ("=1.4.2", "1.4.2", true),
            ("*", "1.0.0", true),
            (">=1.0.0", "2.0.0-rc.1", false),
            (">=2.0.0-rc.1", "2.0.0-rc.2", true),
            ("*", "", false),
            ("*", "nightly", false),
        ] {
            let subset = Subset::every().version(range).expect(range);
            assert_eq!(subset.admits(&attributes(version)), expected, "{version} in {range}");
        }
    }

    #[test]
    fn all_that_is_asked_has_to_hold() {
        let is = attributes("1.0.0");
        assert!(Subset::every().admits(&is));
        assert!(
            Subset::every()
                .group("blue")
                .zone("a")
                .metadata("disk", "ssd")
                .admits(&is)
        );
        assert!(!Subset::every().group("green").zone("a").admits(&is));
        assert!(!Subset::every().zone("b").admits(&is));
        assert!(!Subset::every().metadata("disk", "tape").admits(&is));
        assert!(!Subset::every().metadata("gpu", "").admits(&is));
    }

    #[test]
    fn a_subset_says_what_it_asks() {
        assert_eq!(Subset::every().to_string(), "every instance");
        let asked = Subset::every()
            .version(">=1.4.0")
            .expect("a range")
            .tag("gray")
            .metadata("disk", "ssd");
        assert_eq!(
            asked.to_string(),
            "version >=1.4.0, tag \"gray\", metadata disk=\"ssd\""
        );
    }

    #[test]
    fn splits_that_make_no_sense_are_refused() {
        assert!(Split::try_new([]).is_err());
        assert!(Split::try_new((0..17).map(|_| (Subset::every(), 1))).is_err());
        assert!(Split::try_new([(Subset::every(), 0)]).is_err());
        assert!(Split::try_new([(Subset::every(), 1001)]).is_err());
    }

    proptest! {
        #[test]
        fn shares_follow_the_weights_with_a_key_and_without(weights in prop::collection::vec(0_u32..=1000, 2..6)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let split = split(&weights);
            let mut rng = StdRng::seed_from_u64(7);
            let (mut drawn, mut kept) = (vec![0_u32; weights.len()], vec![0_u32; weights.len()]);
            let calls = 20_000_u32;
            for n in 0..calls {
                drawn[split.drawn(rng.next_u64())] += 1;
                kept[split.part_of(format!("user-{n}").as_bytes())] += 1;
            }
            let total: u32 = weights.iter().sum();
            for (index, weight) in weights.iter().enumerate() {
                let expected = f64::from(*weight) / f64::from(total);
                for counts in [&drawn, &kept] {
                    let share = f64::from(counts[index]) / f64::from(calls);
                    prop_assert!((share - expected).abs() < 0.02, "{counts:?} for {weights:?}");
                }
                prop_assert!(*weight > 0 || drawn[index] + kept[index] == 0);
            }
        }

        /// A gray release in steps: who was let in stays in, or people would see the new version come and go.
        #[test]
        fn a_part_that_grows_loses_nobody(weights in prop::collection::vec(0_u32..=500, 2..6), more in 1_u32..500, keys in prop::collection::vec(any::<u64>(), 50)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let mut grown = weights.clone();
            grown[0] += more;
            let (before, after) = (split(&weights), split(&grown));
            for key in keys {
                let key = key.to_be_bytes();
                let (was, is) = (before.part_of(&key), after.part_of(&key));
                prop_assert!(is == was || is == 0, "{was} became {is}");
            }
        }

        #[test]
        fn the_same_key_always_goes_the_same_way(key in "[!-~]{1,40}", a in any::<u64>(), b in any::<u64>()) {
            let split = split(&[30, 70]).sticky_by("x-user").expect("a name");
            let mut headers = HeaderMap::new();
            headers.insert("x-user", HeaderValue::from_str(&key).expect("visible"));
            prop_assert_eq!(split.choose(&headers, a), split.choose(&headers, b));
        }
    }
}
