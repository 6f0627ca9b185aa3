//! Heartbeats whose refusal waits, as any answer does, until what it tells of is durable.
//!
//! A lease may be refused for what is still on its way: another has taken its last instance, or it has ended. If that does not
//! become durable it has not happened, and its owner, who was heard in time, must not be told that it has lost. And where
//! several replicas share a store, another may have granted what is unknown here.
//!
//! So waits the first word to an owner who comes from another replica: until the lease is ours that one may end it, and an owner
//! who is told that all is well relies on it.

use tokio::sync::oneshot;

use super::group::Group;
use crate::{
    access::Bounds,
    catalog::{Catalog, Owner, RenewError, Renewed},
    model::PeerKey,
};

/// Why a lease was not renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotRenewed {
    /// It has ended, or its owner has been succeeded, and that is durable.
    Refused(RenewError),
    /// Nobody can say now. The heartbeat was heard all the same, but another replica may be ending the lease: the owner is to
    /// renew it there.
    Undecided,
}

/// The results of one round, in its order.
pub(crate) type Results = Vec<Result<Renewed, NotRenewed>>;

/// One round that waits.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) owners: Vec<Owner>,
    /// What the caller is bound to, where that is to be looked at.
    pub(super) within: Option<Bounds>,
    /// Who sent it, where that is known.
    pub(super) peer: Option<PeerKey>,
    pub(super) results: Results,
    pub(super) caller: oneshot::Sender<Results>,
}

impl Round {
    /// What it counts while it waits: its heartbeats, and something for itself.
    pub(super) fn weight(&self) -> usize {
        self.owners.len() + 2
    }

    /// Whether nobody waits for its answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.caller.is_closed()
    }

    /// Who is refused for how things are, as far as it is known. Who asks for what is none of his is so however they are.
    pub(super) fn refused(&self) -> impl Iterator<Item = &Owner> {
        let refusal = |result: &Result<Renewed, NotRenewed>| match result {
            Err(NotRenewed::Refused(error)) => *error != RenewError::NotCovered,
            _ => false,
        };
        let results = self.owners.iter().zip(&self.results);
        results.filter_map(move |(owner, result)| refusal(result).then_some(owner))
    }

    /// Who is not.
    pub(super) fn kept(&self) -> impl Iterator<Item = (&Owner, &Renewed)> {
        let results = self.owners.iter().zip(&self.results);
        results.filter_map(|(owner, result)| Some((owner, result.as_ref().ok()?)))
    }

    /// The others are kept waiting with those who are refused: their time does not run meanwhile.
    pub(super) fn keep(&self, catalog: &mut Catalog) {
        for (owner, result) in self.owners.iter().zip(&self.results) {
            if result.is_ok() {
                // One that has ended since is told so with the answer.
                let _ = catalog.renew(owner);
            }
        }
    }

    /// What refused some of it has become durable. The others were kept waiting with them, perhaps for longer than they live,
    /// and have their full time again. `open` is applied and not durable: what it takes lives. Returns it if some of it is to be
    /// claimed still.
    pub(super) fn confirm(mut self, catalog: &mut Catalog, open: &mut Group) -> Option<Self> {
        if self.is_abandoned() {
            return None;
        }
        for (owner, result) in self.owners.iter().zip(&mut self.results) {
            if result.is_err() {
                continue;
            }
            // A name may have come to it meanwhile that is none of the caller's.
            match catalog.renew_within(owner, self.within.as_ref()) {
                Ok(renewed) => *result = Ok(renewed),
                Err(_) if open.hears(owner) => {}
                Err(refusal) => *result = Err(NotRenewed::Refused(refusal)),
            }
        }
        if self.kept().any(|(_, renewed)| renewed.claim) {
            return Some(self);
        }
        self.answer();
        None
    }

    /// Of those whose leases stay another replica's nobody here can say how they are. Whether there are any.
    pub(super) fn doubt(&mut self, is_elsewhere: impl Fn(&Owner, &Renewed) -> bool) -> bool {
        let mut any = false;
        for (owner, result) in self.owners.iter().zip(&mut self.results) {
            if result.as_ref().is_ok_and(|renewed| is_elsewhere(owner, renewed)) {
                *result = Err(NotRenewed::Undecided);
                any = true;
            }
        }
        any
    }

    /// Nobody knows when what it waits for will be decided.
    pub(super) fn give_up(mut self) {
        self.results.fill(Err(NotRenewed::Undecided));
        self.answer();
    }

    /// As far as is known.
    pub(super) fn answer(self) {
        // One who has gone needs no answer; it was heard all the same.
        let _ = self.caller.send(self.results);
    }
}
