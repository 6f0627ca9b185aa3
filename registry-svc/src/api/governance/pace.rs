//! How long a backup waits for whoever reads it. It measures nothing: it is told.

use std::time::Duration;

/// A reader's bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// One message that nobody takes for so long ends the backup: whoever read it has gone.
    pub(super) unread: Duration,
    /// In all it may have us wait for so long,
    pub(super) grace: Duration,
    /// and for the time that what it has taken takes at this many bytes a second.
    pub(super) rate: u32,
}

/// A backup under way keeps the store from using old pages again, so the file grows by all that is committed meanwhile: nobody
/// may hold it up for as long as they like, a message now and then. A million instances are some 400 MB, seven minutes at most.
pub(super) const PATIENCE: Patience = Patience {
    unread: Duration::from_secs(30),
    grace: Duration::from_secs(30),
    rate: 1024 * 1024,
};

/// How a backup gets on.
#[derive(Debug)]
pub(super) struct Pace {
    patience: Patience,
    /// What it has taken.
    bytes: u64,
    /// How long it had us wait.
    waited: Duration,
}

impl Pace {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            bytes: 0,
            waited: Duration::ZERO,
        }
    }

    /// For so long the next message may wait.
    pub(super) fn allows(&self) -> Duration {
        let Patience { unread, grace, rate } = self.patience;
        let millis = self.bytes.saturating_mul(1_000) / u64::from(rate.max(1));
        let earned = grace.saturating_add(Duration::from_millis(millis));
        earned.saturating_sub(self.waited).min(unread)
    }

    /// One was taken after so long.
    pub(super) fn took(&mut self, bytes: usize, waited: Duration) {
        self.bytes += bytes as u64;
        self.waited += waited;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn whoever_reads_at_the_rate_has_all_the_time_that_it_takes() {
        let mut pace = Pace::new(PATIENCE);
        for _ in 0..10_000 {
            assert_eq!(pace.allows(), PATIENCE.unread);
            pace.took(MIB, Duration::from_secs(1));
        }
        // A pause is made good by reading faster.
        pace.took(MIB, Duration::from_secs(21));
        assert_eq!(pace.allows(), Duration::from_secs(10));
        (0..40).for_each(|_| pace.took(MIB, Duration::from_millis(500)));
        assert_eq!(pace.allows(), Duration::from_secs(30));
    }

    #[test]
    fn whoever_does_not_is_waited_for_no_longer_than_the_grace() {
        let mut pace = Pace::new(PATIENCE);
        let mut waited = Duration::ZERO;
        // Each message is taken just in time, for as long as that is allowed.
        for _ in 0..100 {
            let each = pace.allows().min(Duration::from_secs(29));
            pace.took(MIB, each);
            waited += each;
        }
        assert!(waited < PATIENCE.grace + Duration::from_secs(100), "{waited:?}");
    }
}
