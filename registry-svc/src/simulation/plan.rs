//! What a seed decides before its history begins: who takes part, what the network and the disk are like, which faults happen
//! when.
//!
//! Each history has its own few kinds of faults (swarm testing, Groce et al. 2012): a history with all of them at once is so
//! busy recovering that little of what it does is ever exercised.

use std::time::Duration;

use super::{Time, replica::ORPHAN_GRACE, rng::Rng, store::SESSION};
use crate::{catalog::Protection, history::HistoryLimits};

/// Faults end here at the latest, and healing begins.
const TROUBLE_MAX: Duration = Duration::from_secs(14);
/// Traffic without faults at the beginning.
pub(super) const WARM_UP: Duration = Duration::from_secs(2);

/// A window of self-preservation.
const PROTECTION_WINDOW: Duration = Duration::from_millis(1_500);
/// The longest that it holds a lease back.
const PROTECTION_MAX: Duration = Duration::from_millis(2_500);

/// How long everything may take to be as it should be once nothing goes wrong: the longest time to live here (3 s), a recovery
/// (as long), the longest protection, and time to prove that it stays so.
const QUIET: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Registries over the store; 1 is the embedded one.
    pub(super) replicas: usize,
    /// Processes that register themselves.
    pub(super) providers: usize,
    /// Services among which they spread.
    pub(super) services: usize,
    /// Zones among which they spread.
    pub(super) zones: usize,
    /// Streams.
    pub(super) watchers: usize,
    /// Processes that read.
    pub(super) readers: usize,
    /// People who drain instances and give them weights.
    pub(super) operators: usize,
    /// Probers, each of which looks at the instances of any registry.
    pub(super) probers: usize,
    /// Of the catalog: short, so that it ends within a history.
    pub(super) protection: Protection,
    /// Of the hub and the store.
    pub(super) history: HistoryLimits,
    /// Of a snapshot, roughly.
    pub(super) part_bytes: usize,
    /// One way.
    pub(super) delay: (Duration, Duration),
    /// Messages in a thousand that take up to a second.
    pub(super) late: u32,
    /// Messages in a thousand that are lost.
    pub(super) lost: u32,
    /// Requests in a thousand that come twice.
    pub(super) twice: u32,
    /// One commit.
    pub(super) disk: (Duration, Duration),
    /// Whether a registry is told of its own commits too.
    pub(super) echo: bool,
    /// What goes wrong, in the order of time.
    pub(super) faults: Vec<(Time, Fault)>,
    /// From here on nothing goes wrong.
    pub(super) heal: Time,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// kill -9 or a power cut: what was not durable is gone. Started again after a time.
    Crash(Duration),
    /// SIGSTOP of a registry.
    Pause(Duration),
    /// Commits take so much longer, for a time.
    SlowStore(Duration, Duration),
    /// The next commit fails: the registry has to end itself.
    FailingStore,
    /// No client reaches one registry.
    Partition(Duration),
    /// The wall clock of one registry jumps by so many seconds.
    WallClock(i64),
    /// All providers of a zone stop for a time, or for ever.
    SilentZone(Option<Duration>),
    /// One provider dies.
    Death,
    /// One provider stops for a time and wakes as if nothing had happened.
    Sleep(Duration),
    /// One provider is started again elsewhere under the same names, while the first may still live.
    Succession,
    /// One provider leaves in good order.
    Leave,
    /// A new provider.
    Birth,
    /// All watchers lose their streams.
    Reconnect,
    /// All streams of heartbeats to one registry break, and their owners go on.
    BrokenStreams,
    /// The store has no room, for a time.
    FullStore(Duration),
    /// No registry reaches the store, for a time.
    StoreGone(Duration),
    /// One registry does not reach the store, for a time.
    CutOff(Duration),
    /// The registry that ends what the dead have left crashes.
    CrashElected(Duration),
}

impl Plan {
    /// The plan of a seed.
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let millis = Duration::from_millis;
        let crowded = rng.chance(250);
        let mut plan = Self {
            replicas: rng.pick(&[1, 1, 2, 3]),
            providers: if crowded { 10 + rng.below(8) } else { 2 + rng.below(7) },
            services: if crowded { 1 } else { 1 + rng.below(3) },
            zones: 1 + rng.below(2),
            watchers: 1 + rng.below(4),
            readers: 1,
            operators: 0,
            probers: 0,
            protection: Protection {
                enabled: true,
                share_percent: 15,
                window: PROTECTION_WINDOW,
                max: PROTECTION_MAX,
            },
            history: HistoryLimits {
                revisions: rng.pick(&[1, 2, 8, 32, 1_000, 1_000]),
                bytes: rng.pick(&[2_000, 1 << 20, 1 << 20]),
            },
            part_bytes: rng.pick(&[300, 1_000, 1 << 20]),
            delay: rng.pick(&[(millis(0), millis(1)), (millis(0), millis(5)), (millis(5), millis(60))]),
            late: rng.pick(&[0, 0, 5, 30]),
            lost: rng.pick(&[0, 0, 10, 50]),
            twice: rng.pick(&[0, 0, 10, 50]),
            disk: rng.pick(&[
                (millis(0), millis(0)),
                (millis(0), millis(2)),
                (millis(1), millis(20)),
                (millis(20), millis(150)),
            ]),
            echo: rng.chance(500),
            faults: Vec::new(),
            heal: WARM_UP,
        };
        plan.faults = Self::faults(rng);
        plan.heal = WARM_UP.max(
            plan.faults
                .iter()
                .map(|(at, fault)| *at + fault.lasts())
                .max()
                .unwrap_or(WARM_UP),
        ) + millis(1);
        plan
    }

    /// How many operators the history of a seed has: three of eight have some. Not drawn, for what is drawn after it would be
    /// another history, and the stories of seeds would be lost.
    pub(super) fn operators_of(seed: u64) -> usize {
        match seed % 8 {
            0 | 1 => 1,
            7 => 2,
            _ => 0,
        }
    }

    /// How many probers it has: one of three. Not drawn for the same reason, and none where a seed has a story to tell.
    pub(super) fn probers_of(seed: u64) -> usize {
        match seed % 16 {
            1 | 5 | 10 | 12 => 1,
            15 => 2,
            _ => 0,
        }
    }

    /// When the history ends.
    pub(super) fn end(&self) -> Time {
        match self.replicas {
            1 => self.heal + QUIET,
            _ => self.heal + QUIET + SESSION + ORPHAN_GRACE,
        }
    }

    fn faults(rng: &mut Rng) -> Vec<(Time, Fault)> {
        // The kinds of this history.
        let kinds: Vec<usize> = (0..=rng.below(4)).map(|_| rng.below(Fault::KINDS)).collect();
        let (shortest, longest) = rng.pick(&[(50, 500), (200, 2_000), (1_000, 4_000)]);
        let mut faults = Vec::new();
        let mut at = WARM_UP;
        loop {
            at += rng.between(Duration::from_millis(shortest), Duration::from_millis(longest));
            if at >= TROUBLE_MAX {
                return faults;
            }
            // Birth and succession keep a history from running out of providers.
            let kind = if rng.chance(200) {
                9 + 2 * rng.below(2)
            } else {
                rng.pick(&kinds)
            };
            faults.push((at, Fault::draw(kind, rng)));
        }
    }
}

impl Fault {
    const KINDS: usize = 18;

    fn draw(kind: usize, rng: &mut Rng) -> Self {
        let millis = Duration::from_millis;
        let mut time = |short: u64, long: u64| rng.between(millis(short), millis(long));
        match kind {
            0 => Self::Crash(time(1, 3_000)),
            1 => Self::Pause(time(20, 6_000)),
            2 => Self::SlowStore(time(50, 3_000), time(100, 4_000)),
            3 => Self::FailingStore,
            4 => Self::Partition(time(50, 4_000)),
            5 => Self::WallClock(if time(0, 1) == millis(0) { -86_400 } else { 86_400 }),
            6 => {
                let asleep = time(200, 6_000);
                Self::SilentZone((asleep < millis(3_000)).then_some(asleep))
            }
            7 => Self::Death,
            8 => Self::Sleep(time(100, 6_000)),
            9 => Self::Succession,
            10 => Self::Leave,
            11 => Self::Birth,
            12 => Self::Reconnect,
            13 => Self::BrokenStreams,
            14 => Self::FullStore(time(100, 4_000)),
            15 => Self::StoreGone(time(50, 7_000)),
            16 => Self::CutOff(time(50, 7_000)),
            _ => Self::CrashElected(time(1, 6_000)),
        }
    }

    /// How long its cause lasts.
    fn lasts(self) -> Duration {
        match self {
            Self::Crash(time)
            | Self::Pause(time)
            | Self::SlowStore(_, time)
            | Self::Partition(time)
            | Self::FullStore(time)
            | Self::StoreGone(time)
            | Self::CutOff(time)
            | Self::CrashElected(time)
            | Self::Sleep(time)
            | Self::SilentZone(Some(time)) => time,
            _ => Duration::ZERO,
        }
    }
}
