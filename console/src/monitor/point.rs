//! The calls of one stretch of time: by code, and by latency. Points add up; packed, they are what is kept, in memory as on disk.
//!
//! Packed is a sequence of LEB128 numbers: the sum of latencies, how many codes, each code with its count, then each bucket as its
//! distance from the one before, with its count. A point of a hundred calls takes some 60 bytes, where two lists take 600.

use std::{collections::BTreeMap, time::Duration};

use telemetry::stats::buckets;

/// gRPC has the codes 0 to 16.
pub(crate) const MAX_CODE: u32 = 16;

/// Calls by code and by latency.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Point {
    /// Counts by gRPC code; none is 0.
    pub(crate) codes: BTreeMap<u32, u64>,
    /// Counts by bucket; none is 0.
    pub(crate) latencies: BTreeMap<u32, u64>,
    /// All latencies together.
    pub(crate) total_micros: u64,
}

/// A point as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed(Box<[u8]>);

/// What was kept is no point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a point cannot be read")]
pub(crate) struct Unreadable;

impl Point {
    /// Adds the calls of another one.
    pub(crate) fn add(&mut self, other: &Self) {
        for (code, count) in &other.codes {
            let sum = self.codes.entry(*code).or_default();
            *sum = sum.saturating_add(*count);
        }
        for (bucket, count) in &other.latencies {
            let sum = self.latencies.entry(*bucket).or_default();
            *sum = sum.saturating_add(*count);
        }
        self.total_micros = self.total_micros.saturating_add(other.total_micros);
    }

    /// How many calls.
    pub(crate) fn calls(&self) -> u64 {
        self.codes.values().copied().fold(0, u64::saturating_add)
    }

    /// How many calls with codes that count as failures.
    pub(crate) fn errors(&self, is_error: impl Fn(i32) -> bool) -> u64 {
        let failed = |code: u32| i32::try_from(code).is_ok_and(&is_error);
        let counts = self
            .codes
            .iter()
            .filter(|(code, _)| failed(**code))
            .map(|(_, count)| *count);
        counts.fold(0, u64::saturating_add)
    }

    /// The latency that this share of the calls did not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let counts = self.latencies.iter().map(|(bucket, count)| (*bucket as usize, *count));
        buckets::quantile(counts, share)
    }

    /// The mean latency.
    pub(crate) fn mean(&self) -> Option<Duration> {
        let timed = self.latencies.values().copied().fold(0, u64::saturating_add);
        let nanos = (u128::from(self.total_micros) * 1_000).checked_div(u128::from(timed))?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// As it is kept.
    pub(crate) fn pack(&self) -> Packed {
        let mut bytes = Vec::with_capacity(8 + 4 * self.codes.len() + 3 * self.latencies.len());
        put(&mut bytes, self.total_micros);
        put(&mut bytes, self.codes.len() as u64);
        for (code, count) in &self.codes {
            put(&mut bytes, u64::from(*code));
            put(&mut bytes, *count);
        }
        let mut before = 0;
        for (bucket, count) in &self.latencies {
            put(&mut bytes, u64::from(bucket - before));
            put(&mut bytes, *count);
            before = *bucket;
        }
        Packed(bytes.into())
    }
}

impl Packed {
    /// From what was kept.
    ///
    /// # Errors
    /// It is no point.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let packed = Self(bytes.into());
        packed.unpack().map(|_| packed)
    }

    /// As bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The point.
    ///
    /// # Errors
    /// It is none. One that [`Packed::read`] or [`Point::pack`] has made always is.
    pub(crate) fn unpack(&self) -> Result<Point, Unreadable> {
        let mut rest = &*self.0;
        let mut point = Point {
            total_micros: take(&mut rest)?,
            ..Point::default()
        };
        for _ in 0..take(&mut rest)? {
            let code = u32::try_from(take(&mut rest)?).ok();
            let code = code.filter(|code| *code <= MAX_CODE).ok_or(Unreadable)?;
            point.codes.insert(code, take(&mut rest)?);
        }
        let mut bucket = 0_u64;
        while !rest.is_empty() {
            bucket = bucket.checked_add(take(&mut rest)?).ok_or(Unreadable)?;
            let known = u32::try_from(bucket).ok();
            let known = known
                .filter(|bucket| (*bucket as usize) < buckets::COUNT)
                .ok_or(Unreadable)?;
            point.latencies.insert(known, take(&mut rest)?);
        }
        Ok(point)
    }
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u64, Unreadable> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(Unreadable)?;
        *bytes = rest;
        let part = u64::from(first & 0x7f);
        // Of the tenth byte one bit is left.
        if shift == 63 && part > 1 {
            return Err(Unreadable);
        }
        number |= part << shift;
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Unreadable)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_point() -> impl Strategy<Value = Point> {
        let codes = prop::collection::btree_map(0..=MAX_CODE, 1..=u64::from(u32::MAX), 0..4);
        let latencies = prop::collection::btree_map(0..buckets::COUNT as u32, 1..=u64::from(u32::MAX), 0..30);
        (codes, latencies, 0..=u64::MAX / 4).prop_map(|(codes, latencies, total_micros)| Point {
            codes,
            latencies,
            total_micros,
        })
    }

    /// A point of calls that ended well and took so long.
    pub(crate) fn calls(code: u32, micros: &[u64]) -> Point {
        let mut point = Point::default();
        for micros in micros {
            let bucket = buckets::index(Duration::from_micros(*micros)) as u32;
            *point.codes.entry(code).or_default() += 1;
            *point.latencies.entry(bucket).or_default() += 1;
            point.total_micros += micros;
        }
        point
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(point in any_point()) {
            let packed = Packed::read(point.pack().bytes()).expect("readable");
            prop_assert_eq!(packed.unpack().expect("readable"), point);
        }

        #[test]
        fn adding_keeps_no_order(one in any_point(), two in any_point(), three in any_point()) {
            let sum = |points: [&Point; 3]| {
                let mut sum = Point::default();
                points.into_iter().for_each(|point| sum.add(point));
                sum
            };
            prop_assert_eq!(sum([&one, &two, &three]), sum([&three, &one, &two]));
        }

        #[test]
        fn garbage_is_refused_and_nothing_else_happens(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(packed) = Packed::read(&bytes) {
                packed.unpack().expect("what is read can be unpacked");
            }
        }

        /// Against the exact percentile of the very latencies, by the nearest rank.
        #[test]
        fn percentiles_are_within_three_percent(mut micros in prop::collection::vec(16_u64..60_000_000, 1..400)) {
            let point = calls(0, &micros);
            micros.sort_unstable();
            for share in [0.5, 0.9, 0.99, 0.999] {
                let rank = ((share * micros.len() as f64).ceil() as usize).max(1);
                let exact = micros[rank - 1] as f64;
                let told = point.quantile(share).expect("calls").as_secs_f64() * 1e6;
                prop_assert!((told - exact).abs() / exact <= 0.032, "p{share}: {told} for {exact}");
            }
        }
    }

    #[test]
    fn figures_are_of_the_counts() {
        let mut point = calls(0, &[1_000, 3_000]);
        point.add(&calls(5, &[2_000]));
        point.add(&calls(14, &[2_000]));
        assert_eq!(point.calls(), 4);
        assert_eq!(point.errors(telemetry::rpc::is_client_error), 2);
        assert_eq!(point.errors(telemetry::rpc::is_server_error), 1);
        assert_eq!(point.mean(), Some(Duration::from_millis(2)));
        assert_eq!(Point::default().mean(), None);
    }
}
