//! The form of a log line: text for people, JSON for machines. In both every record made while a call is served has its
//! `trace_id` and `span_id`, from the OpenTelemetry context and not from `tracing` spans. Not here: what is logged.

use std::{collections::BTreeMap, fmt};

use opentelemetry::{Context, trace::TraceContextExt as _};
use serde_json::Value;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

/// The ids of the current context, if it belongs to a trace.
fn ids() -> Option<(String, String)> {
    Context::map_current(|cx| {
        let span = cx.span();
        let span_context = span.span_context();
        span_context
            .is_valid()
            .then(|| (span_context.trace_id().to_string(), span_context.span_id().to_string()))
    })
}

/// `2026-11-20T11:25:03.123456Z  INFO ticket_svc::api: sold seats=2 trace_id=… span_id=…`
pub(super) struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        let (dim, colour, reset) = match (writer.has_ansi_escapes(), *meta.level()) {
            (false, _) => ("", "", ""),
            (true, tracing::Level::ERROR) => ("\x1b[2m", "\x1b[31m", "\x1b[0m"),
            (true, tracing::Level::WARN) => ("\x1b[2m", "\x1b[33m", "\x1b[0m"),
            (true, tracing::Level::INFO) => ("\x1b[2m", "\x1b[32m", "\x1b[0m"),
            (true, _) => ("\x1b[2m", "\x1b[34m", "\x1b[0m"),
        };
        writer.write_str(dim)?;
        SystemTime.format_time(&mut writer)?;
        write!(
            writer,
            "{reset} {colour}{:>5}{reset} {dim}{}:{reset} ",
            meta.level(),
            meta.target()
        )?;
        ctx.format_fields(writer.by_ref(), event)?;
        if let Some((trace, span)) = ids() {
            write!(writer, " {dim}trace_id={trace} span_id={span}{reset}")?;
        }
        writeln!(writer)
    }
}

/// One object a line: `timestamp`, `level`, `target`, `message`, the event's fields, `trace_id`, `span_id`.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let ids = ids();
        let mut fixed: Vec<(&str, Value)> = vec![
            ("timestamp", timestamp.into()),
            ("level", meta.level().as_str().into()),
            ("target", meta.target().into()),
        ];
        if let Some(message) = fields.0.remove("message") {
            fixed.push(("message", message));
        }
        if let Some((trace, span)) = ids {
            fixed.push(("trace_id", trace.into()));
            fixed.push(("span_id", span.into()));
        }
        // Fixed keys first and in this order, so that a person can read the start of a line too; an event's field of
        // the same name gives way, since an object has each key once.
        writer.write_char('{')?;
        let rest = fields
            .0
            .iter()
            .filter(|(name, _)| !fixed.iter().any(|(fixed, _)| fixed == *name));
        let all = fixed
            .iter()
            .map(|(name, value)| (*name, value))
            .chain(rest.map(|(name, value)| (*name, value)));
        for (index, (name, value)) in all.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(writer, "{comma}{}:{value}", Value::from(name))?;
        }
        writeln!(writer, "}}")
    }
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name(), value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name(), value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        // The whole chain: an error's Display does not repeat its source here.
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.0.insert(field.name(), text.into());
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::logged, *};

    #[test]
    fn records_carry_the_trace_of_the_call_they_are_made_in() {
        let cx = crate::propagation::ensure_trace(&Context::new());
        let id = crate::propagation::trace_id(&cx).expect("valid");
        let text = logged(Text, |_| {
            let _entered = cx.clone().attach();
            tracing::info!(seats = 2, "sold");
        });
        assert!(text.contains("sold seats=2"), "{text}");
        assert!(text.contains(&format!("trace_id={id}")), "{text}");
        let json = logged(Json, |_| {
            let _entered = cx.clone().attach();
            tracing::warn!(seats = 2, free = true, name = "a\"b\n\u{1b}[31m", "sold");
        });
        let record: Value = serde_json::from_str(&json).expect("one JSON object");
        assert_eq!(record["message"], "sold");
        assert_eq!(record["level"], "WARN");
        assert_eq!(record["seats"], 2);
        assert_eq!(record["free"], true);
        assert_eq!(record["name"], "a\"b\n\u{1b}[31m");
        assert_eq!(record["trace_id"], id);
        assert_eq!(json.matches('\n').count(), 1, "one line: {json}");
        assert!(!json.contains('\u{1b}'), "control characters are escaped: {json}");
    }

    #[test]
    fn outside_a_call_there_is_no_trace_id() {
        assert!(!logged(Text, |_| tracing::info!("started")).contains("trace_id"));
        assert!(!logged(Json, |_| tracing::info!("started")).contains("trace_id"));
    }
}
