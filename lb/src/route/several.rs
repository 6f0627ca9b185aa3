//! Which of several registries a call's instances come from. Pure.
//!
//! Dubbo's rule for registries in several zones: the preferred one, else one in the caller's zone, else all in proportion to their
//! weights, else the first one; always among those that have somebody for the call.

/// What is known of one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rank {
    pub(crate) is_preferred: bool,
    pub(crate) zone: Option<String>,
    /// 0: only as the first available one.
    pub(crate) weight: u32,
}

/// The share of calls of each of `ranks`, of which those in `present` have somebody. Sums to one if any is present.
pub(crate) fn shares(own_zone: Option<&str>, ranks: &[Rank], present: &[bool]) -> Vec<f64> {
    let mut shares = vec![0.0; ranks.len()];
    let available = || {
        ranks
            .iter()
            .enumerate()
            .filter(|(index, _)| present.get(*index) == Some(&true))
    };
    let preferred = available().find(|(_, rank)| rank.is_preferred);
    let near = || available().find(|(_, rank)| rank.zone.is_some() && rank.zone.as_deref() == own_zone);
    let total: u64 = available().map(|(_, rank)| u64::from(rank.weight)).sum();
    match preferred.or_else(near) {
        Some((only, _)) => shares[only] = 1.0,
        None if total > 0 => {
            for (index, rank) in available() {
                shares[index] = f64::from(rank.weight) / total as f64;
            }
        }
        None => {
            if let Some((first, _)) = available().next() {
                shares[first] = 1.0;
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(is_preferred: bool, zone: &str, weight: u32) -> Rank {
        Rank {
            is_preferred,
            zone: (!zone.is_empty()).then(|| zone.to_owned()),
            weight,
        }
    }

    #[test]
    fn preferred_then_near_then_weighted_then_first() {
        let ranks = [
            rank(false, "", 0),
            rank(false, "b", 30),
            rank(false, "a", 10),
            rank(true, "c", 0),
        ];
        let check = |own: Option<&str>, present: [bool; 4], expected: [f64; 4]| {
            assert_eq!(shares(own, &ranks, &present), expected, "{own:?} {present:?}");
        };
        check(Some("a"), [true; 4], [0.0, 0.0, 0.0, 1.0]);
        check(Some("a"), [true, true, true, false], [0.0, 0.0, 1.0, 0.0]);
        check(Some("z"), [true, true, true, false], [0.0, 0.75, 0.25, 0.0]);
        // Without a zone of its own nothing is near, not even what has none either.
        check(None, [true, true, true, false], [0.0, 0.75, 0.25, 0.0]);
        check(Some("a"), [true, true, false, false], [0.0, 1.0, 0.0, 0.0]);
        check(Some("a"), [true, false, false, false], [1.0, 0.0, 0.0, 0.0]);
        check(Some("a"), [false; 4], [0.0; 4]);
    }
}
