//! A repeat of a registration under the same request id, to the same life of a registry, makes no second lease while the
//! first one lives.

use std::collections::BTreeMap;

use super::{Invariant, Seen};
use crate::{
    catalog::LeaseChange,
    model::LeaseId,
    simulation::{request::lease, truth::Truth},
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Idempotent {
    lives: BTreeMap<usize, u64>,
    grants: BTreeMap<LeaseId, (usize, u64, u128)>,
    made: BTreeMap<(usize, u64, u128), LeaseId>,
}

impl Invariant for Idempotent {
    fn name(&self) -> &'static str {
        "idempotent"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Seen::Started { replica, .. } => *self.lives.entry(*replica).or_default() += 1,
            Seen::Granting {
                replica,
                lease,
                request,
            } => {
                let life = self.lives.get(replica).copied().unwrap_or_default();
                self.grants.insert(*lease, (*replica, life, request.id));
            }
            Seen::Durable { after } => {
                for entry in truth.after(*after) {
                    let before = entry.batch.revision.get() - 1;
                    let before = truth.state(crate::model::Revision::new(before)).expect("durable");
                    for change in &entry.batch.leases {
                        let LeaseChange::Kept(record) = change else { continue };
                        let Some(request) = self.grants.remove(&record.id) else {
                            continue;
                        };
                        let former = self.made.insert(request, record.id);
                        if let Some(former) = former.filter(|former| before.leases.contains_key(former)) {
                            return Err(format!(
                                "one request has made {} and {}",
                                lease(former),
                                lease(record.id)
                            ));
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
