//! The gate: from a request's path and token to a question, from an answer to a pass or a status; and what handlers ask then.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{SystemTime, UNIX_EPOCH},
};

use http::Extensions;
use identity::{Caller, Refused, TokenError, gate::Shown};
use service_host::{Credentials, Gate, Pass, Peer};
use tonic::{Request, Status};

use crate::{
    access::rules::TABLE,
    domain::{refusal::Refusal, session},
    error,
    signing::Signing,
    store::{Store, StoreError},
};

/// Asked by service-host about every call.
#[derive(Debug)]
pub(crate) struct ApiGate {
    pub(crate) signing: Signing,
}

impl Gate for ApiGate {
    fn admit(&self, path: &str, credentials: Credentials<'_>, extensions: &mut Extensions) -> Result<Pass, Status> {
        let shown = match credentials {
            Credentials::None => Shown::Nothing,
            Credentials::Bearer(token) => Shown::Token(token),
            Credentials::Unreadable => Shown::Unreadable,
        };
        match identity::gate::decide(TABLE, path, shown, &self.signing.verifier(), now()) {
            Ok(caller) => {
                extensions.insert(caller);
                // The one stream that a token opens, WatchOrder, looks by itself whether it may go on.
                Ok(Pass::ToItsEnd)
            }
            Err(refused) => {
                if matches!(refused, Refused::BadToken(TokenError::KeyUnknown(_))) {
                    self.signing.look_soon();
                }
                Err(error::refused(refused, path))
            }
        }
    }
}

/// Whoever the gate has let through. A person's session is still open: signed out and revoked is refused at once here.
pub(super) async fn caller<T>(store: &Store, request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or(Caller::Nobody);
    check(store, &caller).await?;
    Ok(caller)
}

/// Whether what the gate has let through may go on: streams ask again.
pub(super) async fn check(store: &Store, caller: &Caller) -> Result<(), Status> {
    let Caller::User {
        id,
        session,
        expires_at,
        ..
    } = caller
    else {
        return Ok(());
    };
    if now() >= *expires_at {
        return Err(error::refused(Refused::BadToken(TokenError::Expired), ""));
    }
    if !store.session_is_open(*session, *id).await? {
        return Err(StoreError::from(Refusal::SessionEnded).into());
    }
    Ok(())
}

/// Where the call comes from: behind a proxy, the proxy.
pub(super) fn peer<T>(request: &Request<T>) -> IpAddr {
    let peer = request.extensions().get::<Peer>();
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.address.ip())
}

/// What the client calls itself.
pub(super) fn user_agent<T>(request: &Request<T>) -> String {
    let sent = request
        .metadata()
        .get("user-agent")
        .and_then(|value| value.to_str().ok());
    session::user_agent(sent.unwrap_or_default())
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
