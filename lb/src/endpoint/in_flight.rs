//! One call under way on an endpoint: what is counted from its being picked to its end, and what its end teaches. It decides
//! nothing.

use std::{sync::Arc, time::Duration};

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
    /// For how long the instance asks to be left alone.
    pushback: Option<Duration>,
    /// Whether its end decides on the endpoint's return.
    to_prove: bool,
    /// Whether it counts among the calls of all endpoints.
    is_counted: bool,
}

impl InFlight {
    pub(super) fn new(endpoint: Arc<Endpoint>, now: Instant, is_counted: bool) -> Self {
        Self {
            endpoint,
            began: now,
            answered: false,
            ended: false,
            pushback: None,
            to_prove: false,
            is_counted,
        }
    }

    /// The one call by which an endpoint that was ejected is to prove itself.
    pub(crate) fn proving(self) -> Self {
        // Not by struct update: this has a Drop.
        let mut this = self;
        this.to_prove = true;
        this
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The first message of the response has come, or its end. The head alone is no answer: a server may send it before it has
    /// done any work.
    pub(crate) fn speaks(&mut self) {
        if !self.answered {
            self.answered = true;
            self.endpoint.load.answered(self.began);
        }
    }

    /// The instance asks to be left alone for so long. To be told before the call ends.
    pub(crate) fn is_pushed_back(&mut self, pushback: Option<Duration>) {
        self.pushback = pushback;
    }

    /// The call is over.
    pub(crate) fn ends(&mut self, ending: Ending) {
        if !self.ended {
            match ending {
                Ending::Served => self.speaks(),
                Ending::Cancelled if self.answered => {}
                Ending::Cancelled => self.endpoint.load.given_up(self.began),
                // What it took to fail is not what an answer takes: that it is not told as one.
                Ending::Failed | Ending::Overloaded => self.endpoint.load.failed(self.began, self.pushback),
            }
            self.ended = true;
            self.endpoint.learns_of_end(ending, self.began.elapsed());
            if self.to_prove {
                self.endpoint.has_proved(ending);
            }
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.ends(Ending::Cancelled);
        self.endpoint.load.is_over(self.is_counted);
        if self.endpoint.load.occupancy().exit() {
            self.endpoint.idle.notify_one();
        }
    }
}
