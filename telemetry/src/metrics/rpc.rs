//! The call duration histograms of the RPC conventions.
//!
//! One series a method and status, looked up without allocating: a call that is measured costs a map read and an observe.
//! Method names come from the wire on a server, so the number of methods is bounded; the rest share `_OTHER`.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use opentelemetry::Context;

use super::{Counter, CounterFamily, Histogram, HistogramFamily, counter, histogram};
use crate::{
    rpc,
    semconv::{
        DURATION_BUCKETS, OTHER, PROMETHEUS_ATTEMPT_DURATION, PROMETHEUS_ATTEMPT_STARTED, PROMETHEUS_CLIENT_DURATION,
        PROMETHEUS_SERVER_DURATION,
    },
};

/// Most methods (a target) that are told apart; our whole platform has some 40.
const MAX_METHODS: usize = 500;

/// Codes 0 to 16 of the specification; anything else is recorded as UNKNOWN.
const CODES: usize = 17;

/// Durations of calls that one process serves.
pub(crate) static SERVER: LazyLock<CallDurations> = LazyLock::new(|| {
    CallDurations::new(|| {
        histogram(
            PROMETHEUS_SERVER_DURATION,
            "Duration of inbound calls from first byte to the end of the response",
            &["rpc_method", "rpc_response_status_code"],
            &DURATION_BUCKETS,
        )
    })
});

/// Durations of calls that one process makes, over all their attempts.
pub(crate) static CLIENT: LazyLock<CallDurations> = LazyLock::new(|| {
    CallDurations::new(|| {
        histogram(
            PROMETHEUS_CLIENT_DURATION,
            "Duration of outbound calls over all attempts until the end of the response",
            &["server_address", "rpc_method", "rpc_response_status_code"],
            &DURATION_BUCKETS,
        )
    })
});

/// Durations of single attempts, and how many were started (gRFC A66).
static ATTEMPT_DURATION: LazyLock<HistogramFamily> = LazyLock::new(|| {
    histogram(
        PROMETHEUS_ATTEMPT_DURATION,
        "Duration of single attempts of outbound calls",
        &["grpc_target", "grpc_method", "grpc_status"],
        &DURATION_BUCKETS,
    )
});
static ATTEMPT_STARTED: LazyLock<CounterFamily> = LazyLock::new(|| {
    let labels = &["grpc_target", "grpc_method"];
    counter(
        PROMETHEUS_ATTEMPT_STARTED,
        "Attempts of outbound calls that were started",
        labels,
    )
});

/// All series of one histogram, by target, method and code. A server has the one target `""`, which is no label.
#[derive(Debug)]
pub(crate) struct CallDurations {
    family: HistogramFamily,
    by_target: RwLock<HashMap<Box<str>, ByMethod>>,
}

type ByMethod = HashMap<Box<str>, Arc<MethodDurations>>;

impl CallDurations {
    fn new(family: impl FnOnce() -> HistogramFamily) -> Self {
        Self {
            family: family(),
            by_target: RwLock::default(),
        }
    }

    /// The series of a method; `target` is empty on a server.
    pub(crate) fn of(&self, target: &str, method: &str) -> Arc<MethodDurations> {
        let known = self.by_target.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(target).and_then(|methods| methods.get(method)) {
            return Arc::clone(found);
        }
        let full = known.values().map(HashMap::len).sum::<usize>() >= MAX_METHODS;
        drop(known);
        let (target, method) = if full {
            (if target.is_empty() { "" } else { OTHER }, OTHER)
        } else {
            (target, method)
        };
        let mut known = self.by_target.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            known
                .entry(target.into())
                .or_default()
                .entry(method.into())
                .or_insert_with(|| Arc::new(MethodDurations::new(self.family.clone(), target, method))),
        )
    }
}

/// The series of one method, one a status code, each made when it first occurs.
#[derive(Debug)]
pub(crate) struct MethodDurations {
    family: HistogramFamily,
    target: &'static str,
    method: &'static str,
    attempt_name: &'static str,
    by_code: [OnceLock<Histogram>; CODES],
    /// On a client: the same for single attempts, looked up once.
    attempts: OnceLock<(Arc<MethodDurations>, Counter)>,
}

impl MethodDurations {
    fn new(family: HistogramFamily, target: &str, method: &str) -> Self {
        // Kept for the life of the process, as its series are, and as few: spans name them without a copy.
        let kept = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        Self {
            family,
            target: kept(target.to_owned()),
            method: kept(method.to_owned()),
            // gRFC A72 names attempts so; it keeps them apart from the call in any list of spans.
            attempt_name: kept(format!("Attempt.{method}")),
            by_code: Default::default(),
            attempts: OnceLock::new(),
        }
    }

    /// Counts an attempt of a call of this method and returns where its duration goes.
    pub(crate) fn attempt_started(&self) -> Arc<Self> {
        let (durations, started) = self.attempts.get_or_init(|| {
            let durations = Self::new(ATTEMPT_DURATION.clone(), self.target, self.method);
            (Arc::new(durations), ATTEMPT_STARTED.with(&[self.target, self.method]))
        });
        started.inc();
        Arc::clone(durations)
    }

    pub(crate) fn method(&self) -> &'static str {
        self.method
    }

    pub(crate) fn target(&self) -> &'static str {
        self.target
    }

    /// Of a span of one attempt.
    pub(crate) fn attempt_name(&self) -> &'static str {
        self.attempt_name
    }

    pub(crate) fn observe(&self, code: i32, took: Duration, cx: &Context) {
        let index = usize::try_from(code).ok().filter(|index| *index < CODES).unwrap_or(2);
        self.by_code[index]
            .get_or_init(|| {
                let code = rpc::code_name(code);
                if self.target.is_empty() {
                    self.family.with(&[self.method, code])
                } else {
                    self.family.with(&[self.target, self.method, code])
                }
            })
            .observe_in(took.as_secs_f64(), cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_beyond_the_bound_share_a_series() {
        let durations = CallDurations::new(|| histogram("test_calls", "Calls.", &["m", "c"], &DURATION_BUCKETS));
        for n in 0..MAX_METHODS {
            assert_ne!(durations.of("", &format!("a.B/{n}")).method(), OTHER);
        }
        assert_eq!(durations.of("", "a.B/one-too-many").method(), OTHER);
        assert_eq!(durations.of("", "a.B/7").method(), "a.B/7", "known ones stay");
    }
}
