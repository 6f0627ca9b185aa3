//! One call's places in the queues of every connection: it goes wherever room is first. It does not choose.
//!
//! Queueing only at the endpoint that was picked would let a single full one hold calls that others could take. Each queue is
//! in the order of arrival (newcomers do not overtake), and a place that is given up is no room lost.

use std::{collections::HashSet, pin::Pin, task::Poll};

use super::ready::{Member, Place, ReadySet};
use crate::endpoint::connection::{Closed, Connection, Slot};

/// See the module's documentation. Empty at first; without a queue nothing ever comes.
#[derive(Default)]
pub(super) struct Queues(Vec<Queue>);

struct Queue {
    member: Member,
    /// Its id.
    connection: u64,
    room: Pin<Box<dyn Future<Output = Result<Slot, Closed>> + Send>>,
}

fn lines(ready: &ReadySet) -> impl Iterator<Item = (&Member, &Connection)> {
    ready
        .members()
        .iter()
        .flat_map(|member| member.connections.iter().map(move |connection| (member, connection)))
}

impl Queues {
    /// Leaves the queues of connections that are not ready any more and joins those that have become so; the place in all
    /// others is kept.
    pub(super) fn follow(&mut self, ready: &ReadySet) {
        let wanted: HashSet<u64> = lines(ready).map(|(_, connection)| connection.id()).collect();
        self.0.retain(|queue| wanted.contains(&queue.connection));
        let joined: HashSet<u64> = self.0.iter().map(|queue| queue.connection).collect();
        let new = lines(ready).filter(|(member, connection)| member.is_open() && !joined.contains(&connection.id()));
        self.0.extend(new.map(|(member, connection)| Queue {
            member: member.clone(),
            connection: connection.id(),
            room: Box::pin(connection.clone().room()),
        }));
    }

    /// The first place in any of them.
    pub(super) async fn first(&mut self) -> Place {
        std::future::poll_fn(|cx| {
            let mut at = 0;
            while let Some(queue) = self.0.get_mut(at) {
                let Poll::Ready(room) = queue.room.as_mut().poll(cx) else {
                    at += 1;
                    continue;
                };
                let Queue { member, .. } = self.0.swap_remove(at);
                // Closed, before or after: the ready set is about to say so.
                if let Some(place) = room.ok().and_then(|slot| member.enter(slot)) {
                    return Poll::Ready(place);
                }
            }
            Poll::Pending
        })
        .await
    }
}
