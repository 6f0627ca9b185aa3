//! The registry's gate: from a request's headers to a question, from a verdict to a pass or a status.

use std::sync::Arc;

use http::Extensions;
use service_host::{Credentials, Gate, Pass, Peer, status};
use tonic::{Code, Status};

use crate::{
    access::{Missing, Principal, Verdict, rules},
    gatekeeper::Gatekeeper,
};

/// The gatekeeper as service-host asks it.
#[derive(Debug)]
pub(crate) struct ApiGate(pub(crate) Arc<Gatekeeper>);

impl Gate for ApiGate {
    fn admit(&self, path: &str, credentials: Credentials<'_>, extensions: &mut Extensions) -> Result<Pass, Status> {
        let token = match credentials {
            Credentials::None => None,
            Credentials::Bearer(token) => Some(Ok(token)),
            Credentials::Unreadable => Some(Err(())),
        };
        let peer = extensions.get::<Peer>();
        let identity = peer.and_then(|peer| peer.identity.as_ref());
        match self.0.decide(path, token, identity) {
            Verdict::Anybody => Ok(Pass::ToItsEnd),
            Verdict::Known(principal) => {
                let pass = match (&principal, peer) {
                    _ if !rules::streams(path) => Pass::ToItsEnd,
                    (Principal::Token(token), _) => Pass::Until(token.revocation().clone()),
                    (Principal::Identity(_), Some(peer)) => Pass::Until(peer.ended.clone()),
                    (Principal::Identity(_), None) => Pass::ToItsEnd,
                };
                extensions.insert(principal);
                Ok(pass)
            }
            Verdict::Unknown => Err(unknown()),
            Verdict::NoSuchMethod => Err(no_such_method()),
            Verdict::Lacks(principal, missing) => Err(lacks(&principal, &missing)),
        }
    }
}

/// The same for all of them, whether there was no token or one that is unknown, wrong, expired, revoked or garbage.
fn unknown() -> Status {
    status::error(
        Code::Unauthenticated,
        "UNAUTHENTICATED",
        "this registry has to know who calls: send a valid token as `authorization: Bearer tsr_…` (--token or TESSERA_TOKEN for \
         tessera; `tessera token issue` makes one), or a client certificate that has not ended, where it takes those",
    )
}

/// Only to those who are known. Which methods there are, they find by reflection.
fn no_such_method() -> Status {
    status::error(
        Code::Unimplemented,
        "UNKNOWN_METHOD",
        "this registry has no such method; with a `read` scope, server reflection lists what it has",
    )
}

/// What somebody who is known may not do.
pub(super) fn lacks(principal: &Principal, missing: &Missing) -> Status {
    let (scope, lack) = match missing {
        Missing::Kind(kind) => (kind.to_string(), format!("has no {kind} scope")),
        Missing::Scope(scope) => (scope.clone(), format!("does not have the scope {scope}")),
    };
    status::error_with(
        Code::PermissionDenied,
        "SCOPE_MISSING",
        format!("{principal} {lack}; `tessera token issue --scope` makes a token that has it"),
        [("scope", scope)],
    )
}

#[cfg(test)]
mod tests;
