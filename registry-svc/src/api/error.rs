//! The one mapping from what went wrong to a gRPC status.

use std::{ops::Range, time::Duration};

use service_host::status;
use thiserror::Error;
use tonic::{Code, Status};

use super::{gate, identity::IdentityMismatch, lanes::Crowded};
use crate::{
    access::{Missing, Principal},
    catalog::CatalogError,
    driver::{NotRenewed, SubmitError},
    hub::{AckError, FutureRevision},
    model::{InstanceKey, Revision},
    prober::Refused,
};

/// Why an RPC fails.
#[derive(Debug, Error)]
pub(super) enum ApiError {
    /// Fields break rules.
    #[error("invalid argument")]
    Invalid(Vec<(String, String)>),
    /// The driver or the catalog refused.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The caller's certificate names somebody else.
    #[error(transparent)]
    Identity(#[from] IdentityMismatch),
    /// A watch from a revision that has not happened.
    #[error(transparent)]
    FutureRevision(#[from] FutureRevision),
    /// An acknowledgement that cannot be taken.
    #[error(transparent)]
    Ack(#[from] AckError),
    /// Watchers are to have applied a revision that has not happened.
    #[error(
        "revision {asked} is in the future, the registry is at {present}: pass the revision that UpdateInstance returned"
    )]
    NotYet {
        /// What was asked for.
        asked: Revision,
        /// What is.
        present: Revision,
    },
    /// The caller is known, and may not.
    #[error("{0} may not do that")]
    Denied(Principal, Missing),
    /// Too many wait for the same.
    #[error("{}", crowded(.0))]
    Crowded(Crowded),
    /// The catalog refused for the quota of this registrant.
    #[error("{0}")]
    Quota(CatalogError, String),
    /// An instance asks to be probed where this registry does not dial.
    #[error("{0} cannot be probed at that address: {1}")]
    ProbeRefused(InstanceKey, Refused),
    /// The server goes away and ends its streams.
    #[error("this registry is going away: resume at another one, or at this address in a moment")]
    Draining,
    /// A bug of ours: two parts that must agree do not.
    #[error("internal error: {0}")]
    Bug(&'static str),
}

impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> Self {
        Self::Submit(error.into())
    }
}

impl From<NotRenewed> for ApiError {
    fn from(not_renewed: NotRenewed) -> Self {
        match not_renewed {
            NotRenewed::Refused(error) => CatalogError::from(error).into(),
            NotRenewed::Undecided => Self::Submit(SubmitError::StoreAway),
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let text = error.to_string();
        match error {
            ApiError::Invalid(violations) => status::invalid(violations),
            ApiError::Identity(_) => status::error(Code::PermissionDenied, "IDENTITY_MISMATCH", text),
            ApiError::Submit(SubmitError::Refused(refusal)) => refused(&refusal, text),
            ApiError::Submit(SubmitError::Busy) => retry(Code::Unavailable, "REGISTRY_BUSY", text),
            // An operator has to free some: seconds, not milliseconds.
            ApiError::Submit(SubmitError::NoRoom(_)) => {
                status::retryable(Code::ResourceExhausted, "DISK_FULL", text, jittered(1_000..5_000))
            }
            ApiError::Submit(SubmitError::StoreAway) => retry(Code::Unavailable, "STORE_AWAY", text),
            ApiError::Submit(SubmitError::Stopping) => retry(Code::Unavailable, "REGISTRY_STOPPING", text),
            ApiError::Submit(SubmitError::OutcomeUnknown) => retry(Code::Unavailable, "OUTCOME_UNKNOWN", text),
            ApiError::FutureRevision(_) => status::error(Code::OutOfRange, "REVISION_IN_FUTURE", text),
            ApiError::NotYet { .. } => status::error(Code::OutOfRange, "REVISION_IN_FUTURE", text),
            ApiError::Ack(AckError::UnknownWatch) => status::error(Code::NotFound, "WATCH_UNKNOWN", text),
            ApiError::Ack(AckError::NotSent { .. }) => status::error(Code::OutOfRange, "REVISION_NOT_SENT", text),
            ApiError::Denied(principal, missing) => gate::lacks(&principal, &missing),
            ApiError::Crowded(Crowded::Peer) => retry(Code::ResourceExhausted, "PEER_BUSY", text),
            ApiError::Crowded(Crowded::All) => retry(Code::ResourceExhausted, "REGISTRY_BUSY", text),
            ApiError::Quota(_, subject) => status::over_quota("INSTANCE_QUOTA_EXCEEDED", text, subject),
            ApiError::ProbeRefused(..) => status::error(Code::PermissionDenied, "PROBE_TARGET_REFUSED", text),
            ApiError::Draining => retry(Code::Unavailable, "DRAINING", text),
            ApiError::Bug(_) => status::error(Code::Internal, "INTERNAL", text),
        }
    }
}

fn crowded(crowded: &Crowded) -> &'static str {
    match crowded {
        Crowded::Peer => "the registry is busy, and half of all that waits comes from this address: send less at once",
        Crowded::All => "the registry has more calls waiting than it can answer in time",
    }
}

fn refused(refusal: &CatalogError, text: String) -> Status {
    match refusal {
        CatalogError::LeaseUnknown => retry(Code::NotFound, "LEASE_UNKNOWN", text),
        CatalogError::StaleEpoch(_) | CatalogError::LeaseFenced => {
            status::error(Code::FailedPrecondition, "STALE_EPOCH", text)
        }
        CatalogError::LeaseNotCovered => status::error(Code::PermissionDenied, "LEASE_NOT_COVERED", text),
        CatalogError::InstanceUnknown(_) => status::error(Code::NotFound, "INSTANCE_UNKNOWN", text),
        CatalogError::RequestIdReused => status::error(Code::AlreadyExists, "REQUEST_ID_REUSED", text),
        CatalogError::LeaseFull { .. } => status::error(Code::ResourceExhausted, "LEASE_FULL", text),
        // Each is within its own bounds: it is what they make together.
        CatalogError::Terms(_) => status::invalid([("heartbeat_interval", text.clone()), ("misses_allowed", text)]),
        CatalogError::QuotaExceeded { .. } => status::over_quota("INSTANCE_QUOTA_EXCEEDED", text, String::new()),
        CatalogError::RegistryFull { .. } => retry(Code::ResourceExhausted, "REGISTRY_FULL", text),
    }
}

/// Spread over most of a second: those who are told at the same moment must not come back at the same moment.
pub(super) fn jittered_delay() -> Duration {
    jittered(100..1_000)
}

fn jittered(millis: Range<u64>) -> Duration {
    Duration::from_millis(rand::random_range(millis))
}

fn retry(code: Code, reason: &'static str, text: String) -> Status {
    status::retryable(code, reason, text, jittered_delay())
}
