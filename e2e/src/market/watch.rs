//! Reads while things go wrong: whatever moment it meets, sold + held + free is all seats, what is sold only grows, and wallets and
//! revenue are what was put in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;

use super::{Market, PRICE};

/// Between two reads: the services have the machine in between.
const BREATH: Duration = Duration::from_millis(15);

/// Fewer reads of the books would prove nothing.
const ENOUGH: u64 = 10;

/// The readers of one event and of all money.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    seats: JoinHandle<Seen>,
    money: JoinHandle<Seen>,
}

/// What they have seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Reads of the seats that were answered.
    pub reads: u64,
    /// Reads that met seats which were held.
    pub with_held: u64,
    /// Reads of the seats that were not answered.
    pub unanswered: u64,
    /// Reads of all books.
    pub books: u64,
    /// Reads of the books that met orders which were paid for and not sold.
    pub with_unsold: u64,
    /// The books could not be read.
    pub unread: u64,
}

impl Watch {
    /// Begins to read.
    pub fn begin(market: &Market, event_id: &str) -> Self {
        Self::of(market, event_id, false)
    }

    /// The same where buyers give back what they have: what is sold then grows and falls.
    pub fn begin_with_returns(market: &Market, event_id: &str) -> Self {
        Self::of(market, event_id, true)
    }

    fn of(market: &Market, event_id: &str, returns: bool) -> Self {
        let (stop, sold) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let seats = seats(
            market.clone(),
            event_id.to_owned(),
            Arc::clone(&stop),
            Arc::clone(&sold),
            returns,
        );
        let money = money(market.clone(), event_id.to_owned(), Arc::clone(&stop), sold);
        Self {
            stop,
            seats: tokio::spawn(seats),
            money: tokio::spawn(money),
        }
    }

    /// Ends it, once it has read often enough, and answers what it has seen.
    ///
    /// # Panics
    /// When a read was wrong.
    pub async fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let seats = self.seats.await.expect("every read of the seats was right");
        let money = self.money.await.expect("every read of the money was right");
        assert!(money.books > ENOUGH, "{money:?}");
        Seen {
            books: money.books,
            with_unsold: money.with_unsold,
            unread: money.unread,
            ..seats
        }
    }
}

async fn seats(market: Market, event_id: String, stop: Arc<AtomicBool>, paid: Arc<AtomicI64>, returns: bool) -> Seen {
    let (mut seen, mut sold) = (Seen::default(), 0);
    while !stop.load(Ordering::Relaxed) {
        let Ok(now) = market.counts(&event_id).await else {
            seen.unanswered += 1;
            tokio::time::sleep(BREATH).await;
            continue;
        };
        seen.reads += 1;
        seen.with_held += u64::from(now.seats_held > 0);
        assert_eq!(
            now.seats_sold + now.seats_held + now.seats_free,
            now.seats_total,
            "sold + held + free: {now:?}"
        );
        if !returns {
            assert!(now.seats_sold >= sold, "{} were sold before: {now:?}", sold);
            sold = now.seats_sold;
            paid.store(PRICE * i64::from(sold), Ordering::SeqCst);
        }
        tokio::time::sleep(BREATH).await;
    }
    seen
}

async fn money(market: Market, event_id: String, stop: Arc<AtomicBool>, sold: Arc<AtomicI64>) -> Seen {
    let (mut seen, mut auditor) = (Seen::default(), None);
    while !stop.load(Ordering::Relaxed) || seen.books <= ENOUGH {
        if auditor.is_none() {
            auditor = market.auditor().await;
        }
        let books = match &auditor {
            Some(auditor) => {
                let sold = sold.load(Ordering::SeqCst);
                market.look_at_money(auditor, &event_id, sold).await
            }
            None => None,
        };
        match books {
            Some(books) => {
                seen.books += 1;
                seen.with_unsold += u64::from(books.paid_unsold > 0);
            }
            None => seen.unread += 1,
        }
        tokio::time::sleep(BREATH).await;
    }
    if let Some(auditor) = auditor {
        auditor.close().await;
    }
    seen
}
