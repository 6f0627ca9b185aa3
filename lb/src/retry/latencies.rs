//! How long the recent calls of a method took, as far as a percentile needs to know: two tables of counters that take turns.
//!
//! Not a record of every call: buckets are an eighth apart, so a percentile is at most an eighth too long (and never too
//! short: a hedge that is sent a little late costs less than one that was not needed).

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// A table is filled for so long, then it is only read for so long, then it is emptied.
const TURN: Duration = Duration::from_secs(30);
/// With fewer calls than this a percentile says little.
const ENOUGH: u64 = 32;
/// Microseconds up to 2^32, which is more than an hour, in eighths of powers of two.
const BUCKETS: usize = 8 * 30;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Latencies {
    began: Instant,
    tables: [Table; 2],
}

#[derive(Debug)]
struct Table {
    /// Which turn it was last filled in, plus one: zero is never.
    turn: AtomicU64,
    counts: [AtomicU32; BUCKETS],
}

impl Latencies {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            began: now,
            tables: std::array::from_fn(|_| Table {
                turn: AtomicU64::new(0),
                counts: std::array::from_fn(|_| AtomicU32::new(0)),
            }),
        }
    }

    /// A call was answered after that time.
    pub(crate) fn record(&self, latency: Duration, now: Instant) {
        let turn = self.turn(now);
        let table = &self.tables[(turn % 2) as usize];
        // Who finds an old table empties it; what others count meanwhile may be lost, which a percentile survives.
        let filled = table.turn.load(Ordering::Relaxed);
        if filled < turn
            && table
                .turn
                .compare_exchange(filled, turn, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            for count in &table.counts {
                count.store(0, Ordering::Relaxed);
            }
        }
        table.counts[bucket_of(latency)].fetch_add(1, Ordering::Relaxed);
    }

    /// The time within which that share of the recent calls was answered; none before there were enough.
    pub(crate) fn percentile(&self, share: f64, now: Instant) -> Option<Duration> {
        let turn = self.turn(now);
        let recent = || {
            let is_recent = move |table: &&Table| table.turn.load(Ordering::Relaxed) + 1 >= turn;
            self.tables.iter().filter(is_recent)
        };
        let count_in = |bucket: usize| -> u64 {
            recent()
                .map(|table| u64::from(table.counts[bucket].load(Ordering::Relaxed)))
                .sum()
        };
        let total: u64 = (0..BUCKETS).map(count_in).sum();
        if total < ENOUGH {
            return None;
        }
        let rank = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let bucket = (0..BUCKETS).find(|bucket| {
            seen += count_in(*bucket);
            seen >= rank
        });
        Some(upper_bound(bucket.unwrap_or(BUCKETS - 1)))
    }

    fn turn(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / TURN.as_secs() + 1
    }
}

fn bucket_of(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    if micros < 8 {
        return micros as usize;
    }
    let power = micros.ilog2() as usize;
    let eighth = (micros >> (power - 3)) as usize & 7;
    ((power - 2) * 8 + eighth).min(BUCKETS - 1)
}

/// The least time that is longer than all of a bucket.
fn upper_bound(bucket: usize) -> Duration {
    if bucket < 8 {
        return Duration::from_micros(bucket as u64 + 1);
    }
    let (power, eighth) = (bucket / 8 + 2, bucket as u64 % 8);
    Duration::from_micros((8 + eighth + 1) << (power - 3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn few_calls_say_nothing_and_old_ones_are_forgotten() {
        let now = Instant::now();
        let latencies = Latencies::new(now);
        for _ in 0..31 {
            latencies.record(MILLI, now);
        }
        assert_eq!(latencies.percentile(0.5, now), None);
        latencies.record(MILLI, now);
        assert!(latencies.percentile(0.5, now).is_some());
        assert!(
            latencies.percentile(0.5, now + TURN).is_some(),
            "the turn before still counts"
        );
        assert_eq!(latencies.percentile(0.5, now + 2 * TURN), None);
        for _ in 0..32 {
            latencies.record(100 * MILLI, now + 2 * TURN);
        }
        let later = latencies.percentile(0.01, now + 2 * TURN).expect("enough");
        assert!(later >= 100 * MILLI, "{later:?}: the table was emptied first");
    }

    proptest! {
        #[test]
        fn a_percentile_is_never_too_short_and_at_most_an_eighth_too_long(
            mut micros in prop::collection::vec(0_u64..100_000_000, 40..400),
            share in 0.01_f64..0.99,
        ) {
            let now = Instant::now();
            let latencies = Latencies::new(now);
            for micros in &micros {
                latencies.record(Duration::from_micros(*micros), now);
            }
            micros.sort_unstable();
            let exact = micros[(micros.len() as f64 * share).ceil() as usize - 1];
            let told = latencies.percentile(share, now).expect("enough").as_micros() as u64;
            prop_assert!(told > exact && told <= exact + exact / 8 + 1, "{told} for {exact}");
        }

        #[test]
        fn buckets_are_in_order(micros in 0_u64..4_000_000_000) {
            let bucket = bucket_of(Duration::from_micros(micros));
            prop_assert!(bucket < BUCKETS);
            prop_assert!(bucket <= bucket_of(Duration::from_micros(micros + 1)));
        }
    }
}
