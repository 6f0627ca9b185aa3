//! What a call passes before it is made at all: throttle, circuit breakers, concurrency limit. And what they learn of its end.
//!
//! The gate is about calls, whatever number of attempts they take; instances are judged by each attempt (`outlier`). A call that
//! is turned away here made no attempt, is no error of anybody, and none of the four counts it but the throttle, whose formula
//! wants it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::{Response, request::Parts};
use rand::Rng as _;
use tokio::time::Instant;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::{RequestBody, ResponseBody, Shared, attempts::Attempts, fallback, head::Head, response};
use crate::{
    CircuitBreaker, ConcurrencyLimit, Error, Throttling,
    breaker::{self, Breaker, Breakers},
    endpoint::Ending,
    limit::{Limiter, Throttle, Within},
    settings::MethodSettings,
};

/// What holds for all calls of a channel together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct GateSettings {
    /// Of the service as a whole, beside those of its methods.
    pub(crate) breaker: Option<CircuitBreaker>,
    pub(crate) limit: Option<ConcurrencyLimit>,
    pub(crate) throttling: Option<Throttling>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Whether there is anything that concerns all calls: all that a call looks at when there is not.
    is_on: AtomicBool,
    together: ArcSwapOption<Together>,
    methods: Breakers,
}

#[derive(Debug)]
struct Together {
    settings: GateSettings,
    breaker: Option<Arc<Breaker>>,
    limiter: Option<Arc<Limiter>>,
    throttle: Option<Arc<Throttle>>,
}

/// A call that was let through. Dropped without an end it was cancelled, which teaches nothing.
#[derive(Debug)]
pub(crate) struct Admission {
    began: Instant,
    /// After how long the first message came.
    answered: Option<Duration>,
    method: Option<breaker::Permit>,
    service: Option<breaker::Permit>,
    within: Option<Within>,
    throttle: Option<Arc<Throttle>>,
}

/// Makes the call if it is let through, and has its end learnt from.
pub(super) async fn through(
    shared: &Shared,
    settings: &MethodSettings,
    attempts: Attempts<'_>,
    head: Parts,
    body: RequestBody,
) -> Result<Response<ResponseBody>, Status> {
    match shared.gate.admit(&shared.service, head.uri.path(), settings) {
        Ok(None) => attempts.run(Head::new(head), body).await,
        Ok(Some(admission)) => {
            let mut answer = attempts.run(Head::new(head), body).await;
            match &mut answer {
                Ok(response) => response::admitted(response, admission),
                Err(status) => admission.fails(status),
            }
            answer
        }
        Err(error) => {
            let (status, span) = (Status::from(error), attempts.into_span());
            fallback::note(settings, &span, status.code());
            span.finish(status.code().into());
            Err(status)
        }
    }
}

impl Gate {
    /// The states of all breakers, see [`Breaker::level`]; the one of the service has no method.
    pub(crate) fn breakers(&self) -> Vec<(Option<Box<str>>, u8)> {
        let together = self.together.load_full();
        let of_service = together.and_then(|together| together.breaker.as_ref().map(|breaker| breaker.level()));
        let of_methods = self
            .methods
            .levels()
            .into_iter()
            .map(|(path, level)| (Some(path), level));
        of_service
            .map(|level| (None, level))
            .into_iter()
            .chain(of_methods)
            .collect()
    }

    /// From now on calls go by `settings`. What is unchanged in them keeps what it has learnt.
    pub(crate) fn set(&self, settings: GateSettings) {
        let before = self.together.load_full();
        let before = before.as_deref();
        let is_on = settings != GateSettings::default();
        self.together.store(is_on.then(|| {
            Arc::new(Together {
                breaker: settings.breaker.map(|config| {
                    let kept = before.filter(|before| before.settings.breaker == settings.breaker);
                    kept.and_then(|before| before.breaker.clone())
                        .unwrap_or_else(|| Arc::new(Breaker::new(config)))
                }),
                limiter: settings.limit.map(|config| {
                    let kept = before.filter(|before| before.settings.limit == settings.limit);
                    kept.and_then(|before| before.limiter.clone())
                        .unwrap_or_else(|| Arc::new(Limiter::new(config)))
                }),
                throttle: settings.throttling.map(|config| {
                    let kept = before.filter(|before| before.settings.throttling == settings.throttling);
                    kept.and_then(|before| before.throttle.clone())
                        .unwrap_or_else(|| Arc::new(Throttle::new(config, Instant::now())))
                }),
                settings,
            })
        }));
        self.is_on.store(is_on, Ordering::Release);
    }

    /// Lets a call of the method with that path through; `None` if nobody wants to know of its end.
    ///
    /// # Errors
    /// [`Error::Throttled`], [`Error::CircuitOpen`] or [`Error::ConcurrencyLimit`].
    pub(crate) fn admit(
        &self,
        service: &Arc<str>,
        path: &str,
        settings: &MethodSettings,
    ) -> Result<Option<Box<Admission>>, Error> {
        if settings.breaker.is_none() && !self.is_on.load(Ordering::Acquire) {
            return Ok(None);
        }
        self.examine(service, path, settings.breaker.as_ref())
            .map(|admission| Some(Box::new(admission)))
    }

    fn examine(&self, service: &Arc<str>, path: &str, method: Option<&CircuitBreaker>) -> Result<Admission, Error> {
        let together = self.together.load();
        let together = together.as_deref();
        let began = Instant::now();
        let throttle = together.and_then(|together| together.throttle.clone());
        if let Some(throttle) = &throttle
            && !throttle.admits(began, || rand::rng().next_u32())
        {
            return Err(Error::Throttled {
                service: Arc::clone(service),
            });
        }
        let method = method
            .map(|config| self.methods.of(path, config).admit(began))
            .transpose()
            .map_err(|retry_after| Error::CircuitOpen {
                service: Arc::clone(service),
                method: Some(path.into()),
                retry_after,
            })?;
        let breaker = together.and_then(|together| together.breaker.as_ref());
        let breaker = breaker
            .map(|breaker| breaker.admit(began))
            .transpose()
            .map_err(|retry_after| Error::CircuitOpen {
                service: Arc::clone(service),
                method: None,
                retry_after,
            })?;
        let limiter = together.and_then(|together| together.limiter.as_ref());
        let within = limiter
            .map(|limiter| limiter.enter())
            .transpose()
            .map_err(|limit| Error::ConcurrencyLimit {
                service: Arc::clone(service),
                limit,
            })?;
        Ok(Admission {
            began,
            answered: None,
            method,
            service: breaker,
            within,
            throttle,
        })
    }
}

impl Admission {
    /// The first message of the response has come.
    pub(crate) fn speaks(&mut self) {
        if self.answered.is_none() {
            self.answered = Some(self.began.elapsed());
        }
    }

    /// The call is over.
    pub(crate) fn ends(self, ending: Ending) {
        if ending == Ending::Cancelled {
            return;
        }
        let now = Instant::now();
        let took = self.answered.unwrap_or_else(|| now - self.began);
        let overloaded = ending == Ending::Overloaded;
        if let Some(throttle) = self.throttle {
            throttle.learn(now, !overloaded);
        }
        for permit in [self.method, self.service].into_iter().flatten() {
            permit.ends(ending != Ending::Served, took, now);
        }
        if let Some(within) = self.within {
            within.ends(took, overloaded);
        }
    }

    /// The call has failed before there was a response.
    pub(crate) fn fails(self, status: &Status) {
        let reason = status.get_details_error_info().map(|info| info.reason);
        self.ends(match reason.as_deref() {
            // Everybody has as many calls as they allow: an overload that no server had to speak of.
            Some("NO_ROOM") => Ending::Overloaded,
            _ => Ending::of(status.code()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(breaker: Option<CircuitBreaker>) -> MethodSettings {
        MethodSettings {
            breaker,
            ..MethodSettings::default()
        }
    }

    fn breaker() -> CircuitBreaker {
        CircuitBreaker::default().minimum_calls(2).expect("valid")
    }

    fn admit(gate: &Gate, path: &str, settings: &MethodSettings) -> Result<Option<Box<Admission>>, Error> {
        gate.admit(&"tickets".into(), path, settings)
    }

    fn fail(gate: &Gate, path: &str, settings: &MethodSettings) {
        for _ in 0..2 {
            let admission = admit(gate, path, settings).expect("closed").expect("guarded");
            admission.ends(Ending::Failed);
        }
    }

    #[tokio::test]
    async fn what_is_off_keeps_nobody() {
        let gate = Gate::default();
        assert!(admit(&gate, "/a", &method(None)).expect("open").is_none());
    }

    #[tokio::test]
    async fn a_method_that_fails_is_shut_alone_and_the_service_with_all() {
        let (gate, guarded) = (Gate::default(), method(Some(breaker())));
        fail(&gate, "/a", &guarded);
        let error = admit(&gate, "/a", &guarded).expect_err("open");
        assert!(error.never_processed() && error.to_string().contains("/a"), "{error}");
        assert!(admit(&gate, "/b", &guarded).is_ok());

        gate.set(GateSettings {
            breaker: Some(breaker()),
            ..GateSettings::default()
        });
        fail(&gate, "/c", &method(None));
        let error = admit(&gate, "/d", &method(None)).expect_err("open");
        assert!(matches!(error, Error::CircuitOpen { method: None, .. }), "{error}");
    }

    #[tokio::test]
    async fn what_is_unchanged_keeps_what_it_has_learnt() {
        let gate = Gate::default();
        let settings = GateSettings {
            breaker: Some(breaker()),
            ..GateSettings::default()
        };
        gate.set(settings);
        fail(&gate, "/a", &method(None));
        gate.set(GateSettings {
            throttling: Some(Throttling::default()),
            ..settings
        });
        admit(&gate, "/a", &method(None)).expect_err("still open");
        gate.set(GateSettings::default());
        assert!(admit(&gate, "/a", &method(None)).expect("off").is_none());
    }

    #[tokio::test]
    async fn nobody_has_room_counts_as_overload() {
        let gate = Gate::default();
        gate.set(GateSettings {
            throttling: Some(Throttling::default()),
            ..GateSettings::default()
        });
        let mut rejected = 0;
        for _ in 0..200 {
            match admit(&gate, "/a", &method(None)) {
                Ok(admission) => {
                    let status = Status::from(Error::NoRoom {
                        service: "tickets".into(),
                        waited: Duration::ZERO,
                        ready: 3,
                    });
                    admission.expect("watched").fails(&status);
                }
                Err(Error::Throttled { .. }) => rejected += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(rejected > 100, "{rejected}");
    }
}
