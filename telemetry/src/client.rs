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

    /// Starts attempt number `n` (from 1) to the instance `instance_id` (empty if unknown) at `peer` (`host:port`).
    pub fn attempt(&self, n: u32, peer: &str, instance_id: &str) -> AttemptSpan {
        let call = &self.open;
        let durations = call.durations.attempt_started();
        if call.cx.span().is_recording() {
            // The conventions want the instance last tried on the call's own span too.
            call.cx.span().set_attributes(span::peer_attributes(peer));
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
            attributes.extend(span::peer_attributes(peer));
            if !instance_id.is_empty() {
                attributes.push(KeyValue::new(semconv::PEER_INSTANCE_ID, instance_id.to_owned()));
            }
            (name.into(), attributes)
        });
        let counted = call
            .counted
            .attempt(if instance_id.is_empty() { peer } else { instance_id });
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

/// What both have in common: a context, a clock and where the duration goes.
#[derive(Debug)]
struct Open {
    cx: Context,
    durations: Arc<MethodDurations>,
    counted: stats::Handle,
    started: Instant,
    ended: bool,
}

impl Open {
    fn new(cx: Context, durations: Arc<MethodDurations>, counted: stats::Handle) -> Self {
        Self {
            cx,
            durations,
            counted,
            started: Instant::now(),
            ended: false,
        }
    }

    fn event(&self, name: &'static str, attributes: impl FnOnce() -> Vec<KeyValue>) {
        let span = self.cx.span();
        if span.is_recording() {
            span.add_event(name, attributes());
        }
    }

    fn set_attribute(&self, key: &'static str, value: impl Into<Value>) {
        let span = self.cx.span();
        if span.is_recording() {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    fn end(&mut self, code: i32) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.started.elapsed();
        self.durations.observe(code, took, &self.cx);
        self.counted.record(code, took);
        span::end_rpc(&self.cx, Side::Client, code, |_| {});
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.end(rpc::CANCELLED);
    }
}
