//! The `OTEL_*` variables of the specification that apply to us, read once. Pure: the environment is an argument.
//!
//! `sampling::settings` reads the samplers. The SDK reads `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` itself; everything else
//! is read here, also what the Rust SDK knows, since it says nothing of what it cannot read. As the specification has it, an empty
//! value means unset, and one that cannot be read is told once and ignored.

use std::{str::FromStr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry_sdk::trace::SpanLimits;

use crate::{
    export::{BatchSettings, Compression, Destination, Lengths, Protocol, TlsFiles},
    propagation::Propagators,
    sampling,
};

/// What the environment asks for.
#[derive(Debug)]
pub(crate) struct Environment {
    /// `None`: no traces are exported.
    pub(crate) traces: Option<Destination>,
    pub(crate) exporting: Exporting,
    pub(crate) sampling: sampling::Settings,
    pub(crate) propagators: Propagators,
    /// `OTEL_SERVICE_NAME`, or `service.name` within `OTEL_RESOURCE_ATTRIBUTES`.
    pub(crate) names_service: bool,
    /// What cannot be honoured, to be logged once the subscriber stands.
    pub(crate) warnings: Vec<String>,
}

/// How spans leave.
#[derive(Debug)]
pub(crate) struct Exporting {
    pub(crate) batch: BatchSettings,
    pub(crate) limits: SpanLimits,
    pub(crate) lengths: Lengths,
}

/// One environment, looked at with complaints.
struct Reader<G> {
    get: G,
    warnings: Vec<String>,
}

impl<G: Fn(&str) -> Option<String>> Reader<G> {
    fn text(&self, name: &str) -> Option<String> {
        (self.get)(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    /// The first of them that is set, with its name.
    fn first<'n>(&self, names: [&'n str; 2]) -> Option<(&'n str, String)> {
        names.into_iter().find_map(|name| Some((name, self.text(name)?)))
    }

    fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// A number that `is_valid`; `what` says which are.
    fn number<T: FromStr>(&mut self, name: &str, what: &str, is_valid: impl Fn(&T) -> bool) -> Option<T> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(is_valid);
        if number.is_none() {
            self.warn(format!("{name}={text} is ignored: it takes {what}"));
        }
        number
    }

    fn millis(&mut self, name: &str, default: u64) -> Duration {
        let value = self.number(name, "milliseconds, above 0", |millis: &u64| *millis > 0);
        Duration::from_millis(value.unwrap_or(default))
    }

    fn count(&mut self, name: &str, default: u32) -> u32 {
        self.number(name, "a count, 0 or more", |_| true).unwrap_or(default)
    }
}

impl Environment {
    /// Reads the variables through `get`.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let mut reader = Reader {
            get,
            warnings: Vec::new(),
        };
        let traces = traces(&mut reader);
        let exporting = exporting(&mut reader);
        let sampling = sampling::Settings::read(&reader.get, &mut reader.warnings);
        let propagators = match reader.text("OTEL_PROPAGATORS") {
            Some(list) => propagators(&list, &mut reader.warnings),
            None => Propagators::DEFAULT,
        };
        others(&mut reader);
        let names_service = reader.text("OTEL_SERVICE_NAME").is_some()
            || reader.text("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|list| {
                list.split(',').any(|pair| {
                    pair.split_once('=')
                        .is_some_and(|(key, _)| key.trim() == "service.name")
                })
            });
        Self {
            traces,
            exporting,
            sampling,
            propagators,
            names_service,
            warnings: reader.warnings,
        }
    }
}

fn traces<G: Fn(&str) -> Option<String>>(reader: &mut Reader<G>) -> Option<Destination> {
    // Only the word "true" disables; the specification wants anything else read as false, with a warning.
    match reader.text("OTEL_SDK_DISABLED").map(|value| value.to_ascii_lowercase()) {
        Some(value) if value == "true" => return None,
        Some(value) if value != "false" => reader.warn(format!(
            "OTEL_SDK_DISABLED={value} is read as false; it takes true or false"
        )),
        _ => {}
    }
    let named = reader.first(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
    match reader.text("OTEL_TRACES_EXPORTER").as_deref() {
        Some("none") => return None,
        Some("otlp") if named.is_none() => {
            reader.warn("OTEL_TRACES_EXPORTER=otlp needs OTEL_EXPORTER_OTLP_ENDPOINT; no traces are exported");
        }
        Some("otlp") | None => {}
        Some(other) => {
            reader.warn(format!(
                "OTEL_TRACES_EXPORTER={other} is not supported (otlp or none); no traces are exported"
            ));
            return None;
        }
    }
    let (name, endpoint) = named?;
    let protocol = match reader.first(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]) {
        None => Protocol::Grpc,
        Some((_, text)) if text == "grpc" => Protocol::Grpc,
        Some((_, text)) if text == "http/protobuf" => Protocol::HttpProtobuf,
        Some((name, text)) => {
            reader.warn(format!(
                "{name}={text} is ignored: it takes grpc or http/protobuf; grpc is used"
            ));
            Protocol::Grpc
        }
    };
    // "OTLP/HTTP": the general endpoint is a base, that of the traces is taken as it is.
    let endpoint = if protocol == Protocol::HttpProtobuf && name == "OTEL_EXPORTER_OTLP_ENDPOINT" {
        format!("{}/v1/traces", endpoint.trim_end_matches('/'))
    } else {
        endpoint
    };
    let compression = compression(reader);
    let is_secured = endpoint.starts_with("https://");
    let tls = tls_files(reader, is_secured);
    if let Some((name, text)) = reader.first(["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"])
        && text.eq_ignore_ascii_case("true") == is_secured
    {
        reader.warn(format!("{name}={text} is ignored: the scheme of the endpoint decides"));
    }
    let timeout = match reader.text("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT") {
        Some(_) => reader.millis("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", 10_000),
        None => reader.millis("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000),
    };
    let headers = match reader.first(["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"]) {
        Some((name, list)) => headers(name, &list, &mut reader.warnings),
        None => HeaderMap::new(),
    };
    Some(Destination {
        endpoint,
        protocol,
        compression,
        tls,
        headers,
        timeout,
    })
}

fn compression<G: Fn(&str) -> Option<String>>(reader: &mut Reader<G>) -> Compression {
    let named = reader.first([
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
    ]);
    match named {
        Some((_, text)) if text == "gzip" => Compression::Gzip,
        Some((name, text)) if text != "none" => {
            reader.warn(format!("{name}={text} is ignored: it takes gzip or none"));
            Compression::None
        }
        _ => Compression::None,
    }
}

/// Files that an endpoint without TLS has no use for are told: somebody believes that it has.
fn tls_files<G: Fn(&str) -> Option<String>>(reader: &mut Reader<G>, is_secured: bool) -> TlsFiles {
    let authorities = reader.first([
        "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
    ]);
    let certificate = reader.first([
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    ]);
    let key = reader.first(["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"]);
    if !is_secured {
        for (name, _) in [authorities, certificate, key].into_iter().flatten() {
            reader.warn(format!("{name} is ignored: the endpoint is not https://"));
        }
        return TlsFiles::default();
    }
    let own = match (certificate, key) {
        (Some((_, certificate)), Some((_, key))) => Some((certificate.into(), key.into())),
        (Some((name, _)), None) | (None, Some((name, _))) => {
            reader.warn(format!("{name} is ignored: a certificate and its key belong together"));
            None
        }
        (None, None) => None,
    };
    TlsFiles {
        authorities: authorities.map(|(_, file)| file.into()),
        own,
    }
}

fn exporting<G: Fn(&str) -> Option<String>>(reader: &mut Reader<G>) -> Exporting {
    let delay = reader.millis("OTEL_BSP_SCHEDULE_DELAY", 5_000);
    let timeout = reader.millis("OTEL_BSP_EXPORT_TIMEOUT", 30_000);
    let above_zero = |reader: &mut Reader<G>, name, default| {
        let value = reader.number(name, "a count above 0", |count: &usize| *count > 0);
        value.unwrap_or(default)
    };
    let queue = above_zero(reader, "OTEL_BSP_MAX_QUEUE_SIZE", 2_048);
    let batch = above_zero(reader, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512);
    if batch > queue && reader.text("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").is_some() {
        reader.warn(format!(
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE={batch} is more than the queue of {queue} spans holds; {queue} is used"
        ));
    }

    let of_all = reader.count("OTEL_ATTRIBUTE_COUNT_LIMIT", 128);
    let limits = SpanLimits {
        max_attributes_per_span: reader.count("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", of_all),
        max_events_per_span: reader.count("OTEL_SPAN_EVENT_COUNT_LIMIT", 128),
        max_links_per_span: reader.count("OTEL_SPAN_LINK_COUNT_LIMIT", 128),
        max_attributes_per_event: reader.count("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", of_all),
        max_attributes_per_link: reader.count("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", of_all),
    };
    let of_all = reader.number("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "a length, 0 or more", |_| true);
    let of_spans = reader.number("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "a length, 0 or more", |_| {
        true
    });
    Exporting {
        batch: BatchSettings {
            delay,
            timeout,
            queue,
            batch: batch.min(queue),
        },
        limits,
        lengths: Lengths(of_spans.or(of_all)),
    }
}

/// What asks for something that there is not here.
fn others<G: Fn(&str) -> Option<String>>(reader: &mut Reader<G>) {
    if reader.text("OTEL_CONFIG_FILE").is_some() || reader.text("OTEL_EXPERIMENTAL_CONFIG_FILE").is_some() {
        reader.warn("OTEL_CONFIG_FILE is ignored: set the other variables");
    }
    if let Some(exporter) = reader.text("OTEL_METRICS_EXPORTER")
        && !matches!(exporter.as_str(), "prometheus" | "none")
    {
        reader.warn(format!(
            "OTEL_METRICS_EXPORTER={exporter} is ignored: metrics are for Prometheus, at /metrics of the admin port"
        ));
    }
    if let Some(exporter) = reader.text("OTEL_LOGS_EXPORTER")
        && !matches!(exporter.as_str(), "console" | "none")
    {
        reader.warn(format!(
            "OTEL_LOGS_EXPORTER={exporter} is ignored: logs go to standard error"
        ));
    }
}

/// `key=value,key=value`, percent-encoded as W3C Baggage has it. Values may be secrets and are not repeated in warnings.
fn headers(variable: &str, list: &str, warnings: &mut Vec<String>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for pair in list.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let parsed = pair.split_once('=').and_then(|(name, value)| {
            let name = HeaderName::try_from(name.trim().to_ascii_lowercase()).ok()?;
            let mut value = HeaderValue::from_bytes(&decoded(value.trim())?).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        match parsed {
            Some((name, value)) => {
                headers.insert(name, value);
            }
            None => warnings.push(format!("{variable}: a pair is ignored that is not name=value")),
        }
    }
    headers
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
        bytes.push(u8::try_from(high << 4 | low).ok()?);
    }
    Some(bytes)
}

fn propagators(list: &str, warnings: &mut Vec<String>) -> Propagators {
    let mut chosen = Propagators::NONE;
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name {
            "tracecontext" => chosen.trace_context = true,
            "baggage" => chosen.baggage = true,
            "b3" => chosen.b3 = true,
            "b3multi" => chosen.b3_multi = true,
            "none" => {}
            other => warnings.push(format!(
                "OTEL_PROPAGATORS: {other} is not supported (tracecontext, baggage, b3, b3multi, none)"
            )),
        }
    }
    chosen
}

#[cfg(test)]
mod tests;
