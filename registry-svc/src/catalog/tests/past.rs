//! What a catalog went through, so that another one can go through the same and be held against it.

use super::{told::Told, *};
use crate::{fixtures::owner, model::OverrideRecord};

/// What a catalog goes through.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Look { millis: u64 },
    Away,
    Back { millis: u64 },
    Renewed(u128),
    Suspected { heard: (LeaseId, Beat), slack: Duration },
    Applied(Command),
    Expired { draw: u64 },
    Ended { seconds: i64 },
}

/// What it has gone through since its last restart, and not taken back.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    pub(super) told: Told,
    pub(super) millis: u64,
    pub(super) events: Vec<Event>,
    /// It would not come to the same by these alone: a lease is due later, because its owner has said what was undone, or who
    /// lapses next may be others, because an expiry that was undone has begun windows of self-preservation.
    pub(super) drifted: bool,
}

impl Event {
    /// Whether it goes on when all around it is undone.
    pub(super) fn stays(&self) -> bool {
        !matches!(self, Self::Applied(_) | Self::Expired { .. } | Self::Ended { .. })
    }
}

impl Past {
    /// One that goes through it from the beginning.
    pub(super) fn catalog(&self) -> Catalog {
        let mut catalog = restored(&self.told, self.millis);
        for event in &self.events {
            match event {
                Event::Look { millis } => drop(catalog.look(now(*millis))),
                Event::Away => catalog.away(),
                Event::Back { millis } => catalog.back(now(*millis)),
                Event::Renewed(lease) => drop(catalog.renew(&owner(*lease))),
                Event::Suspected { heard, slack } => drop(catalog.suspect(&[*heard], *slack)),
                Event::Applied(command) => drop(catalog.apply(command, WALL)),
                Event::Expired { draw } => drop(catalog.expire(WALL, *draw)),
                Event::Ended { seconds } => drop(catalog.end_overrides(wall(*seconds))),
            }
        }
        catalog
    }
}

pub(super) fn restored(told: &Told, millis: u64) -> Catalog {
    let instances: Vec<Arc<Instance>> = told.instances.values().cloned().collect();
    let leases = told.leases.values().cloned().collect();
    let overrides = told.overrides.iter().map(|(key, laid)| OverrideRecord {
        key: key.clone(),
        laid: Arc::clone(laid),
    });
    Catalog::restore(few_are_kept(), told.revision, leases, &instances, now(millis).moment)
        .with_overrides(overrides.collect())
}

/// Of eight names in two services.
fn few_are_kept() -> Settings {
    Settings {
        capacity: Capacity {
            overrides_of_service: 2,
            overrides: 3,
            ..Capacity::default()
        },
        ..Settings::default()
    }
}

/// So long after the beginning.
pub(super) fn wall(seconds: i64) -> WallTime {
    WallTime {
        seconds: WALL.seconds + seconds,
        ..WALL
    }
}
