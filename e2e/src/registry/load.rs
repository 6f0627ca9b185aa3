//! Several writers at work, and the proof that they are: a fault test without traffic shows nothing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use rand::{RngExt as _, rngs::StdRng};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::{Ledger, RegistryProcess};
use crate::wait;

/// Writers at work. See [`Ledger`] for what they do.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    tasks: JoinSet<Ledger>,
}

/// What a writer does when a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnError {
    /// It is done: whoever is killed answers nobody.
    Ends,
    /// It goes on.
    GoesOn,
}

impl Load {
    /// Books for so many writers.
    pub fn books(service: &str, writers: u64, rng: &mut StdRng) -> Vec<Ledger> {
        let seed = rng.random();
        (0..writers).map(|writer| Ledger::new(service, writer, seed)).collect()
    }

    /// Writers that end with their first call that fails.
    pub fn until_it_fails(registry: &RegistryProcess, books: Vec<Ledger>) -> Self {
        Self::start(registry, books, OnError::Ends)
    }

    /// Writers that go on whatever they are answered, until they are stopped.
    pub fn whatever_happens(registry: &RegistryProcess, books: Vec<Ledger>) -> Self {
        Self::start(registry, books, OnError::GoesOn)
    }

    fn start(registry: &RegistryProcess, books: Vec<Ledger>, on_error: OnError) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            acked: Arc::default(),
            refused: Arc::default(),
            tasks: JoinSet::new(),
        };
        for mut ledger in books {
            let (stop, acked, refused) = (load.stop.clone(), load.acked.clone(), load.refused.clone());
            let mut client = registry.client();
            load.tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    match ledger.step(&mut client).await {
                        Ok(()) => {
                            acked.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(status) if status.code() == Code::ResourceExhausted => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            pause().await;
                        }
                        Err(_) if on_error == OnError::Ends => break,
                        Err(_) => pause().await,
                    }
                }
                ledger
            });
        }
        load
    }

    /// Calls that were acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Waits until so many more are acknowledged: the least traffic that a test asks for, before a fault and after it.
    pub async fn flows(&self, more: u64) {
        let goal = self.acked() + more;
        wait::until("traffic", || async {
            match self.acked() {
                acked if acked >= goal => Ok(()),
                acked => Err(format!("{acked} of {goal} calls acknowledged")),
            }
        })
        .await;
    }

    /// Waits until so many more were shed (RESOURCE_EXHAUSTED).
    pub async fn sheds(&self, more: u64) {
        let refused = || self.refused.load(Ordering::Relaxed);
        let goal = refused() + more;
        wait::until("calls that are shed", || async {
            match refused() {
                refused if refused >= goal => Ok(()),
                refused => Err(format!("{refused} of {goal} calls shed")),
            }
        })
        .await;
    }

    /// Waits until the writers have ended by themselves, and returns their books.
    pub async fn ended(self) -> Vec<Ledger> {
        self.tasks.join_all().await
    }

    /// Lets each writer finish its call, and returns their books.
    pub async fn stop(self) -> Vec<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await
    }
}

/// Compares all books with what the registry holds now.
///
/// # Errors
/// When it does not answer.
pub async fn check(registry: &RegistryProcess, books: &mut [Ledger]) -> Result<super::wire::Listing, Status> {
    let listing = super::wire::list(&mut registry.client(), "").await?;
    let newest = books.iter().map(Ledger::newest).max().unwrap_or_default();
    assert!(
        listing.revision >= newest,
        "revision {newest} was told, now {}",
        listing.revision
    );
    for ledger in books {
        ledger.check(&listing);
    }
    Ok(listing)
}

/// Between two attempts at a registry that is away.
async fn pause() {
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
}
