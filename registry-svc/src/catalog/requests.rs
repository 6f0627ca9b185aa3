//! Which requests were answered lately, so that a repeat gets the same answer instead of a second registration.
//!
//! In memory alone: the answer holds the lease's secret, of which the disk has but the hash. A repeat that spans a restart
//! therefore registers again, which replaces the instances that it names.

use std::collections::{HashMap, VecDeque};

use super::{LeaseTime, Registered, RequestId};
use crate::limits;

/// The answers of the last ten minutes, at most [`limits::REQUEST_IDS`].
#[derive(Debug, Default)]
pub(super) struct RecentRequests {
    by_id: HashMap<u128, Answered>,
    by_age: VecDeque<(LeaseTime, u128)>,
}

#[derive(Debug)]
struct Answered {
    body: [u8; 32],
    registered: Registered,
}

/// What is known of a request.
#[derive(Debug)]
pub(super) enum Recent<'a> {
    /// Nothing.
    New,
    /// It was answered.
    Same(&'a Registered),
    /// Its id was used for something else.
    Reused,
}

impl RecentRequests {
    /// Looks a request up among those that are not too old.
    pub(super) fn look_up(&mut self, request: &RequestId, now: LeaseTime) -> Recent<'_> {
        self.forget_old(now);
        match self.by_id.get(&request.id) {
            None => Recent::New,
            Some(answered) if answered.body == request.body => Recent::Same(&answered.registered),
            Some(_) => Recent::Reused,
        }
    }

    /// Remembers an answer to a request that was [`Recent::New`].
    pub(super) fn remember(&mut self, request: RequestId, registered: Registered, now: LeaseTime) {
        if self.by_age.len() >= limits::REQUEST_IDS
            && let Some((_, oldest)) = self.by_age.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        self.by_id.insert(
            request.id,
            Answered {
                body: request.body,
                registered,
            },
        );
        self.by_age.push_back((now, request.id));
    }

    /// Frees what is past its window.
    pub(super) fn forget_old(&mut self, now: LeaseTime) {
        while let Some(&(at, id)) = self.by_age.front() {
            if at.plus(limits::REQUEST_ID_WINDOW) > now {
                return;
            }
            self.by_age.pop_front();
            self.by_id.remove(&id);
        }
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.by_id.len(), self.by_age.len(), "each request is remembered once");
        assert!(self.by_id.len() <= limits::REQUEST_IDS, "memory is bounded");
    }
}
