//! Accounts: what takes the store, the password pool and the throttle of wrong passwords.

use std::{net::IpAddr, time::Duration};

use identity::Roles;
use uuid::Uuid;

use crate::{
    attempts::Attempts,
    domain::{
        account::{Change, Email, NewUser, Password, User},
        refusal::Refusal,
    },
    passwords::{PasswordError, Passwords},
    signing::SigningError,
    store::{Known, NewProfile, Store, StoreError},
};

/// Accounts of a process. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Accounts {
    store: Store,
    passwords: Passwords,
    attempts: Attempts,
}

/// Why there is no account or session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    /// The store or a rule.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The password pool.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// Too many wrong passwords: not before so long.
    #[error("too many wrong passwords; try again in {} s", .0.as_secs_f64().ceil())]
    TooManyAttempts(Duration),
    /// Too many accounts from one address, or too many addresses that were taken: not before so long.
    #[error("too many sign-ups from your network; try again in {} s", .0.as_secs_f64().ceil())]
    TooManySignUps(Duration),
    /// No token can be signed.
    #[error(transparent)]
    Signing(#[from] SigningError),
}

impl Accounts {
    pub(crate) fn new(store: Store, passwords: Passwords, attempts: Attempts) -> Self {
        Self {
            store,
            passwords,
            attempts,
        }
    }

    /// Makes an account, once for each request.
    pub(crate) async fn create(&self, new: &NewUser, password: Password, peer: IpAddr) -> Result<User, AccountError> {
        // Looked up before hashing, so that a repeat costs one hash and not two; and before it counts, so that it costs none.
        if let Some(known) = self.store.user_of_request(new.request_id).await? {
            return self.repeated(known, new, password).await;
        }
        let sign_up = self.attempts.begin_sign_up(peer);
        let sign_up = sign_up.map_err(AccountError::TooManySignUps)?;
        let made = self.make(new, &password).await;
        match &made {
            Ok((_, true)) => self.attempts.signed_up(sign_up),
            // It stays taken: who asks has heard who has an account.
            Err(AccountError::Store(StoreError::Refused(Refusal::EmailTaken))) => drop(sign_up),
            Ok((_, false)) | Err(_) => self.attempts.no_sign_up(sign_up),
        }
        match made? {
            (known, true) => Ok(known.user),
            (known, false) => self.repeated(known, new, password).await,
        }
    }

    /// The account of that request, and whether this made it.
    async fn make(&self, new: &NewUser, password: &Password) -> Result<(Known, bool), AccountError> {
        let hash = self.passwords.hash(password.clone()).await?;
        // Version 7 grows with time, which keeps the index of ids compact.
        let id = Uuid::now_v7();
        let known = self.store.create_user(id, new, &hash).await?;
        let is_new = known.user.id == id;
        Ok((known, is_new))
    }

    /// The account whose address and password these are. Unknown accounts and wrong passwords get the same answer after the
    /// same work, and are throttled alike.
    pub(crate) async fn prove(&self, email: &Email, password: Password, peer: IpAddr) -> Result<Known, AccountError> {
        let attempt = self
            .attempts
            .begin(email, peer)
            .map_err(AccountError::TooManyAttempts)?;
        let known = match self.store.user_with_email(email).await {
            Ok(known) => known,
            Err(error) => {
                self.attempts.give_back(attempt);
                return Err(error.into());
            }
        };
        let hash = known.as_ref().map(|known| known.password_hash.clone());
        let matches = match self.passwords.verify(password, hash).await {
            Ok(matches) => matches,
            Err(error) => {
                self.attempts.give_back(attempt);
                return Err(error.into());
            }
        };
        match known.filter(|_| matches) {
            Some(known) => {
                self.attempts.succeeded(attempt);
                Ok(known)
            }
            // The attempt stays taken.
            None => Err(refused(Refusal::CredentialsWrong)),
        }
    }

    /// Changes an account; where the password is asked for, with it. The session `keep` stays open in any case.
    pub(crate) async fn change(
        &self,
        id: Uuid,
        change: Change,
        password: Password,
        keep: Option<Uuid>,
        peer: IpAddr,
    ) -> Result<User, AccountError> {
        let seen = if change.needs_password() {
            Some(self.prove_for(id, password, peer).await?)
        } else {
            None
        };
        let hash = match change.new_password {
            Some(new) => Some(self.passwords.hash(new).await?),
            None => None,
        };
        let new = NewProfile {
            display_name: change.display_name.as_ref(),
            email: change.email.as_ref(),
            password_hash: hash.as_deref(),
            keep,
        };
        Ok(self.store.change_user(id, &new, seen.as_deref()).await?)
    }

    /// Deletes an account; with its password, or, where `password` is `None`, because an operator says so.
    pub(crate) async fn delete(
        &self,
        id: Uuid,
        password: Option<Password>,
        forfeits: bool,
        peer: IpAddr,
    ) -> Result<(), AccountError> {
        let seen = match password {
            Some(password) => Some(self.prove_for(id, password, peer).await?),
            None => None,
        };
        Ok(self.store.delete_user(id, forfeits, seen.as_deref()).await?)
    }

    /// Sets what an account is.
    pub(crate) async fn set_roles(&self, id: Uuid, roles: Roles) -> Result<User, AccountError> {
        let user = self.store.set_roles(id, roles).await?;
        tracing::info!(user = %id, %roles, "roles were set");
        Ok(user)
    }

    /// Proves an account's password; the hash that it was checked against.
    async fn prove_for(&self, id: Uuid, password: Password, peer: IpAddr) -> Result<String, AccountError> {
        let user = self.store.user(id).await?;
        let email = Email::try_new(&user.email).map_err(|_| StoreError::Corrupt("an address that is none"))?;
        let known = self.prove(&email, password, peer).await?;
        if known.user.id == id {
            Ok(known.password_hash)
        } else {
            // The address went to another account in between.
            Err(refused(Refusal::CredentialsWrong))
        }
    }

    async fn repeated(&self, known: Known, new: &NewUser, password: Password) -> Result<User, AccountError> {
        let same = new.asks_for(&known.user) && self.passwords.verify(password, Some(known.password_hash)).await?;
        if same {
            Ok(known.user)
        } else {
            Err(refused(Refusal::RequestIdReused(new.request_id)))
        }
    }
}

fn refused(refusal: Refusal) -> AccountError {
    StoreError::from(refusal).into()
}
