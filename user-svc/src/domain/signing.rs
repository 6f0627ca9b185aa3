//! When signing keys begin, follow each other and end. Pure: knows times, not keys.
//!
//! A key is published before it signs, so that whoever verifies has it by then; and stays published after its successor has
//! begun, until the last token that it signed has ended. Replicas share the keys and see a new one within a minute, so the
//! time ahead covers them as well.

use std::time::Duration;

use service_store::Timestamp;

/// How long before it signs a key is published. Ten times as long as replicas and other services take to look.
pub(crate) const AHEAD: Duration = Duration::from_secs(10 * 60);

/// Between the last token's end and the key's: for clocks that differ.
const LEEWAY: Duration = Duration::from_secs(5 * 60);

/// How long keys sign, and how long tokens are good.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    pub(crate) rotation: Duration,
    pub(crate) token_lifetime: Duration,
}

/// A key's place in the order of keys, and from when on it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) generation: i64,
    pub(crate) signs_from: Timestamp,
}

impl Schedule {
    /// The key that is to be made now, if one is. `keys` are all there are, oldest first.
    pub(crate) fn due(&self, keys: &[Place], now: Timestamp) -> Option<Place> {
        let Some(newest) = keys.last() else {
            return Some(Place {
                generation: 1,
                signs_from: now,
            });
        };
        let next = newest.signs_from.after(self.rotation);
        (now.after(AHEAD) >= next).then(|| Place {
            generation: newest.generation + 1,
            // Late, because no process ran: still ahead.
            signs_from: next.max(now.after(AHEAD)),
        })
    }

    /// The generation before which nothing is needed any more.
    pub(crate) fn ended_before(&self, keys: &[Place], now: Timestamp) -> Option<i64> {
        let kept = |successor: &Place| successor.signs_from.after(self.token_lifetime).after(LEEWAY);
        // A key ends with its successor's beginning, so the last one of those that began long enough ago is still needed.
        keys.iter().rev().find(|key| kept(key) <= now).map(|key| key.generation)
    }
}

/// Which of the keys signs: the newest that has begun.
pub(crate) fn signer(keys: &[Place], now: Timestamp) -> Option<usize> {
    keys.iter().rposition(|key| key.signs_from <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule {
        rotation: Duration::from_secs(24 * 3600),
        token_lifetime: Duration::from_secs(900),
    };

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_nanos(minutes * 60 * 1_000_000_000)
    }

    fn place(generation: i64, minutes: i64) -> Place {
        Place {
            generation,
            signs_from: at(minutes),
        }
    }

    #[test]
    fn the_first_key_signs_at_once_and_the_next_one_is_published_ahead() {
        assert_eq!(SCHEDULE.due(&[], at(5)), Some(place(1, 5)));
        let keys = [place(1, 0)];
        assert_eq!(SCHEDULE.due(&keys, at(1429)), None);
        assert_eq!(SCHEDULE.due(&keys, at(1430)), Some(place(2, 1440)));
        assert_eq!(SCHEDULE.due(&[place(1, 0), place(2, 1440)], at(1435)), None, "once");
        assert_eq!(
            SCHEDULE.due(&keys, at(100_000)),
            Some(place(2, 100_010)),
            "after a long stop"
        );
    }

    #[test]
    fn a_key_signs_until_its_successor_does_and_stays_until_its_last_token_has_ended() {
        let keys = [place(1, 0), place(2, 1440)];
        for (now, signs) in [(0, Some(0)), (1439, Some(0)), (1440, Some(1)), (9999, Some(1))] {
            assert_eq!(signer(&keys, at(now)), signs, "{now}");
        }
        assert_eq!(signer(&keys, at(-1)), None);
        for (now, ended) in [(1439, Some(1)), (1459, Some(1)), (1460, Some(2))] {
            assert_eq!(SCHEDULE.ended_before(&keys, at(now)), ended, "{now}");
        }
        assert_eq!(SCHEDULE.ended_before(&keys[..1], at(1)), None);
    }

    /// Every token can be checked until its last second, by whoever looks once a minute, at whatever minute things happen.
    #[test]
    fn no_token_is_without_its_key() {
        let mut keys: Vec<Place> = Vec::new();
        let mut published: Vec<(i64, Vec<i64>)> = Vec::new();
        for now in 0..5_000 {
            keys.extend(SCHEDULE.due(&keys, at(now)));
            if let Some(first) = SCHEDULE.ended_before(&keys, at(now)) {
                keys.retain(|key| key.generation >= first);
            }
            let signs = keys[signer(&keys, at(now)).expect("always one")].generation;
            published.push((signs, keys.iter().map(|key| key.generation).collect()));
        }
        for (now, (signs, _)) in published.iter().enumerate() {
            let seen = &published[now.saturating_sub(1)..published.len().min(now + 16)];
            // The very first key signs at once: there is nobody yet who could have looked.
            let seen = if now == 0 { &seen[1..] } else { seen };
            assert!(seen.iter().all(|(_, keys)| keys.contains(signs)), "minute {now}");
        }
        assert!(keys.len() <= 3, "{keys:?}");
    }
}
