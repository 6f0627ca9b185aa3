//! Keeps a purchase within the trace of the call that asked for it, also after that call has been answered, and has what goes
//! on after a crash point back to it.
//!
//! An order keeps the span that it began under as a `traceparent`, whatever the propagators of this process are: those are
//! for the wire, and with `OTEL_PROPAGATORS=b3` there would be nothing to keep.

use telemetry::{
    Context, KeyValue, TraceParent,
    propagation::{extract, inject, trace_id},
    work::{Kind, Work},
};

use crate::domain::order::{Order, Trace};

/// The context of a purchase that a call in `context` asks for.
///
/// It names the call's span and does not hold it: the span ends when the call does, and the purchase may take longer.
pub(crate) fn of_purchase(context: &Context) -> Context {
    let mut headers = http::HeaderMap::new();
    inject(context, &mut headers);
    let detached = extract(&headers);
    // Nothing comes through when the propagators are switched off.
    if trace_id(&detached).is_some() {
        detached
    } else {
        context.clone()
    }
}

/// The present context as an order keeps it.
pub(crate) fn current() -> Trace {
    let context = Context::current();
    Trace {
        id: trace_id(&context).unwrap_or_default(),
        parent: parent_of(&context),
    }
}

/// The present span as a `traceparent`; empty outside of every trace.
pub(crate) fn parent_of(context: &Context) -> String {
    TraceParent::of(context)
        .map(|parent| parent.to_string())
        .unwrap_or_default()
}

/// The recovery of a purchase: a span of a trace of its own, with a link to the span that the purchase began under. Nobody
/// waits for that request any more, and its trace was exported long ago.
///
/// Where nothing is recorded the purchase goes on under its old ids, so that logs and callees still name them.
pub(crate) fn resumed(order: &Order) -> (Work, Context) {
    let Ok(cause) = order.trace.parent.parse::<TraceParent>() else {
        return (Work::NONE, Context::new());
    };
    let work = Work::linked(Kind::Internal, "recover purchase", cause, || {
        vec![
            KeyValue::new("tessera.order.id", order.id.to_string()),
            KeyValue::new("tessera.order.trace_id", order.trace.id.clone()),
        ]
    });
    let context = work.context().cloned().unwrap_or_else(|| cause.context());
    (work, context)
}
