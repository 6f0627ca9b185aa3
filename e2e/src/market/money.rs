//! The money of a market: what is true of it at every moment, whatever goes wrong.
//!
//! It was tried with two bugs, planted in user-svc. A debit that was committed before the next step of its order, so that all was
//! right again when the sale had ended, was met by a read in between, on both stores. A debit that gave the sales a cent less than it
//! took from the wallet was met at the first one (tried on PostgreSQL).

use std::sync::atomic::{AtomicI64, Ordering};

use user_svc::{Auditor, Books};
use uuid::Uuid;

use super::Market;

/// What was put into wallets: what was asked for, and what was told to be there. Between the two it may be there or not.
#[derive(Debug, Default)]
pub(super) struct PutIn {
    asked: AtomicI64,
    told: AtomicI64,
}

impl PutIn {
    pub(super) fn asked(&self, cents: i64) {
        self.asked.fetch_add(cents, Ordering::SeqCst);
    }

    pub(super) fn told(&self, cents: i64) {
        self.told.fetch_add(cents, Ordering::SeqCst);
    }
}

impl Market {
    /// How many orders are paid for and not sold at this moment, by the store, which is there.
    ///
    /// # Panics
    /// When it is not.
    pub async fn unsold(&self) -> u64 {
        let auditor = self.auditor().await.expect("the store is there");
        let books = auditor.read().await.expect("the books");
        auditor.close().await;
        books.paid_unsold
    }

    /// Can the user service's store be written now? Not while a process stands still in the middle of a write, where that is a file.
    pub async fn is_writable(&self) -> bool {
        self.operator.grant().await
    }

    /// Opens the user service's store beside it. `None`: it is away.
    pub(super) async fn auditor(&self) -> Option<Auditor> {
        Auditor::open(self.store.as_str()).await.ok()
    }

    /// Looks once at all of the books, as they are at one moment. `None`: the store is away.
    ///
    /// 1. Every transfer sums to zero, every balance is the sum of its postings, none is below zero, and what was paid or given
    ///    back for an order is what its step says: [`Books::wrong`].
    /// 2. Wallets and revenue together are what was put in, and that is what the buyers have put in: constant, while nobody does.
    /// 3. The revenue of the event has all that its buyers were told they have paid, and the `sold` cents that its seats cost that
    ///    were seen sold: a seat is sold only when it is paid for, and stays so.
    ///
    /// # Panics
    /// With what is broken.
    pub(super) async fn look_at_money(&self, auditor: &Auditor, event_id: &str, sold: i64) -> Option<Books> {
        let told = self.put_in.told.load(Ordering::SeqCst);
        let paid = self.books.paid(event_id);
        let books = auditor.read().await.ok()?;
        let asked = self.put_in.asked.load(Ordering::SeqCst);
        assert_eq!(books.wrong, Vec::<String>::new(), "{books:?}");
        let euros = books.money.get("EUR").cloned().unwrap_or_default();
        let revenue: i64 = euros.sales.values().sum();
        assert_eq!(euros.wallets + revenue, euros.put_in, "wallets and revenue: {books:?}");
        assert!(
            (told..=asked).contains(&euros.put_in),
            "{told} to {asked} were put in: {books:?}"
        );
        let event: Uuid = event_id.parse().expect("an event's id");
        let revenue = euros.sales.get(&event).copied().unwrap_or_default();
        assert!(
            revenue >= paid.max(sold),
            "buyers were told that they paid {paid}, seats for {sold} were sold: {books:?}"
        );
        Some(books)
    }
}
