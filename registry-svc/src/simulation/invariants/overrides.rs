//! What an operator has decided holds until it is taken back or its time is over: over re-registrations, restarts and changes of
//! replicas. It changes by what somebody asked for and by its end, and by nothing else; and whoever is told of an instance is told
//! of it. That the one of two decisions leaves the other is `apart`'s, that none comes back `resurrected`'s.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{End, Invariant, Seen, ensure};
use crate::{
    catalog::{Change, Decision, Govern, OverrideChange},
    fixtures::WALL,
    model::{Act, Detail, Override, Revision, WallTime},
    simulation::{
        replica::Replica,
        request::{Answer, Ask, short},
        truth::{Entry, State, Truth},
    },
};

/// How late something may end at a registry that runs.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// By their reasons, which nobody else has.
    asked: BTreeMap<String, Govern>,
}

impl Invariant for Overrides {
    fn name(&self) -> &'static str {
        "overrides"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Arrived { request } => {
                if let Ask::Govern(govern) = &request.ask {
                    self.asked.insert(govern.why.to_string(), govern.clone());
                }
                Ok(())
            }
            Seen::Answered { request, answer, .. } => match (&request.ask, answer) {
                (Ask::Govern(govern), Answer::Governed(revision)) => {
                    let holds = truth.state(*revision).is_some_and(|state| is_so(govern, state));
                    ensure(holds, || format!("{} is told {answer}, which is not so", request.from))
                }
                _ => Ok(()),
            },
            Seen::Durable { after } => truth
                .after(*after)
                .iter()
                .try_for_each(|entry| self.follows(entry, truth)),
            Seen::Started { replica, hub, .. } => hub.look(|view| {
                let Some(state) = truth.state(view.revision()) else {
                    return Ok(());
                };
                let forgotten = state
                    .overrides
                    .iter()
                    .find(|(key, laid)| view.laid_over(key).as_ref() != Some(laid));
                ensure(forgotten.is_none(), || {
                    let key = forgotten.map(|(key, _)| short(key)).unwrap_or_default();
                    format!("registry {replica} starts without what is laid over {key}")
                })
            }),
            _ => Ok(()),
        }
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), String> {
        // A clock that is a day behind keeps it for a day, and a registry that is down for as long as it is.
        let cannot = |registry: &Replica| registry.wall_skew != 0 || registry.process.is_none();
        if end.replicas.iter().any(cannot) {
            return Ok(());
        }
        let late = end.truth.now.saturating_sub(PATIENCE);
        let late = WallTime {
            seconds: WALL.seconds + i64::try_from(late.as_secs()).unwrap_or_default(),
            nanos: late.subsec_nanos(),
        };
        let overdue = end.truth.present().overrides.iter();
        let overdue = overdue
            .filter(|(_, laid)| laid.next_end().is_some_and(|end| end < late))
            .map(|(key, _)| short(key))
            .next();
        ensure(overdue.is_none(), || {
            format!("what is laid over {} has not ended", overdue.unwrap_or_default())
        })
    }
}

/// Whether a state has what was decided.
fn is_so(govern: &Govern, state: &State) -> bool {
    let laid = state.overrides.get(&govern.key);
    match govern.decision {
        Decision::Drain { until } => laid
            .and_then(|laid| laid.drain.as_ref())
            .is_some_and(|drain| drain.says(&govern.who, &govern.why, until)),
        Decision::Undrain => laid.is_none_or(|laid| laid.drain.is_none()),
        Decision::SetWeight { weight, until } => laid
            .and_then(|laid| laid.weight.as_ref())
            .is_some_and(|(set, ruling)| *set == weight && ruling.says(&govern.who, &govern.why, until)),
        Decision::OwnWeight => laid.is_none_or(|laid| laid.weight.is_none()),
    }
}

impl Overrides {
    /// A batch changes overrides as was asked for, or as their time is over; and its instances carry what is laid over them.
    fn follows(&self, entry: &Entry, truth: &Truth) -> Result<(), String> {
        let batch = &entry.batch;
        let before = truth.state(Revision::new(batch.revision.get() - 1)).expect("durable");
        let after = truth.state(batch.revision).expect("durable");
        let mut laid = before.overrides.as_ref().clone();
        for change in &batch.overrides {
            let former = laid
                .get(&change.key)
                .map(|laid| Override::clone(laid))
                .unwrap_or_default();
            ensure(self.is_allowed(change, &former, batch.at), || {
                format!(
                    "{}: {} {} out of nothing",
                    batch.revision,
                    short(&change.key),
                    change.act.as_str()
                )
            })?;
            match &change.now {
                Some(now) => drop(laid.insert(change.key.clone(), Arc::clone(now))),
                None => drop(laid.remove(&change.key)),
            }
            let told = after
                .get(&change.key)
                .is_none_or(|instance| instance.revision == batch.revision);
            ensure(told, || {
                format!("{}: nobody is told of {}", batch.revision, short(&change.key))
            })?;
        }
        for change in &batch.changes {
            let Change::Put { instance, .. } = change else { continue };
            ensure(
                instance.governance.as_ref() == after.overrides.get(&instance.key),
                || {
                    format!(
                        "{}: {} is told without what is laid over it",
                        batch.revision,
                        short(&instance.key)
                    )
                },
            )?;
        }
        Ok(())
    }

    /// What is changed says what was asked or was over.
    fn is_allowed(&self, change: &OverrideChange, former: &Override, at: WallTime) -> bool {
        let now = change.now.as_deref().cloned().unwrap_or_default();
        let asked = |why: &Detail| self.asked.get(why.as_str()).filter(|asked| asked.key == change.key);
        let is_over = |until: Option<WallTime>| until.is_some_and(|until| until <= at);
        match change.act {
            Act::Drained => {
                let asked = asked(&change.why).map(|asked| asked.decision);
                let until = now.drain.as_ref().map(|drain| drain.until);
                asked.is_some() && asked == until.map(|until| Decision::Drain { until })
            }
            Act::WeightSet(weight) => {
                let asked = asked(&change.why).map(|asked| asked.decision);
                let until = now.weight.as_ref().map(|(_, ruling)| ruling.until);
                asked.is_some() && asked == until.map(|until| Decision::SetWeight { weight, until })
            }
            Act::Undrained => {
                let asked = asked(&change.why).map(|asked| asked.decision);
                asked == Some(Decision::Undrain) && now.drain.is_none()
            }
            Act::WeightCleared => {
                let asked = asked(&change.why).map(|asked| asked.decision);
                asked == Some(Decision::OwnWeight) && now.weight.is_none()
            }
            // Both may be over at once, and are then told with what is left after both.
            Act::DrainEnded => {
                let was_over = former.drain.as_ref().is_none_or(|drain| is_over(drain.until));
                was_over && now.drain.is_none()
            }
            Act::WeightEnded => {
                let was_over = former.weight.as_ref().is_none_or(|(_, ruling)| is_over(ruling.until));
                was_over && now.weight.is_none()
            }
            // There are not so many of them here.
            Act::Forgotten => false,
        }
    }
}
