//! Heartbeats whose refusal waits, as any answer does, until what it tells of is durable.
//!
//! A lease may be refused for what is still on its way: another has taken its last instance, or it has ended. If that does not
//! become durable it has not happened, and its owner, who was heard in time, must not be told that it has lost.

use tokio::sync::oneshot;

use crate::catalog::{Catalog, Owner, RenewError, Renewed};

/// The results of one round, in its order.
pub(crate) type Results = Vec<Result<Renewed, RenewError>>;

/// One round that waits.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) owners: Vec<Owner>,
    pub(super) results: Results,
    pub(super) caller: oneshot::Sender<Results>,
}

impl Round {
    /// What refused some of it has become durable. The others were kept waiting with them, perhaps for longer than they live,
    /// and have their full time again.
    pub(super) fn confirm(mut self, catalog: &mut Catalog) {
        for (owner, result) in self.owners.iter().zip(&mut self.results) {
            if result.is_ok()
                && let Ok(renewed) = catalog.renew(owner)
            {
                *result = Ok(renewed);
            }
        }
        self.answer();
    }

    /// What refused some of it has not happened: their owners are heard now.
    pub(super) fn hear_again(mut self, catalog: &mut Catalog) {
        // One who has gone needs no answer; it was heard all the same.
        self.results = self.owners.iter().map(|owner| catalog.renew(owner)).collect();
        self.answer();
    }

    /// As far as is known.
    pub(super) fn answer(self) {
        let _ = self.caller.send(self.results);
    }
}
