//! Checks the books of a store from outside: after it was restored, or when somebody asks whether they are right.

use std::sync::Arc;

use service_store::{Location, OpenError, SystemClock};

use crate::store::{Store, StoreError};

/// Why the books were not checked.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store failed.
    #[error("the books cannot be read")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Opens the store at `location` and says what is wrong with its books: nothing, if every transfer sums to zero, every wallet is
/// the sum of its postings and never below zero, and every order has paid, or got back, what its state says. Each check is of one
/// moment, also while the service runs.
///
/// # Errors
/// [`AuditError`], when they cannot be read.
pub async fn audit(location: impl Into<Location>) -> Result<Vec<String>, AuditError> {
    let store = Store::open(location, Arc::new(SystemClock)).await?;
    let wrong = store.audit().await;
    store.close().await;
    wrong.map_err(AuditError::from)
}

impl From<StoreError> for AuditError {
    fn from(error: StoreError) -> Self {
        Self::Read(Box::new(error))
    }
}
