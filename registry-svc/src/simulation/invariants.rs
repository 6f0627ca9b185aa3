//! What must hold in every history, one invariant a file.
//!
//! Each sees everything that happens, in order, and judges it by the `truth` alone: by what is durable. What they share is
//! what they are shown ([`Seen`]), nothing else.

mod apart;
mod convergence;
mod durable;
mod fencing;
mod ghosts;
mod healing;
mod idempotent;
mod lifetime;
mod linearizable;
mod memory;
mod overrides;
mod ownership;
mod probes;
mod progress;
mod protection;
mod recovery;
mod resurrected;
mod unheard;
mod watch;

use std::{fmt, sync::Arc};

use super::{
    Time,
    clients::{provider::Provider, watcher::Watch},
    heard::Heard,
    plan::Plan,
    replica::Replica,
    request::{Answer, Request},
    truth::Truth,
};
use crate::{
    catalog::RequestId,
    hub::{Hub, Selection},
    model::{LeaseId, ReplicaId, Revision},
};

/// What can be seen of a world.
pub(super) enum Seen<'a> {
    /// A request has come to the door of a registry that is up.
    Arrived {
        /// What.
        request: &'a Request,
    },
    /// A registration is about to be applied under a new lease, if it is not a repeat.
    Granting {
        /// By whom.
        replica: usize,
        /// The lease that it would make.
        lease: LeaseId,
        /// The request's own name.
        request: RequestId,
    },
    /// An answer leaves a registry.
    Answered {
        /// By whom.
        replica: usize,
        /// To what.
        request: &'a Request,
        /// Which.
        answer: &'a Answer,
    },
    /// Batches have become durable.
    Durable {
        /// Those after this revision.
        after: Revision,
    },
    /// A watcher has heard something.
    Heard {
        /// Who.
        watch: usize,
        /// What it watches.
        selection: &'a Selection,
        /// What it heard.
        heard: &'a Heard,
        /// The last revision that its registry's history no longer had.
        compacted: Revision,
    },
    /// A watcher has opened a stream.
    Opened {
        /// Who.
        watch: usize,
        /// What it heard last.
        from: Option<Revision>,
        /// What its registry shows.
        shown: Revision,
        /// Whether it was let in.
        accepted: bool,
    },
    /// A registry has been started.
    Started {
        /// Which.
        replica: usize,
        /// The name of this life of it.
        id: ReplicaId,
        /// What it shows.
        hub: &'a Arc<Hub>,
    },
    /// A registry does not run for a while.
    Stopped {
        /// Which.
        replica: usize,
        /// How long.
        until: Time,
    },
    /// Something keeps registries from working as fast as they should.
    Trouble {
        /// How long.
        until: Time,
    },
    /// A registry has taken an input.
    Stepped {
        /// Which.
        replica: usize,
        /// What it shows.
        hub: &'a Arc<Hub>,
        /// Instances and leases that its catalog holds.
        sizes: (usize, usize),
        /// How many commands and batches it has applied that are not durable.
        unsettled: usize,
    },
    /// The stream that carried the heartbeats of a lease broke.
    Suspected {
        /// Which.
        lease: LeaseId,
    },
    /// The store holds a registry for dead.
    Died {
        /// Which.
        id: ReplicaId,
    },
    /// Nothing goes wrong any more.
    Healed,
}

/// The world when its history has ended, some time after nothing went wrong any more.
pub(super) struct End<'a> {
    /// What is durable.
    pub(super) truth: &'a Truth,
    /// The registries.
    pub(super) replicas: &'a [Replica],
    /// Who registered.
    pub(super) providers: &'a [Provider],
    /// Who watched.
    pub(super) watches: &'a [Watch],
}

/// Something that must hold. What is wrong is said in words.
pub(super) trait Invariant: fmt::Debug {
    /// As a failure names it.
    fn name(&self) -> &'static str;

    /// Looks at what happens.
    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String>;

    /// Looks at what has become of it.
    fn finish(&mut self, _end: &End<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// All of them.
pub(super) fn all(plan: &Plan) -> Vec<Box<dyn Invariant>> {
    // Those that explain most come first: one bug may break several.
    vec![
        Box::new(unheard::Unheard),
        Box::new(durable::Durable::default()),
        Box::new(apart::Apart),
        Box::new(resurrected::Resurrected::default()),
        Box::new(overrides::Overrides::default()),
        Box::new(probes::Probes::default()),
        Box::new(idempotent::Idempotent::default()),
        Box::new(fencing::Fencing),
        Box::new(recovery::Recovery::new(plan)),
        Box::new(lifetime::Lifetime::default()),
        Box::new(ownership::Ownership::new(plan)),
        Box::new(protection::Protection::new(plan)),
        Box::new(ghosts::Ghosts::new(plan)),
        Box::new(linearizable::Linearizable::default()),
        Box::new(convergence::Convergence),
        Box::new(watch::Ordered::default()),
        Box::new(watch::Unique::default()),
        Box::new(watch::Resumable::default()),
        Box::new(watch::Bookmarkable::default()),
        Box::new(watch::Reliable::default()),
        Box::new(watch::Atomic),
        Box::new(memory::Memory::new(plan)),
        Box::new(progress::Progress::default()),
        Box::new(healing::Healing),
    ]
}

/// For checks that need `true`.
fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
