//! Whether a history of calls on one register could have come from one that does one thing at a time.
//!
//! The algorithm is Wing and Gong's search with Lowe's memory of what was already tried: put the calls in an order that keeps
//! "ended before the other began" and that the model allows. A call without an answer may have taken effect at any time after
//! it began (up to [`Call::latest`], when the process that could have done it is known to be dead) or never.
//!
//! The model is an instance with one writer at a time: whoever registered it last may change or end it, everybody else is
//! refused. Values are never used twice, so a read says exactly which call it saw.

use std::collections::HashSet;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Register with this value; the call's own number becomes the owner.
    Register(u64),
    /// As the owner that registered with `owner` as value, set this value.
    Update {
        /// Who asks.
        owner: u64,
        /// The new value.
        value: u64,
    },
    /// As this owner, end it.
    Deregister {
        /// Who asks.
        owner: u64,
    },
    /// Read.
    Get,
}

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// Done.
    Done,
    /// Refused: somebody else owns it, or nobody.
    Refused,
    /// Read: the value, or that there is none.
    Read(Option<u64>),
    /// No answer came.
    Lost,
}

/// One call. Times are in any unit, of one clock.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// What.
    pub asked: Asked,
    /// The answer.
    pub answered: Answered,
    /// When it was sent.
    pub from: u64,
    /// When the answer came; of a lost one, when it can have taken effect at the latest.
    pub latest: u64,
}

/// What is registered: who owns it and with which value.
type State = Option<(u64, u64)>;

impl Call {
    /// The state after this call, or `None` when it cannot have been answered so in `state`.
    fn apply(&self, state: State) -> Option<State> {
        let owns = |owner| state.is_some_and(|(present, _)| present == owner);
        match (self.asked, self.answered) {
            (Asked::Register(value), Answered::Done | Answered::Lost) => Some(Some((value, value))),
            (Asked::Update { owner, value }, Answered::Done | Answered::Lost) if owns(owner) => {
                Some(Some((owner, value)))
            }
            (Asked::Deregister { owner }, Answered::Done | Answered::Lost) if owns(owner) => Some(None),
            (Asked::Update { owner, .. } | Asked::Deregister { owner }, Answered::Refused) if !owns(owner) => {
                Some(state)
            }
            (Asked::Get, Answered::Read(read)) if read == state.map(|(_, value)| value) => Some(state),
            _ => None,
        }
    }

    fn has_read(&self) -> Option<u64> {
        match self.answered {
            Answered::Read(value) => value,
            _ => None,
        }
    }

    /// Could it be needed to explain the others? A lost read says nothing. A lost update changes the value alone, which the next
    /// read or write would have to find: one that nobody has read explains nothing that would not be explained without it.
    fn may_matter(&self, read: &HashSet<u64>) -> bool {
        match self.asked {
            Asked::Get => !self.is_lost(),
            Asked::Update { value, .. } => !self.is_lost() || read.contains(&value),
            Asked::Register(_) | Asked::Deregister { .. } => true,
        }
    }

    fn is_lost(&self) -> bool {
        self.answered == Answered::Lost
    }
}

/// An order of the calls (their numbers) that explains the history, or how far one can get.
///
/// # Errors
/// The longest explanation, when none explains all: the calls in its order, to look at.
pub fn check(calls: &[Call]) -> Result<Vec<usize>, Vec<usize>> {
    let read: HashSet<u64> = calls.iter().filter_map(Call::has_read).collect();
    let mut by_begin: Vec<usize> = (0..calls.len()).collect();
    by_begin.retain(|&call| calls[call].may_matter(&read));
    by_begin.sort_by_key(|&call| calls[call].from);
    let mut search = Search {
        calls,
        needed: by_begin.iter().filter(|&&call| !calls[call].is_lost()).count(),
        by_begin,
        done: vec![false; calls.len()],
        order: Vec::new(),
        best: Vec::new(),
        seen: HashSet::new(),
    };
    if search.run() {
        Ok(search.order)
    } else {
        Err(search.best)
    }
}

struct Search<'a> {
    calls: &'a [Call],
    by_begin: Vec<usize>,
    /// Calls that must be in the order: those that were answered.
    needed: usize,
    done: Vec<bool>,
    order: Vec<usize>,
    best: Vec<usize>,
    seen: HashSet<(Vec<u64>, State)>,
}

/// One level of the search: what may come next, and where we came from.
struct Level {
    candidates: Vec<usize>,
    state: State,
    needed: usize,
    /// The latest begin of what is in the order: nothing takes effect before it any more.
    now: u64,
}

impl Search<'_> {
    fn run(&mut self) -> bool {
        let mut levels = vec![self.level(None, self.needed, 0)];
        while let Some(level) = levels.last_mut() {
            if level.needed == 0 {
                return true;
            }
            let (state, needed, now) = (level.state, level.needed, level.now);
            let Some(call) = level.candidates.pop() else {
                levels.pop();
                if let Some(last) = self.order.pop() {
                    self.done[last] = false;
                }
                continue;
            };
            let tried = &self.calls[call];
            let Some(next) = tried.apply(state) else { continue };
            self.done[call] = true;
            if !self.seen.insert((self.bits(), next)) {
                self.done[call] = false;
                continue;
            }
            self.order.push(call);
            if self.order.len() > self.best.len() {
                self.best.clone_from(&self.order);
            }
            let needed = needed - usize::from(!tried.is_lost());
            levels.push(self.level(next, needed, now.max(tried.from)));
        }
        false
    }

    /// What may come next: calls that began before the first end of those that must still come.
    fn level(&self, state: State, needed: usize, now: u64) -> Level {
        let mut first_end = u64::MAX;
        let mut candidates = Vec::new();
        for &call in &self.by_begin {
            let Call { from, latest, .. } = self.calls[call];
            if from > first_end {
                break;
            }
            if self.done[call] || latest < now {
                continue;
            }
            candidates.push(call);
            if !self.calls[call].is_lost() {
                first_end = first_end.min(latest);
            }
        }
        candidates.retain(|&call| self.calls[call].from <= first_end);
        // Taken from the end: answered ones in their order first, lost ones when nothing else helps.
        candidates.sort_by_key(|&call| (!self.calls[call].is_lost(), std::cmp::Reverse(self.calls[call].latest)));
        Level {
            candidates,
            state,
            needed,
            now,
        }
    }

    fn bits(&self) -> Vec<u64> {
        let word = |chunk: &[bool]| chunk.iter().rev().fold(0, |word, &bit| word << 1 | u64::from(bit));
        self.done.chunks(64).map(word).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(asked: Asked, answered: Answered, from: u64, latest: u64) -> Call {
        Call {
            asked,
            answered,
            from,
            latest,
        }
    }

    fn register(value: u64, from: u64, latest: u64) -> Call {
        call(Asked::Register(value), Answered::Done, from, latest)
    }

    fn read(value: impl Into<Option<u64>>, from: u64, latest: u64) -> Call {
        call(Asked::Get, Answered::Read(value.into()), from, latest)
    }

    #[track_caller]
    fn linearizable(calls: &[Call]) {
        assert!(check(calls).is_ok(), "{:?}", check(calls));
    }

    #[track_caller]
    fn impossible(calls: &[Call]) {
        assert!(check(calls).is_err(), "{:?}", check(calls));
    }

    #[test]
    fn calls_that_overlap_may_take_effect_in_either_order() {
        linearizable(&[register(1, 0, 10), register(2, 5, 15), read(1, 20, 30)]);
        linearizable(&[register(1, 0, 10), register(2, 5, 15), read(2, 20, 30)]);
        linearizable(&[register(1, 0, 10), read(None, 5, 6), read(1, 7, 8)]);
    }

    #[test]
    fn a_stale_read_is_noticed() {
        impossible(&[register(1, 0, 10), register(2, 11, 20), read(1, 21, 30)]);
        impossible(&[register(1, 0, 10), read(1, 5, 6), read(None, 7, 8)]);
    }

    #[test]
    fn a_lost_acknowledged_write_is_noticed() {
        impossible(&[register(1, 0, 10), read(None, 11, 12)]);
        let ended = call(Asked::Deregister { owner: 1 }, Answered::Done, 11, 12);
        impossible(&[register(1, 0, 10), ended, read(1, 13, 14)]);
        linearizable(&[register(1, 0, 10), ended, read(None, 13, 14)]);
    }

    #[test]
    fn a_former_owner_that_is_obeyed_is_noticed() {
        let update = |answered| call(Asked::Update { owner: 1, value: 3 }, answered, 21, 25);
        let takeover = [register(1, 0, 10), register(2, 11, 20)];
        impossible(&[takeover[0], takeover[1], update(Answered::Done)]);
        linearizable(&[takeover[0], takeover[1], update(Answered::Refused), read(2, 26, 27)]);
        impossible(&[register(1, 0, 10), update(Answered::Refused)]);
    }

    #[test]
    fn a_lost_answer_leaves_all_open_until_somebody_has_looked() {
        let lost = |latest| call(Asked::Register(2), Answered::Lost, 11, latest);
        linearizable(&[register(1, 0, 10), lost(u64::MAX), read(1, 20, 30)]);
        linearizable(&[register(1, 0, 10), lost(u64::MAX), read(1, 20, 30), read(2, 40, 50)]);
        impossible(&[register(1, 0, 10), lost(u64::MAX), read(2, 20, 30), read(1, 40, 50)]);
        // The process that could have done it died at 35: what was not there then never comes.
        linearizable(&[register(1, 0, 10), lost(35), read(1, 20, 30), read(2, 40, 50)]);
        impossible(&[register(1, 0, 10), lost(35), read(1, 36, 37), read(2, 40, 50)]);
    }

    /// A registry that was slow to come back left hundreds of updates without an answer, each of which might have been made at any
    /// moment until the next kill: whether they had been was tried in all combinations, for minutes and a gigabyte.
    #[test]
    fn updates_that_nobody_answered_and_nobody_has_read_cost_nothing() {
        let lost = |n: u64| call(Asked::Update { owner: 100, value: n }, Answered::Lost, 2 + n, u64::MAX);
        let mut calls = vec![register(100, 0, 1)];
        calls.extend((0..90).map(lost));
        calls.extend((0..90).map(|n| read(100, 200 + 10 * n, 205 + 10 * n)));
        calls.push(read(89, 2_000, 2_001));
        linearizable(&calls);
        calls.push(read(100, 2_010, 2_011));
        impossible(&calls);
    }

    /// Lost writes that may all come at any time, among reads: without a memory of what was tried this takes 8! steps and more.
    #[test]
    fn many_lost_answers_do_not_take_for_ever() {
        let mut calls = vec![register(100, 0, 1)];
        calls.extend((0..8).map(|value| call(Asked::Register(value), Answered::Lost, 2 + value, u64::MAX)));
        calls.extend((0..40).map(|n| read(100, 100 + 10 * n, 105 + 10 * n)));
        linearizable(&calls);
        calls.push(read(None, 1_000, 1_001));
        impossible(&calls);
    }
}
