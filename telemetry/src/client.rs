//! Spans and durations of outgoing calls, for the balancer: one [`CallSpan`] a call, one [`AttemptSpan`] a try.
//!
//! Both end when they are told the status or, without one, when dropped: a caller that goes away has cancelled. Where
//! nothing is recorded they carry the caller's span context through and measure durations, no more. Not here: choosing,
//! retrying, sending.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue, Value,
    trace::{SpanKind, TraceContextExt as _},
};

use crate::{
    deadline::Deadline,
    messages::MessageCounter,
    metrics::{self, rpc::MethodDurations},
    propagation, rpc, semconv,
    span::{self, Ended, Side},
    stats,
};

/// One outgoing call, over all its attempts.
#[derive(Debug)]
pub struct CallSpan {
    open: Open,
}

/// One attempt of a call, to one instance.
#[derive(Debug)]
pub struct AttemptSpan {
    open: Open,
}

/// Where an attempt goes, as far as that is known; what is not is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peer<'a> {
    /// `host:port`.
    pub address: &'a str,
    /// The instance's id, as registered.
    pub instance_id: &'a str,
    /// Its zone.
    pub zone: &'a str,
    /// Its version.
    pub version: &'a str,
}

/// What the spans of attempts say of where they go, made once for many of them.
#[derive(Debug)]
pub struct Callee {
    /// The address first.
    attributes: Vec<KeyValue>,
    /// How many of them are the address.
    address: usize,
    /// As statistics call it: the instance, or its address.
    name: Box<str>,
}

impl From<Peer<'_>> for Arc<Callee> {
    fn from(peer: Peer<'_>) -> Self {
        let shared = |text: &str| Value::from(Arc::<str>::from(text));
        let mut attributes: Vec<KeyValue> = span::peer_attributes(peer.address).collect();
        let address = attributes.len();
        for (key, value) in [
            (semconv::PEER_INSTANCE_ID, peer.instance_id),
            (semconv::PEER_ZONE, peer.zone),
            (semconv::PEER_VERSION, peer.version),
        ] {
            if !value.is_empty() {
                attributes.push(KeyValue::new(key, shared(value)));
            }
        }
        let name = if peer.instance_id.is_empty() {
            peer.address
        } else {
            peer.instance_id
        };
        Self::new(Callee {
            attributes,
            address,
            name: name.into(),
        })
    }
}

impl Callee {
    fn address(&self) -> impl Iterator<Item = KeyValue> {
        self.attributes[..self.address].iter().cloned()
    }
}

/// Why there is an attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AttemptKind {
    /// The call is made.
    #[default]
    First,
    /// The one before has failed.
    Retry,
    /// The one before is late.
    Hedge,
    /// It is one of several that are made at once.
    Fork,
    /// The one before was certainly not processed (gRFC A6).
    Transparent,
}

impl AttemptKind {
    /// As spans say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
            Self::Fork => "fork",
            Self::Transparent => "transparent",
        }
    }
}

impl CallSpan {
    /// Starts a call under [`Context::current`]. `method_path` is the request's path (`/pkg.Service/Method`);
    /// `server_address` the logical target (the service name), not an instance.
    pub fn start(method_path: &str, server_address: &str) -> Self {
        Context::map_current(|parent| Self::start_in(parent, method_path, server_address))
    }

    /// Starts a call under that parent.
    pub fn start_in(parent: &Context, method_path: &str, server_address: &str) -> Self {
        let durations = metrics::rpc::CLIENT.of(server_address, rpc::method_of(method_path));
        let started = span::start(parent, SpanKind::Client, || described(&durations));
        let counted = stats::Handle::caller(server_address, rpc::method_of(method_path));
        Self {
            open: Open::new(started, durations, counted),
        }
    }

    /// The call has to be over by then.
    pub fn has_deadline(&mut self, deadline: Option<Deadline>) {
        if let (Some(recorded), Some(deadline)) = (&mut self.open.recorded, deadline) {
            recorded.deadline = Some(deadline);
            self.set_attribute(semconv::DEADLINE_BUDGET_MS, span::millis(deadline.remaining()));
        }
    }

    /// Starts attempt number `n` (from 1), to a [`Peer`] or, where there are many to the same one, to its [`Callee`].
    pub fn attempt(&self, n: u32, kind: AttemptKind, to: impl Into<Arc<Callee>>) -> AttemptSpan {
        let (call, callee) = (&self.open, to.into());
        let durations = call.durations.attempt_started();
        if call.recorded.is_some() {
            // The conventions want the instance last tried on the call's own span too.
            call.started.cx.span().set_attributes(callee.address());
            if n > 1 {
                self.set_attribute(semconv::ATTEMPTS, i64::from(n));
            }
        }
        let started = span::start(&call.started.cx, SpanKind::Client, || {
            described_attempt(&call.durations, n, kind, &callee)
        });
        if n > 1 && started.may_be_late {
            call.had_trouble.store(true, Ordering::Relaxed);
        }
        let counted = call.counted.attempt(&callee.name);
        let mut open = Open::new(started, durations, counted);
        if open.started.may_be_late {
            open.attempt = Some((n, kind, callee));
        }
        AttemptSpan { open }
    }

    /// The context of the call, parent of its attempts.
    pub fn context(&self) -> &Context {
        &self.open.started.cx
    }

    /// Whether anybody will see what is noted here, for what is dear to find out.
    pub fn is_recorded(&self) -> bool {
        self.open.recorded.is_some()
    }

    /// Notes something about the call, for example why an instance was picked. Nothing happens if nothing is recorded.
    pub fn event(&self, name: &'static str, attributes: impl FnOnce() -> Vec<KeyValue>) {
        self.open.event(name, attributes);
    }

    /// Sets an attribute, if anything is recorded.
    pub fn set_attribute(&self, key: &'static str, value: impl Into<Value>) {
        self.open.set_attribute(key, value);
    }

    /// Ends the call with a gRPC status code.
    pub fn finish(mut self, code: i32) {
        self.open.end(code);
    }

    /// Ends the call with the status in those headers or trailers; none there is UNKNOWN.
    pub fn finish_with(mut self, trailers: &HeaderMap) {
        self.open.end(rpc::code_in(trailers).unwrap_or(rpc::UNKNOWN));
    }
}

impl AttemptSpan {
    /// Counts the messages in the next bytes of the response, if anything is recorded.
    pub fn received(&mut self, bytes: &[u8]) {
        if let Some(recorded) = &mut self.open.recorded {
            recorded.received.get_or_insert_default().feed(bytes);
        }
    }

    /// Writes the attempt's context into the headers of its request, so that the server's span is its child.
    pub fn inject(&self, headers: &mut HeaderMap) {
        propagation::inject(&self.open.started.cx, headers);
        stats::say_caller(headers);
    }

    /// The context of the attempt, parent of the server's span.
    pub fn context(&self) -> &Context {
        &self.open.started.cx
    }

    /// Notes something about the attempt. Nothing happens if nothing is recorded.
    pub fn event(&self, name: &'static str, attributes: impl FnOnce() -> Vec<KeyValue>) {
        self.open.event(name, attributes);
    }

    /// Sets an attribute, if anything is recorded.
    pub fn set_attribute(&self, key: &'static str, value: impl Into<Value>) {
        self.open.set_attribute(key, value);
    }

    /// Ends the attempt with a gRPC status code.
    pub fn finish(mut self, code: i32) {
        self.open.end(code);
    }

    /// Ends the attempt with the status in those headers or trailers; none there is UNKNOWN.
    pub fn finish_with(mut self, trailers: &HeaderMap) {
        self.open.end(rpc::code_in(trailers).unwrap_or(rpc::UNKNOWN));
    }
}

/// See [`Open::recorded`].
#[derive(Debug, Default)]
struct Recorded {
    deadline: Option<Deadline>,
    /// Of the response, once there was any of it.
    received: Option<MessageCounter>,
}

/// Room for what is said while a call goes on and at its end, so that its attributes are moved once, out of the span.
const MORE: usize = 8;

fn described(durations: &MethodDurations) -> (Cow<'static, str>, Vec<KeyValue>) {
    let mut attributes = Vec::with_capacity(3 + MORE);
    describe(durations, &mut attributes);
    (durations.method().into(), attributes)
}

fn describe(durations: &MethodDurations, attributes: &mut Vec<KeyValue>) {
    attributes.extend([
        KeyValue::new(semconv::RPC_SYSTEM_NAME, semconv::RPC_SYSTEM_GRPC),
        KeyValue::new(semconv::RPC_METHOD, durations.method()),
        KeyValue::new(semconv::SERVER_ADDRESS, durations.target()),
    ]);
}

fn described_attempt(
    durations: &MethodDurations,
    n: u32,
    kind: AttemptKind,
    callee: &Callee,
) -> (Cow<'static, str>, Vec<KeyValue>) {
    let mut attributes = Vec::with_capacity(5 + callee.attributes.len() + MORE);
    describe(durations, &mut attributes);
    attributes.push(KeyValue::new(semconv::ATTEMPT, i64::from(n)));
    if kind != AttemptKind::First {
        attributes.push(KeyValue::new(semconv::ATTEMPT_KIND, kind.as_str()));
    }
    attributes.extend(callee.attributes.iter().cloned());
    (durations.attempt_name().into(), attributes)
}

/// What both have in common: a context, a clock and where the duration goes.
#[derive(Debug)]
struct Open {
    started: span::Started,
    durations: Arc<MethodDurations>,
    counted: stats::Handle,
    begun: Instant,
    /// What is kept for the span's end; `None` where it is not recorded, so that a call that is not is no larger for it.
    recorded: Option<Box<Recorded>>,
    /// What is kept of an attempt that may be told late.
    attempt: Option<(u32, AttemptKind, Arc<Callee>)>,
    /// Of a call that may be told late: whether there was more than one attempt.
    had_trouble: AtomicBool,
    ended: bool,
}

impl Open {
    fn new(started: span::Started, durations: Arc<MethodDurations>, counted: stats::Handle) -> Self {
        Self {
            recorded: started.is_recorded.then(Box::default),
            started,
            durations,
            counted,
            begun: Instant::now(),
            attempt: None,
            had_trouble: AtomicBool::new(false),
            ended: false,
        }
    }

    fn event(&self, name: &'static str, attributes: impl FnOnce() -> Vec<KeyValue>) {
        if self.recorded.is_some() {
            self.started.cx.span().add_event(name, attributes());
        }
    }

    fn set_attribute(&self, key: &'static str, value: impl Into<Value>) {
        if self.recorded.is_some() {
            self.started.cx.span().set_attribute(KeyValue::new(key, value));
        }
    }

    fn end(&mut self, code: i32) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.begun.elapsed();
        self.durations.observe(code, took, &self.started.cx);
        self.counted.record(code, took);
        let Some(recorded) = self.recorded.take() else {
            self.tell_late(code, took);
            return;
        };
        span::end_rpc(&self.started.cx, Side::Client, code, |attributes| {
            if let Some(deadline) = recorded.deadline {
                attributes.push(KeyValue::new(
                    semconv::DEADLINE_LEFT_MS,
                    span::left(deadline.instant().into_std()),
                ));
            }
            if let Some(received) = &recorded.received {
                attributes.push(KeyValue::new(
                    semconv::RECEIVED_MESSAGES,
                    span::count(received.messages()),
                ));
            }
        });
    }

    fn tell_late(&self, code: i32, took: Duration) {
        let ended = Ended {
            side: Side::Client,
            code,
            took,
            had_trouble: self.had_trouble.load(Ordering::Relaxed),
            // How many answers there were is not counted here; what is slow the server tells.
            is_unary: false,
        };
        span::late(&self.started, SpanKind::Client, ended, || match &self.attempt {
            None => described(&self.durations),
            Some((n, kind, callee)) => described_attempt(&self.durations, *n, *kind, callee),
        });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.end(rpc::CANCELLED);
    }
}
