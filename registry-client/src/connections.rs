//! The connections to one endpoint, and which call goes over which. Dials lazily; neither retries nor chooses endpoints.
//!
//! A server bounds the streams of a connection (ours to 100), and hyper takes no request at all from a connection's queue
//! while one of them waits for a stream. A watch holds its stream for as long as somebody looks, so with one connection for
//! everything the hundredth watch of a process would silence its own heartbeats. Therefore
//!
//! 1. unary calls have a connection of their own: their streams end within a deadline,
//! 2. watches share connections, so many to each and not more; the next one opens another connection,
//! 3. a connection on which watches are open and yet another one is not answered counts as full, whatever its number: the
//!    server may allow less than we thought.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tonic::transport::Endpoint;

use crate::{
    dial::Dialer,
    token::{Bearer, Line},
    traced::Traced,
};

/// Below the 100 streams that our servers and many others allow, with room for the streams that have ended here and not yet
/// there.
const WATCHES_A_CONNECTION: usize = 80;
/// A watch that is given up after waiting so long for its answer found no room. One that is given up earlier tells nothing:
/// its owner may have changed its mind.
const UNANSWERED: Duration = Duration::from_secs(1);

/// All connections to one endpoint.
#[derive(Debug)]
pub(crate) struct Connections {
    transport: Endpoint,
    /// Where the endpoint speaks TLS.
    dialer: Option<Dialer>,
    /// Made at the first call: tonic starts a task for it, and a handle may be made outside of a runtime.
    unary: OnceLock<Line>,
    watches: Mutex<Seating<Line>>,
    bearer: Bearer,
}

impl Connections {
    pub(crate) fn new(transport: Endpoint, dialer: Option<Dialer>, bearer: Bearer) -> Self {
        Self {
            transport,
            dialer,
            unary: OnceLock::new(),
            watches: Mutex::new(Seating::default()),
            bearer,
        }
    }

    /// Others to the same endpoint, on which this is shown.
    pub(crate) fn bearing(&self, bearer: Bearer) -> Self {
        Self::new(self.transport.clone(), self.dialer.clone(), bearer)
    }

    /// Whether what is sent on them can be read on the way.
    pub(crate) fn are_in_the_clear(&self) -> bool {
        crate::token::is_in_the_clear(self.transport.uri())
    }

    pub(crate) fn for_unary_calls(&self) -> Line {
        self.unary.get_or_init(|| self.connect_lazy()).clone()
    }

    /// A place for one watch, to be held until it ends.
    pub(crate) fn for_watch(self: &Arc<Self>) -> Seat {
        let (row, channel) = self.watches().take(|| self.connect_lazy());
        Seat {
            of: self.clone(),
            row,
            channel,
            state: Waiting::Since(Instant::now()),
        }
    }

    fn connect_lazy(&self) -> Line {
        let channel = match &self.dialer {
            Some(dialer) => self.transport.connect_with_connector_lazy(dialer.clone()),
            None => self.transport.connect_lazy(),
        };
        Line::new(Traced::new(channel), self.bearer.clone())
    }

    fn watches(&self) -> MutexGuard<'_, Seating<Line>> {
        // The seating is whole between any two of its calls.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watch's place on a connection. Drop gives it back.
#[derive(Debug)]
pub(crate) struct Seat {
    of: Arc<Connections>,
    row: u64,
    channel: Line,
    state: Waiting,
}

#[derive(Debug, Clone, Copy)]
enum Waiting {
    Since(Instant),
    Refused,
    Over,
}

impl Seat {
    pub(crate) fn channel(&self) -> Line {
        self.channel.clone()
    }

    /// The server has answered: it has opened the watch, or not.
    pub(crate) fn answered(&mut self, opened: bool) {
        self.state = if opened {
            self.of.watches().opened(self.row);
            Waiting::Over
        } else {
            Waiting::Refused
        };
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut watches = self.of.watches();
        match self.state {
            Waiting::Over => watches.ended(self.row),
            Waiting::Refused => watches.gave_up(self.row, false),
            Waiting::Since(begin) => watches.gave_up(self.row, begin.elapsed() >= UNANSWERED),
        }
    }
}

/// Which watches sit on which connection. Pure.
#[derive(Debug)]
struct Seating<C> {
    rows: Vec<Row<C>>,
    next: u64,
}

impl<C> Default for Seating<C> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            next: 0,
        }
    }
}

/// One connection.
#[derive(Debug)]
struct Row<C> {
    id: u64,
    connection: C,
    /// Watches that wait for an answer.
    waiting: usize,
    /// Watches that the server has opened.
    open: usize,
    room: usize,
}

impl<C: Clone> Seating<C> {
    /// The first connection with room; a new one when there is none.
    fn take(&mut self, dial: impl FnOnce() -> C) -> (u64, C) {
        // One empty connection is kept, since watches break and come back; but not one that was found to be full: it starts
        // over, in case the server was only slow.
        let mut spare = false;
        self.rows.retain(|row| {
            !row.is_empty() || (row.room == WATCHES_A_CONNECTION && !std::mem::replace(&mut spare, true))
        });
        if let Some(row) = self.rows.iter_mut().find(|row| row.waiting + row.open < row.room) {
            row.waiting += 1;
            return (row.id, row.connection.clone());
        }
        let id = self.next;
        self.next += 1;
        let connection = dial();
        self.rows.push(Row {
            id,
            connection: connection.clone(),
            waiting: 1,
            open: 0,
            room: WATCHES_A_CONNECTION,
        });
        (id, connection)
    }
}

impl<C> Seating<C> {
    fn opened(&mut self, id: u64) {
        self.with(id, |row| {
            row.waiting -= 1;
            row.open += 1;
        });
    }

    fn ended(&mut self, id: u64) {
        self.with(id, |row| row.open -= 1);
    }

    fn gave_up(&mut self, id: u64, unanswered: bool) {
        self.with(id, |row| {
            row.waiting -= 1;
            // Without an open watch it is the server that does not answer, and another connection would not help.
            if unanswered && row.open > 0 {
                row.room = row.room.min(row.open);
            }
        });
    }

    /// A row is there for as long as one of its seats is taken.
    fn with(&mut self, id: u64, change: impl FnOnce(&mut Row<C>)) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.id == id) {
            change(row);
        }
    }
}

impl<C> Row<C> {
    fn is_empty(&self) -> bool {
        self.waiting + self.open == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many seats, opened at once, on connections that are named by their number.
    fn seats(seating: &mut Seating<u64>, n: usize) -> Vec<u64> {
        (0..n)
            .map(|_| {
                let name = seating.next;
                let (row, connection) = seating.take(|| name);
                assert_eq!(row, connection);
                seating.opened(row);
                row
            })
            .collect()
    }

    #[test]
    fn a_full_connection_is_followed_by_another_and_refilled_when_watches_end() {
        let mut seating = Seating::default();
        let rows = seats(&mut seating, 170);
        let on = |n| rows.iter().filter(|row| **row == n).count();
        assert_eq!((on(0), on(1), on(2)), (80, 80, 10));
        seating.ended(0);
        assert_eq!(seats(&mut seating, 2), [0, 2]);
    }

    #[test]
    fn waiting_watches_count() {
        let mut seating = Seating::default();
        for _ in 0..80 {
            assert_eq!(seating.take(|| 0).0, 0);
        }
        assert_eq!(seating.take(|| 1).0, 1);
    }

    #[test]
    fn an_unanswered_watch_beside_open_ones_shows_where_a_connection_ends() {
        let mut seating = Seating::default();
        seats(&mut seating, 3);
        let (row, _) = seating.take(|| 9);
        seating.gave_up(row, false);
        assert_eq!(seats(&mut seating, 1), [0], "given up at once: nothing learned");
        let (row, _) = seating.take(|| 9);
        seating.gave_up(row, true);
        assert_eq!(seats(&mut seating, 1), [1]);
        seating.ended(0);
        assert_eq!(seats(&mut seating, 1), [0], "what ends makes room");
    }

    /// Each of a thousand attempts would open a connection to a registry that is stopped.
    #[test]
    fn a_server_that_answers_nothing_is_not_dialled_again_and_again() {
        let mut seating = Seating::default();
        for _ in 0..1_000 {
            let (row, _) = seating.take(|| 0);
            assert_eq!(row, 0);
            seating.gave_up(row, true);
        }
    }

    #[test]
    fn one_empty_connection_is_kept_but_none_that_was_full() {
        let mut seating = Seating::default();
        for row in seats(&mut seating, 170) {
            seating.ended(row);
        }
        assert_eq!(seats(&mut seating, 1), [0]);
        assert_eq!(seating.rows.len(), 1);

        let (row, _) = seating.take(|| 9);
        seating.gave_up(row, true);
        seating.ended(row);
        assert_eq!(seats(&mut seating, 1), [3], "a connection of its own");
        assert_eq!(seating.rows.len(), 1);
    }
}
