//! What clients ask of a registry and what they are answered, as it travels in the simulated network.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    catalog::{CatalogError, Govern, Judge, Owner, RenewError, RequestId},
    hub::Selection,
    model::{Draft, Epoch, Heartbeat, Instance, InstanceId, InstanceKey, LeaseId, Revision, Status, Weight},
};

/// Names a request in all of a history. A repeat is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket(pub(super) u64);

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// A process that registers itself.
    Provider(usize),
    /// One that looks.
    Reader(usize),
    /// Somebody who decides.
    Operator(usize),
    /// The part of a registry that asks instances whether they are well.
    Prober(usize),
}

/// On its way to a registry.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Its name.
    pub(super) ticket: Ticket,
    /// Who.
    pub(super) from: Client,
    /// What.
    pub(super) ask: Ask,
    /// To which registry.
    pub(super) to: usize,
}

/// What is asked.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    /// Register these under a new lease.
    Register {
        /// Of the request and its repeats.
        request: RequestId,
        /// What.
        drafts: Vec<Draft>,
        /// How long it lives.
        heartbeat: Heartbeat,
        /// Under this lease, which is to have these terms from now on, instead of a new one.
        under: Option<Owner>,
    },
    /// Heartbeat of a lease, and in the same round of one that is believed lost.
    Renew(Owner, Option<Owner>),
    /// Change an instance.
    Update {
        /// Whose.
        owner: Owner,
        /// Which.
        key: InstanceKey,
        /// As known.
        epoch: Epoch,
        /// The new weight.
        weight: Weight,
        /// The new status.
        status: Status,
    },
    /// End some instances, or the lease.
    Deregister(Owner, Vec<InstanceId>),
    /// Lay something over an instance, or take it away. Each says another reason.
    Govern(Govern),
    /// Note what the probes of an instance have come to.
    Judge(Judge),
    /// Read one.
    Get(InstanceKey),
    /// Read some.
    List(Selection),
}

/// What is answered.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// To [`Ask::Register`].
    Registered {
        /// The lease and its secret.
        owner: Owner,
        /// Of the registration.
        revision: Revision,
    },
    /// To [`Ask::Renew`].
    Renewed(Result<Duration, RenewError>),
    /// To [`Ask::Update`] and [`Ask::Judge`].
    Updated(Arc<Instance>),
    /// To [`Ask::Deregister`].
    Deregistered(Revision),
    /// To [`Ask::Govern`].
    Governed(Revision),
    /// The catalog refuses.
    Refused(CatalogError),
    /// Nothing was done, not even under this lease.
    Undone(String, Option<LeaseId>),
    /// It may have been done or not.
    Unknown,
    /// To [`Ask::Get`].
    Found(Revision, Option<Arc<Instance>>),
    /// To [`Ask::List`].
    Listed(Revision, Vec<Arc<Instance>>),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(n) => write!(f, "provider {n}"),
            Self::Reader(n) => write!(f, "reader {n}"),
            Self::Operator(n) => write!(f, "operator {n}"),
            Self::Prober(n) => write!(f, "prober {n}"),
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register { drafts, under, .. } => {
                f.write_str(if under.is_some() { "join" } else { "register" })?;
                drafts.iter().try_for_each(|draft| write!(f, " {}", short(&draft.key)))
            }
            Self::Renew(owner, None) => write!(f, "renew {}", lease(owner.lease)),
            Self::Renew(owner, Some(former)) => {
                write!(f, "renew {} and {}", lease(owner.lease), lease(former.lease))
            }
            Self::Update { key, epoch, weight, .. } => {
                write!(
                    f,
                    "update {} of epoch {} weight {}",
                    short(key),
                    epoch.revision(),
                    weight.get()
                )
            }
            Self::Deregister(owner, ids) if ids.is_empty() => write!(f, "deregister all of {}", lease(owner.lease)),
            Self::Deregister(owner, ids) => write!(f, "deregister {} of {}", ids[0], lease(owner.lease)),
            Self::Govern(govern) => write!(f, "{:?} for {}", govern.decision, short(&govern.key)),
            Self::Judge(judge) => write!(
                f,
                "judge {} of epoch {} {:?}",
                short(&judge.key),
                judge.epoch.revision(),
                judge.health
            ),
            Self::Get(key) => write!(f, "get {}", short(key)),
            Self::List(_) => f.write_str("list"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered { owner, revision, .. } => {
                write!(f, "registered at {revision} under {}", lease(owner.lease))
            }
            Self::Renewed(Ok(_)) => f.write_str("renewed"),
            Self::Renewed(Err(error)) => write!(f, "not renewed: {error:?}"),
            Self::Updated(instance) => write!(f, "{} updated at {}", short(&instance.key), instance.revision),
            Self::Deregistered(revision) => write!(f, "deregistered at {revision}"),
            Self::Governed(revision) => write!(f, "decided at {revision}"),
            Self::Refused(error) => write!(f, "refused: {error:?}"),
            Self::Undone(why, _) => write!(f, "not done: {why}"),
            Self::Unknown => f.write_str("may be done or not"),
            Self::Found(revision, found) => match found {
                Some(instance) => write!(f, "at {revision}: epoch {}", instance.epoch.revision()),
                None => write!(f, "at {revision}: nothing"),
            },
            Self::Listed(revision, list) => write!(f, "at {revision}: {} instances", list.len()),
        }
    }
}

/// An instance's name without its namespace.
pub(super) fn short(key: &InstanceKey) -> String {
    format!("{}/{}", key.service, key.id)
}

/// The last digits of a lease's name.
pub(super) fn lease(id: LeaseId) -> String {
    format!("lease {:04x}", id.bits() & 0xffff)
}

impl Request {
    /// Its heartbeats, each as a request of its own.
    pub(super) fn rounds(&self) -> Vec<Self> {
        let Ask::Renew(owner, former) = &self.ask else {
            return Vec::new();
        };
        let alone = |owner: Owner| Self {
            ask: Ask::Renew(owner, None),
            ..self.clone()
        };
        [Some(*owner), *former].into_iter().flatten().map(alone).collect()
    }

    /// Whether it is a heartbeat, which has a queue of its own.
    pub(super) fn is_renewal(&self) -> bool {
        matches!(self.ask, Ask::Renew(..))
    }
}
