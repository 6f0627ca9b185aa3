//! An instance is well or not by what its own probes have come to: a verdict is of one registration, changes nothing else of it,
//! and ends with it.

use std::collections::BTreeSet;

use super::{Invariant, Seen, ensure};
use crate::{
    catalog::{Change, Judge},
    model::{Epoch, Health, InstanceKey, Revision},
    simulation::{
        request::{Answer, Ask, short},
        truth::{Entry, Truth},
    },
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// What probes have come to, of which registration.
    judged: BTreeSet<(InstanceKey, Epoch, bool)>,
}

impl Invariant for Probes {
    fn name(&self) -> &'static str {
        "probes"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Arrived { request } => {
                if let Ask::Judge(Judge { key, epoch, health }) = &request.ask {
                    self.judged.insert((key.clone(), *epoch, *health == Health::Passing));
                }
                Ok(())
            }
            Seen::Answered { request, answer, .. } => match (&request.ask, answer) {
                (Ask::Judge(judge), Answer::Updated(instance)) => {
                    let is_so = instance.epoch == judge.epoch && instance.health == judge.health;
                    ensure(is_so, || {
                        format!(
                            "{} is told that {} was noted, which it was not",
                            request.from, request.ask
                        )
                    })
                }
                _ => Ok(()),
            },
            Seen::Durable { after } => truth
                .after(*after)
                .iter()
                .try_for_each(|entry| self.follows(entry, truth)),
            _ => Ok(()),
        }
    }
}

impl Probes {
    fn follows(&self, entry: &Entry, truth: &Truth) -> Result<(), String> {
        let batch = &entry.batch;
        let before = truth.state(Revision::new(batch.revision.get() - 1)).expect("durable");
        for change in &batch.changes {
            let Change::Put { instance, .. } = change else { continue };
            let key = &instance.key;
            let said = |what: &str| format!("{}: {} of {:?} {what}", batch.revision, short(key), instance.health);
            if instance.epoch.revision() == batch.revision {
                ensure(instance.health == Health::Unprobed, || {
                    said("begins with what was found out about another")
                })?;
                continue;
            }
            // `fencing` says so where it is not there.
            let Some(former) = before.get(key) else { continue };
            if former.health == instance.health {
                continue;
            }
            let verdict = (key.clone(), instance.epoch, instance.health == Health::Passing);
            let is_judged = instance.health != Health::Unprobed && self.judged.contains(&verdict);
            ensure(is_judged, || said("was not probed with that result"))?;
            let is_the_same = former.spec == instance.spec
                && former.governance == instance.governance
                && former.lease == instance.lease;
            ensure(is_the_same, || said("is changed in other ways by a verdict"))?;
        }
        Ok(())
    }
}
