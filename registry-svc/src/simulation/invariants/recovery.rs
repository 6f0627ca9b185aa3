//! Nothing lapses while a registry recovers: for as long as the longest time to live of what it found at its start.

use std::{collections::BTreeMap, time::Duration};

use super::{Invariant, Seen, ensure};
use crate::{
    catalog::Change,
    model::RemovalReason,
    simulation::{Time, plan::Plan, truth::Truth},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Recovery {
    alone: bool,
    until: BTreeMap<usize, Time>,
}

impl Recovery {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            alone: plan.replicas == 1,
            until: BTreeMap::new(),
        }
    }
}

impl Invariant for Recovery {
    fn name(&self) -> &'static str {
        "recovery"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Started { replica, .. } => {
                let leases = truth.present().leases.values();
                let window: Duration = leases.map(|record| record.heartbeat.ttl()).max().unwrap_or_default();
                self.until.insert(*replica, truth.now + window);
                Ok(())
            }
            // Who joins others that have never stopped has nobody to wait for.
            Seen::Durable { after } if self.alone => truth.after(*after).iter().try_for_each(|entry| {
                let until = self.until.get(&entry.by.0).copied().unwrap_or_default();
                let lapsed = entry.batch.changes.iter().any(
                    |change| matches!(change, Change::Removed(removal) if removal.reason == RemovalReason::Expired),
                );
                ensure(!lapsed || entry.decided >= until, || {
                    format!(
                        "registry {} let something lapse at {} while it recovers until {until:?}",
                        entry.by.0, entry.batch.revision
                    )
                })
            }),
            _ => Ok(()),
        }
    }
}
