//! Spans and durations of outgoing calls, for the balancer: one [`CallSpan`] a call, one [`AttemptSpan`] a try.
//!
//! Both end when they are told the status or, without one, when dropped: a caller that goes away has cancelled. Where
//! nothing is recorded they carry the caller's span context through and measure durations, no more. Not here: choosing,
//! retrying, sending.

use std::{sync::Arc, time::Instant};

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
    span::{self, Side},
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
        let cx = span::start(parent, SpanKind::Client, || {
            let method = rpc::method_of(method_path).to_owned();
            let attributes = vec![
                KeyValue::new(semconv::RPC_SYSTEM_NAME, semconv::RPC_SYSTEM_GRPC),
                KeyValue::new(semconv::RPC_METHOD, method.clone()),
                KeyValue::new(semconv::SERVER_ADDRESS, server_address.to_owned()),
            ];
            (method.into(), attributes)
        });
        let counted = stats::Handle::caller(server_address, rpc::method_of(method_path));
        Self {
            open: Open::new(cx, durations, counted),
        }
    }

    /// The call has to be over by then.
    pub fn has_deadline(&mut self, deadline: Option<Deadline>) {
        if let (Some(recorded), Some(deadline)) = (&mut self.open.recorded, deadline) {
            recorded.deadline = Some(deadline);
            self.set_attribute(semconv::DEADLINE_BUDGET_MS, span::millis(deadline.remaining()));
        }
    }

    /// Starts attempt number `n` (from 1).
    pub fn attempt(&self, n: u32, kind: AttemptKind, peer: Peer<'_>) -> AttemptSpan {
        let call = &self.open;
        let durations = call.durations.attempt_started();
        if call.recorded.is_some() {
            // The conventions want the instance last tried on the call's own span too.
            call.cx.span().set_attributes(span::peer_attributes(peer.address));
            if n > 1 {
                self.set_attribute(semconv::ATTEMPTS, i64::from(n));
            }
        }
        let cx = span::start(&call.cx, SpanKind::Client, || {
            // gRFC A72 names attempts so; it keeps them apart from the call in any list of spans.
            let name = format!("Attempt.{}", call.durations.method());
            let mut attributes = vec![
                KeyValue::new(semconv::RPC_SYSTEM_NAME, semconv::RPC_SYSTEM_GRPC),
                KeyValue::new(semconv::RPC_METHOD, call.durations.method().to_owned()),
                KeyValue::new(semconv::SERVER_ADDRESS, call.durations.target().to_owned()),
                KeyValue::new(semconv::ATTEMPT, i64::from(n)),
            ];
            attributes.extend(span::peer_attributes(peer.address));
            if kind != AttemptKind::First {
                attributes.push(KeyValue::new(semconv::ATTEMPT_KIND, kind.as_str()));
            }
            for (key, value) in [
                (semconv::PEER_INSTANCE_ID, peer.instance_id),
                (semconv::PEER_ZONE, peer.zone),
                (semconv::PEER_VERSION, peer.version),
            ] {
                if !value.is_empty() {
                    attributes.push(KeyValue::new(key, value.to_owned()));
                }
            }
            (name.into(), attributes)
        });
        let counted = call.counted.attempt(if peer.instance_id.is_empty() {
            peer.address
        } else {
            peer.instance_id
        });
        AttemptSpan {
            open: Open::new(cx, durations, counted),
        }
    }

    /// The context of the call, parent of its attempts.
    pub fn context(&self) -> &Context {
        &self.open.cx
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
        propagation::inject(&self.open.cx, headers);
        stats::say_caller(headers);
    }

    /// The context of the attempt, parent of the server's span.
    pub fn context(&self) -> &Context {
        &self.open.cx
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

/// What both have in common: a context, a clock and where the duration goes.
#[derive(Debug)]
struct Open {
    cx: Context,
    durations: Arc<MethodDurations>,
    counted: stats::Handle,
    started: Instant,
    /// What is kept for the span's end; `None` where it is not recorded, so that a call that is not is no larger for it.
    recorded: Option<Box<Recorded>>,
    ended: bool,
}

impl Open {
    fn new(cx: Context, durations: Arc<MethodDurations>, counted: stats::Handle) -> Self {
        Self {
            recorded: cx.span().is_recording().then(Box::default),
            cx,
            durations,
            counted,
            started: Instant::now(),
            ended: false,
        }
    }

    fn event(&self, name: &'static str, attributes: impl FnOnce() -> Vec<KeyValue>) {
        if self.recorded.is_some() {
            self.cx.span().add_event(name, attributes());
        }
    }

    fn set_attribute(&self, key: &'static str, value: impl Into<Value>) {
        if self.recorded.is_some() {
            self.cx.span().set_attribute(KeyValue::new(key, value));
        }
    }

    fn end(&mut self, code: i32) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.started.elapsed();
        self.durations.observe(code, took, &self.cx);
        self.counted.record(code, took);
        let Some(recorded) = self.recorded.take() else {
            return;
        };
        span::end_rpc(&self.cx, Side::Client, code, |attributes| {
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
}

impl Drop for Open {
    fn drop(&mut self) {
        self.end(rpc::CANCELLED);
    }
}
