//! What the catalog is asked and what it answers.

use std::{sync::Arc, time::Duration};

use telemetry::TraceParent;
use thiserror::Error;

use super::{Batch, Undo};
use crate::{
    access::Bounds,
    model::{
        Detail, Draft, Epoch, Health, Heartbeat, Instance, InstanceId, InstanceKey, LeaseId, LeaseSecret, Metadata,
        Registrant, RemovalReason, Revision, SecretHash, Status, Terms, ValueError, WallTime, Weight, Who,
    },
};

/// A change that is asked for. Renewals are not among them: they change nothing that is stored.
///
/// Whoever applies one keeps it until its batch is durable: it may have to be taken back ([`Undo`]) and applied again.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    /// Registers instances under one lease, all or none.
    Register(Register),
    /// Changes what the owner says of its instance.
    Update(Update),
    /// Ends instances, or a lease with all of its own.
    Deregister(Deregister),
    /// Lays an operator's decision over an instance, or takes one back.
    Govern(Govern),
    /// Notes what the probes of an instance have come to. No client asks for it: the prober does.
    Judge(Judge),
    /// Makes this replica the one that hears the heartbeats of some leases, in one revision: when a replica dies, all of its
    /// leases move at once. No client asks for it: it follows from renewals that came here ([`Renewed::claim`]).
    Claim(Vec<Owner>),
}

/// A command, and where it was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// What.
    pub(crate) command: Command,
    /// The address of the peer; `None`: nobody's, the registry's own.
    pub(crate) by: Option<Who>,
    /// The span of the call, if its trace is sampled.
    pub(crate) trace: Option<TraceParent>,
}

impl From<Command> for Asked {
    fn from(command: Command) -> Self {
        Self {
            command,
            by: None,
            trace: None,
        }
    }
}

impl Command {
    /// Roughly what it costs while it waits.
    pub(crate) fn bytes(&self) -> usize {
        256 + match self {
            Self::Register(register) => register.drafts.iter().map(Draft::bytes).sum(),
            Self::Update(update) => update.metadata.as_ref().map_or(0, Metadata::bytes),
            Self::Deregister(deregister) => id_bytes(&deregister.ids),
            // As much as the texts of one may have.
            Self::Govern(_) => 2_048,
            Self::Judge(_) => 256,
            Self::Claim(owners) => std::mem::size_of_val(owners.as_slice()),
        }
    }
}

fn id_bytes(ids: &[InstanceId]) -> usize {
    // 32: the pointer and its counts.
    ids.iter().map(|id| 32 + id.as_str().len()).sum()
}

/// See [`Command::Register`].
#[derive(Debug, Clone)]
pub(crate) struct Register {
    /// Makes a repeat answer the same.
    pub(crate) request: Option<RequestId>,
    /// One or more; keys are unique.
    pub(crate) drafts: Vec<Draft>,
    /// Under which lease.
    pub(crate) lease: LeaseChoice,
    /// In whose quota a lease counts that is granted by it; `None`: in nobody's.
    pub(crate) registrant: Option<Registrant>,
}

/// A request's id with the fingerprint of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId {
    /// A UUID.
    pub(crate) id: u128,
    /// SHA-256 of the body.
    pub(crate) body: [u8; 32],
}

/// Under which lease to register.
#[derive(Debug, Clone)]
pub(crate) enum LeaseChoice {
    /// A new one.
    Grant {
        /// Its name, drawn by the caller.
        id: LeaseId,
        /// Its secret, drawn by the caller.
        secret: LeaseSecret,
        /// Its terms.
        heartbeat: Heartbeat,
    },
    /// One that lives.
    Join {
        /// Who asks.
        owner: Owner,
        /// As the owner showed it; only its answer needs it.
        secret: String,
        /// New terms; the lease keeps its own for what is left out.
        terms: Terms,
        /// Who may join; `None`: whoever has the secret.
        within: Option<Bounds>,
    },
}

/// Who says to own a lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    /// The lease.
    pub(crate) lease: LeaseId,
    /// Of the secret that was shown.
    pub(crate) secret: SecretHash,
}

/// See [`Command::Update`]. What is `None` stays.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    /// Who asks.
    pub(crate) owner: Owner,
    /// Of what.
    pub(crate) key: InstanceKey,
    /// The epoch that the owner knows.
    pub(crate) epoch: Epoch,
    /// Share of calls.
    pub(crate) weight: Option<Weight>,
    /// Whether it takes calls.
    pub(crate) status: Option<Status>,
    /// All pairs.
    pub(crate) metadata: Option<Metadata>,
}

/// See [`Command::Deregister`].
#[derive(Debug, Clone)]
pub(crate) struct Deregister {
    /// Who asks.
    pub(crate) owner: Owner,
    /// Whose leases the caller may end; `None`: whoever's secret it has.
    pub(crate) within: Option<Bounds>,
    /// Which; empty: all, and the lease ends.
    pub(crate) ids: Vec<InstanceId>,
    /// Why.
    pub(crate) reason: RemovalReason,
    /// For people.
    pub(crate) detail: Detail,
}

/// See [`Command::Govern`].
#[derive(Debug, Clone)]
pub(crate) struct Govern {
    /// Over which instance.
    pub(crate) key: InstanceKey,
    /// What.
    pub(crate) decision: Decision,
    /// Who decides.
    pub(crate) who: Who,
    /// For people.
    pub(crate) why: Detail,
}

/// What an operator decides. An end that is past already ends it with the next pulse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The instance takes no calls.
    Drain {
        /// When that ends by itself; `None`: never.
        until: Option<WallTime>,
    },
    /// It does again, if it says so.
    Undrain,
    /// This weight counts instead of its own.
    SetWeight {
        /// Which.
        weight: Weight,
        /// When that ends by itself; `None`: never.
        until: Option<WallTime>,
    },
    /// Its own counts again.
    OwnWeight,
}

impl Decision {
    /// Whether it lays something over the instance, rather than take something away.
    pub(super) fn lays(&self) -> bool {
        matches!(self, Self::Drain { .. } | Self::SetWeight { .. })
    }
}

/// See [`Command::Judge`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judge {
    /// Which instance.
    pub(crate) key: InstanceKey,
    /// Of this registration, and of no later one.
    pub(crate) epoch: Epoch,
    /// What it is from now on.
    pub(crate) health: Health,
}

/// The effects of a command.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What to answer once all that was applied before is durable.
    pub(crate) reply: Result<Reply, CatalogError>,
    /// What to make durable; none when nothing changed.
    pub(crate) batch: Option<Arc<Batch>>,
    /// Takes it back.
    pub(crate) undo: Undo,
}

impl Outcome {
    /// Notes where it was asked for.
    pub(crate) fn by(mut self, by: Option<&Who>) -> Self {
        if let (Some(batch), Some(by)) = (&mut self.batch, by) {
            // It has just been made and is nobody else's yet.
            Arc::make_mut(batch).by = Some(by.clone());
        }
        self
    }

    /// Notes for whose call it was done.
    pub(crate) fn traced(mut self, trace: Option<TraceParent>) -> Self {
        if let (Some(batch), Some(_)) = (&mut self.batch, trace) {
            Arc::make_mut(batch).trace = trace;
        }
        self
    }
}

/// What a command answers.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// To [`Command::Register`].
    Registered(Registered),
    /// To [`Command::Update`] and [`Command::Judge`].
    Updated {
        /// The instance after the change.
        instance: Arc<Instance>,
    },
    /// To [`Command::Deregister`].
    Deregistered {
        /// The revision after the removal.
        revision: Revision,
    },
    /// To [`Command::Govern`].
    Governed {
        /// The instance after it; `None`: it is not registered.
        instance: Option<Arc<Instance>>,
        /// Of the decision, also of one that was made before; the present one where there was nothing to take back.
        revision: Revision,
    },
    /// To [`Command::Claim`]: this replica hears the heartbeats of all that were there to be claimed.
    Claimed,
}

impl Reply {
    /// Roughly what it costs while it waits.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Registered(registered) => registered.bytes(),
            Self::Updated { instance } => instance.bytes(),
            Self::Governed { instance, .. } => instance.as_ref().map_or(0, |instance| instance.bytes()),
            Self::Deregistered { .. } | Self::Claimed => 0,
        }
    }
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registered {
    /// What keeps the instances.
    pub(crate) lease: LeaseId,
    /// For the owner's eyes.
    pub(crate) secret: Secret,
    /// In the order of the request.
    pub(crate) ids: Arc<[InstanceId]>,
    /// Of the registration; its epoch too.
    pub(crate) revision: Revision,
    /// How long the lease lives without a renewal.
    pub(crate) ttl: Duration,
}

impl Registered {
    /// Roughly what it costs to keep.
    pub(crate) fn bytes(&self) -> usize {
        256 + id_bytes(&self.ids)
    }
}

/// A secret on its way back to its owner. Not printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why the catalog refuses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CatalogError {
    /// It has ended, never was, or the secret is wrong; which of them is not told.
    #[error("the lease is unknown or the secret is not its own: register again without a lease")]
    LeaseUnknown,
    /// The caller is not the owner any more.
    #[error(
        "{0} has been registered anew by another lease or at another epoch: its former owner can no longer change it"
    )]
    StaleEpoch(InstanceKey),
    /// It keeps what the caller may not register.
    #[error(
        "the lease is of a service that the caller may not register as: its secret is good only with a token or a certificate \
         that may"
    )]
    LeaseNotCovered,
    /// Every instance of the lease has been taken by other leases.
    #[error("all instances of the lease have been registered anew under other leases")]
    LeaseFenced,
    /// Not registered.
    #[error("no such instance: {0}")]
    InstanceUnknown(String),
    /// The same request id came with another body.
    #[error("this request_id was used within the last 10 minutes with another body: draw a new UUID for a new request")]
    RequestIdReused,
    /// The lease has as many instances as a lease may have.
    #[error("a lease keeps at most {limit} instances: register the others under another lease")]
    LeaseFull {
        /// The limit.
        limit: usize,
    },
    /// The terms that are asked for do not go with those that the lease keeps.
    #[error("with what the lease keeps of its own terms: {0}")]
    Terms(ValueError),
    /// Whoever was granted the lease has as many instances as one may have.
    #[error(
        "{held} instances are registered in your name, and {limit} is what one registrant may have: deregister some, or have \
         --max-instances-per-principal raised"
    )]
    QuotaExceeded {
        /// The limit.
        limit: usize,
        /// How many there are.
        held: usize,
    },
    /// The registry has as many instances or leases as it may have.
    #[error("the registry holds its limit of {limit} {what}")]
    RegistryFull {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

/// The answer to a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Renewed {
    /// How long the lease lives from now.
    pub(crate) ttl: Duration,
    /// Another replica hears this lease's heartbeats as yet: submit [`Command::Claim`].
    pub(crate) claim: bool,
    /// Which renewal this was.
    pub(crate) beat: Beat,
    /// Whose the lease is as yet.
    pub(crate) names: Names,
}

/// Counts the renewals of one lease: tells whether there has been a later one ([`Catalog::suspect`](super::Catalog::suspect)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Beat(u32);

impl Beat {
    /// The one after this. It may begin again at 0: 4 billion renewals later nobody remembers the first.
    pub(super) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// Counts the names that have come to one lease: tells whether what was found out about them is still all there is to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Names(u32);

impl Names {
    /// One more has come.
    pub(super) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// Why a renewal is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RenewError {
    /// As [`CatalogError::LeaseUnknown`].
    Unknown,
    /// As [`CatalogError::LeaseFenced`].
    Fenced,
    /// As [`CatalogError::LeaseNotCovered`].
    NotCovered,
}

impl From<RenewError> for CatalogError {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::Unknown => Self::LeaseUnknown,
            RenewError::Fenced => Self::LeaseFenced,
            RenewError::NotCovered => Self::LeaseNotCovered,
        }
    }
}
