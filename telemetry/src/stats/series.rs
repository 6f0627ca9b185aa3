//! One series: the calls of one method with one peer, counted by code and latency in a few shards. Recording takes no lock and
//! allocates nothing; what was counted is taken as a delta.
//!
//! Taking is not one moment for all counters: a call that ends meanwhile may have its latency in one delta and its code in the
//! next. Every count is in exactly one delta, so sums over time are exact.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use super::buckets;

/// Codes 0 to 16 of the specification; anything else is counted as UNKNOWN.
const CODES: usize = 17;
const UNKNOWN: usize = 2;

/// Shards of a series at the most. Each has 2 KiB; with one for each of four threads that record at a time, two that meet at one
/// counter are rare enough.
const MAX_SHARDS: usize = 4;

/// From which end a call was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// By the caller, over all attempts. The peer is empty: it is the service.
    Caller,
    /// By the caller, one attempt. The peer is the instance's id, or its address where it has none.
    Attempt,
    /// By the provider. The peer is the service that calls, as it says of itself; empty where it says nothing.
    Provider,
}

/// What a series is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The end that counted.
    pub side: Side,
    /// The service that is called; empty on a provider, which is that itself.
    pub service: Box<str>,
    /// `package.Service/Method`.
    pub method: Box<str>,
    /// As [`Side`] says.
    pub peer: Box<str>,
}

/// What was counted since the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// What it is of.
    pub key: Key,
    /// gRPC codes (0 to 16) and how many calls ended so, in the order of the codes, without zeros.
    pub codes: Vec<(u32, u64)>,
    /// [`buckets`] and how many calls took so long, in their order, without zeros.
    pub latencies: Vec<(u32, u64)>,
    /// How long all of them took together, in microseconds.
    pub total_micros: u64,
}

/// The counters of one key.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) key: Key,
    shards: Box<[Shard]>,
    /// For how many takings in a row nothing was counted.
    idle: AtomicU32,
}

/// Apart from its neighbours by two cache lines, which processors fetch together.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    codes: [AtomicU64; CODES],
    total_micros: AtomicU64,
    /// Four billion calls of one bucket within one interval would overflow it.
    latencies: [AtomicU32; buckets::COUNT],
}

impl Series {
    pub(super) fn new(key: Key) -> Self {
        let shard = || Shard {
            codes: std::array::from_fn(|_| AtomicU64::new(0)),
            total_micros: AtomicU64::new(0),
            latencies: std::array::from_fn(|_| AtomicU32::new(0)),
        };
        Self {
            key,
            shards: (0..shards()).map(|_| shard()).collect(),
            idle: AtomicU32::new(0),
        }
    }

    pub(super) fn is_of(&self, side: Side, service: &str, method: &str, peer: &str) -> bool {
        let key = &self.key;
        key.side == side && *key.method == *method && *key.peer == *peer && *key.service == *service
    }

    pub(super) fn record(&self, code: i32, took: Duration) {
        let code = usize::try_from(code)
            .ok()
            .filter(|code| *code < CODES)
            .unwrap_or(UNKNOWN);
        let shard = &self.shards[SHARD.with(|shard| *shard) & (self.shards.len() - 1)];
        shard.latencies[buckets::index(took)].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        shard.total_micros.fetch_add(micros, Ordering::Relaxed);
        // The last one: whoever takes the code finds the rest.
        shard.codes[code].fetch_add(1, Ordering::Release);
    }

    /// What was counted since the last time; `None` if nothing was.
    pub(super) fn take(&self) -> Option<Delta> {
        let mut codes = [0_u64; CODES];
        let mut latencies = Vec::new();
        let mut total_micros = 0_u64;
        for shard in &self.shards {
            let mut any = false;
            for (sum, code) in codes.iter_mut().zip(&shard.codes) {
                let count = code.swap(0, Ordering::Acquire);
                *sum += count;
                any |= count > 0;
            }
            // A shard without a code has at most a latency whose code is yet to come, and that is taken with it.
            if !any {
                continue;
            }
            total_micros = total_micros.saturating_add(shard.total_micros.swap(0, Ordering::Relaxed));
            for (index, bucket) in (0_u32..).zip(&shard.latencies) {
                // A read is far cheaper than a swap, and most buckets are empty.
                if bucket.load(Ordering::Relaxed) > 0 {
                    latencies.push((index, u64::from(bucket.swap(0, Ordering::Relaxed))));
                }
            }
        }
        let codes: Vec<(u32, u64)> = (0..).zip(codes).filter(|(_, count)| *count > 0).collect();
        if codes.is_empty() {
            self.idle.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.idle.store(0, Ordering::Relaxed);
        Some(Delta {
            key: self.key.clone(),
            codes,
            latencies: merged(latencies),
            total_micros,
        })
    }

    /// For how many takings in a row nothing was counted.
    pub(super) fn idle(&self) -> u32 {
        self.idle.load(Ordering::Relaxed)
    }
}

/// The buckets of all shards in order, each once.
fn merged(mut latencies: Vec<(u32, u64)>) -> Vec<(u32, u64)> {
    latencies.sort_unstable();
    latencies.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    latencies
}

/// A power of two.
fn shards() -> usize {
    thread::available_parallelism().map_or(1, |threads| threads.get().next_power_of_two().min(MAX_SHARDS))
}

thread_local! {
    /// Threads are dealt to the shards in turn.
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}
