//! Acknowledged means durable: what an answer confirms is in the log, and no restart comes back with less than was confirmed.

use super::{Invariant, Seen, ensure};
use crate::{
    catalog::{Change, Judge, LeaseChange},
    hub::View,
    model::Revision,
    simulation::{
        request::{Answer, Ask, Request, short},
        truth::Truth,
    },
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Durable {
    confirmed: Revision,
}

impl Invariant for Durable {
    fn name(&self) -> &'static str {
        "durable"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Answered { request, answer, .. } => self.confirm(request, answer, truth),
            Seen::Started { replica, hub, .. } => {
                let shown = hub.look(View::revision);
                ensure(shown >= self.confirmed, || {
                    format!(
                        "registry {replica} starts at {shown} after {} was confirmed",
                        self.confirmed
                    )
                })
            }
            _ => Ok(()),
        }
    }
}

impl Durable {
    fn confirm(&mut self, request: &Request, answer: &Answer, truth: &Truth) -> Result<(), String> {
        let (revision, holds) = match (&request.ask, answer) {
            (Ask::Register { drafts, .. }, Answer::Registered { owner, revision, .. }) => {
                let batch = truth.entry(*revision).map(|entry| &entry.batch);
                let has = |batch: &std::sync::Arc<crate::catalog::Batch>| {
                    let kept = batch
                        .leases
                        .iter()
                        .any(|change| matches!(change, LeaseChange::Kept(record) if record.id == owner.lease));
                    let put = drafts.iter().all(|draft| {
                        batch.changes.iter().any(|change| match change {
                            Change::Put { instance, .. } => {
                                instance.key == draft.key
                                    && instance.spec == draft.spec
                                    && instance.lease == owner.lease
                            }
                            Change::Removed(_) => false,
                        })
                    });
                    kept && put
                };
                (*revision, batch.is_some_and(has))
            }
            (Ask::Update { .. } | Ask::Judge(_), Answer::Updated(instance)) => {
                let state = truth.state(instance.revision);
                let holds = state.and_then(|state| state.get(&instance.key)) == Some(instance);
                (instance.revision, holds)
            }
            (Ask::Deregister(owner, ids), Answer::Deregistered(revision)) => {
                let state = truth.state(*revision);
                let gone = |state: &crate::simulation::truth::State| match ids.as_slice() {
                    [] => !state.leases.contains_key(&owner.lease),
                    ids => !state
                        .instances
                        .values()
                        .any(|i| i.lease == owner.lease && ids.contains(&i.key.id)),
                };
                (*revision, state.is_some_and(gone))
            }
            (_, Answer::Found(revision, _) | Answer::Listed(revision, _) | Answer::Governed(revision)) => {
                (*revision, true)
            }
            _ => return Ok(()),
        };
        self.confirmed = self.confirmed.max(revision);
        ensure(holds, || {
            let what = match &request.ask {
                Ask::Update { key, .. } | Ask::Judge(Judge { key, .. }) => short(key),
                ask => ask.to_string(),
            };
            format!("{} is told {answer}, which the log does not say ({what})", request.from)
        })
    }
}
