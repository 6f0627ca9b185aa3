//! The buckets of latencies: log-linear, the same everywhere, so that histograms of many processes can be added. Pure.
//!
//! Sixteen buckets an octave of microseconds, as HdrHistogram has them: what a quantile answers is at most 1/32 (3.2 %) away from
//! the value it stands for, from 16 µs to [`LONGEST`]; below, it is half a microsecond. A few hundred counters
//! cover all of it, where buckets of equal width would need millions.

use std::time::Duration;

/// Buckets an octave, as a power of two.
const SUB_BITS: u32 = 4;
const SUB: u64 = 1 << SUB_BITS;
/// 2^32 µs are 71 min: longer than any call but a subscription.
const OCTAVES: u32 = 32;

/// How many buckets there are.
pub const COUNT: usize = (SUB as usize) * ((OCTAVES - SUB_BITS) as usize + 1);

/// What takes longer counts as this.
pub const LONGEST: Duration = Duration::from_micros((1 << OCTAVES) - 1);

/// The bucket of a latency.
#[must_use]
pub fn index(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    if micros < SUB {
        // Below 16, so it fits.
        return micros as usize;
    }
    let octave = micros.ilog2();
    if octave >= OCTAVES {
        return COUNT - 1;
    }
    let sub = (micros >> (octave - SUB_BITS)) & (SUB - 1);
    let octaves = octave - SUB_BITS + 1;
    (u64::from(octaves) * SUB + sub) as usize
}

/// The latencies of a bucket in microseconds: from the first, and below the second. An index that is none reads as the last.
#[must_use]
pub fn bounds(index: usize) -> (u64, u64) {
    let index = index.min(COUNT - 1) as u64;
    let (octaves, sub) = (index >> SUB_BITS, index & (SUB - 1));
    match octaves {
        0 => (sub, sub + 1),
        octaves => {
            let width = 1 << (octaves - 1);
            let lower = (SUB + sub) * width;
            (lower, lower + width)
        }
    }
}

/// The latency that stands for a bucket: the middle of it.
#[must_use]
pub fn middle(index: usize) -> Duration {
    let (lower, upper) = bounds(index);
    Duration::from_nanos((lower + upper) * 500)
}

/// The latency that a share `quantile` (0 to 1) of the calls did not exceed, by the nearest rank; `None` of no calls. `counts` are
/// buckets with their counts, in the order of the buckets.
pub fn quantile(counts: impl Iterator<Item = (usize, u64)> + Clone, quantile: f64) -> Option<Duration> {
    let total: u64 = counts.clone().map(|(_, count)| count).sum();
    // Counts are far below 2^52, where a float is exact.
    let rank = ((quantile.clamp(0.0, 1.0) * total as f64).ceil() as u64).max(1);
    let mut below = 0;
    for (index, count) in counts {
        below += count;
        if below >= rank && count > 0 {
            return Some(middle(index));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_begins_where_the_one_before_ends() {
        let mut end = 0;
        for bucket in 0..COUNT {
            let (lower, upper) = bounds(bucket);
            assert_eq!(lower, end, "bucket {bucket}");
            for inside in [lower, upper - 1] {
                assert_eq!(index(Duration::from_micros(inside)), bucket, "{inside} µs");
            }
            end = upper;
        }
        assert_eq!(Duration::from_micros(end - 1), LONGEST);
        assert_eq!(index(Duration::MAX), COUNT - 1);
    }

    #[test]
    fn the_middle_is_near_every_value_of_its_bucket() {
        for bucket in SUB as usize..COUNT {
            let (lower, upper) = bounds(bucket);
            let middle = middle(bucket).as_secs_f64() * 1e6;
            for value in [lower as f64, upper as f64] {
                let error = (middle - value).abs() / value;
                assert!(error <= 1.0 / 32.0 + 1e-9, "bucket {bucket}: {error}");
            }
        }
    }

    #[test]
    fn quantiles_go_by_the_nearest_rank() {
        let check = |counts: &[(usize, u64)], at: f64, expected: Option<u64>| {
            let found = quantile(counts.iter().copied(), at);
            let expected = expected.map(|micros| Duration::from_nanos(micros * 1_000 + 500));
            assert_eq!(found, expected, "{counts:?} at {at}");
        };
        check(&[], 0.5, None);
        check(&[(3, 0)], 0.5, None);
        check(&[(3, 1)], 0.0, Some(3));
        check(&[(3, 1)], 1.0, Some(3));
        check(&[(1, 50), (9, 50)], 0.5, Some(1));
        check(&[(1, 50), (9, 50)], 0.51, Some(9));
        check(&[(1, 98), (9, 1), (12, 1)], 0.99, Some(9));
    }
}
