//! Repeating a call that may be repeated, while etcd does not answer it.

use std::time::Duration;

use tokio::time::Instant;

use super::failure::Failure;

/// Between two tries: an election takes a second or two.
const PAUSE: Duration = Duration::from_millis(200);

/// The tries of one call.
#[derive(Debug)]
pub(super) struct Retry {
    patience: Duration,
    /// When the first one failed.
    since: Option<Instant>,
}

impl Retry {
    /// From the first failure on for so long.
    pub(super) fn within(patience: Duration) -> Self {
        Self { patience, since: None }
    }

    /// Waits a moment before the next try; gives the failure back where another try does not help, or it took too long.
    pub(super) async fn after(&mut self, failure: Failure) -> Result<(), Failure> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if !matches!(failure, Failure::Away(_)) || since.elapsed() >= self.patience {
            return Err(failure);
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_comes_and_goes_is_tried_again_and_not_for_ever() {
        let away = || Failure::Away(String::new());
        let mut retry = Retry::within(Duration::from_secs(1));
        assert_eq!(retry.after(Failure::NoSpace).await, Err(Failure::NoSpace));
        let mut retry = Retry::within(Duration::from_secs(1));
        let mut tries = 0;
        while retry.after(away()).await.is_ok() {
            tries += 1;
        }
        assert_eq!(tries, 5);
        assert!(Retry::within(Duration::ZERO).after(away()).await.is_err());
    }
}
