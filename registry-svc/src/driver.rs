//! The one task that owns the catalog: it performs what the catalog decides.
//!
//! Group commit: while one group of batches is on its way to the disk, further changes are applied and pile up in the next
//! group, so that many registrations share one fsync. Renewals change nothing on disk and are answered at once, however slow
//! the disk is, unless one is refused for what is not certain yet. An answer that tells of a change, or of the lack of one,
//! waits until everything applied before it is durable: nobody ever hears of a state that a power cut could take back.
//!
//! A store may also be full, shared, or away. What did not fit is taken back and refused; what another replica came before is
//! taken back and applied again after what that one did; while the store is away changes are refused at once. In none of
//! these does a lease lapse that could not have lapsed otherwise, and reads and watches go on. So do renewals, until a replica
//! that does not reach the store has to send owners to one that may.
//!
//! The rules are [`Core`]'s; here are the queues, the store's thread and the clocks.
//!
//! After an error of the store the driver stops and with it the process: what the disk holds is then unknown, and only a
//! restart finds out (a second fsync may succeed without having written what the first one lost).

mod absence;
mod clock;
mod core;
mod group;
mod handle;
mod others;
mod parked;
mod report;
mod room;
mod rounds;
#[cfg(test)]
mod tests;
mod verdict;
mod writer;

use std::sync::Arc;

#[cfg(test)]
pub(crate) use self::core::Job;
pub(crate) use self::core::{Core, Settings};
pub(crate) use clock::Clock;
pub(crate) use handle::{Answer, Handle, Seat, SubmitError};
use handle::{Inbox, Mutation, Question, Renewals};
pub(crate) use rounds::NotRenewed;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::error;
use writer::{Committed, Writer};

use crate::{
    catalog::{Beat, Catalog},
    hub::Hub,
    metrics::Metrics,
    model::{LeaseId, Now, Revision},
    store::{News, Store, StoreError},
};

/// Rounds of renewals taken from their queue at once; the more, the fewer turns of the loop under load.
const RENEWALS_AT_ONCE: usize = 256;
/// Mutations taken up in one turn, for the same reason; each takes microseconds, and heartbeats wait no longer than that.
const MUTATIONS_AT_ONCE: usize = 256;

/// Why the driver stopped without being asked to.
#[derive(Debug, Error)]
pub(crate) enum DriverError {
    /// The disk did not take a commit.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread of the store is gone.
    #[error("the store's thread has ended unexpectedly")]
    WriterGone,
    /// What another replica committed is not all there.
    #[error("the store's log has a gap: expected revision {expected}, found {found}; restart to load it anew")]
    Gap {
        /// The next one.
        expected: Revision,
        /// What came.
        found: Revision,
    },
    /// The store says no more what others do.
    #[error("the store has stopped telling what other replicas commit; restart to load it anew")]
    NewsGone,
    /// It was asked to stop, but the store owes an answer.
    #[error("stopped while the store could not be reached: the last changes may or may not have been made")]
    StoppedWhileAway,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Driver {
    core: Core,
    writer: Writer,
    /// `None` for a store that is not shared.
    news: Option<mpsc::Receiver<News>>,
    clock: Clock,
    inbox: Inbox,
    metrics: Metrics,
    stop: CancellationToken,
}

/// Everything that can wake the driver.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "it is moved once, and a box would be an allocation for every change"
)]
enum Input {
    Mutation(Mutation),
    Renewals(Vec<Renewals>),
    Suspicion(Vec<(LeaseId, Beat)>),
    Question(Question),
    Committed(Result<Committed, DriverError>),
    News(Option<News>),
    Pulse,
    Stop,
    /// The callers of one queue have gone.
    Idle,
}

impl Driver {
    /// Starts the store's thread. `stop` ends [`Driver::run`] after what was accepted is durable.
    pub(crate) fn new(
        catalog: Catalog,
        hub: Arc<Hub>,
        mut store: impl Store,
        clock: Clock,
        metrics: Metrics,
        settings: Settings,
        stop: CancellationToken,
    ) -> std::io::Result<(Self, Handle)> {
        let (handle, inbox) = handle::channel(metrics.clone());
        let driver = Self {
            core: Core::new(catalog, hub, metrics.clone(), settings, clock.now().moment),
            metrics,
            news: store.news(),
            writer: Writer::spawn(store)?,
            clock,
            inbox,
            stop,
        };
        Ok((driver, handle))
    }

    /// Runs until it is stopped or the store fails. Callers that wait for an answer after a failure are told that their
    /// outcome is unknown.
    pub(crate) async fn run(mut self) -> Result<(), DriverError> {
        let result = self.work().await;
        if !matches!(result, Err(DriverError::StoppedWhileAway)) {
            self.writer.join().await;
        }
        result
    }

    async fn work(&mut self) -> Result<(), DriverError> {
        loop {
            let input = self.next().await;
            self.take(input).inspect_err(|failure| {
                error!(error = %failure, "cannot make changes durable, stopping");
            })?;
            if let Some(job) = self.core.next_job(self.clock.now()) {
                self.writer.commit(job);
            }
            if self.core.is_stopping() {
                if self.core.is_settled() {
                    return Ok(());
                }
                // It may be away for hours, and its thread with it: the thread is left to end with the process.
                if self.core.is_given_up() {
                    return Err(DriverError::StoppedWhileAway);
                }
            }
        }
    }

    /// Waits for the next input. Not biased: neither a flood of renewals nor one of mutations starves the other.
    async fn next(&mut self) -> Input {
        let wake = self.clock.instant(self.core.next_wake(self.clock.now()));
        let takes_mutations = self.core.takes_mutations() && !self.inbox.mutations_closed;
        let mut rounds = Vec::new();
        tokio::select! {
            // Also with nothing on its way: the store may fail while it puts things in order.
            committed = self.writer.committed() => Input::Committed(committed),
            news = next_news(&mut self.news), if self.core.takes_news() => Input::News(news),
            mutation = self.inbox.mutations.recv(), if takes_mutations => match mutation {
                Some(mutation) => Input::Mutation(mutation),
                None => {
                    self.inbox.mutations_closed = true;
                    Input::Idle
                }
            },
            count = self.inbox.renewals.recv_many(&mut rounds, RENEWALS_AT_ONCE), if !self.inbox.renewals_closed => {
                self.inbox.renewals_closed = count == 0;
                Input::Renewals(rounds)
            }
            heard = self.inbox.suspicions.recv(), if !self.inbox.suspicions_closed => match heard {
                Some(heard) => Input::Suspicion(heard),
                None => {
                    self.inbox.suspicions_closed = true;
                    Input::Idle
                }
            },
            question = self.inbox.questions.recv(), if !self.inbox.questions_closed => match question {
                Some(question) => Input::Question(question),
                None => {
                    self.inbox.questions_closed = true;
                    Input::Idle
                }
            },
            () = tokio::time::sleep_until(wake) => Input::Pulse,
            () = self.stop.cancelled(), if !self.core.is_stopping() => Input::Stop,
        }
    }

    fn take(&mut self, input: Input) -> Result<(), DriverError> {
        let now = self.clock.now();
        self.core.look(now);
        match input {
            Input::Mutation(mutation) => {
                self.mutate(mutation, now);
                for _ in 1..MUTATIONS_AT_ONCE {
                    if !self.core.takes_mutations() {
                        break;
                    }
                    let Ok(mutation) = self.inbox.mutations.try_recv() else {
                        break;
                    };
                    self.mutate(mutation, now);
                }
            }
            Input::Renewals(rounds) => {
                for round in rounds {
                    self.renew(round);
                }
            }
            Input::Suspicion(heard) => self.core.suspect(&heard),
            Input::Question(Question { leases, reply }) => {
                let heard = leases.iter().map(|lease| self.core.catalog.hears(*lease)).collect();
                // Nobody waits any more while the prober stops.
                let _ = reply.send(heard);
            }
            Input::Committed(committed) => {
                self.committed(committed?, now)?;
            }
            Input::News(Some(news)) => self.core.news(news, now)?,
            Input::News(None) => return Err(DriverError::NewsGone),
            Input::Pulse => self.pulse(now),
            Input::Stop => self.begin_stop(now),
            Input::Idle => {}
        }
        Ok(())
    }

    fn committed(&mut self, committed: Committed, now: Now) -> Result<(), DriverError> {
        self.let_in_who_has_knocked();
        let Committed { verdict, took } = committed;
        self.core.committed(verdict, took, now, rand::random())
    }

    fn pulse(&mut self, now: Now) {
        self.metrics.queue_length.set(count(self.inbox.queued()));
        self.metrics.queue_bytes.set(count(self.inbox.queued_bytes()));
        self.let_in_who_has_knocked();
        self.core.pulse(now, rand::random());
    }

    fn mutate(&mut self, mutation: Mutation, now: Now) {
        let Mutation { asked, reply, room } = mutation;
        self.core.mutate(asked, reply, now);
        // Only now: from here on the group counts it.
        drop(room);
    }

    fn renew(&mut self, round: Renewals) {
        let peer = round.seat.map(|Seat { peer, place }| {
            drop(place);
            peer
        });
        self.core.hear(round.owners, round.within, peer, round.reply);
    }

    /// Who has already knocked must not lapse for standing in a queue (ZOOKEEPER-1049).
    fn let_in_who_has_knocked(&mut self) {
        // Those alone: under a flood the queue would never be seen empty.
        for _ in 0..self.inbox.renewals.len() {
            let Ok(round) = self.inbox.renewals.try_recv() else {
                break;
            };
            self.renew(round);
        }
    }

    /// What was accepted is finished, what comes now is refused.
    fn begin_stop(&mut self, now: Now) {
        self.inbox.close();
        while let Ok(mutation) = self.inbox.mutations.try_recv() {
            self.mutate(mutation, now);
        }
        self.core.stop();
    }
}

/// Waits for ever where there is none. Cancel safe.
async fn next_news(news: &mut Option<mpsc::Receiver<News>>) -> Option<News> {
    match news {
        Some(news) => news.recv().await,
        None => std::future::pending().await,
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}
