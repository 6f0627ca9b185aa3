//! When nothing goes wrong any more, who lives is registered, and who does not is gone.

use std::time::Duration;

use super::{End, Invariant, Seen, ensure};
use crate::simulation::{clients::provider::Provider, request::short, truth::Truth};

/// How long a provider takes to hear that it is registered.
const LATELY: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Healing;

impl Invariant for Healing {
    fn name(&self) -> &'static str {
        "healing"
    }

    fn see(&mut self, _: &Seen<'_>, _: &Truth) -> Result<(), String> {
        Ok(())
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), String> {
        let living: Vec<&Provider> = end.providers.iter().filter(|provider| provider.lives()).collect();
        let state = end.truth.present();
        let lately = end.truth.state_at(end.truth.now.saturating_sub(LATELY));
        for provider in &living {
            for key in provider.keys() {
                // Over several registries one that moves may lapse while its claim loses race after race, with a time to live of a
                // few commits. Nobody has told it that all is well, and it is about to register again.
                let mut present = state.get(key).is_some();
                if end.replicas.len() > 1 {
                    present |= lately.is_some_and(|state| state.get(key).is_some());
                }
                ensure(present, || format!("{} lives and is not registered", short(key)))?;
            }
        }
        for instance in state.instances.values() {
            let held = living
                .iter()
                .any(|provider| provider.owner().is_some_and(|owner| owner.lease == instance.lease));
            // What has just been registered may be by one who is ended for it, or has not heard of it.
            let before = lately.and_then(|state| state.get(&instance.key));
            let settled = before.is_some_and(|before| before.lease == instance.lease);
            ensure(held || !settled, || {
                format!("{} is registered, and nobody keeps it", short(&instance.key))
            })?;
        }
        Ok(())
    }
}
