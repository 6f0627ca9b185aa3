//! Who calls, as a gate has found out. Goes in a request's extensions; the API compares ids with it.

use uuid::Uuid;

use crate::{
    roles::Roles,
    token::{Claims, Subject},
};

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Nobody who has said so: only what is public gets this far.
    Nobody,
    /// A person.
    User {
        /// Their account.
        id: Uuid,
        /// What they were when the token was issued.
        roles: Roles,
        /// Their session.
        session: Uuid,
        /// When the token ends, in seconds since 1970.
        expires_at: u64,
    },
    /// A service of the platform.
    Service {
        /// As the registry knows it.
        name: String,
    },
    /// Somebody, at a gate that was opened on purpose: may do everything.
    Anyone,
}

impl Caller {
    /// Who these claims say that it is.
    #[must_use]
    pub fn of(claims: &Claims) -> Self {
        match &claims.subject {
            Subject::User { id, session } => Self::User {
                id: *id,
                roles: claims.roles,
                session: *session,
                expires_at: claims.expires_at,
            },
            Subject::Service(name) => Self::Service { name: name.clone() },
        }
    }

    /// What it may act as.
    #[must_use]
    pub fn roles(&self) -> Roles {
        match self {
            Self::Nobody => Roles::NONE,
            Self::User { roles, .. } => *roles,
            Self::Service { .. } => Roles::SERVICE,
            Self::Anyone => Roles::OF_PEOPLE.and(Roles::SERVICE),
        }
    }

    /// The account, if it is a person.
    #[must_use]
    pub fn user(&self) -> Option<Uuid> {
        match self {
            Self::User { id, .. } => Some(*id),
            Self::Nobody | Self::Service { .. } | Self::Anyone => None,
        }
    }

    /// The session, if it is a person.
    #[must_use]
    pub fn session(&self) -> Option<Uuid> {
        match self {
            Self::User { session, .. } => Some(*session),
            Self::Nobody | Self::Service { .. } | Self::Anyone => None,
        }
    }

    /// Whether it is that service.
    #[must_use]
    pub fn is_service(&self, named: &str) -> bool {
        match self {
            Self::Service { name } => name == named,
            Self::Anyone => true,
            Self::Nobody | Self::User { .. } => false,
        }
    }

    /// Whether what belongs to that account is theirs to use: the account itself, or an operator.
    #[must_use]
    pub fn may_act_for(&self, account: Uuid) -> bool {
        self.user() == Some(account) || self.roles().meets(Roles::OPERATOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_owners_and_operators_act_for_an_account() {
        let (own, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let user = |roles| Caller::User {
            id: own,
            roles,
            session: Uuid::from_u128(3),
            expires_at: 1,
        };
        let service = Caller::Service {
            name: "user-svc".into(),
        };
        assert!(user(Roles::BUYER).may_act_for(own));
        assert!(!user(Roles::BUYER.and(Roles::ORGANISER)).may_act_for(other));
        assert!(user(Roles::OPERATOR).may_act_for(other));
        assert!(!service.may_act_for(own) && !Caller::Nobody.may_act_for(own));
        assert!(Caller::Anyone.may_act_for(own));
        assert!(service.is_service("user-svc") && !service.is_service("ticket-svc"));
        assert!(!user(Roles::OPERATOR).is_service("user-svc"));
    }
}
