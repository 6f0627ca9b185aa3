//! Who makes a call, for what its body names: the second door, behind the gate.

use http::Extensions;
use service_host::Peer;

use super::error::ApiError;
use crate::{
    access::{Bounds, Missing, Principal, scope::Need},
    model::Who,
};

const PAST_THE_GATE: ApiError = ApiError::Bug("a call came past the gate");

/// Who makes a call.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// Nobody is asked here.
    Anybody,
    /// Somebody whom the gate has let in.
    Known(Principal),
    /// Nobody knows, where it should be known: a call that came past the gate. Refused whatever it wants.
    Unknown,
}

impl Caller {
    /// The caller of a request to a registry that is guarded, or is not.
    pub(super) fn of(extensions: &Extensions, is_guarded: bool) -> Self {
        match extensions.get::<Principal>() {
            Some(principal) => Self::Known(principal.clone()),
            None if is_guarded => Self::Unknown,
            None => Self::Anybody,
        }
    }

    /// Whether it may do that. To be asked before anything is looked up or changed.
    ///
    /// # Errors
    /// [`ApiError::Denied`] with the scope that is missing.
    pub(super) fn needs(&self, need: Need<'_>) -> Result<(), ApiError> {
        match self {
            Self::Anybody => Ok(()),
            Self::Known(principal) if principal.may(need) => Ok(()),
            Self::Known(principal) => Err(ApiError::Denied(principal.clone(), Missing::Scope(need.to_string()))),
            Self::Unknown => Err(PAST_THE_GATE),
        }
    }

    /// Who is put on the record for a decision: whoever it is, with what it calls itself; where nobody is asked, the latter alone.
    pub(super) fn signs(&self, said: Who) -> Who {
        match self {
            Self::Known(principal) => Who::known(&principal.to_string(), &said),
            Self::Anybody | Self::Unknown => said,
        }
    }

    /// How far it may go with the secret of a lease; `None`: with any.
    ///
    /// # Errors
    /// Of a call that came past the gate.
    pub(super) fn bounds(extensions: &Extensions, is_guarded: bool) -> Result<Option<Bounds>, ApiError> {
        let principal = match Self::of(extensions, is_guarded) {
            Self::Anybody => None,
            Self::Known(principal) => Some(principal),
            Self::Unknown => return Err(PAST_THE_GATE),
        };
        let identity = extensions.get::<Peer>().and_then(|peer| peer.identity.clone());
        Ok(Bounds::of(principal, identity))
    }
}
