//! Performs what `state` decides: one task per endpoint, owned and awaited by the pool.
//!
//! It runs independently of traffic. A lazily dialled connection is found dead by the call that wanted to use it; this one
//! has left the ready set by then.

use std::{sync::Arc, time::Duration};

use rand::{Rng, RngExt as _};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Backoff, Endpoint, EndpointState,
    connection::Connection,
    keepalive::Pace,
    lines::{Dial, Lines, Turn},
    link::{Gone, connect},
    state::{Idle, State},
};

/// Where a driver reports on which connections its endpoint can be called: on none, and it cannot be picked.
pub(crate) trait ReadySink {
    /// Whether calls wait for any endpoint at all, and then for how long each may be left alone after a failed dial.
    fn impatience(&self) -> Option<Duration>;
    fn lines(&self, endpoint: &Arc<Endpoint>, connections: Vec<Connection>);
}

/// Drives `endpoint` until `removed`; then returns once its last call has ended.
pub(crate) async fn drive(
    endpoint: Arc<Endpoint>,
    sink: impl ReadySink,
    dial: Dial,
    backoff: Backoff,
    mut rng: impl Rng,
    removed: CancellationToken,
) {
    let mut state: State<Lines> = State::Idle(Idle);
    let mut pace = Pace::default();
    // The present connection, and earlier ones that still answer calls.
    let mut links = JoinSet::new();
    loop {
        state = match state {
            // Idle -> Connecting: nobody waits for the first call.
            State::Idle(idle) => State::Connecting(idle.connect()),

            // Connecting -> Ready | BackingOff
            State::Connecting(connecting) => {
                endpoint.show(EndpointState::Connecting);
                let connected = tokio::select! {
                    biased;
                    () = removed.cancelled() => break,
                    connected = connect(&endpoint, dial.tls.as_ref(), dial.timeout, pace) => connected,
                };
                match connected {
                    Ok(connected) => {
                        let lines = Lines::new(Arc::clone(&endpoint), dial.clone(), pace, connected, &mut links);
                        tracing::debug!(address = %endpoint.address, instance = %endpoint.instance_id, "connected");
                        endpoint.show(EndpointState::Ready);
                        sink.lines(&endpoint, lines.connections());
                        State::Ready(connecting.connected(lines, Instant::now()))
                    }
                    Err(error) => {
                        tracing::debug!(address = %endpoint.address, instance = %endpoint.instance_id, %error, "not reachable");
                        endpoint.lost(error.to_string());
                        State::BackingOff(connecting.failed(Instant::now(), &backoff, &mut rng))
                    }
                }
            }

            // Ready -> Ready | Draining | Resting | Connecting | BackingOff
            State::Ready(mut ready) => {
                let turn = tokio::select! {
                    biased;
                    () = removed.cancelled() => None,
                    turn = ready.link.next(&mut links) => Some(turn),
                    () = endpoint.rest.notified() => {
                        // Out of the ready set first, then closed: who has picked it already goes elsewhere, or wakes it.
                        endpoint.show(EndpointState::Idle);
                        sink.lines(&endpoint, Vec::new());
                        ready.link.let_go();
                        state = State::Resting(ready.rest());
                        continue;
                    }
                };
                match turn {
                    None => State::Draining(ready.retire()),
                    Some(Turn::Changed) => {
                        sink.lines(&endpoint, ready.link.connections());
                        State::Ready(ready)
                    }
                    Some(Turn::Lost(Gone { why, too_many_pings })) => {
                        // Out of the ready set before anything else: calls are being picked meanwhile.
                        sink.lines(&endpoint, Vec::new());
                        tracing::debug!(address = %endpoint.address, instance = %endpoint.instance_id, why, "connection lost");
                        endpoint.lost(why);
                        if too_many_pings {
                            pace = pace.slower();
                        }
                        ready.lost(Instant::now(), &backoff, &mut rng)
                    }
                }
            }

            // BackingOff -> Connecting
            State::BackingOff(backing_off) => {
                endpoint.show(EndpointState::BackingOff);
                let until = match sink.impatience() {
                    // Callers whose instance was away together should not all come back together.
                    Some(pause) => backing_off.until_at_most(pause.mul_f64(rng.random_range(0.75..1.0))),
                    None => backing_off.until(),
                };
                tokio::select! {
                    biased;
                    () = removed.cancelled() => break,
                    () = endpoint.nudge.notified() => State::Connecting(backing_off.nudged()),
                    () = sleep_until(until) => State::Connecting(backing_off.elapsed()),
                    // A call has begun to wait.
                    () = endpoint.wake.notified() => State::BackingOff(backing_off),
                }
            }

            // Resting -> Connecting
            State::Resting(resting) => {
                tokio::select! {
                    biased;
                    () = removed.cancelled() => break,
                    () = endpoint.wake.notified() => State::Connecting(resting.wanted()),
                }
            }

            // Draining -> the end. The pool has already taken it out of the ready set and dropped its handle.
            State::Draining(draining) => {
                // Nobody can get in any more: the pool has closed the connection before it told us. Unless it never heard of it,
                // when the connect and the removal crossed; then nobody was told of it either.
                draining.link.close();
                break;
            }
        };
    }
    // Whatever the state was, calls may be under way: on the connection that just was, or on one lost to new calls before.
    endpoint.show(EndpointState::Draining);
    endpoint.drained().await;
    links.shutdown().await;
}
