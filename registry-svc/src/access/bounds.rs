//! How far the holder of a lease's secret may go with it: to leases of services that it may register as, and no further.
//!
//! Without this a secret that leaked was good with anybody's token: whoever may register anything at all could keep, change or end
//! the leases of a namespace that is none of their business.

use std::sync::Arc;

use super::{Principal, scope::Need};
use crate::model::ServiceKey;

/// What binds a caller: whoever it is known as, and its certificate, which binds it beside a token too. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    principal: Option<Principal>,
    identity: Option<Arc<tls::Identity>>,
}

impl Bounds {
    /// `None` where nothing binds: nobody is asked who they are, and no certificate was shown.
    pub(crate) fn of(principal: Option<Principal>, identity: Option<Arc<tls::Identity>>) -> Option<Self> {
        (principal.is_some() || identity.is_some()).then_some(Self { principal, identity })
    }

    /// Whether it may register as that service.
    pub(crate) fn cover(&self, service: &ServiceKey) -> bool {
        let ServiceKey { namespace, service } = service;
        let by_scope = |principal: &Principal| principal.may(Need::Register(namespace, service));
        let by_name = |identity: &tls::Identity| identity.service() == Some((namespace.as_str(), service.as_str()));
        self.principal.as_ref().is_none_or(by_scope) && self.identity.as_deref().is_none_or(by_name)
    }
}
