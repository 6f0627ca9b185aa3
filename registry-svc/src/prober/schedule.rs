//! When which instance is probed, and what its probes come to. Pure: the time and random bits are arguments.
//!
//! An instance has at most one probe under way. Down after several misses in a row, up after one answer; a verdict that is what the
//! registry says already is none.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use crate::model::{Epoch, Health, Instance, InstanceKey, Moment, Probe};

/// Within this an instance is probed for the first time.
const FIRST: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    targets: HashMap<InstanceKey, Target>,
    queue: BTreeSet<(Moment, InstanceKey)>,
}

#[derive(Debug)]
struct Target {
    instance: Arc<Instance>,
    missed: u32,
    /// Its place in the queue; `None`: a probe is under way.
    due: Option<Moment>,
}

/// What probes have come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) key: InstanceKey,
    pub(super) epoch: Epoch,
    pub(super) health: Health,
}

impl Schedule {
    /// An instance is to be probed from now on, or has changed.
    pub(super) fn put(&mut self, instance: Arc<Instance>, now: Moment, draw: u64) {
        let same = |former: &Target| {
            let (former, instance) = (&former.instance, &instance);
            former.epoch == instance.epoch && former.spec.probe == instance.spec.probe
        };
        if let Some(target) = self.targets.get_mut(&instance.key).filter(|target| same(target)) {
            target.instance = instance;
            return;
        }
        self.remove(&instance.key);
        // One that has never been probed soon; the others, after a restart, not all at once.
        let interval = interval(&instance);
        let within = match instance.health {
            Health::Unprobed => FIRST.min(interval),
            Health::Passing | Health::Failing => interval,
        };
        let due = now.plus(share(within, draw));
        self.queue.insert((due, instance.key.clone()));
        let target = Target {
            missed: 0,
            due: Some(due),
            instance,
        };
        self.targets.insert(target.instance.key.clone(), target);
    }

    /// It is not to be probed any more.
    pub(super) fn remove(&mut self, key: &InstanceKey) {
        if let Some(target) = self.targets.remove(key)
            && let Some(due) = target.due
        {
            self.queue.remove(&(due, key.clone()));
        }
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// What is due, the longest overdue first, at most `room` of them. Each is under way until [`Self::ended`] or
    /// [`Self::later`].
    pub(super) fn take_due(&mut self, now: Moment, room: usize) -> Vec<Arc<Instance>> {
        let mut due = Vec::new();
        while due.len() < room && self.next_due().is_some_and(|due| due <= now) {
            let Some((_, key)) = self.queue.pop_first() else { break };
            if let Some(target) = self.targets.get_mut(&key) {
                target.due = None;
                due.push(Arc::clone(&target.instance));
            }
        }
        due
    }

    /// A probe has ended. A verdict is to be made known, and then [`Self::later`] to be called; where there is none, that is done.
    pub(super) fn ended(
        &mut self,
        key: &InstanceKey,
        epoch: Epoch,
        passed: bool,
        now: Moment,
        draw: u64,
    ) -> Option<Verdict> {
        let target = self.targets.get_mut(key)?;
        if target.instance.epoch != epoch {
            return None;
        }
        let allowed = target.instance.spec.probe.as_deref().map_or(1, Probe::misses);
        target.missed = match passed {
            true => 0,
            false => target.missed.saturating_add(1).min(allowed),
        };
        let health = match passed {
            true => Health::Passing,
            false if target.missed >= allowed => Health::Failing,
            false => target.instance.health,
        };
        if health == target.instance.health {
            self.later(key, epoch, now, draw);
            return None;
        }
        Some(Verdict {
            key: key.clone(),
            epoch,
            health,
        })
    }

    /// It is probed again after its interval, give or take a tenth.
    pub(super) fn later(&mut self, key: &InstanceKey, epoch: Epoch, now: Moment, draw: u64) {
        if let Some(target) = self.targets.get_mut(key)
            && target.instance.epoch == epoch
            && target.due.is_none()
        {
            let interval = interval(&target.instance);
            let due = now.plus(interval.mul_f64(0.9) + share(interval.mul_f64(0.2), draw));
            target.due = Some(due);
            self.queue.insert((due, key.clone()));
        }
    }
}

fn interval(instance: &Instance) -> Duration {
    instance.spec.probe.as_deref().map_or(FIRST, Probe::interval)
}

/// A part of it that is drawn.
fn share(of: Duration, draw: u64) -> Duration {
    // 32 of the bits are a fraction.
    #[allow(clippy::cast_precision_loss, reason = "32 bits fit in a float's 52")]
    let part = (draw >> 32) as f64 / (1_u64 << 32) as f64;
    of.mul_f64(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{WALL, draft, key},
        model::{LeaseId, Revision},
    };

    const INTERVAL: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    fn instance(id: &str, epoch: u64, health: Health) -> Arc<Instance> {
        let mut draft = draft("a-svc", id, "");
        let probe = Probe::try_new(Some(INTERVAL), None, 3, None).expect("a probe");
        draft.spec.probe = Some(Arc::new(probe));
        let registered = draft.registered(Revision::new(epoch), LeaseId::from_random(1), WALL);
        Arc::new(Instance { health, ..registered })
    }

    /// One instance, as the registry has it now.
    struct One {
        schedule: Schedule,
        health: Health,
        now: u64,
    }

    impl One {
        /// `+` for a probe that passes, `-` for one that does not; returns what is told: `P`assing, `F`ailing, or nothing.
        fn probes(&mut self, probes: &str) -> String {
            let mut told = String::new();
            for probe in probes.chars() {
                self.now += 11;
                let due = self.schedule.take_due(at(self.now), 8);
                assert_eq!(due.len(), 1, "once in an interval");
                assert!(
                    self.schedule.take_due(at(self.now + 100), 8).is_empty(),
                    "one at a time"
                );
                let epoch = due[0].epoch;
                let verdict = self
                    .schedule
                    .ended(&due[0].key, epoch, probe == '+', at(self.now), u64::MAX);
                told.push(match verdict.as_ref().map(|verdict| verdict.health) {
                    Some(Health::Passing) => 'P',
                    Some(Health::Failing) => 'F',
                    Some(Health::Unprobed) => '?',
                    None => '.',
                });
                if let Some(verdict) = verdict {
                    self.health = verdict.health;
                    self.schedule.put(instance("a", 1, self.health), at(self.now), 0);
                    self.schedule.later(&verdict.key, epoch, at(self.now), 0);
                }
            }
            told
        }
    }

    fn one() -> One {
        let mut schedule = Schedule::default();
        schedule.put(instance("a", 1, Health::Unprobed), at(0), 0);
        One {
            schedule,
            health: Health::Unprobed,
            now: 0,
        }
    }

    #[test]
    fn failing_after_three_in_a_row_and_passing_after_one() {
        assert_eq!(one().probes("++--+--+"), "P.......");
        assert_eq!(one().probes("+---"), "P..F");
        assert_eq!(one().probes("-----+--+---"), "..F..P.....F");
    }

    /// A verdict that could not be made durable is found again by the next probe, not forgotten.
    #[test]
    fn what_was_not_heard_is_told_again() {
        let mut one = one();
        for _ in 0..3 {
            one.now += 11;
            let due = one.schedule.take_due(at(one.now), 8);
            let verdict = one.schedule.ended(&due[0].key, due[0].epoch, true, at(one.now), 0);
            assert_eq!(verdict.map(|verdict| verdict.health), Some(Health::Passing));
            one.schedule.later(&due[0].key, due[0].epoch, at(one.now), 0);
        }
    }

    #[test]
    fn who_registers_anew_begins_anew() {
        let mut schedule = Schedule::default();
        schedule.put(instance("a", 1, Health::Unprobed), at(0), 0);
        let first = schedule.take_due(at(1), 8);
        schedule.put(instance("a", 2, Health::Unprobed), at(1), 0);
        assert_eq!(
            schedule.ended(&first[0].key, first[0].epoch, true, at(1), 0),
            None,
            "of another process"
        );
        assert_eq!(schedule.take_due(at(2), 8).len(), 1);
        schedule.remove(&key("a-svc", "a"));
        assert_eq!((schedule.next_due(), schedule.targets.len()), (None, 0));
    }

    #[test]
    fn probes_are_spread_and_never_more_than_there_is_room_for() {
        let mut schedule = Schedule::default();
        for n in 0..100_u64 {
            let draw = n * (u64::MAX / 100);
            schedule.put(instance(&format!("i{n}"), 1, Health::Passing), at(0), draw);
        }
        assert_eq!(
            schedule.take_due(at(5), 64).len(),
            51,
            "half of them in half of the interval"
        );
        assert_eq!(schedule.take_due(at(10), 7).len(), 7);
        assert_eq!(schedule.take_due(at(10), 64).len(), 42);
    }
}
