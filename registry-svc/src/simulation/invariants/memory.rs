//! What a registry holds is bounded: by its limits on the past, and by what is registered.

use super::{Invariant, Seen, ensure};
use crate::{
    hub::View,
    simulation::{plan::Plan, truth::Truth},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Memory {
    history: u64,
}

impl Memory {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            history: plan.history.revisions as u64,
        }
    }
}

impl Invariant for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        let Seen::Stepped {
            replica,
            hub,
            sizes,
            unsettled,
        } = seen
        else {
            return Ok(());
        };
        let kept = hub.look(View::revision).get() - hub.compacted_after(&[]).get();
        ensure(kept <= self.history, || {
            format!("registry {replica} keeps {kept} revisions of at most {}", self.history)
        })?;
        // What is applied and not yet durable comes on top, a lease with at most three instances each here: after a long stop
        // that is much. And others may have ended what is followed here a little later.
        let state = truth.present();
        let most = (
            state.instances.len() + 3 * unsettled + 64,
            state.leases.len() + unsettled + 64,
        );
        ensure(sizes.0 <= most.0 && sizes.1 <= most.1, || {
            format!("registry {replica} holds {sizes:?} instances and leases, and at most {most:?} are registered")
        })
    }
}
