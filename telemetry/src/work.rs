//! Spans of what is no RPC: a statement of a store, a change on its way to a watcher, a step of a saga. Where nothing is
//! recorded they are nothing, and cost one look at a static.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue, Value,
    trace::{FutureExt as _, SpanBuilder, SpanKind, Status, TraceContextExt as _},
};

use crate::{semconv, span, traceparent::TraceParent};

/// What kind of work it is, as OpenTelemetry's span kinds have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Within the process.
    Internal,
    /// A store is asked: the conventions for databases make that a client.
    Store,
    /// Something is handed to others who take it up later.
    Producer,
    /// It is taken up.
    Consumer,
}

/// A piece of work under way. Dropped without an end it ends as it is.
#[derive(Debug)]
pub struct Work {
    cx: Option<Context>,
}

impl Work {
    /// None: for what shall not be recorded.
    pub const NONE: Self = Self { cx: None };

    /// Begins under `parent`, if that belongs to a trace that is recorded; `describe` is called only then. Work of its own accord
    /// makes no trace: it would be one without a call.
    pub fn begin(
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
        parent: &Context,
        describe: impl FnOnce() -> Vec<KeyValue>,
    ) -> Self {
        Self::build(kind, name, parent, None, describe)
    }

    /// The same under the present context.
    pub fn begin_here(
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
        describe: impl FnOnce() -> Vec<KeyValue>,
    ) -> Self {
        Context::map_current(|parent| Self::begin(kind, name, parent, describe))
    }

    /// Begins a trace of its own that is linked to `cause`: it is no longer the same request.
    pub fn linked(
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
        cause: TraceParent,
        describe: impl FnOnce() -> Vec<KeyValue>,
    ) -> Self {
        if !span::is_recorded() {
            return Self::NONE;
        }
        let builder = SpanBuilder::from_name(name)
            .with_kind(kind.into())
            .with_links(vec![cause.link()])
            .with_attributes(describe());
        Self {
            cx: span::build(builder, &Context::new()),
        }
    }

    /// A piece of work that took so long and ends now.
    pub fn record(
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
        parent: &Context,
        took: Duration,
        describe: impl FnOnce() -> Vec<KeyValue>,
    ) {
        let began = SystemTime::now().checked_sub(took);
        drop(Self::build(kind, name, parent, began, describe));
    }

    fn build(
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
        parent: &Context,
        began: Option<SystemTime>,
        describe: impl FnOnce() -> Vec<KeyValue>,
    ) -> Self {
        if !span::follows(parent) {
            return Self::NONE;
        }
        let mut builder = SpanBuilder::from_name(name)
            .with_kind(kind.into())
            .with_attributes(describe());
        builder.start_time = began;
        Self {
            cx: span::build(builder, parent),
        }
    }

    /// Whether anybody will see it.
    pub fn is_recorded(&self) -> bool {
        self.cx.is_some()
    }

    /// The context of the work, for what is done within it; `None` where nothing is recorded.
    pub fn context(&self) -> Option<&Context> {
        self.cx.as_ref()
    }

    /// Runs a future within it.
    pub fn around<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let cx = self.cx.clone().unwrap_or_else(Context::current);
        future.with_context(cx)
    }

    /// Sets an attribute, if anything is recorded.
    pub fn set_attribute(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(cx) = &self.cx {
            cx.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Notes something about it, if anything is recorded.
    pub fn event(&self, name: &'static str, attributes: impl FnOnce() -> Vec<KeyValue>) {
        if let Some(cx) = &self.cx {
            cx.span().add_event(name, attributes());
        }
    }

    /// It fails with an error of that kind (`error.type`); a text of few values, never one of a message.
    pub fn fail(&self, error_type: impl Into<Value>) {
        if let Some(cx) = &self.cx {
            let error_type = error_type.into();
            cx.span().set_status(Status::error(error_type.to_string()));
            cx.span().set_attribute(KeyValue::new(semconv::ERROR_TYPE, error_type));
        }
    }

    /// Ends it.
    pub fn end(self) {}
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(cx) = self.cx.take() {
            cx.span().end();
        }
    }
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Internal => Self::Internal,
            Kind::Store => Self::Client,
            Kind::Producer => Self::Producer,
            Kind::Consumer => Self::Consumer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_exporter_it_is_nothing() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent: TraceParent = parent.parse().expect("valid");
        let describe = || -> Vec<KeyValue> { unreachable!("not even described") };
        assert!(!Work::begin(Kind::Store, "COMMIT", &parent.context(), describe).is_recorded());
        assert!(!Work::linked(Kind::Internal, "later", parent, describe).is_recorded());
        Work::record(
            Kind::Store,
            "COMMIT",
            &parent.context(),
            Duration::from_secs(1),
            describe,
        );
    }
}
