//! When the demo repeats a call, and how long it waits before: as any client of these services would. A whole cluster at
//! its limits, or one whose instances come and go, is no reason to give up; the bound of the call is.
//!
//! Everything that the demo calls may be repeated: it reads, or its `request_id` makes the second time the same as the
//! first (user.proto). So the same message is sent again, and it does not matter whether the first one was processed.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

/// A registration hashes a password, and many at once wait for each other; a purchase is five calls of others; a service
/// that was killed is back after seconds.
pub(crate) const CALL: Duration = Duration::from_secs(30);
/// The first wait where the answer does not say how long.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait: whoever was away is back for a while before the bound.
const LONGEST: Duration = Duration::from_secs(2);

/// Calls until there is an answer that repeating does not change, or for [`CALL`], deadlines included: the deadline holds
/// even against a peer that does not keep it.
pub(crate) async fn call<M, T, F>(message: M, attempt: impl Fn(Request<M>) -> F) -> Result<T, Status>
where
    M: Clone,
    F: Future<Output = Result<Response<T>, Status>>,
{
    let end = Instant::now() + CALL;
    let mut repeats = 0;
    loop {
        let mut request = Request::new(message.clone());
        request.set_timeout(end.saturating_duration_since(Instant::now()));
        let status = match timeout_at(end, attempt(request)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => status,
            Err(_) => {
                return Err(Status::deadline_exceeded(format!(
                    "no answer within {} s",
                    CALL.as_secs()
                )));
            }
        };
        match wait(&status, repeats, rand::random()) {
            // A wait past the end would only replace what is known by DEADLINE_EXCEEDED.
            Some(wait) if Instant::now() + wait < end => sleep(wait).await,
            _ => return Err(status),
        }
        repeats += 1;
    }
}

/// How long to wait before the same call once more, after so many repeats; `None` where it would be in vain. `chance` is
/// drawn from `0.0..1.0`.
fn wait(status: &Status, repeats: u32, chance: f64) -> Option<Duration> {
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
    match delay {
        // Not before (google.rpc.RetryInfo), so chance only adds: those who were refused together must not come back
        // together.
        Some(delay) => Some(delay.mul_f64(1.0 + chance)),
        None if status.code() == Code::Unavailable => {
            let longest = FIRST.saturating_mul(2_u32.saturating_pow(repeats)).min(LONGEST);
            Some(longest.mul_f64(0.5 + chance / 2.0))
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tonic_types::ErrorDetails;

    use super::*;

    fn invited(code: Code) -> Status {
        Status::with_error_details(
            code,
            "later",
            ErrorDetails::with_retry_info(Some(Duration::from_secs(1))),
        )
    }

    #[test]
    fn what_invites_a_retry_is_repeated_and_not_before_it_says() {
        let full = invited(Code::ResourceExhausted);
        assert_eq!(wait(&full, 0, 0.0), Some(Duration::from_secs(1)));
        assert_eq!(wait(&full, 9, 0.5), Some(Duration::from_millis(1_500)));
        let gone = Status::unavailable("the connection broke");
        assert_eq!(wait(&gone, 0, 0.0), Some(FIRST / 2));
        assert_eq!(wait(&gone, 1, 1.0), Some(FIRST * 2));
        assert_eq!(wait(&gone, u32::MAX, 1.0), Some(LONGEST));
        assert_eq!(wait(&Status::resource_exhausted("4 MiB at most"), 0, 0.0), None);
        assert_eq!(wait(&Status::not_found("no such event"), 0, 0.0), None);
    }

    /// A demo of 1,000 at a time failed on a healthy cluster: whoever found no room on a connection or in the queue for
    /// passwords gave up, though the answer said when to come again. And a `kill -9` in the middle was the end of every
    /// purchase it met, though the same `request_id` buys once.
    #[tokio::test(start_paused = true)]
    async fn the_same_message_is_sent_until_it_is_answered() {
        let answers = RefCell::new(vec![
            Ok(Response::new("bought")),
            Err(Status::unavailable("the connection broke")),
            Err(invited(Code::ResourceExhausted)),
            Err(invited(Code::Unavailable)),
        ]);
        let begun = Instant::now();
        let sent = RefCell::new(Vec::new());
        let answer = call("request 1", |request| {
            sent.borrow_mut().push(request.into_inner());
            let answer = answers.borrow_mut().pop().expect("no call after the answer");
            async { answer }
        });
        assert_eq!(answer.await.expect("answered"), "bought");
        assert_eq!(*sent.borrow(), ["request 1"; 4]);
        assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_bound_is_of_all_attempts_together() {
        let begun = Instant::now();
        let calls = Cell::new(0);
        let answer = call((), |_| {
            calls.set(calls.get() + 1);
            async { Err::<Response<()>, _>(Status::unavailable("nobody is there")) }
        });
        let status = answer.await.expect_err("nobody ever was");
        assert_eq!(status.message(), "nobody is there");
        assert!(calls.get() > 10, "{}", calls.get());
        assert!(begun.elapsed() <= CALL, "{:?}", begun.elapsed());

        let begun = Instant::now();
        let silent = call((), |_| std::future::pending::<Result<Response<()>, Status>>());
        assert_eq!(silent.await.expect_err("silent").code(), Code::DeadlineExceeded);
        assert_eq!(begun.elapsed(), CALL);
    }
}
