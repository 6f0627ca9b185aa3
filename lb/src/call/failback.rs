//! Calls that have failed and are tried again in the background: each is a task of its own, which sleeps most of the time.
//!
//! Owned by the channel: [`Failback::close`] tries each once more, at once, and waits for that. Whoever only drops the channel
//! leaves them to their schedule, and to the life of the process.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use http_body::Body as _;
use telemetry::{Context, client::CallSpan, deadline::Deadline};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status};

use super::{
    RequestBody, Shared, answer::Outcome, attempt::Attempt, attempts::Attempts, failsafe::is_business, head::Head,
    retries::count,
};
use crate::{FailbackPolicy, endpoint::Endpoint, route::Route, settings::MethodSettings};

/// Dubbo's number. Each holds a request; who has a hundred of them undelivered has lost more than a message.
const MOST: usize = 100;

/// How long an attempt may take where the method has no limit: nobody waits for it, but it holds its request.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Failback {
    shared: Weak<Shared>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

/// A call that has failed.
pub(super) struct Undelivered {
    pub(super) head: Head,
    pub(super) body: RequestBody,
    pub(super) policy: FailbackPolicy,
    pub(super) settings: MethodSettings,
    /// Its span, parent of those of the calls to come.
    pub(super) context: Context,
    pub(super) key: Option<u64>,
    pub(super) route: Route,
    pub(super) failed_at: Option<Arc<Endpoint>>,
}

impl Failback {
    pub(crate) fn new(shared: Weak<Shared>) -> Self {
        Self {
            shared,
            room: Arc::new(Semaphore::new(MOST)),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Whether it will be tried again: not if a hundred others wait, or the channel is being closed.
    pub(super) fn take(&self, call: Undelivered) -> bool {
        let (Some(shared), Ok(permit)) = (self.shared.upgrade(), Arc::clone(&self.room).try_acquire_owned()) else {
            return false;
        };
        if self.closing.is_cancelled() {
            return false;
        }
        count(&shared.retries.counts().waiting);
        let closing = self.closing.clone();
        self.tasks.spawn(deliver(shared, call, permit, closing));
        true
    }

    /// Tries whatever waits once more, now, and returns when that is done.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Tries again and again, and says how it ended.
async fn deliver(
    shared: Arc<Shared>,
    mut call: Undelivered,
    _permit: OwnedSemaphorePermit,
    closing: CancellationToken,
) {
    let mut made = 0;
    let end = loop {
        // Closing leaves it one attempt, the last.
        let pause = tokio::time::sleep(call.policy.every());
        let last = tokio::select! {
            biased;
            () = closing.cancelled() => true,
            () = pause => false,
        };
        made += 1;
        match attempt(&shared, &mut call, made).await {
            Ok(()) => break Ok(()),
            Err(status) if last || made >= call.policy.times() || is_business(status.code()) => break Err(status),
            Err(status) => {
                tracing::debug!(service = %shared.service, path = call.head.path(), made, %status, "not delivered yet")
            }
        }
    };
    let counts = shared.retries.counts();
    counts.waiting.fetch_sub(1, Ordering::Relaxed);
    match end {
        Ok(()) => {
            count(&counts.delivered);
            tracing::info!(service = %shared.service, path = call.head.path(), attempts = made + 1, "delivered after all");
        }
        Err(status) => {
            count(&counts.undelivered);
            tracing::error!(service = %shared.service, path = call.head.path(), attempts = made + 1, %status, "not delivered, and not tried again");
        }
    }
}

/// One call of the background, to its end.
async fn attempt(shared: &Shared, call: &mut Undelivered, previous: u32) -> Result<(), Status> {
    let span = CallSpan::start_in(&call.context, call.head.path(), &shared.service);
    let limit = call.settings.call_timeout.unwrap_or(PATIENCE);
    let deadline = Some(Deadline::after(limit));
    let attempts = Attempts::new(shared, &call.settings, span, deadline, call.key, &call.route);
    let outcome = {
        let mut attempt = Attempt::new(&attempts).after(previous - 1);
        match &call.failed_at {
            Some(endpoint) => attempt.avoid(endpoint, false),
            None => attempt = attempt.after(previous),
        }
        let outcome = attempt.judged(&mut call.head, &call.body).await;
        attempts.settled(outcome).await
    };
    let status = match outcome {
        Outcome::Good(answer) => {
            let mut body = attempts.answered(answer).into_body();
            let end = std::future::poll_fn(|cx| {
                loop {
                    match std::task::ready!(std::pin::Pin::new(&mut body).poll_frame(cx)) {
                        Some(Ok(_)) => {}
                        Some(Err(status)) => return Poll::Ready(Err(status)),
                        None => return Poll::Ready(Ok(())),
                    }
                }
            });
            return end.await;
        }
        Outcome::Bad(bad) => {
            call.failed_at = Some(Arc::clone(&bad.endpoint));
            bad.to_status()
        }
        Outcome::Final(error) => Status::from(error),
        Outcome::NowhereElse => Status::new(Code::Unavailable, "there is nobody to have it"),
    };
    attempts.span.finish(status.code().into());
    Err(status)
}
