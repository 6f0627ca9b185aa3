//! What a watcher makes of replicas that answer and are no use: cut off from their store, or behind what others have told
//! already. Pure: time and randomness are arguments. Endpoints that do not answer at all are not its business.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt as _};

use crate::model::Confidence;

/// How long a replica may be cut off from its store before another one is asked, at the first time: a store that elects a new
/// leader takes less, and leaving would be in vain. Each further time is twice as long until somebody is found who is not cut
/// off: when the store is away for all of them, their watchers shall not go round in circles.
const CUT_OFF: Duration = Duration::from_secs(5);
/// The longest of these times.
const CUT_OFF_AT_MOST: Duration = Duration::from_secs(300);
/// That a replica is behind is believed of it for so long; then it is the revision that is wrong.
const BEHIND: Duration = Duration::from_secs(30);

/// What one watcher knows of the replicas.
#[derive(Debug)]
pub(crate) struct Replicas {
    /// How many there are.
    count: usize,
    /// How long the next one may be cut off.
    patience: Duration,
    /// When the one that is heard is to be left; set while it says STALE.
    leave_at: Option<Instant>,
    /// Those that did not know our revision, since when.
    behind: Option<(Instant, Vec<usize>)>,
}

impl Replicas {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            count,
            patience: CUT_OFF,
            leave_at: None,
            behind: None,
        }
    }

    /// The one that is watched has told a step. True when it is in touch with its store.
    pub(crate) fn told(&mut self, now: Instant, confidence: Confidence, rng: &mut impl Rng) -> bool {
        self.behind = None;
        if !matches!(confidence, Confidence::Stale(_)) {
            self.patience = CUT_OFF;
            self.leave_at = None;
            return true;
        }
        if self.leave_at.is_none() && self.count > 1 {
            // Its watchers have heard it in the same moment, and shall not leave in the same moment.
            self.leave_at = Some(now + self.patience.mul_f64(rng.random_range(1.0..=1.5)));
        }
        false
    }

    /// When to try another one.
    pub(crate) fn leave_at(&self) -> Option<Instant> {
        self.leave_at
    }

    /// The watch has ended. If the replica has been left for being cut off, the next one is given more time.
    pub(crate) fn ended(&mut self, cut_off: bool) {
        self.leave_at = None;
        if cut_off {
            self.patience = (self.patience * 2).min(CUT_OFF_AT_MOST);
        }
    }

    /// One of them has not got as far as the revision that another one has told, in the history that it names. True when it is
    /// the history that has gone back, as when a store was restored from a copy: all of them say so, or those that answer have
    /// said it for too long to be merely behind.
    pub(crate) fn has_gone_back(&mut self, now: Instant, endpoint: usize) -> bool {
        let (since, behind) = self.behind.get_or_insert_with(|| (now, Vec::new()));
        if !behind.contains(&endpoint) {
            behind.push(endpoint);
        }
        let believed = behind.len() >= self.count || now.duration_since(*since) >= BEHIND;
        if believed {
            self.behind = None;
        }
        believed
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    const STALE: Confidence = Confidence::Stale(Duration::ZERO);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn one_that_is_cut_off_is_left_and_one_that_is_not_is_kept() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut replicas = Replicas::new(2);
        for confidence in [Confidence::Fresh, Confidence::Recovering, Confidence::Protecting] {
            assert!(replicas.told(now, confidence, &mut rng));
            assert_eq!(replicas.leave_at(), None, "{confidence}");
        }
        assert!(!replicas.told(now, STALE, &mut rng));
        let leave_at = replicas.leave_at().expect("set");
        assert!((seconds(5)..=Duration::from_millis(7_500)).contains(&(leave_at - now)));
        replicas.told(now + seconds(3), STALE, &mut rng);
        assert_eq!(replicas.leave_at(), Some(leave_at), "since it said so first");
        replicas.told(now + seconds(4), Confidence::Fresh, &mut rng);
        assert_eq!(replicas.leave_at(), None);
    }

    #[test]
    fn the_only_one_is_kept_whatever_it_says() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut replicas = Replicas::new(1);
        replicas.told(now, STALE, &mut rng);
        assert_eq!(replicas.leave_at(), None);
    }

    #[test]
    fn where_all_are_cut_off_nobody_goes_round_in_circles() {
        let (begin, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut now = begin;
        let mut replicas = Replicas::new(3);
        let mut moves = 0;
        while now < begin + seconds(3_600) {
            replicas.told(now, STALE, &mut rng);
            now = replicas.leave_at().expect("set");
            replicas.ended(true);
            moves += 1;
        }
        assert!((12..=18).contains(&moves), "{moves} in an hour");
        replicas.told(now, Confidence::Fresh, &mut rng);
        replicas.told(now, STALE, &mut rng);
        assert!(replicas.leave_at().expect("set") - now < seconds(8), "forgotten");
    }

    #[test]
    fn a_history_has_gone_back_when_all_say_so() {
        let now = Instant::now();
        let mut replicas = Replicas::new(3);
        assert!(!replicas.has_gone_back(now, 1));
        assert!(!replicas.has_gone_back(now, 1), "no one counts twice");
        assert!(!replicas.has_gone_back(now, 2));
        assert!(replicas.has_gone_back(now, 0));
        assert!(!replicas.has_gone_back(now, 0), "it begins again");
        assert!(Replicas::new(1).has_gone_back(now, 0), "nobody else to ask");
    }

    #[test]
    fn one_that_goes_on_from_there_proves_the_others_to_be_behind() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut replicas = Replicas::new(2);
        assert!(!replicas.has_gone_back(now, 0));
        replicas.told(now, Confidence::Fresh, &mut rng);
        assert!(!replicas.has_gone_back(now, 1));
    }

    /// The others may be dead for good.
    #[test]
    fn those_that_answer_are_believed_in_the_end() {
        let now = Instant::now();
        let mut replicas = Replicas::new(2);
        assert!(!replicas.has_gone_back(now, 0));
        assert!(!replicas.has_gone_back(now + seconds(29), 0));
        assert!(replicas.has_gone_back(now + seconds(30), 0));
    }
}
