//! The catalog against its invariants: single cases first, then random histories.

mod cases;
mod governance;
mod health;
mod histories;
mod past;
mod protection;
mod replicas;
mod size;
mod told;

use std::{sync::Arc, time::Duration};

use super::*;
use crate::fixtures::{WALL, now};

fn catalog() -> Catalog {
    Catalog::restore(Settings::default(), Revision::ZERO, Vec::new(), &[], now(0).moment)
}

/// Looks at the clock every 100 ms up to a time, as the driver does, and expires; what lapsed.
fn run(catalog: &mut Catalog, from: u64, to: u64) -> Vec<String> {
    let mut lapsed = Vec::new();
    for millis in (from..=to).step_by(100) {
        catalog.look(now(millis));
        for (batch, _) in catalog.expire(WALL, millis) {
            lapsed.extend(
                batch
                    .changes
                    .iter()
                    .map(|change| format!("{} at {millis}", change.key().id)),
            );
        }
    }
    catalog.check_invariants();
    lapsed
}

fn register(catalog: &mut Catalog, register: Register) -> Result<Registered, CatalogError> {
    match catalog.apply(&Command::Register(register), WALL).reply? {
        Reply::Registered(registered) => Ok(registered),
        other => panic!("{other:?}"),
    }
}
