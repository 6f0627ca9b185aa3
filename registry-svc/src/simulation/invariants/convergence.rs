//! When nothing goes wrong any more every registry is up and shows the same as the log.

use std::{ops::Bound, time::Duration};

use super::{End, Invariant, Seen, ensure};
use crate::{fixtures, hub::View, model::Confidence, simulation::truth::Truth};

/// How far behind a registry may be in the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Convergence;

impl Invariant for Convergence {
    fn name(&self) -> &'static str {
        "convergence"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Started { replica, hub, .. } => hub.look(|view| shows(view, *replica, truth)),
            _ => Ok(()),
        }
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), String> {
        let scope = fixtures::scope("").scope;
        for (replica, registry) in end.replicas.iter().enumerate() {
            let Some(process) = &registry.process else {
                return Err(format!("registry {replica} is down"));
            };
            process.hub.look(|view| shows(view, replica, end.truth))?;
            let shown = process.hub.look(View::revision);
            // What has just happened may be on its way.
            let confidence = process.hub.confidence(&scope, process.clock(end.truth.now, 0).moment);
            ensure(confidence == Confidence::Fresh, || {
                format!("registry {replica} is {confidence:?}")
            })?;
            let missing = end
                .truth
                .after(shown)
                .iter()
                .find(|entry| entry.at + PATIENCE < end.truth.now);
            ensure(missing.is_none(), || {
                format!("registry {replica} is at {shown}, the log at {}", end.truth.head())
            })?;
        }
        Ok(())
    }
}

/// What a registry shows is the state of the revision that it says.
fn shows(view: &View, replica: usize, truth: &Truth) -> Result<(), String> {
    let revision = view.revision();
    let state = truth
        .state(revision)
        .ok_or_else(|| format!("registry {replica} is ahead: {revision}"))?;
    let services = view.services(&fixtures::scope("").scope, Bound::Unbounded, usize::MAX);
    let shown = services.iter().flat_map(|(_, view)| view.values());
    ensure(shown.eq(state.instances.values()), || {
        format!("registry {replica} shows something else than revision {revision} holds")
    })
}
