//! A history that does nothing proves nothing: changes are acknowledged before the faults, and after them.

use super::{End, Invariant, Seen, ensure};
use crate::simulation::{plan::WARM_UP, request::Answer, truth::Truth};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Progress {
    before: usize,
    after: usize,
    renewed: usize,
    healed: bool,
}

impl Invariant for Progress {
    fn name(&self) -> &'static str {
        "progress"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Healed => self.healed = true,
            Seen::Answered { answer, .. } => match answer {
                Answer::Registered { .. } | Answer::Updated(_) | Answer::Deregistered(_) => {
                    self.before += usize::from(truth.now < WARM_UP);
                    self.after += usize::from(self.healed);
                }
                Answer::Renewed(Ok(_)) if self.healed => self.renewed += 1,
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), String> {
        let living = end.providers.iter().filter(|provider| provider.lives()).count();
        ensure(self.before > 0, || "nothing was acknowledged before the faults".into())?;
        // Who has just lost its lease renews nothing.
        let holding = end
            .providers
            .iter()
            .filter(|provider| provider.owner().is_some())
            .count();
        ensure(holding == 0 || self.renewed > 0, || {
            format!("{holding} providers hold a lease, and no heartbeat was answered after the faults")
        })?;
        ensure(living < 3 || self.after > 0, || {
            format!("{living} providers live, and nothing was acknowledged after the faults")
        })
    }
}
