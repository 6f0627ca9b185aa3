//! Keeps a purchase within the trace of the call that asked for it, also after that call has been answered, and after a
//! restart. Makes no spans.

use http::{HeaderMap, HeaderValue};
use telemetry::{
    Context,
    propagation::{extract, inject, trace_id},
};

use crate::domain::order::Trace;

const TRACEPARENT: &str = "traceparent";

/// The context of a purchase that a call in `context` asks for.
///
/// It names the call's span and does not hold it: the span ends when the call does, and the purchase may take longer.
pub(crate) fn of_purchase(context: &Context) -> Context {
    let mut headers = HeaderMap::new();
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
    let mut headers = HeaderMap::new();
    inject(&context, &mut headers);
    let parent = headers
        .get(TRACEPARENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    Trace {
        id: trace_id(&context).unwrap_or_default(),
        parent: parent.to_owned(),
    }
}

/// The context in which a purchase goes on after a restart.
pub(crate) fn resumed(trace: &Trace) -> Context {
    let mut headers = HeaderMap::new();
    if let Ok(parent) = HeaderValue::from_str(&trace.parent) {
        headers.insert(TRACEPARENT, parent);
    }
    extract(&headers)
}
