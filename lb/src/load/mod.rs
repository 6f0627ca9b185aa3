//! What is known of how loaded instances are, beside their calls in flight. Fed by the ends of calls, read by the policies of
//! `pick`; it decides nothing.
//!
//! A [`Fleet`] is what all endpoints of a channel have in common, a [`Load`] what each has for itself. Which of it is measured at all
//! depends on the policy: what is off costs a look at a flag.

mod ewma;
mod hot;
mod occupancy;
mod probes;
mod report;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::HeaderMap;
use tokio::time::Instant;

pub(crate) use self::hot::{Hot, Places};
use self::{
    ewma::{LivePace, Pace},
    hot::{Blocks, Place},
    occupancy::Occupancy,
};
pub(crate) use self::{
    probes::{NOTHING, Probes, Ranked, SLOTS, Seen},
    report::Report,
};
use crate::{PeakEwma, Policy};

/// A moment, in steps of 131 us since the channel was made. It wraps after six days, and ages are right up to half of that;
/// whatever is older counts as new, which costs one call to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u32);

impl Tick {
    #[cfg(test)]
    pub(crate) const ZERO: Self = Self(0);

    /// So many nanoseconds are a tick: a power of two, so that a clock becomes a tick without a division.
    const NANOS_LOG2: u32 = 17;

    fn new(since_start: Duration) -> Self {
        let nanos = since_start.as_secs().wrapping_mul(1_000_000_000) + u64::from(since_start.subsec_nanos());
        Self((nanos >> Self::NANOS_LOG2) as u32)
    }

    /// In ticks.
    fn span(duration: Duration) -> f32 {
        (duration.as_nanos() as f32) / (1_u32 << Self::NANOS_LOG2) as f32
    }

    /// In ticks; none if `earlier` is later, which happens when two callers read the clock at about the same time.
    fn since(self, earlier: Self) -> f32 {
        (self.0.wrapping_sub(earlier.0) as i32).max(0) as f32
    }

    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.wrapping_add(Self::new(duration).0))
    }
}

/// What a policy wants to know: bits of [`Fleet::wanted`].
mod wanted {
    pub(super) const LATENCIES: u8 = 1;
    /// Calls in flight on all together.
    pub(super) const IN_FLIGHT: u8 = 2;
    pub(super) const REPORTS: u8 = 4;
    /// What keeps calls together with others.
    pub(super) const KEYS: u8 = 8;
}

/// What the endpoints of a channel have in common.
#[derive(Debug)]
pub(crate) struct Fleet {
    started: Instant,
    /// What is measured at all: all that a call looks at of what is not.
    wanted: AtomicU8,
    pace: LivePace,
    in_flight: AtomicU32,
    probes: ArcSwapOption<Probes>,
    endpoints: AtomicU32,
    blocks: Blocks,
}

impl Fleet {
    pub(crate) fn new(policy: &Policy) -> Self {
        let fleet = Self {
            started: Instant::now(),
            wanted: AtomicU8::new(0),
            pace: LivePace::new(PeakEwma::default().into()),
            in_flight: AtomicU32::new(0),
            probes: ArcSwapOption::empty(),
            endpoints: AtomicU32::new(0),
            blocks: Blocks::default(),
        };
        fleet.follow(policy);
        fleet
    }

    /// From here on what that policy asks for is measured. What is known already stays known.
    pub(crate) fn follow(&self, policy: &Policy) {
        let (wanted, pace) = match policy {
            Policy::PeakEwma(settings) => (wanted::LATENCIES, *settings),
            // For its penalties, and of whom nothing is reported.
            Policy::Prequal(_) => (wanted::LATENCIES | wanted::REPORTS, PeakEwma::default()),
            Policy::ConsistentHash(_) => (wanted::IN_FLIGHT | wanted::KEYS, PeakEwma::default()),
            // Whatever it may look at.
            Policy::Own(own) => {
                let keys = own.chooser().key().map_or(0, |_| wanted::KEYS);
                (wanted::LATENCIES | keys, PeakEwma::default())
            }
            _ => (0, PeakEwma::default()),
        };
        self.pace.set(pace.into());
        let probes = self.probes();
        self.probes.store(match policy {
            Policy::Prequal(settings) => {
                let kept = probes.filter(|probes| probes.settings() == settings);
                Some(kept.unwrap_or_else(|| Arc::new(Probes::new(*settings))))
            }
            _ => None,
        });
        self.wanted.store(wanted, Relaxed);
    }

    fn wants(&self, what: u8) -> bool {
        self.wanted.load(Relaxed) & what != 0
    }

    pub(crate) fn tick(&self, now: Instant) -> Tick {
        Tick::new(now.saturating_duration_since(self.started))
    }

    /// Calls in flight on all that have begun while somebody asked.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Whether the endpoints are asked how they are.
    pub(crate) fn wants_reports(&self) -> bool {
        self.wants(wanted::REPORTS)
    }

    /// Whether calls are kept together by a key.
    pub(crate) fn wants_keys(&self) -> bool {
        self.wants(wanted::KEYS)
    }

    /// What the endpoints said of themselves, if the policy asks for it.
    pub(crate) fn probes(&self) -> Option<Arc<Probes>> {
        self.probes.load_full()
    }

    /// The microseconds to be expected there at `now`; see [`Candidates::latency`](crate::pick::Candidates::latency).
    pub(crate) fn latency(&self, hot: &Hot, now: Tick) -> Option<f32> {
        hot.ewma.latency(now, &self.pace()?)
    }

    /// What is left of a penalty there; see [`Candidates::penalty`](crate::pick::Candidates::penalty).
    pub(crate) fn penalty(&self, hot: &Hot, now: Tick) -> f32 {
        self.pace().map_or(0.0, |pace| hot.ewma.penalty(now, &pace))
    }

    /// `None` where latencies are not asked for.
    fn pace(&self) -> Option<Pace> {
        self.wants(wanted::LATENCIES).then(|| self.pace.get())
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new(&Policy::default())
    }
}

/// What is known of one endpoint.
#[derive(Debug)]
pub(crate) struct Load {
    fleet: Arc<Fleet>,
    /// Tells it from the others of its fleet, those that are gone included. Not 0.
    number: u32,
    place: Place,
}

impl Default for Load {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.fleet.blocks.give_back(&self.place);
    }
}

impl Load {
    pub(crate) fn new(fleet: Arc<Fleet>) -> Self {
        Self {
            number: fleet.endpoints.fetch_add(1, Relaxed).wrapping_add(1),
            place: fleet.blocks.take(),
            fleet,
        }
    }

    /// What picks read of those endpoints, in that order.
    pub(crate) fn places<'a>(loads: impl Iterator<Item = &'a Self>) -> Places {
        Places::new(loads.map(|load| &load.place))
    }

    /// Calls under way there.
    pub(crate) fn occupancy(&self) -> &Occupancy {
        &self.place.hot().occupancy
    }

    /// A call has begun. Whether it is counted among all: its end needs to know, since that may change meanwhile.
    pub(crate) fn begins(&self) -> bool {
        let is_counted = self.fleet.wants(wanted::IN_FLIGHT);
        if is_counted {
            self.fleet.in_flight.fetch_add(1, Relaxed);
        }
        is_counted
    }

    /// It is over.
    pub(crate) fn is_over(&self, is_counted: bool) {
        if is_counted {
            self.fleet.in_flight.fetch_sub(1, Relaxed);
        }
    }

    /// A call that began then has got its first answer.
    pub(crate) fn answered(&self, began: Instant) {
        if let Some(pace) = &self.fleet.pace() {
            let now = Instant::now();
            self.ewma()
                .answered(now.saturating_duration_since(began), self.fleet.tick(now), pace);
        }
    }

    /// A call that began then was given up without an answer.
    pub(crate) fn given_up(&self, began: Instant) {
        if let Some(pace) = &self.fleet.pace() {
            let now = Instant::now();
            self.ewma()
                .given_up(now.saturating_duration_since(began), self.fleet.tick(now), pace);
        }
    }

    /// A call that began then has failed.
    pub(crate) fn failed(&self, began: Instant, pushback: Option<Duration>) {
        if let Some(pace) = &self.fleet.pace() {
            let now = Instant::now();
            let after = now.saturating_duration_since(began);
            self.ewma().failed(after, pushback, self.fleet.tick(now), pace);
        }
    }

    /// See the field.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// A call has ended with those trailers.
    pub(crate) fn says(&self, trailers: &HeaderMap) {
        if self.fleet.wants_reports()
            && let Some(probes) = &*self.fleet.probes.load()
            && let Some(report) = Report::of(trailers)
        {
            probes.add(self.number, report, self.fleet.tick(Instant::now()));
        }
    }

    /// It says so now.
    #[cfg(test)]
    pub(crate) fn hears(&self, report: Report) {
        if let Some(probes) = self.fleet.probes() {
            probes.add(self.number, report, self.fleet.tick(Instant::now()));
        }
    }

    /// A probe that began then was answered with those trailers. Without a report it counts what is seen from here.
    pub(crate) fn was_probed(&self, trailers: &HeaderMap, in_flight: u32, began: Instant) {
        let Some(probes) = self.fleet.probes() else { return };
        let instant = Instant::now();
        let now = self.fleet.tick(instant);
        let report = Report::of(trailers).unwrap_or_else(|| Report {
            rif: u16::try_from(in_flight).unwrap_or(u16::MAX),
            // A health check may be fast where the work is not: what calls took says more.
            latency: self
                .latency(now)
                .map_or_else(|| (instant - began).as_micros() as u32, |micros| micros as u32),
        });
        probes.add(self.number, report, now);
    }

    /// See [`Candidates::latency`](crate::pick::Candidates::latency).
    pub(crate) fn latency(&self, now: Tick) -> Option<f32> {
        self.fleet.latency(self.place.hot(), now)
    }

    fn ewma(&self) -> &ewma::Ewma {
        &self.place.hot().ewma
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_what_they_say() {
        let second = Duration::from_secs(1);
        assert_eq!(Tick::ZERO.after(second).since(Tick::ZERO), Tick::span(second).floor());
        assert_eq!(Tick::ZERO.since(Tick::ZERO.after(second)), 0.0);
        let week = 7 * 24 * 3600 * second;
        assert_eq!(
            Tick::ZERO.after(week + second).since(Tick::ZERO.after(week)),
            Tick::span(second).floor()
        );
    }
}
