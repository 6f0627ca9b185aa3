//! One call under way on an endpoint: what is counted from its being picked to its end, and what its end teaches. It decides
//! nothing.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::Instant;

use super::{Ending, Endpoint};

/// One call under way on an endpoint: lives in the response body, so that it ends when the stream ends or is dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    endpoint: Arc<Endpoint>,
    began: Instant,
    /// Whether the first answer was told.
    answered: bool,
    /// Whether the end was told; one that is dropped without was cancelled.
    ended: bool,
}

impl InFlight {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            began: Instant::now(),
            answered: false,
            ended: false,
        }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The first message of the response has come, or its end. The head alone is no answer: a server may send it before it has
    /// done any work.
    pub(crate) fn speaks(&mut self) {
        if !self.answered {
            self.answered = true;
            self.endpoint.learns_of_answer(self.began.elapsed());
        }
    }

    /// The call is over.
    pub(crate) fn ends(&mut self, ending: Ending) {
        if !self.ended {
            if ending != Ending::Cancelled {
                self.speaks();
            }
            self.ended = true;
            self.endpoint.learns_of_end(ending, self.began.elapsed());
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.ends(Ending::Cancelled);
        let before = self.endpoint.in_flight.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.endpoint.draining.load(Ordering::SeqCst) {
            self.endpoint.idle.notify_one();
        }
    }
}
