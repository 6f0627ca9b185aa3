//! Who waits for the next change of a feed, in an order that stays.
//!
//! Woken in the order in which they began to wait, as `tokio::sync::Notify` does, the watchers of different connections are
//! shuffled with each change a little more, because several threads run them at once. In the end every connection is woken
//! over and over for one watcher each time, and writes that many times. Here the watchers of a connection are woken one after
//! another, each time.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// All who may wait.
#[derive(Debug, Default)]
pub(super) struct Wakers(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// How often all were woken.
    woken: u64,
    seats: Vec<Seat>,
    /// Seats that nobody has.
    free: Vec<usize>,
}

#[derive(Debug, Default)]
struct Seat {
    connection: u64,
    waker: Option<Waker>,
}

/// One who may wait. To be given back.
#[derive(Debug)]
pub(super) struct Ticket {
    seat: usize,
    /// How often all had been woken when this one looked last.
    seen: u64,
}

impl Wakers {
    /// One more.
    pub(super) fn join(&self) -> Ticket {
        let mut waiting = self.lock();
        let seat = waiting.free.pop().unwrap_or_else(|| {
            waiting.seats.push(Seat::default());
            waiting.seats.len() - 1
        });
        Ticket {
            seat,
            seen: waiting.woken,
        }
    }

    /// Puts it to others of its connection.
    pub(super) fn sort(&self, ticket: &Ticket, connection: u64) {
        self.lock().seats[ticket.seat].connection = connection;
    }

    /// Goes.
    pub(super) fn leave(&self, ticket: &Ticket) {
        let mut waiting = self.lock();
        waiting.seats[ticket.seat] = Seat::default();
        waiting.free.push(ticket.seat);
    }

    /// Ready once after all were woken; until then the task is woken with all.
    pub(super) fn poll(&self, ticket: &mut Ticket, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.lock();
        if ticket.seen != waiting.woken {
            ticket.seen = waiting.woken;
            return Poll::Ready(());
        }
        let waker = &mut waiting.seats[ticket.seat].waker;
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Wakes all.
    pub(super) fn wake(&self) {
        let mut wakers: Vec<(u64, Waker)> = {
            let mut waiting = self.lock();
            waiting.woken += 1;
            let waiting = waiting.seats.iter_mut();
            waiting
                .filter_map(|seat| Some((seat.connection, seat.waker.take()?)))
                .collect()
        };
        // Nearly sorted already, where watchers come and go little.
        wakers.sort_by_key(|(connection, _)| *connection);
        for (_, waker) in wakers {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Wake};

    use super::*;

    /// Writes down who is woken.
    struct Named(u64, Arc<Mutex<Vec<u64>>>);

    impl Wake for Named {
        fn wake(self: Arc<Self>) {
            self.1.lock().expect("no panic").push(self.0);
        }
    }

    #[test]
    fn those_of_a_connection_are_woken_one_after_another_and_each_once() {
        let (wakers, woken) = (Wakers::default(), Arc::new(Mutex::new(Vec::new())));
        let waker = |name| Waker::from(Arc::new(Named(name, Arc::clone(&woken))));
        // By name: the connection in the tens.
        let mut tickets: Vec<_> = [11, 21, 12, 31, 22, 13]
            .iter()
            .map(|name| (*name, wakers.join()))
            .collect();
        for (name, ticket) in &tickets {
            wakers.sort(ticket, name / 10);
        }
        for _ in 0..3 {
            // In another order each time.
            tickets.rotate_left(1);
            for (name, ticket) in &mut tickets {
                let waker = waker(*name);
                let mut cx = Context::from_waker(&waker);
                while wakers.poll(ticket, &mut cx).is_ready() {}
                assert!(wakers.poll(ticket, &mut cx).is_pending());
            }
            wakers.wake();
            assert_eq!(*woken.lock().expect("no panic"), [11, 12, 13, 21, 22, 31]);
            woken.lock().expect("no panic").clear();
        }
    }

    #[test]
    fn a_wake_between_two_looks_is_not_missed_and_told_once() {
        let wakers = Wakers::default();
        let mut ticket = wakers.join();
        let mut cx = Context::from_waker(Waker::noop());
        wakers.wake();
        wakers.wake();
        assert!(wakers.poll(&mut ticket, &mut cx).is_ready(), "though it had not waited");
        assert!(wakers.poll(&mut ticket, &mut cx).is_pending());
    }

    #[test]
    fn seats_are_used_again() {
        let wakers = Wakers::default();
        for _ in 0..100 {
            let tickets = [wakers.join(), wakers.join()];
            tickets.iter().for_each(|ticket| wakers.leave(ticket));
        }
        assert_eq!(wakers.lock().seats.len(), 2);
        let mut next = wakers.join();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(
            wakers.poll(&mut next, &mut cx).is_pending(),
            "nothing is left of the one before"
        );
    }
}
