//! The connections of one endpoint that is ready: one, and more as long as calls find every one of them full (gRFC A105). It
//! dials and gives up connections; whether the endpoint is ready, and who is called, is decided elsewhere.

use std::{pin::Pin, sync::Arc, task::Poll, time::Duration};

use tokio::{
    sync::oneshot,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    Endpoint,
    connection::Connection,
    keepalive::Pace,
    link::{AnyLink, ConnectError, Connected, Gone, connect},
};

/// A connection beyond the first goes when it had no call at two looks in a row: long enough that a burst a minute keeps it.
const LOOK: Duration = Duration::from_secs(30);
/// A further connection that could not be had is not tried for again at once: the endpoint has one that works.
const PAUSE: Duration = Duration::from_secs(1);

/// How an endpoint is dialled.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    /// Whom to believe.
    pub(crate) tls: Option<tls::Client>,
    /// For TCP, TLS, HTTP/2 preface and the server's first word together.
    pub(crate) timeout: Duration,
    /// The most connections to one endpoint, at least 1.
    pub(crate) most: usize,
}

/// See the module's documentation. Never empty until it says that it is.
pub(super) struct Lines {
    endpoint: Arc<Endpoint>,
    dial: Dial,
    pace: Pace,
    live: Vec<Line>,
    /// Closed for calls, with some still under way.
    retiring: Vec<(Connection, AbortHandle)>,
    dialling: Option<Dialling>,
    /// Not before then, after a dial that failed.
    again: Option<Instant>,
    look: Instant,
}

struct Line {
    connection: Connection,
    gone: oneshot::Receiver<Gone>,
    task: AbortHandle,
    /// Whether it had no call at the last look.
    was_idle: bool,
}

type Dialling = Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + Send>>;

/// What has happened to the connections.
pub(super) enum Turn {
    /// There are more, or fewer, than before.
    Changed,
    /// The last one takes no more calls.
    Lost(Gone),
}

impl Lines {
    /// The first connection of `endpoint`, its link already among the tasks.
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        dial: Dial,
        pace: Pace,
        first: Connected,
        links: &mut JoinSet<()>,
    ) -> Self {
        let mut lines = Self {
            endpoint,
            dial,
            pace,
            live: Vec::with_capacity(1),
            retiring: Vec::new(),
            dialling: None,
            again: None,
            look: Instant::now() + LOOK,
        };
        lines.adopt(first, links);
        lines
    }

    /// Those that take calls.
    pub(super) fn connections(&self) -> Vec<Connection> {
        self.live.iter().map(|line| line.connection.clone()).collect()
    }

    /// No more calls on any of them.
    pub(super) fn close(&self) {
        for line in &self.live {
            line.connection.close();
        }
    }

    /// No more calls, and no connection either where none is under way; the others end with what they carry.
    pub(super) fn let_go(&self) {
        self.close();
        for line in self.live.iter().filter(|line| !line.connection.has_calls()) {
            line.task.abort();
        }
    }

    /// Waits for the next thing that changes them. Cancel safe.
    pub(super) async fn next(&mut self, links: &mut JoinSet<()>) -> Turn {
        loop {
            let more = self.dialling.is_none() && self.live.len() < self.dial.most;
            let again = self.again.filter(|_| more);
            tokio::select! {
                biased;
                (at, gone) = first_gone(&mut self.live) => {
                    self.live.remove(at);
                    if gone.too_many_pings {
                        self.pace = self.pace.slower();
                    }
                    if self.live.is_empty() {
                        return Turn::Lost(gone);
                    }
                    tracing::debug!(address = %self.endpoint.address, why = gone.why, "one of several connections lost");
                    return Turn::Changed;
                }
                dialled = finished(&mut self.dialling) => {
                    self.dialling = None;
                    match dialled {
                        Ok(connected) => {
                            self.adopt(connected, links);
                            tracing::debug!(address = %self.endpoint.address, connections = self.live.len(), "one more connection");
                            return Turn::Changed;
                        }
                        Err(error) => {
                            tracing::debug!(address = %self.endpoint.address, %error, "no further connection");
                            self.again = Some(Instant::now() + PAUSE);
                        }
                    }
                }
                () = self.endpoint.crowded.notified(), if more && again.is_none() => self.dial(),
                () = sleep_until(again.unwrap_or(self.look)), if again.is_some() => {
                    self.again = None;
                    // Who found no room is still waiting for it, or has found it meanwhile.
                    if self.live.iter().all(|line| !line.connection.has_room()) {
                        self.dial();
                    }
                }
                () = sleep_until(self.look), if self.live.len() > 1 || !self.retiring.is_empty() => {
                    self.look = Instant::now() + LOOK;
                    if self.retire() {
                        return Turn::Changed;
                    }
                }
            }
        }
    }

    fn dial(&mut self) {
        let (endpoint, dial, pace) = (Arc::clone(&self.endpoint), self.dial.clone(), self.pace);
        self.dialling = Some(Box::pin(async move {
            connect(&endpoint, dial.tls.as_ref(), dial.timeout, pace).await
        }));
    }

    fn adopt(&mut self, connected: Connected<AnyLink>, links: &mut JoinSet<()>) {
        let Connected { connection, link, gone } = connected;
        // Those that have ended meanwhile.
        while links.try_join_next().is_some() {}
        self.live.push(Line {
            connection,
            gone,
            task: links.spawn(link),
            was_idle: false,
        });
    }

    /// Lets go what was not used for a while; never the last one. True if any was closed for calls.
    fn retire(&mut self) -> bool {
        self.retiring.retain(|(connection, task)| {
            let busy = connection.has_calls();
            if !busy {
                task.abort();
            }
            busy
        });
        // From the end: the first ones are asked for room first, so the later ones are those that are not needed.
        let idle = (1..self.live.len()).rev().find(|at| {
            let line = &self.live[*at];
            line.was_idle && !line.connection.has_calls()
        });
        for line in &mut self.live {
            line.was_idle = !line.connection.has_calls();
        }
        let Some(at) = idle else {
            return false;
        };
        let Line { connection, task, .. } = self.live.remove(at);
        // A call may have got in at the last moment; it is let finish.
        connection.close();
        self.retiring.push((connection, task));
        true
    }
}

/// The first connection that takes no more calls, and why.
async fn first_gone(live: &mut [Line]) -> (usize, Gone) {
    std::future::poll_fn(|cx| {
        for (at, line) in live.iter_mut().enumerate() {
            if let Poll::Ready(gone) = Pin::new(&mut line.gone).poll(cx) {
                return Poll::Ready((at, gone.unwrap_or_else(|_| Gone::panicked())));
            }
        }
        Poll::Pending
    })
    .await
}

async fn finished(dialling: &mut Option<Dialling>) -> Result<Connected, ConnectError> {
    match dialling {
        Some(dialling) => dialling.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use http::uri::Authority;

    use super::*;

    fn line(connection: Connection, links: &mut JoinSet<()>) -> Line {
        // Never told: the connection stays.
        let (tell, gone) = oneshot::channel();
        Line {
            connection,
            gone,
            task: links.spawn(async move {
                std::future::pending::<()>().await;
                drop(tell);
            }),
            was_idle: false,
        }
    }

    #[tokio::test]
    async fn connections_that_were_idle_for_two_looks_go_one_by_one_but_the_first() {
        let mut links = JoinSet::new();
        let authority = Authority::from_static("127.0.0.1:1");
        let mut live = Vec::new();
        for _ in 0..3 {
            live.push(line(Connection::idle(1).await, &mut links));
        }
        let mut lines = Lines {
            endpoint: Arc::new(Endpoint::new("a".into(), "127.0.0.1:1".into(), authority)),
            dial: Dial {
                tls: None,
                timeout: Duration::from_secs(1),
                most: 3,
            },
            pace: Pace::default(),
            live,
            retiring: Vec::new(),
            dialling: None,
            again: None,
            look: Instant::now(),
        };
        let busy = lines.live[1].connection.try_room().expect("open").expect("room");
        assert!(!lines.retire(), "the first look");
        assert!(lines.retire(), "the third one was idle twice");
        assert_eq!(lines.live.len(), 2);
        assert!(!lines.retire(), "the second one is in use");
        drop(busy);
        assert!(!lines.retire(), "its first look");
        assert!(lines.retire());
        assert!(!lines.retire() && !lines.retire(), "the first one stays");
        assert_eq!(lines.live.len(), 1);
        // What was let go has no call, so nothing is left of it.
        assert!(lines.retiring.is_empty());
        let mut ended = 0;
        while links.len() > 1 {
            assert!(
                links
                    .join_next()
                    .await
                    .expect("one")
                    .expect_err("aborted")
                    .is_cancelled()
            );
            ended += 1;
        }
        assert_eq!(ended, 2);
    }

    #[tokio::test]
    async fn a_call_that_got_in_at_the_last_moment_is_let_finish() {
        let mut links = JoinSet::new();
        let line = line(Connection::idle(1).await, &mut links);
        let slot = line.connection.try_room().expect("open").expect("room");
        let authority = Authority::from_static("127.0.0.1:1");
        let mut lines = Lines {
            endpoint: Arc::new(Endpoint::new("a".into(), "127.0.0.1:1".into(), authority)),
            dial: Dial {
                tls: None,
                timeout: Duration::from_secs(1),
                most: 2,
            },
            pace: Pace::default(),
            live: Vec::new(),
            retiring: vec![(line.connection.clone(), line.task)],
            dialling: None,
            again: None,
            look: Instant::now(),
        };
        lines.retire();
        assert_eq!(lines.retiring.len(), 1, "it has a call");
        drop(slot);
        lines.retire();
        assert!(lines.retiring.is_empty());
    }
}
