//! Calls of traces that nobody records, and that are told all the same: those that went wrong, and those that took long. Whether that
//! is so is known at the end of a call, when its span was never made; so it is made then, as far as this process can know it. At
//! most so many a second: when everything fails, a few of them tell as much as all.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::Settings;
use crate::budget::Budget;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Late {
    budget: Mutex<Budget>,
    is_on: bool,
    slow: Option<Duration>,
}

impl Late {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            budget: Mutex::new(Budget::new(settings.late_per_second)),
            is_on: settings.late_per_second > 0.0,
            slow: settings.slow,
        }
    }

    /// Whether any call is told late.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether that is long for a call with one answer.
    pub(crate) fn is_slow(&self, took: Duration) -> bool {
        self.slow.is_some_and(|slow| took >= slow)
    }

    /// Takes the place of one call, if there is one, at a time since any fixed moment.
    pub(crate) fn takes(&self, now: Duration) -> bool {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.take(now)
    }
}
