//! The waiting room in front of HoldSeats: who may go to the store now, who waits, in which order, and about how long. Pure: time is
//! an argument.
//!
//! Why there is one: a store takes so many holds a second, and no more by being asked more often. Without a line those who come
//! first time out with those who come last. The obvious alternative, to refuse at random, loses: who asks most often wins then.
//!
//! What is fair here, and can be shown of this file: within one process, who joined earlier is called earlier; a visitor, a buyer at
//! an event, has one place, however often they ask; who is away for longer than [`Bounds::grace`] has left, and the place is
//! freed. Every process has a line of its own, and equally many places: between two processes the order is not kept, and a
//! buyer may stand in each of them once. A line in the store would be one for all, and would be one more write for everybody
//! who waits, to the very store that there are too many writes for.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use service_store::Timestamp;
use uuid::Uuid;

/// A buyer at an event: who has a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Visitor {
    pub(crate) event: Uuid,
    pub(crate) buyer: String,
}

/// How much a line holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// So many are at the store at once, those who were called and have not come yet included.
    pub(crate) places: usize,
    /// So many wait at the most; an entry has some 200 bytes.
    pub(crate) waiting: usize,
    /// For so long a place is kept for whom was called.
    pub(crate) pass: Duration,
    /// For so long a place is kept for who is away: a stream that broke comes back in this time.
    pub(crate) grace: Duration,
}

/// A place in the line. Grows with every arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place(u64);

/// What somebody at the door is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Go to the store, and say [`Line::leave`] after it.
    Go,
    /// Others are first. Who joins now waits about so long.
    Wait(Duration),
}

/// The line is as long as it may be. Who comes again after so long finds it shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full(pub(crate) Duration);

#[derive(Debug)]
struct Waiting {
    visitor: Visitor,
    /// Since when nobody waits here for it.
    away_since: Option<Timestamp>,
}

/// The line of one process.
#[derive(Debug)]
pub(crate) struct Line {
    bounds: Bounds,
    /// At the store now.
    inside: usize,
    /// Called, and not there yet: until when the place is kept.
    called: HashMap<Visitor, Timestamp>,
    waiting: BTreeMap<Place, Waiting>,
    place_of: HashMap<Visitor, Place>,
    next: u64,
    /// About how long from one call to the next while people wait.
    pace: Duration,
    last_call: Option<Timestamp>,
}

impl Place {
    /// Before everybody.
    pub(crate) const FRONT: Self = Self(0);

    /// How many places were given between an earlier one and this.
    pub(crate) fn behind(self, earlier: Self) -> usize {
        let between = self.0.saturating_sub(earlier.0).saturating_sub(1);
        usize::try_from(between).unwrap_or(usize::MAX)
    }
}

impl Line {
    /// Before anything is known: what a write takes on a disk.
    const FIRST_PACE: Duration = Duration::from_millis(5);

    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            inside: 0,
            called: HashMap::new(),
            waiting: BTreeMap::new(),
            place_of: HashMap::new(),
            next: 1,
            pace: Self::FIRST_PACE,
            last_call: None,
        }
    }

    /// Somebody wants to go to the store. `has_pass`: with a good pass, of this process or of another one, which is accepted first:
    /// it takes a place that was kept, or one of as many again as there are for passes that others gave out.
    pub(crate) fn enter(&mut self, visitor: &Visitor, has_pass: bool) -> Door {
        let was_called = self.called.contains_key(visitor);
        let may = if was_called || has_pass {
            self.inside < self.bounds.places * 2
        } else {
            // Nobody goes past those who wait.
            self.waiting.is_empty() && self.taken() < self.bounds.places
        };
        if may {
            self.inside += 1;
            self.called.remove(visitor);
            self.forget(visitor);
            return Door::Go;
        }
        Door::Wait(self.estimate(self.waiting.len()))
    }

    /// Who was inside is done.
    pub(crate) fn leave(&mut self) {
        self.inside = self.inside.saturating_sub(1);
    }

    /// Takes a place at the end, or answers the one that the visitor has.
    pub(crate) fn join(&mut self, visitor: &Visitor) -> Result<Place, Full> {
        if let Some(place) = self.place_of.get(visitor) {
            if let Some(waiting) = self.waiting.get_mut(place) {
                waiting.away_since = None;
            }
            return Ok(*place);
        }
        if self.waiting.len() >= self.bounds.waiting {
            return Err(Full(self.estimate(self.waiting.len() / 2)));
        }
        let place = Place(self.next);
        self.next += 1;
        let waiting = Waiting {
            visitor: visitor.clone(),
            away_since: None,
        };
        self.waiting.insert(place, waiting);
        self.place_of.insert(visitor.clone(), place);
        Ok(place)
    }

    /// Whoever waited at this place is away; it is kept for a while. Nothing if it was called since.
    pub(crate) fn step_away(&mut self, place: Place, now: Timestamp) {
        if let Some(waiting) = self.waiting.get_mut(&place) {
            waiting.away_since = Some(now);
        }
    }

    /// The visitor gives its place up, or its call.
    pub(crate) fn quit(&mut self, visitor: &Visitor) {
        self.called.remove(visitor);
        self.forget(visitor);
    }

    /// Calls as many as there is room for, the earliest first, and frees what was kept for too long. Who is away is passed over
    /// until they are back. Answers who was called, and until when their place is kept.
    pub(crate) fn call(&mut self, now: Timestamp) -> Vec<(Visitor, Timestamp)> {
        self.called.retain(|_, until| now < *until);
        let grace = self.bounds.grace;
        let gone: Vec<Visitor> = self
            .waiting
            .values()
            .filter(|waiting| waiting.away_since.is_some_and(|since| since.after(grace) <= now))
            .map(|waiting| waiting.visitor.clone())
            .collect();
        gone.iter().for_each(|visitor| self.forget(visitor));
        let room = self.bounds.places.saturating_sub(self.taken());
        let present = self.waiting.values().filter(|waiting| waiting.away_since.is_none());
        let next: Vec<Visitor> = present.take(room).map(|waiting| waiting.visitor.clone()).collect();
        self.learn(next.len(), now);
        next.into_iter()
            .map(|visitor| {
                self.forget(&visitor);
                let until = now.after(self.bounds.pass);
                self.called.insert(visitor.clone(), until);
                (visitor, until)
            })
            .collect()
    }

    /// Until when a place is kept for a visitor that was called.
    pub(crate) fn kept(&self, visitor: &Visitor) -> Option<Timestamp> {
        self.called.get(visitor).copied()
    }

    /// The places of those who wait, the earliest first.
    pub(crate) fn order(&self) -> Vec<Place> {
        self.waiting.keys().copied().collect()
    }

    /// About how long it takes until as many have been called as are in front.
    pub(crate) fn estimate(&self, in_front: usize) -> Duration {
        let ahead = u32::try_from(in_front).unwrap_or(u32::MAX).saturating_add(1);
        // A place that is kept for long says nothing of how long it is to the end of days.
        self.pace.saturating_mul(ahead).min(Duration::from_secs(3_600))
    }

    fn taken(&self) -> usize {
        self.inside + self.called.len()
    }

    fn forget(&mut self, visitor: &Visitor) {
        if let Some(place) = self.place_of.remove(visitor) {
            self.waiting.remove(&place);
        }
    }

    /// Averages the time between calls over some twenty of them.
    fn learn(&mut self, called: usize, now: Timestamp) {
        if called == 0 {
            // Nobody waits: the time until the next call is no measure of how fast they go.
            if self.waiting.is_empty() {
                self.last_call = None;
            }
            return;
        }
        if let Some(last) = self.last_call {
            let each = now.since(last) / u32::try_from(called).unwrap_or(u32::MAX);
            for _ in 0..called.min(20) {
                self.pace = (self.pace * 19 + each) / 20;
            }
        }
        self.last_call = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        places: 2,
        waiting: 5,
        pass: Duration::from_secs(30),
        grace: Duration::from_secs(10),
    };

    fn visitor(name: usize) -> Visitor {
        Visitor {
            event: Uuid::nil(),
            buyer: name.to_string(),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn called(line: &mut Line, now: i64) -> Vec<String> {
        line.call(at(now))
            .into_iter()
            .map(|(visitor, _)| visitor.buyer)
            .collect()
    }

    /// Two are inside; who comes then waits.
    fn full_house() -> Line {
        let mut line = Line::new(BOUNDS);
        for name in 100..102 {
            assert_eq!(line.enter(&visitor(name), false), Door::Go);
        }
        assert!(matches!(line.enter(&visitor(1), false), Door::Wait(_)));
        line
    }

    #[test]
    fn who_came_first_is_called_first_and_nobody_goes_past() {
        let mut line = full_house();
        for name in [1, 2, 3] {
            line.join(&visitor(name)).expect("room");
        }
        assert!(called(&mut line, 0).is_empty());
        line.leave();
        assert!(
            matches!(line.enter(&visitor(9), false), Door::Wait(_)),
            "it is 1's turn"
        );
        assert_eq!(called(&mut line, 1), ["1"]);
        assert!(called(&mut line, 1).is_empty(), "1's place is kept");
        assert_eq!(line.enter(&visitor(1), true), Door::Go);
        line.leave();
        line.leave();
        assert_eq!(called(&mut line, 2), ["2", "3"]);
    }

    #[test]
    fn asking_again_neither_loses_nor_gains_a_place() {
        let mut line = full_house();
        let first = line.join(&visitor(1)).expect("room");
        let second = line.join(&visitor(2)).expect("room");
        assert!(first < second);
        for _ in 0..10 {
            assert_eq!(line.join(&visitor(1)), Ok(first));
        }
        assert_eq!(line.order(), [first, second]);
    }

    #[test]
    fn who_is_away_is_passed_over_then_forgotten() {
        let mut line = full_house();
        let first = line.join(&visitor(1)).expect("room");
        line.join(&visitor(2)).expect("room");
        line.step_away(first, at(0));
        line.leave();
        assert_eq!(called(&mut line, 1), ["2"]);
        assert_eq!(line.join(&visitor(1)), Ok(first), "back in time, at the old place");
        line.step_away(first, at(2));
        assert!(called(&mut line, 12).is_empty());
        assert!(line.order().is_empty(), "away for too long");
        assert_ne!(line.join(&visitor(1)), Ok(first));
    }

    #[test]
    fn a_call_that_nobody_follows_frees_its_place() {
        let mut line = full_house();
        line.join(&visitor(1)).expect("room");
        line.join(&visitor(2)).expect("room");
        line.leave();
        assert_eq!(called(&mut line, 0), ["1"]);
        assert!(called(&mut line, 29).is_empty());
        assert_eq!(called(&mut line, 30), ["2"]);
    }

    #[test]
    fn a_full_line_says_when_to_come_again_and_longer_lines_say_later() {
        let mut line = full_house();
        for name in 0..5 {
            line.join(&visitor(name)).expect("room");
        }
        let Err(Full(wait)) = line.join(&visitor(5)) else {
            panic!("a sixth")
        };
        assert!(wait > Duration::ZERO);
        assert!(line.join(&visitor(3)).is_ok(), "who is in it stays in it");
        assert!(line.estimate(10) > line.estimate(1));
    }

    #[test]
    fn the_estimate_follows_how_fast_they_are_called() {
        let mut line = Line::new(Bounds { waiting: 200, ..BOUNDS });
        for name in 0..2 {
            assert_eq!(line.enter(&visitor(1_000 + name), false), Door::Go);
        }
        for name in 0..150 {
            line.join(&visitor(name)).expect("room");
        }
        for second in 0..100 {
            line.leave();
            assert_eq!(called(&mut line, second).len(), 1);
            assert_eq!(
                line.enter(&visitor(usize::try_from(second).expect("few")), true),
                Door::Go
            );
        }
        let estimate = line.estimate(9).as_secs_f64();
        assert!((9.0..=11.0).contains(&estimate), "ten at one a second: {estimate}");
    }

    proptest! {
        /// Whatever visitors do: never more than there are places without a pass, one place each, and in the order of arrival.
        #[test]
        fn it_is_first_come_first_served(steps in proptest::collection::vec((0_u8..6, 0_usize..8), 1..200)) {
            let mut line = Line::new(BOUNDS);
            let (mut inside, mut now) = (0_usize, 0);
            for (what, name) in steps {
                now += 1;
                match what {
                    0 => if line.enter(&visitor(name), false) == Door::Go { inside += 1 },
                    1 | 2 => { let _ = line.join(&visitor(name)); }
                    3 => { line.leave(); inside = inside.saturating_sub(1) }
                    4 => line.quit(&visitor(name)),
                    _ => {
                        let before = line.order();
                        let places: HashMap<Visitor, Place> = line.place_of.clone();
                        let called: Vec<Place> = line.call(at(now)).iter().map(|(visitor, _)| places[visitor]).collect();
                        prop_assert_eq!(&called[..], &before[..called.len()], "the first of those who wait");
                    }
                }
                prop_assert_eq!(line.inside, inside);
                prop_assert!(line.taken() <= BOUNDS.places);
                prop_assert_eq!(line.waiting.len(), line.place_of.len());
                prop_assert!(line.waiting.len() <= BOUNDS.waiting);
            }
        }
    }
}
