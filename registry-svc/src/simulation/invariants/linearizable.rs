//! Changes and reads of each key are linearizable. The log gives the order, so no search for one is needed: an operation
//! that was answered with revision r takes effect at r, and what is to be shown is that r lies between its call and its
//! answer, that no two changes share one, and that a read or a refusal is true of a state of that time.
//!
//! Over several registries reads are only as fresh as their registry: for them each registry by itself must not go back. A
//! refusal is true of the present, whichever registry it comes from.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Seen, ensure};
use crate::{
    catalog::{CatalogError, Judge, LeaseChange},
    model::{LeaseId, Revision},
    simulation::{
        request::{Answer, Ask, Request, Ticket, short},
        truth::{State, Truth},
    },
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Linearizable {
    calls: BTreeMap<Ticket, Call>,
    /// The newest that each registry has told anybody.
    told: BTreeMap<usize, Revision>,
    /// Registrations by their request, whose repeats are answered alike.
    registered: BTreeMap<u128, Vec<Revision>>,
    /// Registrations of which it was said that they were not done.
    undone: BTreeSet<LeaseId>,
    /// Who has made a revision.
    makers: BTreeMap<Revision, Ticket>,
}

#[derive(Debug, Clone, Copy)]
struct Call {
    /// What was durable when it came.
    durable: Revision,
    /// What its registry had told when it came.
    told: Revision,
}

impl Invariant for Linearizable {
    fn name(&self) -> &'static str {
        "linearizable"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Arrived { request } => {
                let told = self.told.get(&request.to).copied().unwrap_or_default();
                let durable = truth.head();
                self.calls.entry(request.ticket).or_insert(Call { durable, told });
                Ok(())
            }
            Seen::Durable { after } => truth.after(*after).iter().try_for_each(|entry| {
                let mut leases = entry.batch.leases.iter();
                let done =
                    leases.find(|change| matches!(change, LeaseChange::Kept(kept) if self.undone.contains(&kept.id)));
                ensure(done.is_none(), || {
                    format!("{} does what was answered as not done", entry.batch.revision)
                })
            }),
            Seen::Answered {
                answer: Answer::Undone(_, Some(lease)),
                ..
            } => {
                self.undone.insert(*lease);
                Ok(())
            }
            Seen::Answered { request, answer, .. } => self.answered(request, answer, truth),
            _ => Ok(()),
        }
    }
}

impl Linearizable {
    fn answered(&mut self, request: &Request, answer: &Answer, truth: &Truth) -> Result<(), String> {
        let Some(call) = self.calls.get(&request.ticket).copied() else {
            return Ok(());
        };
        let head = truth.head();
        let revision = match (&request.ask, answer) {
            (Ask::Register { request: id, .. }, Answer::Registered { revision, .. }) => {
                let made = self.registered.entry(id.id).or_default();
                if !made.contains(revision) {
                    // The first of the repeats may have come earlier than this one.
                    made.push(*revision);
                    self.makes(*revision, request)?;
                }
                *revision
            }
            (Ask::Deregister(..), Answer::Deregistered(revision)) => {
                ensure(*revision > call.durable, || {
                    format!(
                        "{} is answered {answer}, and {} was durable before it came",
                        request.ask, call.durable
                    )
                })?;
                self.makes(*revision, request)?;
                *revision
            }
            (Ask::Update { key, .. } | Ask::Judge(Judge { key, .. }), Answer::Updated(instance)) => {
                // One that changes nothing is answered with what is: true at its time.
                let held = between(truth, call.durable, head).any(|state| state.get(key) == Some(instance));
                ensure(held, || {
                    format!("{} was never so while {} was asked", short(key), request.ask)
                })?;
                instance.revision
            }
            (Ask::Get(key), Answer::Found(revision, found)) => {
                let state = truth.state(*revision);
                ensure(state.is_some_and(|state| state.get(key) == found.as_ref()), || {
                    format!(
                        "{} reads {answer} of {}, which the log does not say",
                        request.from,
                        short(key)
                    )
                })?;
                self.fresh(*revision, call, request)?
            }
            (Ask::List(selection), Answer::Listed(revision, list)) => {
                let state = truth.state(*revision);
                let same = |state: &State| state.selected(selection).into_iter().eq(list.iter());
                ensure(state.is_some_and(same), || {
                    format!("{} lists what {revision} does not hold", request.from)
                })?;
                self.fresh(*revision, call, request)?
            }
            (Ask::Govern(_), Answer::Governed(revision)) => *revision,
            (ask, Answer::Refused(error)) => return refused(ask, error, call, truth),
            (ask, Answer::Renewed(Err(error))) => return refused(ask, &(*error).into(), call, truth),
            _ => return Ok(()),
        };
        let told = self.told.entry(request.to).or_default();
        *told = revision.max(*told);
        Ok(())
    }

    fn makes(&mut self, revision: Revision, request: &Request) -> Result<(), String> {
        let former = self.makers.insert(revision, request.ticket);
        ensure(former.is_none_or(|former| former == request.ticket), || {
            format!(
                "revision {revision} answers two requests, the second is {}",
                request.ask
            )
        })
    }

    /// A read is no older than anything its registry had told before it came.
    fn fresh(&self, revision: Revision, call: Call, request: &Request) -> Result<Revision, String> {
        ensure(revision >= call.told, || {
            format!(
                "{} reads revision {revision} after {} was told",
                request.from, call.told
            )
        })?;
        Ok(revision)
    }
}

/// A refusal is true of some state between its call and its answer.
fn refused(ask: &Ask, error: &CatalogError, call: Call, truth: &Truth) -> Result<(), String> {
    if let Ask::Govern(govern) = ask {
        let is_there = |state: &State| state.get(&govern.key).is_some();
        return ensure(
            between(truth, call.durable, truth.head()).any(|state| !is_there(state)),
            || format!("{ask} is refused, and {} was there all the time", short(&govern.key)),
        );
    }
    if let Ask::Judge(judge) = ask {
        let is_there = |state: &State| {
            state
                .get(&judge.key)
                .is_some_and(|present| present.epoch == judge.epoch)
        };
        return ensure(
            between(truth, call.durable, truth.head()).any(|state| !is_there(state)),
            || format!("{ask} is refused with {error:?}, and it was that registration all the time"),
        );
    }
    let owner = match ask {
        Ask::Update { owner, .. } | Ask::Deregister(owner, _) | Ask::Renew(owner, _) => owner.lease,
        _ => return Ok(()),
    };
    let holds = |state: &State| match (error, ask) {
        (CatalogError::LeaseUnknown, _) => !state.leases.contains_key(&owner),
        (CatalogError::StaleEpoch(key), Ask::Update { epoch, .. }) => state
            .get(key)
            .is_none_or(|present| present.epoch != *epoch || present.lease != owner),
        (CatalogError::StaleEpoch(key), _) => state.get(key).is_none_or(|present| present.lease != owner),
        (CatalogError::InstanceUnknown(_), Ask::Update { key, .. }) => state.get(key).is_none(),
        (CatalogError::LeaseFenced, _) => {
            let kept = state.instances.values().any(|instance| instance.lease == owner);
            !kept
                && state
                    .leases
                    .get(&owner)
                    .is_some_and(|record| !record.replaced.is_empty())
        }
        _ => true,
    };
    // Who has been succeeded stays so, also when its lease has ended since.
    let from = match error {
        CatalogError::LeaseFenced => Revision::ZERO,
        _ => call.durable,
    };
    ensure(between(truth, from, truth.head()).any(holds), || {
        format!(
            "{ask} is refused with {error:?}, which was not so at any time between {} and {}",
            call.durable,
            truth.head()
        )
    })
}

/// The states of some revisions, both ends included.
fn between(truth: &Truth, from: Revision, to: Revision) -> impl Iterator<Item = &State> {
    (from.get()..=to.get()).filter_map(|revision| truth.state(Revision::new(revision)))
}
