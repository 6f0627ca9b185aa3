//! Reads while things go wrong: whatever moment it meets, sold + held + free is all seats, and what is sold only grows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;

use super::Market;

/// A reader of one event that never rests.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Seen>,
}

/// What it has seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Reads that were answered.
    pub reads: u64,
    /// Reads that met seats which were held.
    pub with_held: u64,
    /// Reads that were not answered.
    pub unanswered: u64,
}

impl Watch {
    /// Begins to read.
    pub fn begin(market: &Market, event_id: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (market, event_id, stopped) = (market.clone(), event_id.to_owned(), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let (mut seen, mut sold) = (Seen::default(), 0);
            while !stopped.load(Ordering::Relaxed) {
                let Ok(now) = market.counts(&event_id).await else {
                    seen.unanswered += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                seen.reads += 1;
                seen.with_held += u64::from(now.seats_held > 0);
                assert_eq!(
                    now.seats_sold + now.seats_held + now.seats_free,
                    now.seats_total,
                    "sold + held + free: {now:?}"
                );
                assert!(now.seats_sold >= sold, "{} were sold before: {now:?}", sold);
                sold = now.seats_sold;
            }
            seen
        });
        Self { stop, task }
    }

    /// Ends it and answers what it has seen.
    ///
    /// # Panics
    /// When a read was wrong.
    pub async fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("every read was right")
    }
}
