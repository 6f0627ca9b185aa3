//! Accounts and sessions: what takes both the store and the password pool.

use std::time::Duration;

use service_store::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    domain::{
        account::{Email, NewUser, Password, User},
        refusal::Refusal,
    },
    passwords::{PasswordError, Passwords},
    store::{Known, Store, StoreError},
};

/// Accounts of a process. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Accounts {
    store: Store,
    passwords: Passwords,
    session_lifetime: Duration,
}

/// A session that was opened.
pub(crate) struct Session {
    pub(crate) user: User,
    pub(crate) token: SessionToken,
    pub(crate) expires_at: Timestamp,
}

/// 256 random bits as 64 hexadecimal digits. Whoever has it is the user; it is not printed and only its hash is stored.
pub(crate) struct SessionToken(String);

/// Why there is no account or session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    /// The store or a rule.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The password pool.
    #[error(transparent)]
    Password(#[from] PasswordError),
}

impl Accounts {
    pub(crate) fn new(store: Store, passwords: Passwords, session_lifetime: Duration) -> Self {
        Self {
            store,
            passwords,
            session_lifetime,
        }
    }

    /// Makes an account, once for each request.
    pub(crate) async fn create(&self, new: &NewUser, password: Password) -> Result<User, AccountError> {
        // Looked up before hashing, so that a repeat costs one hash and not two.
        if let Some(known) = self.store.user_of_request(new.request_id).await? {
            return self.repeated(known, new, password).await;
        }
        let hash = self.passwords.hash(password.clone()).await?;
        // Version 7 grows with time, which keeps the index of ids compact.
        let id = Uuid::now_v7();
        let known = self.store.create_user(id, new, &hash).await?;
        if known.user.id == id {
            Ok(known.user)
        } else {
            self.repeated(known, new, password).await
        }
    }

    /// Opens a session. Unknown accounts and wrong passwords get the same answer after the same work.
    pub(crate) async fn sign_in(&self, email: &Email, password: Password) -> Result<Session, AccountError> {
        let known = self.store.user_with_email(email).await?;
        let (user, hash) = known.map(|known| (known.user, known.password_hash)).unzip();
        let matches = self.passwords.verify(password, hash).await?;
        let Some(user) = user.filter(|_| matches) else {
            return Err(StoreError::from(Refusal::CredentialsWrong).into());
        };
        let (token, hash) = SessionToken::draw();
        let expires_at = self.store.open_session(user.id, hash, self.session_lifetime).await?;
        Ok(Session {
            user,
            token,
            expires_at,
        })
    }

    async fn repeated(&self, known: Known, new: &NewUser, password: Password) -> Result<User, AccountError> {
        let same = new.asks_for(&known.user) && self.passwords.verify(password, Some(known.password_hash)).await?;
        if same {
            Ok(known.user)
        } else {
            Err(StoreError::from(Refusal::RequestIdReused(new.request_id)).into())
        }
    }
}

impl SessionToken {
    /// A new token and what is stored of it. One fast hash is enough: unlike a password it cannot be guessed.
    fn draw() -> (Self, [u8; 32]) {
        // The thread's generator is cryptographically secure and seeded by the system.
        let bits: [u8; 32] = rand::random();
        let token: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
        let hash = Sha256::digest(token.as_bytes()).into();
        (Self(token), hash)
    }

    pub(crate) fn expose(self) -> String {
        self.0
    }
}
