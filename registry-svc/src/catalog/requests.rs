//! Which requests were answered lately, so that a repeat gets the same answer instead of a second registration.
//!
//! In memory alone: the answer holds the lease's secret, of which the disk has but the hash. A repeat that spans a restart
//! therefore registers again, which replaces the instances that it names.

use std::collections::{BTreeMap, HashMap};

use super::{LeaseTime, Registered, RequestId};
use crate::limits;

/// The answers of the last ten minutes, at most [`limits::REQUEST_IDS`] and [`limits::REQUEST_ID_BYTES`].
#[derive(Debug, Default)]
pub(super) struct RecentRequests {
    by_id: HashMap<u128, Answered>,
    /// By the number of the answer: the oldest first.
    by_age: BTreeMap<u64, u128>,
    answered: u64,
    bytes: usize,
}

/// An answer that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answered {
    at: LeaseTime,
    number: u64,
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

    /// Remembers an answer to a request that was [`Recent::New`]. Returns those that had to make room, the oldest last.
    pub(super) fn remember(
        &mut self,
        request: RequestId,
        registered: Registered,
        now: LeaseTime,
    ) -> Vec<(u128, Answered)> {
        let bytes = registered.bytes();
        let mut evicted = Vec::new();
        while self.by_id.len() >= limits::REQUEST_IDS || self.bytes + bytes > limits::REQUEST_ID_BYTES {
            // The new one alone is far below the limit.
            let Some(oldest) = self.forget_oldest() else { break };
            evicted.push(oldest);
        }
        evicted.reverse();
        self.answered += 1;
        let answered = Answered {
            at: now,
            number: self.answered,
            body: request.body,
            registered,
        };
        self.remember_again(request.id, answered);
        evicted
    }

    /// What was forgotten too early comes back as it was.
    pub(super) fn remember_again(&mut self, id: u128, answered: Answered) {
        self.bytes += answered.registered.bytes();
        self.by_age.insert(answered.number, id);
        self.by_id.insert(id, answered);
    }

    /// The answer is not good any more: the request is new again.
    pub(super) fn forget(&mut self, id: u128) -> Option<Answered> {
        let answered = self.by_id.remove(&id)?;
        self.by_age.remove(&answered.number);
        self.bytes -= answered.registered.bytes();
        Some(answered)
    }

    /// Frees what is past its window.
    pub(super) fn forget_old(&mut self, now: LeaseTime) {
        while let Some((_, id)) = self.by_age.first_key_value()
            && let Some(oldest) = self.by_id.get(id)
            && oldest.at.plus(limits::REQUEST_ID_WINDOW) <= now
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> Option<(u128, Answered)> {
        let (_, id) = self.by_age.pop_first()?;
        let answered = self.by_id.remove(&id)?;
        self.bytes -= answered.registered.bytes();
        Some((id, answered))
    }

    #[cfg(test)]
    pub(super) fn answers(&self) -> BTreeMap<u128, Registered> {
        let answers = self.by_id.iter();
        answers
            .map(|(id, answered)| (*id, answered.registered.clone()))
            .collect()
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.by_id.len(), self.by_age.len(), "each request is remembered once");
        for (number, id) in &self.by_age {
            assert_eq!(self.by_id.get(id).map(|answered| answered.number), Some(*number));
        }
        let bytes: usize = self.by_id.values().map(|answered| answered.registered.bytes()).sum();
        assert_eq!(self.bytes, bytes);
        assert!(
            self.by_id.len() <= limits::REQUEST_IDS && bytes <= limits::REQUEST_ID_BYTES,
            "memory is bounded"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        catalog::{Secret, clock::LeaseClock},
        fixtures::now,
        model::{InstanceId, LeaseId, Revision},
    };

    /// Counted by entries alone, answers of 64 instances with long ids came to 600 MB.
    #[test]
    fn memory_is_bounded_by_bytes() {
        let ids: Vec<InstanceId> = (0..64)
            .map(|n| InstanceId::try_new(&format!("{n:0>128}")).expect("an id"))
            .collect();
        let registered = Registered {
            lease: LeaseId::from_random(1),
            secret: Secret(String::new()),
            ids: Arc::from(ids),
            revision: Revision::ZERO,
            ttl: Duration::ZERO,
        };
        let time = LeaseClock::new(now(0).moment).now();
        let request = |id| RequestId { id, body: [0; 32] };
        let mut requests = RecentRequests::default();
        for id in 0..5_000 {
            requests.remember(request(id), registered.clone(), time);
        }
        requests.check_invariants();
        assert!(matches!(requests.look_up(&request(4_999), time), Recent::Same(_)));
        assert!(matches!(requests.look_up(&request(3_000), time), Recent::Same(_)));
        assert!(
            matches!(requests.look_up(&request(0), time), Recent::New),
            "the oldest goes first"
        );
        requests.forget(request(4_999).id);
        requests.check_invariants();
        assert!(matches!(requests.look_up(&request(4_999), time), Recent::New));
    }
}
