//! A span's name as a value of 25 bytes, for what outlives a call or crosses a queue: a change that watchers are told, a saga's
//! later steps. W3C Trace Context, `traceparent` of version 00.

use std::{fmt, str::FromStr};

use opentelemetry::{
    Context,
    trace::{Link, SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};

use crate::span;

/// Names a span, and with it its trace. Without `tracestate` and baggage: those belong to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: TraceId,
    span_id: SpanId,
    flags: TraceFlags,
}

/// A text that is no `traceparent` of version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of version 00")]
pub struct InvalidTraceParent;

impl TraceParent {
    /// The span that the context works under; `None` outside of every trace.
    pub fn of(cx: &Context) -> Option<Self> {
        let span = cx.span();
        let span_context = span.span_context();
        span_context.is_valid().then(|| Self {
            trace_id: span_context.trace_id(),
            span_id: span_context.span_id(),
            flags: span_context.trace_flags() & TraceFlags::SAMPLED,
        })
    }

    /// The span that the current task works under, if somebody may look at it: its trace is sampled, and either this process
    /// exports it or a caller has made it. Ids that were made up here for the sake of the logs are nobody's to look at.
    pub fn of_current_if_sampled() -> Option<Self> {
        Context::map_current(|cx| {
            let parent = Self::of(cx).filter(|parent| parent.is_sampled())?;
            let is_somebodys = span::is_recorded() || cx.span().span_context().is_remote();
            is_somebodys.then_some(parent)
        })
    }

    /// Whether its trace is sampled.
    pub fn is_sampled(self) -> bool {
        self.flags.is_sampled()
    }

    /// A context under that span, as if a call had brought it.
    pub fn context(self) -> Context {
        Context::new().with_remote_span_context(self.span_context())
    }

    pub(crate) fn span_context(self) -> SpanContext {
        SpanContext::new(self.trace_id, self.span_id, self.flags, true, TraceState::NONE)
    }

    pub(crate) fn link(self) -> Link {
        Link::with_context(self.span_context())
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let is_hex = |part: &str, digits: usize| {
            part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = text.split('-');
        let (Some("00"), Some(trace), Some(span), Some(flags), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidTraceParent);
        };
        if !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
            return Err(InvalidTraceParent);
        }
        let trace_id = TraceId::from_hex(trace).map_err(|_| InvalidTraceParent)?;
        let span_id = SpanId::from_hex(span).map_err(|_| InvalidTraceParent)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| InvalidTraceParent)?;
        if trace_id == TraceId::INVALID || span_id == SpanId::INVALID {
            return Err(InvalidTraceParent);
        }
        Ok(Self {
            trace_id,
            span_id,
            flags: TraceFlags::new(flags) & TraceFlags::SAMPLED,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_as_it_was_written_and_nothing_else_is() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent: TraceParent = text.parse().expect("valid");
        assert_eq!(parent.to_string(), text);
        assert_eq!(TraceParent::of(&parent.context()), Some(parent));
        assert!(parent.is_sampled());
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e47é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(InvalidTraceParent), "{bad:?}");
        }
        assert_eq!(TraceParent::of(&Context::new()), None);
    }

    /// This binary exports nothing: what it makes up is for its logs, and what a caller sent is the caller's.
    #[test]
    fn made_up_ids_are_nobodys_to_look_at() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";
        for (cx, expected) in [
            (crate::propagation::ensure_trace(&Context::new()), false),
            (
                format!("{text}1").parse::<TraceParent>().expect("valid").context(),
                true,
            ),
            (
                format!("{text}0").parse::<TraceParent>().expect("valid").context(),
                false,
            ),
        ] {
            let _entered = cx.attach();
            assert_eq!(TraceParent::of_current_if_sampled().is_some(), expected);
        }
    }
}
