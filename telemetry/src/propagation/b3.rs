//! B3, Zipkin's way to say which span a call belongs to, in one header (`b3`) or in several (`x-b3-traceid` ...). Pure: text to span
//! contexts and back. By openzipkin/b3-propagation, and by OpenTelemetry's rules for its B3 propagators: both forms are read, the
//! single header first, whichever is asked for; ids of 64 bits are ids of 128 that begin with zeros.
//!
//! A decision that is left to the receiver (no sampling state) is read as sampled, as elsewhere here: whoever records may. "Debug"
//! is read as sampled; the word does not travel on.

use http::{HeaderMap, HeaderValue, header::HeaderName};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

static SINGLE: HeaderName = HeaderName::from_static("b3");
static TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
static SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
static SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
static FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// The caller's span. `None` without one, and for anything malformed.
pub(super) fn extract(headers: &HeaderMap) -> Option<SpanContext> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(single) = text(&SINGLE) {
        let mut parts = single.split('-');
        // A lone state ("0") names no span to be a child of.
        let (trace, span) = (parts.next()?, parts.next()?);
        return remote(trace, span, parts.next());
    }
    let state = if text(&FLAGS) == Some("1") {
        Some("d")
    } else {
        text(&SAMPLED)
    };
    remote(text(&TRACE_ID)?, text(&SPAN_ID)?, state)
}

fn remote(trace: &str, span: &str, state: Option<&str>) -> Option<SpanContext> {
    let is_hex = |text: &str| text.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !matches!(trace.len(), 16 | 32) || span.len() != 16 || !is_hex(trace) || !is_hex(span) {
        return None;
    }
    let flags = match state.map(str::to_ascii_lowercase).as_deref() {
        None | Some("1" | "d" | "true") => TraceFlags::SAMPLED,
        Some("0" | "false") => TraceFlags::NOT_SAMPLED,
        Some(_) => return None,
    };
    let ids = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let found = SpanContext::new(ids.0, ids.1, flags, true, TraceState::NONE);
    found.is_valid().then_some(found)
}

/// In one header, replacing what is there.
pub(super) fn inject(span: &SpanContext, headers: &mut HeaderMap) {
    put(
        headers,
        &SINGLE,
        &format!("{}-{}-{}", span.trace_id(), span.span_id(), u8::from(span.is_sampled())),
    );
}

/// In several headers, replacing what is there.
pub(super) fn inject_several(span: &SpanContext, headers: &mut HeaderMap) {
    put(headers, &TRACE_ID, &span.trace_id().to_string());
    put(headers, &SPAN_ID, &span.span_id().to_string());
    put(headers, &SAMPLED, if span.is_sampled() { "1" } else { "0" });
    headers.remove(&FLAGS);
}

fn put(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn read(pairs: &[(&'static str, &str)]) -> Option<(String, String, bool)> {
        let headers = pairs.iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value).expect("a value");
            (HeaderName::from_static(name), value)
        });
        let found = extract(&headers.collect())?;
        assert!(found.is_remote());
        Some((
            found.trace_id().to_string(),
            found.span_id().to_string(),
            found.is_sampled(),
        ))
    }

    #[test]
    fn one_header_says_all() {
        let whole = |state: &str| format!("{TRACE}-{SPAN}{state}");
        for (state, sampled) in [
            ("-1", true),
            ("-0", false),
            ("-d", true),
            ("", true),
            ("-1-05e3ac9a4f6e3b90", true),
        ] {
            let expected = Some((TRACE.to_owned(), SPAN.to_owned(), sampled));
            assert_eq!(read(&[("b3", &whole(state))]), expected, "{state}");
        }
    }

    #[test]
    fn short_ids_are_long_ones_that_begin_with_zeros() {
        let short = read(&[("b3", "a3ce929d0e0e4736-00f067aa0ba902b7-1")]).expect("read");
        assert_eq!(short.0, "0000000000000000a3ce929d0e0e4736");
    }

    #[test]
    fn several_headers_say_the_same() {
        let ids = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
        for (more, sampled) in [
            (None, true),
            (Some(("x-b3-sampled", "1")), true),
            (Some(("x-b3-sampled", "0")), false),
            (Some(("x-b3-sampled", "true")), true),
            (Some(("x-b3-flags", "1")), true),
        ] {
            let pairs: Vec<_> = ids.into_iter().chain(more).collect();
            let expected = Some((TRACE.to_owned(), SPAN.to_owned(), sampled));
            assert_eq!(read(&pairs), expected, "{more:?}");
        }
        let both = [ids[0], ids[1], ("b3", "a3ce929d0e0e4736-00f067aa0ba902b7-0")];
        assert!(!read(&both).expect("read").2, "the single header goes before");
    }

    #[test]
    fn malformed_ones_count_as_absent() {
        for bad in [
            "",
            "0",
            "1",
            "d",
            TRACE,
            "4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-1",
            "4bf92f3577b34da6a3ce929d0e0e473x-00f067aa0ba902b7-1",
            "00000000000000000000000000000000-00f067aa0ba902b7-1",
            "4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-1",
            "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-2",
        ] {
            assert_eq!(read(&[("b3", bad)]), None, "{bad:?}");
        }
        assert_eq!(read(&[("x-b3-traceid", TRACE)]), None);
    }

    #[test]
    fn what_is_written_is_read() {
        for flags in [TraceFlags::SAMPLED, TraceFlags::NOT_SAMPLED] {
            let trace = TraceId::from_hex(TRACE).expect("an id");
            let span = SpanId::from_hex(SPAN).expect("an id");
            let sent = SpanContext::new(trace, span, flags, true, TraceState::NONE);
            for write in [inject, inject_several] {
                let mut headers = HeaderMap::new();
                write(&sent, &mut headers);
                assert_eq!(extract(&headers), Some(sent.clone()));
            }
        }
    }
}
