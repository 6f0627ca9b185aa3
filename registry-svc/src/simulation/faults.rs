//! What goes wrong in a world, and to whom.

use std::time::Duration;

use super::{
    clients::provider::Phase,
    invariants::Seen,
    plan::Fault,
    world::{Event, World},
};

impl World {
    /// A fault happens.
    pub(super) fn fault(&mut self, fault: Fault) {
        self.note("world", format_args!("{fault:?}"));
        let now = self.truth.now;
        let replica = self.rng.below(self.plan.replicas);
        match fault {
            Fault::Crash(down) => self.crashes(replica, down),
            Fault::Pause(time) => self.stops(replica, time),
            Fault::SlowStore(by, time) => {
                self.store.slow = by;
                // The last commit that sets out within it takes that long.
                self.see(Seen::Trouble { until: now + time + by });
                self.at(now + time, Event::StoreRecovers);
            }
            Fault::FailingStore => self.store.failing = true,
            Fault::Partition(time) => {
                self.cut_off.insert(replica, now + time);
            }
            Fault::WallClock(by) => self.replicas[replica].wall_skew += by,
            Fault::SilentZone(asleep) => {
                let zone = self.rng.below(self.plan.zones);
                for n in 0..self.providers.len() {
                    if self.providers[n].zone == zone {
                        self.silence(n, asleep);
                    }
                }
            }
            Fault::Death => {
                if let Some(n) = self.somebody() {
                    self.silence(n, None);
                }
            }
            Fault::Sleep(time) => {
                if let Some(n) = self.somebody() {
                    self.silence(n, Some(time));
                }
            }
            Fault::Succession => {
                if let Some(n) = self.somebody() {
                    // The first one dies, sleeps on, or lives and fights for its names.
                    match self.rng.below(3) {
                        0 => self.silence(n, None),
                        1 => {
                            let time = self.rng.between(Duration::from_millis(500), Duration::from_secs(6));
                            self.silence(n, Some(time));
                        }
                        _ => {}
                    }
                    self.born(Some(n));
                }
            }
            Fault::Leave => {
                if let Some(n) = self.somebody() {
                    self.providers[n].leave();
                }
            }
            Fault::Birth => self.born(None),
            Fault::Reconnect => {
                for n in 0..self.watches.len() {
                    self.watches[n].disconnect();
                    self.watches[n].home = self.rng.below(self.plan.replicas);
                }
            }
            Fault::BrokenStreams => {
                for n in 0..self.providers.len() {
                    if self.providers[n].home == replica {
                        self.breaks(n);
                    }
                }
            }
            Fault::FullStore(time) => {
                self.store.full = true;
                self.see(Seen::Trouble {
                    until: now + time + Duration::from_secs(1),
                });
                self.at(now + time, Event::StoreHasRoom);
            }
            Fault::StoreGone(time) => self.loses(None, time),
            Fault::CutOff(time) => self.loses(Some(replica), time),
            Fault::CrashElected(down) => {
                let elected = self.store.sessions.first().copied();
                let elected = (0..self.plan.replicas).find(|replica| elected == Some(self.id(*replica)));
                self.crashes(elected.unwrap_or(replica), down);
            }
        }
    }

    /// A provider that is there.
    fn somebody(&mut self) -> Option<usize> {
        let there: Vec<usize> = (0..self.providers.len())
            .filter(|n| !matches!(self.providers[*n].phase, Phase::Gone))
            .collect();
        (!there.is_empty()).then(|| self.rng.pick(&there))
    }

    /// A disk does not go away.
    fn loses(&mut self, whom: Option<usize>, time: Duration) {
        if self.plan.replicas > 1 {
            self.loses_the_store(whom, time);
        }
    }

    /// The stream of a provider's heartbeats breaks, and its registry notices.
    fn breaks(&mut self, n: usize) {
        let home = self.providers[n].home;
        if let Some(owner) = self.providers[n].owner()
            && let Some(delay) = self.passes(home)
        {
            let life = self.replicas[home].life;
            self.at(self.truth.now + delay, Event::Breaks(home, life, owner.lease));
        }
    }

    /// A provider stops, for a time or for ever.
    fn silence(&mut self, n: usize, asleep: Option<Duration>) {
        match asleep {
            // It goes on at the latest when the faults end.
            Some(time) => self.providers[n].asleep = Some((self.truth.now + time).min(self.plan.heal)),
            None => {
                self.breaks(n);
                self.providers[n].die();
            }
        }
    }
}
