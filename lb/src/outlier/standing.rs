//! The life of an ejection as types: a transition consumes the old state. Pure.
//!
//! ```text
//! InService --eject--> Ejected --served--> OnProbation --let_through--> Proving
//!     ^                   ^                    ^                        |  |  |
//!     |                   |                    +------inconclusive------+  |  |
//!     |                   +-------------------------failed-----------------+  |
//!     +-----------------------------------------------proved------------------+
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::OutlierDetection;

/// Whether an instance is in service, and if not, how far it is on its way back.
#[derive(Debug)]
pub(crate) enum Standing {
    InService(InService),
    Ejected(Ejected),
    OnProbation(OnProbation),
    Proving(Proving),
}

/// Gets calls.
#[derive(Debug, Default)]
pub(crate) struct InService {
    /// Ejections that are not forgotten yet.
    times: u32,
}

/// Gets none until then.
#[derive(Debug)]
pub(crate) struct Ejected {
    times: u32,
    why: EjectionReason,
    until: Instant,
}

/// Its time is over: the next call goes there, and no other.
#[derive(Debug)]
pub(crate) struct OnProbation {
    times: u32,
    why: EjectionReason,
}

/// The one call is under way.
#[derive(Debug)]
pub(crate) struct Proving {
    times: u32,
    why: EjectionReason,
    since: Instant,
}

/// An instance that is out of service, as [`EndpointView`](crate::EndpointView) shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ejection {
    /// What it was ejected for.
    pub why: EjectionReason,
    /// How often in a row it was ejected; each time longer.
    pub times: u32,
    /// How long it gets no call at all; zero when it is only waiting to prove itself by one.
    pub remaining: Duration,
}

/// What an instance was ejected for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EjectionReason {
    /// So many failures without a success in between.
    ConsecutiveFailures,
    /// Far less success than the others.
    SuccessRate,
    /// Too large a share of failures.
    FailurePercentage,
    /// The call that it was to prove itself by failed.
    ProbeFailed,
}

impl Default for Standing {
    fn default() -> Self {
        Self::InService(InService::default())
    }
}

impl Standing {
    pub(crate) fn is_in_service(&self) -> bool {
        matches!(self, Self::InService(_))
    }

    pub(crate) fn ejection(&self, now: Instant) -> Option<Ejection> {
        let (why, times, remaining) = match self {
            Self::InService(_) => return None,
            Self::Ejected(Ejected { why, times, until }) => (why, times, until.saturating_duration_since(now)),
            Self::OnProbation(OnProbation { why, times }) | Self::Proving(Proving { why, times, .. }) => {
                (why, times, Duration::ZERO)
            }
        };
        Some(Ejection {
            why: *why,
            times: *times,
            remaining,
        })
    }

    /// When time alone will change it.
    pub(crate) fn due(&self, config: &OutlierDetection) -> Option<Instant> {
        match self {
            Self::InService(_) | Self::OnProbation(_) => None,
            Self::Ejected(ejected) => Some(ejected.until),
            // A call that has not ended after so long, a subscription say, proves nothing; another one may.
            Self::Proving(proving) => Some(proving.since + config.interval),
        }
    }

    /// What the passing of time makes of it, and whether that is something else.
    pub(crate) fn at(self, now: Instant, config: &OutlierDetection) -> (Self, bool) {
        match (self.due(config).is_some_and(|due| due <= now), self) {
            // Ejected -> OnProbation
            (true, Self::Ejected(ejected)) => (Self::OnProbation(ejected.served()), true),
            // Proving -> OnProbation
            (true, Self::Proving(proving)) => (Self::OnProbation(proving.inconclusive()), true),
            (_, standing) => (standing, false),
        }
    }
}

impl InService {
    /// `draw` is in 0..1, for the jitter.
    pub(crate) fn eject(self, why: EjectionReason, now: Instant, config: &OutlierDetection, draw: f64) -> Ejected {
        Ejected::again(self.times, why, now, config, draw)
    }

    /// gRFC A50: the multiplier decays by one with each sweep that finds it in service.
    pub(crate) fn swept(self) -> Self {
        Self {
            times: self.times.saturating_sub(1),
        }
    }
}

impl Ejected {
    fn again(times: u32, why: EjectionReason, now: Instant, config: &OutlierDetection, draw: f64) -> Self {
        let times = times.saturating_add(1);
        Self {
            times,
            why,
            until: now + config.ejection(times, draw),
        }
    }

    pub(crate) fn served(self) -> OnProbation {
        OnProbation {
            times: self.times,
            why: self.why,
        }
    }
}

impl OnProbation {
    pub(crate) fn let_through(self, now: Instant) -> Proving {
        Proving {
            times: self.times,
            why: self.why,
            since: now,
        }
    }
}

impl Proving {
    /// Back in service, the ejections not forgotten.
    pub(crate) fn proved(self) -> InService {
        InService { times: self.times }
    }

    pub(crate) fn failed(self, now: Instant, config: &OutlierDetection, draw: f64) -> Ejected {
        Ejected::again(self.times, EjectionReason::ProbeFailed, now, config, draw)
    }

    /// The call told nothing.
    pub(crate) fn inconclusive(self) -> OnProbation {
        OnProbation {
            times: self.times,
            why: self.why,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> OutlierDetection {
        OutlierDetection::default()
    }

    #[test]
    fn each_ejection_in_a_row_is_longer_and_clean_sweeps_forget_them() {
        let (config, mut now) = (config(), Instant::now());
        let mut ejected = InService::default().eject(EjectionReason::ConsecutiveFailures, now, &config, 0.0);
        for times in 1..=3 {
            assert_eq!((ejected.until - now).as_secs(), 30 * times);
            now = ejected.until;
            ejected = ejected.served().let_through(now).failed(now, &config, 0.0);
        }
        let in_service = ejected.served().let_through(now).proved();
        assert_eq!(in_service.times, 4);
        let forgotten = (0..3).fold(in_service, |in_service, _| in_service.swept());
        let ejected = forgotten.eject(EjectionReason::SuccessRate, now, &config, 0.0);
        assert_eq!((ejected.until - now).as_secs(), 60);
    }

    #[test]
    fn a_probe_that_tells_nothing_in_time_gives_way_to_another() {
        let (config, now) = (config(), Instant::now());
        let ejected = InService::default().eject(EjectionReason::SuccessRate, now, &config, 0.0);
        let standing = Standing::Proving(ejected.served().let_through(now));
        let (standing, changed) = standing.at(now + Duration::from_secs(9), &config);
        assert!(!changed);
        let (standing, changed) = standing.at(now + Duration::from_secs(10), &config);
        assert!(changed && matches!(standing, Standing::OnProbation(_)), "{standing:?}");
    }

    proptest! {
        /// Whatever happens in whatever order: it is out no longer than the longest ejection without a chance to prove itself,
        /// and in service again only by proof.
        #[test]
        fn nobody_is_out_for_ever_and_nobody_comes_back_unproved(
            events in prop::collection::vec((0_u8..4, 0_u64..400), 1..80), draw in 0.0_f64..1.0,
        ) {
            let (config, mut now) = (config(), Instant::now());
            let mut standing = Standing::default();
            for (event, seconds) in events {
                now += Duration::from_secs(seconds);
                let was_in_service = standing.is_in_service();
                standing = standing.at(now, &config).0;
                prop_assert_eq!(standing.is_in_service(), was_in_service);
                standing = match (event, standing) {
                    (0, Standing::InService(it)) => Standing::Ejected(it.eject(EjectionReason::SuccessRate, now, &config, draw)),
                    (_, Standing::InService(it)) => Standing::InService(it.swept()),
                    (_, Standing::OnProbation(it)) => Standing::Proving(it.let_through(now)),
                    (1, Standing::Proving(it)) => Standing::InService(it.proved()),
                    (2, Standing::Proving(it)) => Standing::Ejected(it.failed(now, &config, draw)),
                    (_, other) => other,
                };
                if let Some(due) = standing.due(&config) {
                    prop_assert!(due <= now + Duration::from_secs(300));
                }
            }
        }
    }
}
