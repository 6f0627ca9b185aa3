//! What breaker, budget and throttle should do, counted by hand beside the real ones: with lists and whole numbers, where those
//! have words of bits and windows in slices. It guards nothing.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::plan::{Circuit, Retrying};

/// Retries, and what pays for them.
#[derive(Debug)]
pub(super) struct Retries {
    terms: Retrying,
    pub(super) calls: u64,
    pub(super) granted: u64,
    last: Option<Instant>,
    /// Of the throttle, in thousandths.
    tokens: u64,
    /// The latest answer to whether there may be one more attempt.
    pub(super) asked: Option<Asked>,
}

/// Whether there may be one more attempt: the answer, and what there is to say of it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) granted: bool,
    /// Nothing was granted in the last second.
    pub(super) is_rare: bool,
    /// More than half of the throttle's tokens are left.
    pub(super) is_calm: bool,
}

impl Retries {
    pub(super) fn new(terms: Retrying) -> Self {
        Self {
            calls: 0,
            granted: 0,
            last: None,
            tokens: terms.throttle.map_or(0, |(tokens, _)| u64::from(tokens) * 1000),
            asked: None,
            terms,
        }
    }

    pub(super) fn failed(&mut self) {
        self.tokens = self.tokens.saturating_sub(1000);
    }

    pub(super) fn succeeded(&mut self) {
        if let Some((most, gain)) = self.terms.throttle {
            self.tokens = (self.tokens + u64::from(gain)).min(u64::from(most) * 1000);
        }
    }

    pub(super) fn asked(&mut self, granted: bool, now: Instant) {
        self.asked = Some(Asked {
            granted,
            is_rare: self.last.is_none_or(|last| now - last > Duration::from_secs(1)),
            is_calm: self
                .terms
                .throttle
                .is_none_or(|(most, _)| self.tokens * 2 > u64::from(most) * 1000),
        });
        if granted {
            self.granted += 1;
            self.last = Some(now);
        }
    }
}

/// The states of the breaker, as they are seen to follow each other.
#[derive(Debug)]
pub(super) struct Breaker {
    terms: Circuit,
    /// See `Core::level`.
    pub(super) level: u8,
    /// Counts its states.
    pub(super) state: u64,
    /// Opened so often without having been closed.
    times: u32,
    open_until: Instant,
    /// The calls that have ended while it was closed, those of its window: when, and whether they failed.
    ended: VecDeque<(Instant, bool)>,
    /// While it is half-open, since then: calls that were let through and not given back.
    let_through: u32,
    since: Instant,
    /// What the last call met.
    pub(super) met: Option<Met>,
}

/// What a call met.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) level: u8,
    pub(super) let_through: bool,
    /// Its time of being open was over.
    pub(super) is_due: bool,
}

impl Breaker {
    pub(super) fn new(terms: Circuit, now: Instant) -> Self {
        Self {
            terms,
            level: 0,
            state: 0,
            times: 0,
            open_until: now,
            ended: VecDeque::new(),
            let_through: 0,
            since: now,
            met: None,
        }
    }

    /// A call has met it, and then it was at `level`.
    pub(super) fn met(&mut self, let_through: bool, level: u8, now: Instant) {
        self.met = Some(Met {
            level: self.level,
            let_through,
            is_due: self.open_until <= now,
        });
        self.see(level, now);
        if let_through && level == 1 {
            if now - self.since >= self.terms.window {
                (self.let_through, self.since) = (0, now);
            }
            self.let_through += 1;
        }
    }

    /// A call that it let through in `state` has ended, and then it was at `level`.
    pub(super) fn ended(&mut self, state: u64, has_failed: bool, level: u8, now: Instant) {
        if state == self.state && self.level == 0 {
            self.ended.push_back((now, has_failed));
            let is_old = |(at, _): &mut (Instant, bool)| now - *at > self.terms.window + Duration::from_millis(1);
            while self.ended.pop_front_if(is_old).is_some() {}
        }
        self.see(level, now);
    }

    /// A call that it let through in `state` was given up.
    pub(super) fn given_back(&mut self, state: u64) {
        if state == self.state {
            self.let_through = self.let_through.saturating_sub(1);
        }
    }

    /// More than its probes are out.
    pub(super) fn is_overrun(&self) -> bool {
        self.level == 1 && self.let_through > self.terms.probes
    }

    /// It is closed, and by any count it should not be: its window is cut into slices, so what is older than nine tenths of it
    /// may be forgotten, and need not be.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        if self.level != 0 || self.ended.back() != Some(&(now, true)) {
            return false;
        }
        let within = |age: Duration| self.ended.iter().filter(move |(at, _)| now - *at < age);
        let young = || within(self.terms.window * 9 / 10);
        let (calls, failed) = (young().count(), young().filter(|(_, failed)| *failed).count());
        let most = within(self.terms.window + Duration::from_millis(1)).count();
        calls >= self.terms.minimum_calls as usize && failed as f64 >= self.terms.error_ratio * most as f64
    }

    fn see(&mut self, level: u8, now: Instant) {
        if level == self.level {
            return;
        }
        self.state += 1;
        match level {
            0 => self.times = 0,
            1 => (self.let_through, self.since) = (0, now),
            _ => {
                let open = self.terms.open * 2_u32.pow(self.times.min(10));
                self.open_until = now + open.min(self.terms.longest);
                self.times += 1;
            }
        }
        self.ended.clear();
        self.level = level;
    }
}
