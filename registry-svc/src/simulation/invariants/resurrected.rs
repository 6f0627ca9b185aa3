//! What an operator has taken back, or what has ended, stays so: nothing is decided more often than it was asked for, and no
//! registry shows what is laid over a name where by the log nothing is.

use std::collections::{BTreeMap, BTreeSet};

use super::{End, Invariant, Seen, ensure};
use crate::{
    hub::Hub,
    model::{Act, InstanceKey},
    simulation::{
        request::{Ask, short},
        truth::{Entry, Truth},
    },
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Resurrected {
    /// How often a decision may still be made, by its reason, which no other one has: as often as somebody came to ask for it.
    asked: BTreeMap<String, usize>,
    /// Over what something was ever to be laid.
    keys: BTreeSet<InstanceKey>,
}

impl Invariant for Resurrected {
    fn name(&self) -> &'static str {
        "resurrected"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Arrived { request } => {
                if let Ask::Govern(govern) = &request.ask {
                    *self.asked.entry(govern.why.to_string()).or_default() += 1;
                    self.keys.insert(govern.key.clone());
                }
                Ok(())
            }
            Seen::Durable { after } => truth.after(*after).iter().try_for_each(|entry| self.spend(entry)),
            Seen::Started { replica, hub, .. } | Seen::Stepped { replica, hub, .. } => {
                self.shows_no_more(*replica, hub, truth)
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), String> {
        let running = end.replicas.iter().enumerate();
        let mut running = running.filter_map(|(n, replica)| Some((n, replica.process.as_ref()?)));
        running.try_for_each(|(n, process)| self.shows_no_more(n, &process.hub, end.truth))
    }
}

impl Resurrected {
    fn spend(&mut self, entry: &Entry) -> Result<(), String> {
        let batch = &entry.batch;
        for change in &batch.overrides {
            if !matches!(
                change.act,
                Act::Drained | Act::Undrained | Act::WeightSet(_) | Act::WeightCleared
            ) {
                continue;
            }
            let left = self.asked.get_mut(change.why.as_str());
            let is_asked_for = left.is_some_and(|left| {
                let is_left = *left > 0;
                *left = left.saturating_sub(1);
                is_left
            });
            ensure(is_asked_for, || {
                format!(
                    "{}: {} is {} for {:?} once more than anybody asked",
                    batch.revision,
                    short(&change.key),
                    change.act.as_str(),
                    change.why.as_str()
                )
            })?;
        }
        Ok(())
    }

    fn shows_no_more(&self, replica: usize, hub: &Hub, truth: &Truth) -> Result<(), String> {
        hub.look(|view| {
            let Some(state) = truth.state(view.revision()) else {
                return Ok(());
            };
            let mut keys = self.keys.iter();
            let back = keys.find(|key| view.laid_over(key).is_some() && !state.overrides.contains_key(*key));
            ensure(back.is_none(), || {
                let key = back.map(short).unwrap_or_default();
                format!(
                    "registry {replica} shows something laid over {key} at {}, which was lifted",
                    view.revision()
                )
            })
        })
    }
}
