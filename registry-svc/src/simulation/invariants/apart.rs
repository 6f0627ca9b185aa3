//! A drain and a weight are two decisions: what lays, lifts or ends the one leaves the other exactly as it was.

use super::{Invariant, Seen, ensure};
use crate::{
    catalog::OverrideChange,
    model::{Act, Override, Revision, Ruling, WallTime},
    simulation::{
        request::short,
        truth::{Entry, Truth},
    },
};

/// See the module.
#[derive(Debug)]
pub(super) struct Apart;

impl Invariant for Apart {
    fn name(&self) -> &'static str {
        "apart"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Durable { after } => truth.after(*after).iter().try_for_each(|entry| judge(entry, truth)),
            _ => Ok(()),
        }
    }
}

fn judge(entry: &Entry, truth: &Truth) -> Result<(), String> {
    let batch = &entry.batch;
    let before = truth.state(Revision::new(batch.revision.get() - 1)).expect("durable");
    for change in &batch.overrides {
        let former = before.overrides.get(&change.key).map(|laid| Override::clone(laid));
        let together: Vec<Act> = batch
            .overrides
            .iter()
            .filter(|other| other.key == change.key)
            .map(|other| other.act)
            .collect();
        ensure(
            leaves_the_other(change, &former.unwrap_or_default(), &together, batch.at),
            || {
                format!(
                    "{}: {} is {}, and the other decision about it is another one now",
                    batch.revision,
                    short(&change.key),
                    change.act.as_str()
                )
            },
        )?;
    }
    Ok(())
}

/// `together`: all that happens to it in this revision. Both may be over at once, and are then told with what is left after both.
fn leaves_the_other(change: &OverrideChange, former: &Override, together: &[Act], at: WallTime) -> bool {
    let now = change.now.as_deref().cloned().unwrap_or_default();
    let is_over = |ruling: &Ruling| ruling.until.is_some_and(|until| until <= at);
    match change.act {
        Act::Drained | Act::Undrained => now.weight == former.weight,
        Act::WeightSet(_) | Act::WeightCleared => now.drain == former.drain,
        Act::DrainEnded if together.contains(&Act::WeightEnded) => {
            now.weight.is_none() && former.weight.as_ref().is_some_and(|(_, ruling)| is_over(ruling))
        }
        Act::DrainEnded => now.weight == former.weight,
        Act::WeightEnded if together.contains(&Act::DrainEnded) => {
            now.drain.is_none() && former.drain.as_ref().is_some_and(is_over)
        }
        Act::WeightEnded => now.drain == former.drain,
        // Both at once, and in no other way.
        Act::Forgotten => change.now.is_none(),
    }
}
