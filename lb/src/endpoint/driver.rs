//! Performs what `state` decides: one task per endpoint, owned and awaited by the pool.
//!
//! It runs independently of traffic. A lazily dialled connection is found dead by the call that wanted to use it; this one
//! has left the ready set by then.

use std::sync::Arc;

use rand::Rng;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    Backoff, Endpoint, EndpointState,
    connection::{Connection, Link, Settings, connect},
    state::{Idle, State},
};

/// Where a driver reports that its endpoint can, or can no longer, be picked.
pub(crate) trait ReadySink {
    fn up(&self, endpoint: &Arc<Endpoint>, connection: Connection);
    fn down(&self, endpoint: &Arc<Endpoint>);
}

/// Drives `endpoint` until `removed`; then returns once its last call has ended.
pub(crate) async fn drive(
    endpoint: Arc<Endpoint>,
    sink: impl ReadySink,
    settings: Settings,
    backoff: Backoff,
    mut rng: impl Rng,
    removed: CancellationToken,
) {
    let mut state: State<Link> = State::Idle(Idle);
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
                    connected = connect(&endpoint.address, &settings) => connected,
                };
                match connected {
                    Ok((connection, link)) => {
                        tracing::debug!(address = %endpoint.address, instance = %endpoint.instance_id, "connected");
                        endpoint.show(EndpointState::Ready);
                        sink.up(&endpoint, connection);
                        State::Ready(connecting.connected(link, Instant::now()))
                    }
                    Err(error) => {
                        tracing::debug!(address = %endpoint.address, instance = %endpoint.instance_id, %error, "not reachable");
                        endpoint.failed(error.to_string());
                        State::BackingOff(connecting.failed(Instant::now(), &backoff, &mut rng))
                    }
                }
            }

            // Ready -> Draining | Connecting | BackingOff
            State::Ready(mut ready) => {
                let ended = tokio::select! {
                    biased;
                    () = removed.cancelled() => None,
                    ended = &mut ready.link => Some(ended),
                };
                match ended {
                    None => State::Draining(ready.retire()),
                    Some(ended) => {
                        // Out of the ready set before anything else: calls are being picked meanwhile.
                        sink.down(&endpoint);
                        let why = ended.map_or_else(|error| error.to_string(), |()| "closed by the server".to_owned());
                        tracing::debug!(address = %endpoint.address, instance = %endpoint.instance_id, why, "connection lost");
                        endpoint.failed(why);
                        // What the old link still answers, it answers without being polled here.
                        ready.lost(Instant::now(), &backoff, &mut rng)
                    }
                }
            }

            // BackingOff -> Connecting
            State::BackingOff(backing_off) => {
                endpoint.show(EndpointState::BackingOff);
                tokio::select! {
                    biased;
                    () = removed.cancelled() => break,
                    () = endpoint.nudge.notified() => State::Connecting(backing_off.nudged()),
                    () = sleep_until(backing_off.until()) => State::Connecting(backing_off.elapsed()),
                }
            }

            // Draining -> the end. The pool has already taken it out of the ready set and dropped its handle.
            State::Draining(draining) => {
                endpoint.show(EndpointState::Draining);
                // A request that was handed over a moment ago is still waiting inside the link, so the link has to be polled.
                tokio::select! {
                    () = endpoint.drained() => {}
                    _ = draining.link => {}
                }
                break;
            }
        };
    }
    // Calls may also be under way on a connection that was lost to new calls before the removal (GOAWAY).
    endpoint.show(EndpointState::Draining);
    endpoint.drained().await;
}
