//! A stale epoch never wins: an instance changes hands by a registration alone, and every other change is made by who holds
//! it at the epoch that it holds.

use super::{Invariant, Seen, ensure};
use crate::{
    catalog::Change,
    model::{RemovalReason, Revision},
    simulation::{
        request::{Answer, Ask, short},
        truth::Truth,
    },
};

/// See the module.
#[derive(Debug)]
pub(super) struct Fencing;

impl Invariant for Fencing {
    fn name(&self) -> &'static str {
        "fencing"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Durable { after } => truth
                .after(*after)
                .iter()
                .try_for_each(|entry| changes_hands_in_order(&entry.batch, truth)),
            Seen::Answered { request, answer, .. } => match (&request.ask, answer) {
                (Ask::Update { owner, epoch, key, .. }, Answer::Updated(instance)) => {
                    ensure(instance.epoch == *epoch && instance.lease == owner.lease, || {
                        format!(
                            "{} updated {} with epoch {}, which was {}",
                            request.from,
                            short(key),
                            epoch.revision(),
                            instance.epoch.revision()
                        )
                    })
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

fn changes_hands_in_order(batch: &crate::catalog::Batch, truth: &Truth) -> Result<(), String> {
    let before = truth.state(Revision::new(batch.revision.get() - 1)).expect("durable");
    for (n, change) in batch.changes.iter().enumerate() {
        let Change::Put { instance, .. } = change else { continue };
        let key = &instance.key;
        let registered = instance.epoch.revision() == batch.revision;
        let same = before
            .get(key)
            .is_some_and(|former| former.lease == instance.lease && (former.epoch == instance.epoch || registered));
        let replaced = batch.changes[..n].iter().any(|change| match change {
            Change::Removed(removal) => removal.key == *key && removal.reason == RemovalReason::Replaced,
            Change::Put { .. } => false,
        });
        ensure(instance.revision == batch.revision, || {
            format!(
                "{} of {} says revision {}",
                short(key),
                batch.revision,
                instance.revision
            )
        })?;
        ensure(same || (registered && (replaced || before.get(key).is_none())), || {
            format!(
                "{} changed hands at {} without a registration",
                short(key),
                batch.revision
            )
        })?;
    }
    Ok(())
}
