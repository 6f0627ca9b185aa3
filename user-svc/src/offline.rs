//! What is done to the store without a running service: making the first operator, and writing down the public keys. Each is one
//! transaction, so a service may have the store open meanwhile. Whoever can open the store needs no permission.

use std::sync::Arc;

use identity::{KeySet, Roles};
use service_store::{Location, OpenError, SystemClock};

use crate::{
    config::Config,
    domain::{account::Email, refusal::Refusal, signing::Schedule},
    signing::{Signing, SigningError},
    store::{Store, StoreError},
};

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is no address.
    #[error("this is no e-mail address: it {0}")]
    Email(service_store::Invalid),
    /// There is no such account.
    #[error("there is no account with this e-mail address; sign up first (UserService.CreateUser)")]
    Unknown,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Gives roles to the account with this address, beside those it has, and answers all it has then. Its sessions learn of it when
/// they are refreshed.
///
/// # Errors
/// [`OfflineError`].
pub async fn grant(store: impl Into<Location>, email: &str, roles: Roles) -> Result<Roles, OfflineError> {
    let email = Email::try_new(email).map_err(OfflineError::Email)?;
    let store = Store::open(store, Arc::new(SystemClock)).await?;
    let granted = async {
        let known = store.user_with_email(&email).await?;
        let user = known.ok_or(OfflineError::Unknown)?.user;
        let user = store.set_roles(user.id, user.roles.and(roles)).await?;
        Ok(user.roles)
    };
    let granted = granted.await;
    store.close().await;
    granted
}

/// The public keys that the store's services sign with, for a ticket service that cannot ask for them. Makes the first one
/// where there is none.
///
/// # Errors
/// [`OfflineError`].
pub async fn signing_keys(store: impl Into<Location>) -> Result<KeySet, OfflineError> {
    let defaults = Config::default();
    let schedule = Schedule {
        rotation: defaults.key_rotation,
        token_lifetime: defaults.token_lifetime,
    };
    let store = Store::open(store, Arc::new(SystemClock)).await?;
    let signing = Signing::open(store.clone(), schedule, "").await;
    let keys = signing.map(|signing| signing.verifier().keys().clone());
    store.close().await;
    Ok(keys?)
}

impl From<StoreError> for OfflineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(Refusal::UserUnknown(_)) => Self::Unknown,
            error => Self::Store(error.into()),
        }
    }
}

impl From<SigningError> for OfflineError {
    fn from(error: SigningError) -> Self {
        Self::Store(error.into())
    }
}
