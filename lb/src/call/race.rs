//! Several attempts of one call at the same time, in the caller's task: who is first. Dropping it cancels those under way.

use std::{pin::Pin, task::Poll};

/// See the module's documentation. Each wake-up looks at all of them: they are few.
pub(super) struct Race<'f, T>(Vec<Pin<Box<dyn Future<Output = T> + Send + 'f>>>);

impl<'f, T> Race<'f, T> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn enter(&mut self, runner: impl Future<Output = T> + Send + 'f) {
        self.0.push(Box::pin(runner));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The next to be done; never, if nobody runs. To stop waiting loses nothing.
    pub(super) async fn next(&mut self) -> T {
        std::future::poll_fn(|cx| {
            let mut done = None;
            for (at, runner) in self.0.iter_mut().enumerate() {
                if let Poll::Ready(output) = runner.as_mut().poll(cx) {
                    done = Some((at, output));
                    break;
                }
            }
            let Some((at, output)) = done else {
                return Poll::Pending;
            };
            // In order, so that those who entered first are looked at first.
            drop(self.0.remove(at));
            Poll::Ready(output)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_first_to_be_done_comes_first_and_the_others_run_on() {
        let (first, slow) = oneshot::channel();
        let (second, quick) = oneshot::channel();
        let mut race = Race::new();
        for runner in [slow, quick] {
            race.enter(async move { runner.await.expect("sent") });
        }
        second.send(2).expect("awaited");
        assert_eq!(race.next().await, 2);
        assert_eq!(race.len(), 1);
        first.send(1).expect("awaited");
        assert_eq!(race.next().await, 1);
        assert!(race.is_empty());
    }
}
