//! Somebody who is known, and what they may do.

use std::{fmt, sync::Arc};

use crate::{
    access::scope::{Kind, Need},
    tokens::Token,
};

/// Whoever makes a call, once that is known. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Principal {
    /// The holder of a token.
    Token(Arc<Token>),
    /// The holder of a certificate.
    Identity(Arc<tls::Identity>),
}

impl Principal {
    /// Whether there is anything of that kind that it may do anywhere.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        match self {
            Self::Token(token) => token.scopes().iter().any(|scope| scope.is_of(kind)),
            Self::Identity(identity) => match kind {
                Kind::Read => identity.service().is_some() || identity.operator().is_some(),
                Kind::Register => identity.service().is_some(),
                Kind::Operate => identity.operator().is_some(),
            },
        }
    }

    /// Whether it may do that. A service reads its own namespace and registers as itself; an operator decides everywhere.
    pub(crate) fn may(&self, need: Need<'_>) -> bool {
        match self {
            Self::Token(token) => token.scopes().iter().any(|scope| scope.covers(need)),
            Self::Identity(identity) => match need {
                Need::Read(namespace) => {
                    identity.operator().is_some()
                        || identity.service().is_some_and(|(own, _)| own == namespace.as_str())
                }
                Need::Register(namespace, service) => {
                    identity.service() == Some((namespace.as_str(), service.as_str()))
                }
                Need::Operate(_) | Need::OperateAll => identity.operator().is_some(),
            },
        }
    }
}

/// For logs and for the caller itself: names, no secret.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(token) => write!(f, "the token {:?} ({})", token.name(), token.id()),
            Self::Identity(identity) => write!(f, "the certificate of {}", identity.name()),
        }
    }
}
