//! What can be set, and the limits that protect a server, each with its default and the reason for it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{admin::Page, gate::Gate};

/// How a server is set up. Everything but name and address has a default.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) instance_id: Option<String>,
    pub(crate) default_deadline: Option<Duration>,
    pub(crate) limits: Limits,
    pub(crate) gate: Option<Arc<dyn Gate>>,
    pub(crate) quiet: &'static [&'static str],
    pub(crate) tls: Option<tls::Server>,
    pub(crate) pages: Vec<Page>,
}

impl Config {
    /// A server called `name` (`ticket-svc`) that will listen at `listen`; port 0 takes a free one.
    pub fn new(name: impl Into<String>, listen: SocketAddr) -> Self {
        Self {
            name: name.into(),
            listen,
            admin: None,
            instance_id: None,
            default_deadline: None,
            limits: Limits::default(),
            gate: None,
            quiet: &[],
            tls: None,
            pages: Vec::new(),
        }
    }

    /// Speaks TLS, on the admin endpoint as well, which asks for no client certificate; by default neither does. Each request
    /// then says in its [`Peer`](crate::Peer) whom the client's certificate names.
    #[must_use]
    pub fn tls(mut self, server: Option<tls::Server>) -> Self {
        self.tls = server;
        self
    }

    /// Where `/healthz` and `/metrics` are served over HTTP/1.1; by default nowhere.
    #[must_use]
    pub fn admin(mut self, address: Option<SocketAddr>) -> Self {
        self.admin = address;
        self
    }

    /// A further page of the admin endpoint: at `path` (`/lb`) it answers with the JSON that `render` makes, anew for each
    /// request. It shows whatever it shows to everybody who reaches the endpoint, and has to bound its own size; it must not block.
    #[must_use]
    pub fn admin_page(mut self, path: &'static str, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.pages.push(Page::new(path, render));
        self
    }

    /// The id that responses carry, which should be the one in the registry; by default the name and a random number.
    #[must_use]
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.instance_id = Some(id.into());
        self
    }

    /// The deadline of calls that bring none; by default they have none.
    ///
    /// The host cannot know which methods stream, and a deadline covers a stream to its end: set one only for servers
    /// without long-lived streams. Health and reflection are exempt.
    #[must_use]
    pub fn default_deadline(mut self, deadline: Option<Duration>) -> Self {
        self.default_deadline = deadline;
        self
    }

    /// Whoever decides about every call, before any routing. By default nobody does: everybody may call everything.
    #[must_use]
    pub fn gate(mut self, gate: Option<Arc<dyn Gate>>) -> Self {
        self.gate = gate;
        self
    }

    /// Methods (`pkg.Service/Method`) whose calls make no spans: heartbeats. By default there are none.
    #[must_use]
    pub fn quiet(mut self, methods: &'static [&'static str]) -> Self {
        self.quiet = methods;
        self
    }

    /// Replaces the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// The size of a request message that a service should accept at most if it has no need for more, in bytes: 256 KiB. A
/// hundred streams of it are 25 MiB.
pub const MAX_REQUEST_MESSAGE: usize = 256 << 10;

/// Bounds on what a peer can make a server hold or do. tonic 0.14's own defaults leave most of these open.
///
/// The size of a message is not among them: tonic takes it per service (`max_decoding_message_size` on the generated
/// server) and reads at most 4 MiB by default. A message beyond it is answered with RESOURCE_EXHAUSTED naming the limit.
/// Set it, to [`MAX_REQUEST_MESSAGE`] where nothing needs more: together with `max_concurrent_streams` and
/// `message_timeout` it bounds what the unfinished requests of one connection hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections served at once; default 10,000. Lowered on start to three quarters of the process's limit of open
    /// files. A connection beyond it is closed at once: a balancer then goes elsewhere, where waiting in the kernel's
    /// backlog would look to it like a server that hangs.
    pub max_connections: usize,
    /// Connections of one peer at once: of an IPv4 address, or of a /64 of IPv6; default 1,024. Behind a proxy all clients are one
    /// peer.
    pub max_connections_per_peer: usize,
    /// Open streams a connection; default 100, and advertised, so that good clients queue by themselves. Without it 2,000
    /// unread streams on one connection held 1.07 GB; with it 54 MB (measured on tonic 0.14.9).
    pub max_concurrent_streams: u32,
    /// How long a new connection may take for the TLS handshake, if there is one, and then to send the HTTP/2 preface and the
    /// start of its SETTINGS, all together; default 5 s. Keepalive starts only after that, so a silent connection stayed open for
    /// ever. On the admin endpoint it bounds the handshake, and the headers of each request.
    pub preface_timeout: Duration,
    /// TLS handshakes under way at once, a listener, counted from the client's hello on; at least 1, default 250, as ZooKeeper has
    /// it (`outstandingHandshake.limit`). Beyond it the peer that has the most of them loses its oldest: nobody queues behind
    /// clients that say hello and fall silent. It bounds the memory of half-finished handshakes; a connection that has not said
    /// hello holds none.
    pub max_handshakes: usize,
    /// How often an otherwise quiet connection is pinged; default 10 s.
    pub keepalive_interval: Duration,
    /// How long a ping may go unanswered before the connection is closed; default 5 s. A peer that takes none of what is
    /// being sent for interval and timeout together is closed as well: a ping does not reach it.
    pub keepalive_timeout: Duration,
    /// How long a request message may take to arrive; default 10 s, and a second more for each 64 KiB of it that has
    /// arrived. Then the call ends with DEADLINE_EXCEEDED. Without it a peer that sends most of a message on each stream, and
    /// answers pings, made a server hold 400 MB a connection for ever.
    ///
    /// A stream of requests may be idle between messages for as long as it likes. Where the method takes one message, it
    /// counts from the headers to the end of the request. Only time spent waiting for the peer counts.
    pub message_timeout: Duration,
    /// Total size of a request's headers in bytes, by the HTTP/2 formula (32 extra a header); default 16 KiB.
    pub max_header_list_size: u32,
    /// Streams that we reset because the peer broke the protocol, before the connection is closed with
    /// ENHANCE_YOUR_CALM; default 1024, h2's own. tonic switches this defence against RUSTSEC-2024-0003 off.
    pub max_local_error_reset_streams: usize,
    /// Streams that the peer opened and reset before we accepted them, before the connection is closed with
    /// ENHANCE_YOUR_CALM (rapid reset, CVE-2023-44487); default 20, h2's own.
    pub max_pending_accept_reset_streams: usize,
    /// Bytes waiting to be sent, a stream, from which on no more is taken from its body; default 64 KiB (hyper: 400 KiB, which
    /// tonic does not let one change). What goes over it is taken as a whole, and hyper asks for one piece more: a stream that is
    /// not read holds so many bytes and two pieces of its body, which are messages, of any size.
    pub max_send_buffer: usize,
}

impl Limits {
    /// How long a peer may take nothing of what is being sent to it.
    pub(crate) fn write_timeout(&self) -> Duration {
        self.keepalive_interval.saturating_add(self.keepalive_timeout)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_peer: 1_024,
            max_concurrent_streams: 100,
            preface_timeout: Duration::from_secs(5),
            max_handshakes: 250,
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            message_timeout: Duration::from_secs(10),
            max_header_list_size: 16 << 10,
            max_local_error_reset_streams: 1024,
            max_pending_accept_reset_streams: 20,
            max_send_buffer: 64 << 10,
        }
    }
}
