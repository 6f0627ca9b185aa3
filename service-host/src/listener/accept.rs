//! The accept loop and the connections it owns.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinError, JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use telemetry::metrics::{Counter, Gauge};

use super::peers::{Peers, Place};

/// How long to wait when the process or the system is out of file descriptors: long enough not to spin, short enough that
/// nobody notices once some are free again.
const OUT_OF_FILES_BACK_OFF: Duration = Duration::from_millis(50);
/// Failures in a row, [`OUT_OF_FILES_BACK_OFF`] apart, after which an error we do not know counts as permanent.
const GIVE_UP_AFTER: u32 = 100;
/// Complaints of one kind are logged at most this often: an attacker must not be able to fill a disk.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What a listener is and how much it takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// In logs and metrics: `grpc` or `admin`.
    pub(crate) name: &'static str,
    pub(crate) max_connections: usize,
    /// Of one peer.
    pub(crate) max_connections_per_peer: usize,
}

/// Serves one connection to its end.
pub(crate) type Connections =
    Arc<dyn Fn(TcpStream, SocketAddr, Stop) -> Pin<Box<dyn Future<Output = Ended> + Send>> + Send + Sync>;

/// What tells a connection to end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// Finish what is open and take nothing new.
    pub(crate) gracefully: CancellationToken,
    /// Go away now.
    pub(crate) now: CancellationToken,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Closed,
    Cut,
}

/// A listener that accepts, and the task that owns its connections.
#[derive(Debug)]
pub(crate) struct Accepting {
    stop: Stop,
    task: JoinHandle<Outcome>,
    /// Why the listener was closed, from the moment it is; connections may go on for long after.
    closed: watch::Receiver<Option<String>>,
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone)]
struct Outcome {
    reason: String,
    cut: usize,
}

impl Accepting {
    pub(crate) fn start(listener: TcpListener, settings: Settings, connections: Connections) -> Self {
        let stop = Stop::default();
        let (close, closed) = watch::channel(None);
        let task = tokio::spawn(Loop::new(settings, connections, stop.clone()).run(listener, close));
        Self {
            stop,
            task,
            closed,
            outcome: None,
        }
    }

    /// Closes the listener and lets connections finish; [`Accepting::ended`] tells when they have.
    pub(crate) fn stop_accepting(&self) {
        self.stop.gracefully.cancel();
    }

    /// Resolves when nothing is accepted any more, with the reason, whoever is still connected.
    pub(crate) async fn closed(&mut self) -> String {
        if let Ok(reason) = self.closed.wait_for(Option::is_some).await {
            return reason.clone().unwrap_or_default();
        }
        // The loop has gone without a reason: its task knows.
        self.ended().await
    }

    /// Resolves when the loop and all its connections are over, with the reason. May be called again, and dropped early.
    pub(crate) async fn ended(&mut self) -> String {
        if self.outcome.is_none() {
            self.outcome = Some(match (&mut self.task).await {
                Ok(outcome) => outcome,
                Err(error) => Outcome {
                    reason: panicked(&error),
                    cut: 0,
                },
            });
        }
        self.outcome
            .as_ref()
            .map(|outcome| outcome.reason.clone())
            .unwrap_or_default()
    }

    /// Ends every connection now and says how many there were; waits at most `unwind` for them to be gone.
    pub(crate) async fn cut(&mut self, unwind: Duration) -> usize {
        self.stop.gracefully.cancel();
        self.stop.now.cancel();
        if tokio::time::timeout(unwind, self.ended()).await.is_err() {
            self.task.abort();
            self.ended().await;
        }
        self.outcome.as_ref().map_or(0, |outcome| outcome.cut)
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        // The task owns its connections' tasks, and they end with it.
        self.task.abort();
    }
}

fn panicked(error: &JoinError) -> String {
    if error.is_panic() {
        "its task panicked".into()
    } else {
        "its task was cancelled".into()
    }
}

struct Loop {
    settings: Settings,
    connections: Connections,
    stop: Stop,
    permits: Arc<Semaphore>,
    peers: Peers,
    open: Gauge,
    accepted: Counter,
    refused: Counter,
    complaints: Complaints,
}

impl Loop {
    fn new(settings: Settings, connections: Connections, stop: Stop) -> Self {
        let labels = &["listener"];
        let open = telemetry::metrics::gauge("tessera_server_connections", "Open inbound connections", labels);
        let accepted = telemetry::metrics::counter(
            "tessera_server_connections_accepted",
            "Inbound connections served",
            labels,
        );
        let refused = telemetry::metrics::counter(
            "tessera_server_connections_refused",
            "Inbound connections closed at once because there were too many",
            labels,
        );
        Self {
            settings,
            connections,
            stop,
            permits: Arc::new(Semaphore::new(settings.max_connections)),
            peers: Peers::default(),
            open: open.with(&[settings.name]),
            accepted: accepted.with(&[settings.name]),
            refused: refused.with(&[settings.name]),
            complaints: Complaints::default(),
        }
    }

    async fn run(mut self, listener: TcpListener, close: watch::Sender<Option<String>>) -> Outcome {
        let mut connections = JoinSet::new();
        let mut cut = 0;
        let reason = loop {
            tokio::select! {
                // Biased, so that a flood of connects cannot keep a stop from being seen.
                biased;
                () = self.stop.gracefully.cancelled() => break "stopped".to_owned(),
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    cut += usize::from(was_cut(ended));
                }
                accepted = listener.accept() => match accepted {
                    Ok((socket, peer)) => {
                        self.complaints.failures = 0;
                        self.admit(socket, peer, &mut connections);
                    }
                    Err(error) => if let Err(reason) = self.complaints.failed(&error, self.settings.name).await {
                        break reason;
                    },
                },
            }
        };
        // Closed before the wait: a new caller is refused by the kernel at once instead of hanging until it is over.
        drop(listener);
        // Said before the wait: those who are connected may stay for ever, and nobody else gets in meanwhile.
        close.send_replace(Some(reason.clone()));
        while let Some(ended) = connections.join_next().await {
            cut += usize::from(was_cut(ended));
        }
        Outcome { reason, cut }
    }

    fn admit(&mut self, socket: TcpStream, peer: SocketAddr, connections: &mut JoinSet<Ended>) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.refused.inc();
            self.complaints.too_many(self.settings, peer);
            return;
        };
        let Some(place) = self.peers.enter(peer.ip(), self.settings.max_connections_per_peer) else {
            self.refused.inc();
            self.complaints.too_many_of_one(self.settings, peer);
            return;
        };
        self.accepted.inc();
        let open = Open::new(self.open.clone(), permit, place);
        // Small messages go out at once; gRPC frames are written whole.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let serving = (self.connections)(socket, peer, self.stop.clone());
        let now = self.stop.now.clone();
        connections.spawn(async move {
            let _open = open;
            tokio::select! {
                ended = serving => ended,
                () = now.cancelled_owned() => Ended::Cut,
            }
        });
    }
}

fn was_cut(ended: Result<Ended, JoinError>) -> bool {
    match ended {
        Ok(ended) => ended == Ended::Cut,
        Err(error) => {
            // Handlers run in tasks of their own; this would be our bug or a library's.
            tracing::error!(%error, "a connection's task died");
            true
        }
    }
}

/// A place among the connections; given back when dropped.
struct Open {
    gauge: Gauge,
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

impl Open {
    fn new(gauge: Gauge, permit: OwnedSemaphorePermit, place: Place) -> Self {
        gauge.add(1.0);
        Self {
            gauge,
            _permit: permit,
            _place: place,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.add(-1.0);
    }
}

/// What went wrong with accepting, said rarely.
#[derive(Debug, Default)]
struct Complaints {
    failures: u32,
    said_out_of_files: Option<Instant>,
    said_too_many: Option<Instant>,
    said_too_many_of_one: Option<Instant>,
}

impl Complaints {
    fn too_many(&mut self, settings: Settings, peer: SocketAddr) {
        if due(&mut self.said_too_many) {
            let Settings {
                name, max_connections, ..
            } = settings;
            tracing::warn!(listener = name, max_connections, %peer, "too many connections; new ones are closed at once");
        }
    }

    fn too_many_of_one(&mut self, settings: Settings, peer: SocketAddr) {
        if due(&mut self.said_too_many_of_one) {
            let (listener, max) = (settings.name, settings.max_connections_per_peer);
            tracing::warn!(
                listener,
                max_connections_per_peer = max,
                peer = %peer.ip(),
                "too many connections from one address; its new ones are closed at once"
            );
        }
    }

    /// Waits where waiting helps.
    ///
    /// # Errors
    /// The reason, if the listener itself is broken.
    async fn failed(&mut self, error: &io::Error, listener: &str) -> Result<(), String> {
        match blame(error) {
            // The connection was gone before we had it; the next one is another.
            Blame::Connection => return Ok(()),
            Blame::Files => {
                if due(&mut self.said_out_of_files) {
                    tracing::error!(listener, %error, "out of file descriptors; new connections wait");
                }
            }
            Blame::Listener => {
                self.failures += 1;
                if self.failures >= GIVE_UP_AFTER {
                    return Err(error.to_string());
                }
                tracing::debug!(listener, %error, "accept failed");
            }
        }
        tokio::time::sleep(OUT_OF_FILES_BACK_OFF).await;
        Ok(())
    }
}

/// Whether it is time to say this again; if so, it counts as said.
pub(super) fn due(said: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    if said.is_some_and(|at| now - at < LOG_EVERY) {
        return false;
    }
    *said = Some(now);
    true
}

#[derive(Debug, PartialEq, Eq)]
enum Blame {
    Connection,
    Files,
    Listener,
}

/// Whose fault an accept error is. Linux hands errors of the new socket to accept(2) as well (see its manual).
fn blame(error: &io::Error) -> Blame {
    use rustix::io::Errno;
    let Some(code) = error.raw_os_error() else {
        return Blame::Listener;
    };
    match Errno::from_raw_os_error(code) {
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Blame::Files,
        Errno::CONNABORTED
        | Errno::CONNRESET
        | Errno::INTR
        | Errno::PROTO
        | Errno::NETDOWN
        | Errno::NETUNREACH
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::TIMEDOUT
        | Errno::PERM => Blame::Connection,
        _ => Blame::Listener,
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn accept_errors_are_blamed_on_whom_they_concern() {
        for (errno, expected) in [
            (Errno::MFILE, Blame::Files),
            (Errno::NFILE, Blame::Files),
            (Errno::CONNABORTED, Blame::Connection),
            (Errno::BADF, Blame::Listener),
            (Errno::INVAL, Blame::Listener),
        ] {
            assert_eq!(
                blame(&io::Error::from_raw_os_error(errno.raw_os_error())),
                expected,
                "{errno:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn being_out_of_files_backs_off_and_never_gives_up() {
        let mut complaints = Complaints::default();
        let error = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        let started = Instant::now();
        for _ in 0..1_000 {
            complaints.failed(&error, "grpc").await.expect("goes on");
        }
        assert!(started.elapsed() >= OUT_OF_FILES_BACK_OFF * 1_000, "no spin");
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_listener_is_given_up() {
        let mut complaints = Complaints::default();
        let error = io::Error::from_raw_os_error(Errno::BADF.raw_os_error());
        let mut rounds = 0;
        while complaints.failed(&error, "grpc").await.is_ok() {
            rounds += 1;
        }
        assert_eq!(rounds + 1, GIVE_UP_AFTER);
    }

    /// The reason was told only after the last connection had ended, which with one long stream was never.
    #[cfg(target_os = "linux")]
    #[tokio::test(start_paused = true)]
    async fn a_broken_listener_is_reported_while_somebody_is_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        // shutdown(2) breaks a listening socket on Linux: accept(2) answers EINVAL from then on. It acts on the socket,
        // whichever descriptor, and of whatever type in Rust, it is called through.
        let handle = std::os::fd::AsFd::as_fd(&listener)
            .try_clone_to_owned()
            .expect("a descriptor");
        let settings = Settings {
            name: "test",
            max_connections: 10,
            max_connections_per_peer: 10,
        };
        let (served, mut serving) = tokio::sync::mpsc::channel(1);
        let for_ever: Connections = Arc::new(move |socket, _, _| {
            let served = served.clone();
            Box::pin(async move {
                served.send(()).await.expect("the test waits");
                let _socket = socket;
                std::future::pending().await
            })
        });
        let mut accepting = Accepting::start(listener, settings, for_ever);
        let _connected = TcpStream::connect(address).await.expect("listening");
        serving.recv().await.expect("served");
        std::net::TcpStream::from(handle)
            .shutdown(std::net::Shutdown::Both)
            .expect("broken");
        let patience = OUT_OF_FILES_BACK_OFF * (GIVE_UP_AFTER + 10);
        let reason = tokio::time::timeout(patience, accepting.closed())
            .await
            .expect("reported");
        assert!(reason.contains("Invalid argument"), "{reason}");
        assert_eq!(accepting.closed().await, reason, "may be asked again");
        assert_eq!(accepting.cut(Duration::from_secs(1)).await, 1, "somebody was connected");
    }

    #[tokio::test(start_paused = true)]
    async fn complaints_are_rate_limited() {
        let mut said = None;
        assert!(due(&mut said));
        assert!(!due(&mut said));
        tokio::time::advance(LOG_EVERY).await;
        assert!(due(&mut said));
    }
}
