//! Checks the books of a store from outside: after it was restored, when somebody asks whether they are right, or all the time.

use std::{collections::BTreeMap, sync::Arc};

use service_store::{Location, OpenError, SystemClock};
use uuid::Uuid;

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

/// The books of a store as they were at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    /// What is wrong with them: nothing, if every transfer sums to zero, every wallet is the sum of its postings and never below
    /// zero, and for every order was paid, or given back, what its state says.
    pub wrong: Vec<String>,
    /// Where the money is, by currency.
    pub money: BTreeMap<String, Totals>,
    /// Orders that were paid for at that moment, and not sold.
    pub paid_unsold: u64,
}

/// Where the money of one currency is, in minor units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// What came from outside.
    pub put_in: i64,
    /// What all wallets hold.
    pub wallets: i64,
    /// What each event has taken.
    pub sales: BTreeMap<Uuid, i64>,
}

/// Reads the books of one store as often as somebody asks, also while services run on it.
#[derive(Debug)]
pub struct Auditor(Store);

impl Auditor {
    /// Opens the store at `location`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn open(location: impl Into<Location>) -> Result<Self, AuditError> {
        let store = Store::open(location, Arc::new(SystemClock)).await?;
        Ok(Self(store))
    }

    /// What the books say now.
    ///
    /// # Errors
    /// [`AuditError::Read`], when they cannot be read.
    pub async fn read(&self) -> Result<Books, AuditError> {
        Ok(self.0.audit().await?)
    }

    /// Closes the store.
    pub async fn close(self) {
        self.0.close().await;
    }
}

/// Opens the store at `location` and says what is wrong with its books: [`Books::wrong`]. It may be asked while services run.
///
/// # Errors
/// [`AuditError`], when they cannot be read.
pub async fn audit(location: impl Into<Location>) -> Result<Vec<String>, AuditError> {
    let auditor = Auditor::open(location).await?;
    let books = auditor.read().await;
    auditor.close().await;
    Ok(books?.wrong)
}

impl From<StoreError> for AuditError {
    fn from(error: StoreError) -> Self {
        Self::Read(Box::new(error))
    }
}
