//! Sessions: from a proven password to an access token, its renewal, and its end.

use std::{net::IpAddr, time::Duration};

use identity::AccessToken;
use service_store::Timestamp;
use uuid::Uuid;

use crate::{
    accounts::{AccountError, Accounts},
    domain::{
        account::{Email, Password, User},
        refusal::Refusal,
        session::{RefreshToken, Session},
    },
    signing::Signing,
    store::{NewSession, Store, StoreError},
};

/// Sessions of a process. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    store: Store,
    accounts: Accounts,
    signing: Signing,
    lifetime: Duration,
}

/// What the holder of a session is given.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) user: User,
    pub(crate) access: AccessToken,
    pub(crate) expires_at: Timestamp,
    pub(crate) refresh: RefreshToken,
    pub(crate) refresh_expires_at: Timestamp,
}

impl Sessions {
    /// Sessions that end `lifetime` after they were refreshed last.
    pub(crate) fn new(store: Store, accounts: Accounts, signing: Signing, lifetime: Duration) -> Self {
        Self {
            store,
            accounts,
            signing,
            lifetime,
        }
    }

    /// Opens a session for whoever knows the password.
    pub(crate) async fn sign_in(
        &self,
        email: &Email,
        password: Password,
        peer: IpAddr,
        user_agent: String,
    ) -> Result<Granted, AccountError> {
        let user = self.accounts.prove(email, password, peer).await?.user;
        // The thread's generator is cryptographically secure and seeded by the system.
        let refresh = RefreshToken::first(Uuid::new_v4(), rand::random(), rand::random());
        let new = NewSession {
            id: refresh.session,
            user_id: user.id,
            hashes: refresh.hashes(),
            user_agent,
        };
        let (now, refresh_expires_at) = self.store.open_session(&new, self.lifetime).await?;
        let (access, expires_at) = self.signing.access_token(&user, refresh.session, now)?;
        Ok(Granted {
            user,
            access,
            expires_at,
            refresh,
            refresh_expires_at,
        })
    }

    /// Renews a session; what was shown is used up.
    pub(crate) async fn refresh(&self, shown: &RefreshToken) -> Result<Granted, AccountError> {
        let refresh = shown.next(rand::random());
        let renewed = self.store.refresh_session(shown, &refresh, self.lifetime).await;
        if matches!(renewed, Err(StoreError::Refused(Refusal::RefreshTokenReused))) {
            tracing::warn!(session = %shown.session, "a refresh token was shown again: its session was ended");
        }
        let (user, now, refresh_expires_at) = renewed?;
        let (access, expires_at) = self.signing.access_token(&user, refresh.session, now)?;
        Ok(Granted {
            user,
            access,
            expires_at,
            refresh,
            refresh_expires_at,
        })
    }

    /// The account's open sessions, newest first.
    pub(crate) async fn list(&self, user_id: Uuid) -> Result<Vec<Session>, StoreError> {
        self.store.user(user_id).await?;
        self.store.sessions(user_id).await
    }

    /// Ends these sessions of the account; with none named, all of them.
    pub(crate) async fn revoke(&self, user_id: Uuid, ids: &[Uuid]) -> Result<u64, StoreError> {
        self.store.user(user_id).await?;
        self.store.revoke_sessions(user_id, ids).await
    }
}
