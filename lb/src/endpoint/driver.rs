//! Performs what `state` decides: one task per endpoint, owned and awaited by the pool.
//!
//! It runs independently of traffic. A lazily dialled connection is found dead by the call that wanted to use it; this one
//! has left the ready set by then.

use std::{sync::Arc, time::Duration};

use rand::Rng;
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Backoff, Endpoint, EndpointState,
    connection::Connection,
    keepalive::Pace,
    link::{Connected, Gone, connect},
    state::{Idle, State},
};

/// Where a driver reports that its endpoint can, or can no longer, be picked.
pub(crate) trait ReadySink {
    fn up(&self, endpoint: &Arc<Endpoint>, connection: Connection);
    fn down(&self, endpoint: &Arc<Endpoint>);
}

/// A connection in use.
struct Live {
    connection: Connection,
    gone: oneshot::Receiver<Gone>,
}

/// Drives `endpoint` until `removed`; then returns once its last call has ended.
pub(crate) async fn drive(
    endpoint: Arc<Endpoint>,
    sink: impl ReadySink,
    tls: Option<tls::Client>,
    connect_timeout: Duration,
    backoff: Backoff,
    mut rng: impl Rng,
    removed: CancellationToken,
) {
    let mut state: State<Live> = State::Idle(Idle);
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
                    connected = connect(&endpoint, tls.as_ref(), connect_timeout, pace) => connected,
                };
                match connected {
                    Ok(Connected { connection, link, gone }) => {
                        // Those that have ended meanwhile.
                        while links.try_join_next().is_some() {}
                        links.spawn(link);
                        tracing::debug!(address = %endpoint.address, instance = %endpoint.instance_id, "connected");
                        endpoint.show(EndpointState::Ready);
                        sink.up(&endpoint, connection.clone());
                        State::Ready(connecting.connected(Live { connection, gone }, Instant::now()))
                    }
                    Err(error) => {
                        tracing::debug!(address = %endpoint.address, instance = %endpoint.instance_id, %error, "not reachable");
                        endpoint.lost(error.to_string());
                        State::BackingOff(connecting.failed(Instant::now(), &backoff, &mut rng))
                    }
                }
            }

            // Ready -> Draining | Connecting | BackingOff
            State::Ready(mut ready) => {
                let gone = tokio::select! {
                    biased;
                    () = removed.cancelled() => None,
                    gone = &mut ready.link.gone => Some(gone.unwrap_or_else(|_| Gone::panicked())),
                };
                match gone {
                    None => State::Draining(ready.retire()),
                    Some(Gone { why, too_many_pings }) => {
                        // Out of the ready set before anything else: calls are being picked meanwhile.
                        sink.down(&endpoint);
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
                tokio::select! {
                    biased;
                    () = removed.cancelled() => break,
                    () = endpoint.nudge.notified() => State::Connecting(backing_off.nudged()),
                    () = sleep_until(backing_off.until()) => State::Connecting(backing_off.elapsed()),
                }
            }

            // Draining -> the end. The pool has already taken it out of the ready set and dropped its handle.
            State::Draining(draining) => {
                // Nobody can get in any more: the pool has closed the connection before it told us. Unless it never heard of it,
                // when the connect and the removal crossed; then nobody was told of it either.
                draining.link.connection.close();
                break;
            }
        };
    }
    // Whatever the state was, calls may be under way: on the connection that just was, or on one lost to new calls before.
    endpoint.show(EndpointState::Draining);
    endpoint.drained().await;
    links.shutdown().await;
}
