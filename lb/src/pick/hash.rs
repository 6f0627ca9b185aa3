//! Consistent hashing with bounded load: a key's calls go to the same instance for as long as that is there and not overloaded.
//!
//! The table is Maglev's (Eisenbud et al., NSDI'16, section 3.4): every instance has a permutation of the table's cells, drawn from
//! *what it is* and not from where it is, and they take turns at claiming the next free cell of theirs. A pick is then one
//! look into the table, whatever the number of instances. A ring of the same evenness is several times as large and needs
//! a search; the price of the table is that when an instance comes or goes, a few keys of others move as well.
//!
//! Bounded load (Mirrokni et al., 2016): an instance that has `factor` times its share of all calls in flight is passed over, and
//! the next cells of the table say who is next. So a key that everybody wants is spread, and always over the same ones.

use std::num::NonZeroU32;

use http::{HeaderMap, HeaderName};
use twox_hash::XxHash64;

use super::{Candidates, Draw, Weights, mix, random};
use crate::protobuf::fields;

/// The paper's smaller size, and Envoy's: a prime, and a hundred times as many as 655 instances. Shares are even to a per cent
/// up to there; with ten thousand instances they are off by a fifth, but the table still fits into a core's own cache.
const CELLS: usize = 65_537;

/// So many cells are looked at for one that is not overloaded. One of the instances never is, but with many that are, finding it
/// is not worth more time; then the least busy of those seen has it.
const MAX_STEPS: usize = 32;

/// What makes two calls go to the same instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HashKey {
    /// The value of that request header, which is metadata as well (gRFC A76; several values count as one list).
    Header(HeaderName),
    /// The field of that number at the top level of the request message: a string, bytes, a number or a message. If it is repeated,
    /// the last one. Only for requests that are a single message, and not compressed.
    Field(NonZeroU32),
}

impl HashKey {
    /// The digest of the key of a request with those headers and that body, which is framed as gRPC does. `None` if it has none.
    pub(crate) fn digest(&self, headers: &HeaderMap, body: Option<&[u8]>) -> Option<u64> {
        match self {
            Self::Header(name) => {
                let mut values = headers.get_all(name).iter();
                let first = values.next()?.as_bytes();
                let mut list: Option<Vec<u8>> = None;
                for value in values {
                    let list = list.get_or_insert_with(|| first.to_vec());
                    list.push(b',');
                    list.extend(value.as_bytes());
                }
                Some(hash(list.as_deref().unwrap_or(first)))
            }
            Self::Field(number) => {
                // A flag for compression, the length, the message.
                let [0, _, _, _, _, message @ ..] = body? else {
                    return None;
                };
                let of_number = fields(message).filter(|(found, _)| *found == u64::from(number.get()));
                of_number.last().map(|(_, content)| hash(content))
            }
        }
    }
}

fn hash(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// The number by which consistent hashing knows an instance.
pub(crate) fn identity(instance_id: &str) -> u64 {
    hash(instance_id.as_bytes())
}

/// Who has which keys. Made when the set of instances changes, off the way of calls: it takes milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Maglev {
    /// Identities and weights.
    of: Vec<(u64, u32)>,
    cells: Box<[u16]>,
}

impl Maglev {
    /// For those identities and weights; `None` for none. Only the first 65,535 get keys.
    pub(crate) fn new(of: Vec<(u64, u32)>) -> Option<Self> {
        const FREE: u16 = u16::MAX;
        let of_table = &of[..of.len().min(usize::from(FREE))];
        let heaviest = u64::from(of_table.iter().map(|(_, weight)| *weight).max()?.max(1));
        let cells_u64 = CELLS as u64;
        // The next cell of each one's permutation, the way to the one after it, and what it may claim by now.
        let mut turns: Vec<(u64, u64, u64)> = of_table
            .iter()
            .map(|(identity, _)| (identity % cells_u64, mix(*identity) % (cells_u64 - 1) + 1, 0))
            .collect();
        let mut cells = vec![FREE; CELLS].into_boxed_slice();
        let mut free = CELLS;
        loop {
            for (index, (cell, step, claims)) in turns.iter_mut().enumerate() {
                // Who weighs half as much as the heaviest has every second turn.
                *claims += u64::from(of_table[index].1);
                if *claims < heaviest {
                    continue;
                }
                *claims -= heaviest;
                // A permutation reaches every cell, and one is free.
                while cells[*cell as usize] != FREE {
                    *cell = (*cell + *step) % cells_u64;
                }
                cells[*cell as usize] = index as u16;
                free -= 1;
                if free == 0 {
                    return Some(Self { of, cells });
                }
            }
        }
    }

    /// Whether this is the table of those.
    pub(crate) fn is_of(&self, of: &[(u64, u32)]) -> bool {
        self.of == of
    }

    /// Who has the key, then who has it next, and so on; some more than once.
    fn owners(&self, key: u64) -> impl Iterator<Item = usize> {
        let (before, from) = self.cells.split_at((key % CELLS as u64) as usize);
        from.iter().chain(before).map(|index| usize::from(*index))
    }
}

/// The index of the next candidate, or `None` when there is none. `factor` is in 1/1024.
pub(super) fn pick(candidates: &impl Candidates, factor: u64, draw: Draw) -> Option<usize> {
    let Some(key) = draw.key else {
        return random::weighted(candidates, draw.bits);
    };
    let (weight_of, total): (&dyn Fn(usize) -> u64, u64) = match candidates.weights() {
        Weights::Equal => (&|_| 1, candidates.len() as u64),
        Weights::Mixed(weights) => (&|index| u64::from(weights.of(index)), weights.total()),
    };
    // The call that is being placed counts as well, so that an idle fleet has room.
    let bound = (u64::from(candidates.all_in_flight()) + 1).saturating_mul(factor);
    let has_room = |index: usize| {
        let busy = u64::from(candidates.in_flight(index)) * 1024;
        busy.saturating_mul(total) < bound.saturating_mul(weight_of(index))
    };
    let Some(maglev) = candidates.maglev() else {
        return rendezvous(candidates, key, weight_of);
    };
    let mut owners = maglev.owners(key);
    let first = owners.next()?;
    if has_room(first) {
        return Some(first);
    }
    let mut best = first;
    for index in owners.take(MAX_STEPS) {
        if has_room(index) {
            return Some(index);
        }
        if candidates.in_flight(index) < candidates.in_flight(best) {
            best = index;
        }
    }
    Some(best)
}

/// For a set that has no table, since it is made for one pick (those that have room for a stream, when the first choice had
/// none): the highest of random numbers that only key and instance determine (Thaler and Ravishankar, 1998).
fn rendezvous(candidates: &impl Candidates, key: u64, weight_of: impl Fn(usize) -> u64) -> Option<usize> {
    let lot = |index: usize| {
        // Between 0 and 1, without either.
        let unit = ((mix(key ^ candidates.identity(index)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -unit.ln() / weight_of(index) as f64
    };
    (0..candidates.len()).min_by(|a, b| lot(*a).total_cmp(&lot(*b)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        load::Tick,
        pick::testing::{Table, close, proportional, spread},
    };

    fn draw(key: impl Into<Option<u64>>) -> Draw {
        Draw {
            bits: spread(1),
            now: Tick::ZERO,
            key: key.into(),
        }
    }

    fn table(weights: &[u32]) -> Table {
        let mut table = Table::new(weights);
        table.maglev = maglev(&table.identities, weights);
        table
    }

    fn maglev(identities: &[u64], weights: &[u32]) -> Option<Maglev> {
        Maglev::new(identities.iter().copied().zip(weights.iter().copied()).collect())
    }

    /// The identities of the owners of so many keys.
    fn owners(table: &Table, keys: u64) -> Vec<u64> {
        (0..keys)
            .map(|key| table.identities[pick(table, 1280, draw(spread(key))).expect("not empty")])
            .collect()
    }

    fn moved(before: &[u64], after: &[u64]) -> f64 {
        let moved = before.iter().zip(after).filter(|(before, after)| before != after);
        moved.count() as f64 / before.len() as f64
    }

    #[test]
    fn nobody_and_one() {
        assert_eq!(pick(&Table::new(&[]), 1280, draw(7)), None);
        assert!(Maglev::new(Vec::new()).is_none());
        assert_eq!(pick(&table(&[3]), 1280, draw(7)), Some(0));
    }

    #[test]
    fn keys_are_shared_in_proportion_to_weight() {
        for weights in [&[100; 10][..], &[100, 300], &[1000, 10, 500]] {
            let table = table(weights);
            let mut counts = vec![0.0; weights.len()];
            for owner in table.maglev.as_ref().expect("not empty").cells.iter() {
                counts[usize::from(*owner)] += 1.0 / CELLS as f64;
            }
            close(&counts, &proportional(weights), 0.001);
        }
    }

    #[test]
    fn without_a_key_any_will_do() {
        let table = table(&[100; 3]);
        let met: std::collections::HashSet<_> = (0..100)
            .filter_map(|n| {
                let bits = spread(n);
                pick(&table, 1280, Draw { bits, ..draw(None) })
            })
            .collect();
        assert_eq!(met.len(), 3);
    }

    #[test]
    fn who_is_overloaded_is_passed_over_and_its_keys_go_to_the_same_ones() {
        let mut table = table(&[100; 5]);
        let busy = pick(&table, 1280, draw(7)).expect("not empty");
        // 41 calls with this one: 10.25 for each.
        table.loads = vec![8; 5];
        table.loads[busy] = 10;
        table.loads[(busy + 1) % 5] = 6;
        assert_eq!(pick(&table, 1280, draw(7)), Some(busy));
        table.loads[busy] = 11;
        table.loads[(busy + 1) % 5] = 5;
        let other = pick(&table, 1280, draw(7)).expect("not empty");
        assert_ne!(other, busy);
        assert_eq!(pick(&table, 1280, draw(7)), Some(other));
        // By weight: the heavy one may have more.
        let mut table = self::table(&[100, 300]);
        table.loads = vec![1, 3];
        for key in 0..100 {
            assert!(pick(&table, 1280, draw(spread(key))).is_some());
        }
    }

    #[test]
    fn a_set_without_a_table_keeps_keys_together_too() {
        let weights = [100, 100, 200];
        let all = Table::new(&weights);
        let before = owners(&all, 20_000);
        let counts: Vec<f64> = all
            .identities
            .iter()
            .map(|identity| before.iter().filter(|owner| *owner == identity).count() as f64 / 20_000.0)
            .collect();
        close(&counts, &proportional(&weights), 0.015);
        let mut fewer = Table::new(&weights[..2]);
        fewer.identities = all.identities[..2].to_vec();
        for (before, after) in before.iter().zip(owners(&fewer, 20_000)) {
            assert!(*before == after || *before == all.identities[2]);
        }
    }

    #[test]
    fn a_key_is_a_header_or_a_field() {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("user-id");
        let key = HashKey::Header(name.clone());
        assert_eq!(key.digest(&headers, None), None);
        headers.insert(name.clone(), HeaderValue::from_static("alice"));
        assert_eq!(key.digest(&headers, None), Some(hash(b"alice")));
        headers.append(name, HeaderValue::from_static("bob"));
        assert_eq!(key.digest(&headers, None), Some(hash(b"alice,bob")));

        // 1: varint 300, 2: "abc", 3: fixed32, 4: fixed64, 2: "xy"
        let mut message = vec![0x08, 0xac, 0x02, 0x12, 3];
        message.extend(b"abc\x1d1234\x2112345678\x12\x02xy");
        let mut body = vec![0, 0, 0, 0, message.len() as u8];
        body.extend(&message);
        let of = |number| {
            let key = HashKey::Field(NonZeroU32::new(number).expect("not zero"));
            key.digest(&headers, Some(&body))
        };
        let expected: [&[u8]; 4] = [&[0xac, 0x02], b"xy", b"1234", b"12345678"];
        for (number, content) in (1..).zip(expected) {
            assert_eq!(of(number), Some(hash(content)), "{number}");
        }
        assert_eq!(of(5), None);
        body[0] = 1;
        let compressed = HashKey::Field(NonZeroU32::MIN).digest(&headers, Some(&body));
        assert_eq!(compressed, None);
    }

    proptest! {
        // Each case builds tables.
        #![proptest_config(ProptestConfig::with_cases(12))]

        /// The bound is 2/N; one instance that goes takes 1/N of the keys along anyway.
        #[test]
        fn few_keys_move_when_one_goes_or_comes(count in 3_usize..60, gone in any::<prop::sample::Index>()) {
            let all = table(&vec![100; count]);
            let gone = gone.index(count);
            let mut fewer = Table::new(&vec![100; count - 1]);
            fewer.identities = all.identities.clone();
            fewer.identities.remove(gone);
            fewer.maglev = maglev(&fewer.identities, &vec![100; count - 1]);
            let moved = moved(&owners(&all, 5000), &owners(&fewer, 5000));
            prop_assert!(moved <= 2.0 / count as f64, "{moved} of {count}");
        }

        #[test]
        fn nobody_gets_more_than_its_bound(count in 2_usize..20, hot in prop::collection::vec(0_u64..4, 200)) {
            let mut table = table(&vec![100; count]);
            for key in hot {
                let index = pick(&table, 1280, draw(spread(key))).expect("not empty");
                table.loads[index] += 1;
                let bound = (f64::from(table.all_in_flight()) * 1.25 / count as f64).ceil();
                prop_assert!(f64::from(table.loads[index]) <= bound, "{:?}", table.loads);
            }
        }
    }
}
