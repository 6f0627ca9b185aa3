//! The waiting room: the line of `domain::line` with those who really wait in it. Wakes whom the line calls; decides nothing.
//!
//! Two kinds wait. A HoldSeats call waits for a moment, in its call; one that would wait longer is told when to come again, which costs it
//! nothing but the asking. A WaitInLine stream waits for as long as it takes, and gets a pass when it is its turn. No task runs
//! here: whoever leaves calls the next ones, and those who wait look at the clock now and then.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use service_store::Timestamp;
use telemetry::deadline::Deadline;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::{
    domain::line::{Bounds, Door, Full, Line, Place, Visitor},
    store::Store,
};

/// A call that would wait longer than this is told to come again: a second is what people take for an answer that is coming.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who waits in a stream is told of their position so often.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// Positions are counted anew, and the clock is looked at, so often for all who wait together.
const COUNT: Duration = Duration::from_millis(500);

/// How much a process lets in and lets wait.
pub(crate) const fn bounds(places: usize) -> Bounds {
    Bounds {
        places,
        // Some 2 MB of entries, and as many streams as a process can well have.
        waiting: 10_000,
        // To choose seats in; as long as people look at a page that says that it is their turn.
        pass: Duration::from_secs(60),
        // A telephone that changes from one network to the other.
        grace: Duration::from_secs(10),
    }
}

/// The waiting room of one process. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    store: Store,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    line: Line,
    /// Who waits here to be called, until when their place is kept.
    bells: HashMap<Visitor, Bell>,
    next_bell: u64,
    /// The places in order, as they were counted last.
    order: Arc<Vec<Place>>,
    counted: Option<Instant>,
    /// When those who wait looked at the clock last.
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Bell {
    /// Tells the stream that waits from an earlier one of the same visitor.
    number: u64,
    rings: oneshot::Sender<Timestamp>,
}

/// One is at the store. Dropped, the place is free again.
#[derive(Debug)]
pub(crate) struct Inside(Room);

/// There is no place for a call now; after so long there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ComeAgain(pub(crate) Duration);

/// A place in the line that somebody waits at. Dropped, it is kept for a while, then freed.
#[derive(Debug)]
pub(crate) struct InLine {
    room: Room,
    visitor: Visitor,
    place: Place,
    number: u64,
    bell: oneshot::Receiver<Timestamp>,
    called: bool,
}

/// What is said to who waits in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// So many are called before, and it takes about so long.
    Wait { position: u64, estimate: Duration },
    /// It is their turn, until then.
    YourTurn { until: Timestamp },
    /// The same visitor waits in another stream by now.
    Elsewhere,
}

impl Room {
    pub(crate) fn new(store: Store, places: usize) -> Self {
        Self {
            store,
            state: Arc::new(Mutex::new(State {
                line: Line::new(bounds(places)),
                bells: HashMap::new(),
                next_bell: 0,
                order: Arc::default(),
                counted: None,
                looked: None,
            })),
        }
    }

    /// A place at the store for one call: now, in a moment, or not. `has_pass`: with a good pass.
    pub(crate) async fn enter(&self, visitor: Visitor, has_pass: bool) -> Result<Inside, ComeAgain> {
        let left = Deadline::current().map_or(PATIENCE, |deadline| deadline.remaining() / 2);
        let patience = left.min(PATIENCE);
        let waits = {
            let mut state = self.lock();
            let estimate = match state.line.enter(&visitor, has_pass) {
                Door::Go => return Ok(Inside(self.clone())),
                Door::Wait(estimate) => estimate,
            };
            // One place each: who waits in a stream, or in another call, is not let in by asking once more.
            if estimate > patience || state.bells.contains_key(&visitor) {
                return Err(ComeAgain(estimate));
            }
            let waits = self.join(&mut state, visitor.clone());
            let waits = waits.map_err(|Full(wait)| ComeAgain(wait))?;
            self.call(&mut state);
            waits
        };
        let mut waits = InACall(waits);
        match timeout(patience, &mut waits.0.bell).await {
            Ok(Ok(_)) => {
                waits.0.called = true;
                match self.lock().line.enter(&visitor, true) {
                    Door::Go => Ok(Inside(self.clone())),
                    Door::Wait(estimate) => Err(ComeAgain(estimate)),
                }
            }
            _ => Err(ComeAgain(self.lock().line.estimate(0))),
        }
    }

    /// A place in the line, until it is one's turn. Who has one keeps it; a stream that waited there hears [`Word::Elsewhere`].
    pub(crate) fn wait(&self, visitor: Visitor) -> Result<InLine, Full> {
        let mut state = self.lock();
        if let Some(until) = state.line.kept(&visitor) {
            return Ok(self.called_before(visitor, until));
        }
        let waits = self.join(&mut state, visitor)?;
        // There may be room right now.
        self.call(&mut state);
        Ok(waits)
    }

    /// Whoever was called and did not hear it, because the stream broke.
    fn called_before(&self, visitor: Visitor, until: Timestamp) -> InLine {
        let (rings, bell) = oneshot::channel();
        // The other end is in the next line.
        let _ = rings.send(until);
        InLine {
            room: self.clone(),
            visitor,
            place: Place::FRONT,
            number: 0,
            bell,
            called: false,
        }
    }

    fn join(&self, state: &mut State, visitor: Visitor) -> Result<InLine, Full> {
        let place = state.line.join(&visitor)?;
        let (rings, bell) = oneshot::channel();
        state.next_bell += 1;
        let number = state.next_bell;
        // The bell that another stream of this visitor waits for is dropped here, which tells it so.
        state.bells.insert(visitor.clone(), Bell { number, rings });
        Ok(InLine {
            room: self.clone(),
            visitor,
            place,
            number,
            bell,
            called: false,
        })
    }

    /// A place that is kept too long is freed by the clock, and nobody but those who wait may be here to look at it. One of them
    /// looks for all: each look goes over all who wait, and ten thousand of them look once a second.
    fn look(&self) {
        let mut state = self.lock();
        if state.looked.is_none_or(|looked| looked.elapsed() >= COUNT) {
            state.looked = Some(Instant::now());
            self.call(&mut state);
        }
    }

    /// Calls as many as there is room for.
    fn call(&self, state: &mut State) {
        for (visitor, until) in state.line.call(self.store.now()) {
            if let Some(bell) = state.bells.remove(&visitor) {
                // Who has hung up in this instant finds the place kept when they come back.
                let _ = bell.rings.send(until);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and the line is whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InLine {
    /// The next thing to say: at once at first, then once in a while, and as soon as it is one's turn.
    pub(crate) async fn next(&mut self, at_once: bool) -> Word {
        let patience = if at_once { Duration::ZERO } else { LOOK };
        self.room.look();
        match timeout(patience, &mut self.bell).await {
            Ok(Ok(until)) => {
                self.called = true;
                Word::YourTurn { until }
            }
            Ok(Err(_)) => Word::Elsewhere,
            Err(_) => self.position(),
        }
    }

    fn position(&self) -> Word {
        let mut state = self.room.lock();
        if state.order.is_empty() || state.counted.is_none_or(|counted| counted.elapsed() >= COUNT) {
            state.order = Arc::new(state.line.order());
            state.counted = Some(Instant::now());
        }
        let order = state.order.clone();
        // In order, so that ten thousand who wait do not each count ten thousand.
        let in_front = match (order.binary_search(&self.place), order.last()) {
            // Joined since they were counted: places are given one after the other.
            (Err(at), Some(last)) if at == order.len() => at + self.place.behind(*last),
            (Ok(at) | Err(at), _) => at,
        };
        Word::Wait {
            position: in_front as u64 + 1,
            estimate: state.line.estimate(in_front),
        }
    }
}

/// A call that waits: one that ends takes its place along.
struct InACall(InLine);

impl Drop for InACall {
    fn drop(&mut self) {
        if !self.0.called {
            let mut state = self.0.room.lock();
            state.line.quit(&self.0.visitor);
            state.bells.remove(&self.0.visitor);
            self.0.called = true;
        }
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        if self.called {
            return;
        }
        let mut state = self.room.lock();
        // Unless it was called in this very instant, or another stream of the visitor has taken the place over.
        if state
            .bells
            .get(&self.visitor)
            .is_none_or(|bell| bell.number != self.number)
        {
            return;
        }
        let now = self.room.store.now();
        state.line.step_away(self.place, now);
        state.bells.remove(&self.visitor);
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.line.leave();
        self.0.call(&mut state);
    }
}
