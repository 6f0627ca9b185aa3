//! What is let through while the store has no room.
//!
//! Reads, watches and renewals need none. What makes the state smaller is always tried; what makes it larger is refused at
//! once, save for a probe every second, by which the end of it is noticed without anybody's doing. Pure.

use std::time::Duration;

use crate::model::Moment;

/// How often a change that needs room is let through to see whether there is some: often enough that nobody waits long for
/// a disk that an operator has just freed, and rarely enough to cost nothing.
const PROBE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) enum Room {
    /// As far as is known.
    #[default]
    Enough,
    /// The last change that needed some did not fit.
    None(Shortage),
}

/// What is known of a lack of room.
#[derive(Debug)]
pub(super) struct Shortage {
    /// For people.
    why: String,
    grow_at: Moment,
    expire_at: Moment,
}

impl Room {
    /// Why a change that needs room is refused now; `None` when it is let through.
    pub(super) fn refuses(&self, now: Moment) -> Option<&str> {
        match self {
            Self::None(shortage) if now < shortage.grow_at => Some(&shortage.why),
            _ => None,
        }
    }

    /// Whether there was none when it was last needed.
    pub(super) fn is_short(&self) -> bool {
        matches!(self, Self::None(_))
    }

    /// Whether leases may end now. What ends them takes a little room before it makes some.
    pub(super) fn may_expire(&self, now: Moment) -> bool {
        match self {
            Self::None(shortage) => now >= shortage.expire_at,
            Self::Enough => true,
        }
    }

    /// A group is on its way.
    pub(super) fn sent(&mut self, grows: bool, now: Moment) {
        if let Self::None(shortage) = self
            && grows
        {
            shortage.grow_at = now.plus(PROBE);
        }
    }

    /// A group has become durable. Returns whether that ends a shortage: only what needed room proves that there is some.
    pub(super) fn took(&mut self, grows: bool) -> bool {
        let ends = grows && matches!(self, Self::None(_));
        if ends {
            *self = Self::Enough;
        }
        ends
    }

    /// A group did not fit. Returns whether that begins a shortage.
    pub(super) fn lacking(&mut self, why: String, grows: bool, now: Moment) -> bool {
        let begins = matches!(self, Self::Enough);
        // What had gone together with something larger may fit by itself.
        let expire_at = if grows { now } else { now.plus(PROBE) };
        *self = Self::None(Shortage {
            why,
            grow_at: now.plus(PROBE),
            expire_at,
        });
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::after_start(Duration::from_millis(millis))
    }

    #[test]
    fn one_probe_a_second_until_something_fits() {
        let mut room = Room::default();
        assert_eq!(room.refuses(at(0)), None);
        assert!(room.lacking("full".into(), true, at(0)));
        assert_eq!(room.refuses(at(999)), Some("full"));
        assert!(room.may_expire(at(0)), "alone it may fit");
        assert_eq!(room.refuses(at(1_000)), None);
        room.sent(true, at(1_000));
        assert!(room.refuses(at(1_999)).is_some(), "the probe is on its way");
        assert!(!room.lacking("still full".into(), true, at(1_500)));
        assert_eq!(room.refuses(at(2_499)), Some("still full"));
        room.sent(true, at(2_500));
        assert!(room.took(true));
        assert_eq!(room.refuses(at(2_501)), None);
        assert!(!room.took(true), "it has ended before");
    }

    #[test]
    fn what_shrinks_proves_nothing_and_is_tried_again_in_a_second() {
        let mut room = Room::default();
        assert!(room.lacking("full".into(), false, at(0)));
        assert!(!room.may_expire(at(999)));
        assert!(room.may_expire(at(1_000)));
        room.sent(false, at(500));
        assert!(!room.took(false));
        assert!(room.refuses(at(999)).is_some());
    }
}
