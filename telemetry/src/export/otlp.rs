//! The OpenTelemetry protocol, over gRPC or as protobuf over HTTP/1.1: one request a batch, tried again while the collector says
//! that this may help (OTLP 1.x, "Retryable Response Codes"), and one log line when it is lost and one when it is back.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::Resource;
use prost::Message as _;
use tonic::{Code, Status, codec::CompressionEncoding, metadata::MetadataMap, transport::Channel};

use super::{
    codec::{AsWritten, Written},
    connect::{BadTls, Connect, TlsFiles},
    wire::Envelope,
};
use crate::metrics::{CounterFamily, counter};

/// The largest answer that is read, and nobody expects one: 64 KiB hold any error.
const MAX_ANSWER: usize = 64 << 10;
/// Where OTLP/gRPC takes traces.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// The first pause before another try; each further one is twice as long. The batch's time ends them all.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// How the collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Grpc,
    HttpProtobuf,
}

/// What requests are made smaller by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Compression {
    #[default]
    None,
    Gzip,
}

/// Where spans go.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// With `http://` or `https://`.
    pub(crate) endpoint: String,
    pub(crate) protocol: Protocol,
    pub(crate) compression: Compression,
    /// For `https://` only.
    pub(crate) tls: TlsFiles,
    /// Sent with every request. They may hold a secret and are not shown.
    pub(crate) headers: HeaderMap,
    /// How long one request may take.
    pub(crate) timeout: Duration,
}

/// Why there can be no exporter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadEndpoint {
    #[error("it is not a URL: {0}")]
    Uri(#[from] http::uri::InvalidUri),
    #[error("it names no host")]
    NoHost,
    #[error("it begins with neither http:// nor https://")]
    Scheme,
    #[error(transparent)]
    Tls(#[from] BadTls),
}

/// Sends batches.
pub(crate) struct Exporter {
    endpoint: String,
    envelope: Envelope,
    line: Line,
    headers: HeaderMap,
    timeout: Duration,
    is_failing: bool,
    exported: CounterFamily,
}

enum Line {
    Grpc(tonic::client::Grpc<Channel>),
    Http(Box<Client<Connect, Full<Bytes>>>, Uri, Compression),
}

/// Why a request was in vain.
struct Failure {
    text: String,
    /// As in `error.type`: a few values.
    kind: &'static str,
    /// When to try again, if that may help; zero: whenever.
    again: Option<Duration>,
}

impl Exporter {
    /// Must be called within the runtime that it will be used in. Nothing is dialled yet.
    pub(crate) fn new(destination: Destination, resource: &Resource) -> Result<Self, BadEndpoint> {
        let uri: Uri = destination.endpoint.parse()?;
        let is_secured = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(BadEndpoint::Scheme),
            None => return Err(BadEndpoint::NoHost),
        };
        if uri.host().is_none_or(str::is_empty) {
            return Err(BadEndpoint::NoHost);
        }
        let protocols: &[&[u8]] = match destination.protocol {
            Protocol::Grpc => &[b"h2"],
            Protocol::HttpProtobuf => &[b"h2", b"http/1.1"],
        };
        let connect = if is_secured {
            Connect::secured(destination.timeout, &destination.tls, protocols)?
        } else {
            Connect::plain(destination.timeout)
        };
        let line = match destination.protocol {
            Protocol::Grpc => {
                let channel = Channel::builder(uri).connect_with_connector_lazy(connect);
                let client = tonic::client::Grpc::new(channel);
                Line::Grpc(match destination.compression {
                    Compression::None => client,
                    Compression::Gzip => client.send_compressed(CompressionEncoding::Gzip),
                })
            }
            Protocol::HttpProtobuf => {
                let client = Client::builder(TokioExecutor::new()).build(connect);
                Line::Http(Box::new(client), uri, destination.compression)
            }
        };
        Ok(Self {
            endpoint: destination.endpoint,
            envelope: Envelope::new(resource),
            line,
            headers: destination.headers,
            timeout: destination.timeout,
            is_failing: false,
            exported: counter(
                "otel_sdk_exporter_span_exported",
                "Spans whose export is over, by why they were lost; empty: the collector has them",
                &["error_type"],
            ),
        })
    }

    /// Sends `count` spans of a scope as they are written, for as long as `within` at the most: those who call do that.
    pub(crate) async fn export(
        &mut self,
        scope: &InstrumentationScope,
        count: usize,
        spans: Bytes,
        within: Duration,
    ) -> Result<(), String> {
        let (before, after) = self.envelope.around(scope, spans.len());
        let request = Written([before.into(), spans, after.into()]);
        let began = tokio::time::Instant::now();
        let mut pause = FIRST_PAUSE;
        let failure = loop {
            let failure = match tokio::time::timeout(self.timeout, self.send(&request)).await {
                Ok(Ok(answer)) => {
                    self.took(count, &answer);
                    return Ok(());
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure {
                    text: format!("no answer within {:?}", self.timeout),
                    kind: "timeout",
                    again: None,
                },
            };
            // One that is told to come again in a moment is not lost yet.
            if failure.again.is_none() || pause > FIRST_PAUSE {
                self.says_failing(&failure.text);
            }
            let Some(asked) = failure.again.map(|asked| asked.max(pause)) else {
                break failure;
            };
            if began.elapsed() + asked >= within.min(self.timeout) {
                break failure;
            }
            tokio::time::sleep(asked).await;
            pause *= 2;
        };
        self.says_failing(&failure.text);
        self.exported.with(&[failure.kind]).inc_by(count as u64);
        Err(failure.text)
    }

    /// A batch took too long and was given up from outside.
    pub(crate) fn timed_out(&mut self, count: usize, after: Duration) {
        self.exported.with(&["timeout"]).inc_by(count as u64);
        self.says_failing(&format!("no answer within {after:?}"));
    }

    async fn send(&mut self, request: &Written) -> Result<ExportTraceServiceResponse, Failure> {
        match &mut self.line {
            Line::Grpc(client) => {
                let mut request = tonic::Request::new(request.clone());
                *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
                let unavailable = |error: tonic::transport::Error| Status::from_error(error.into());
                let answer = match client.ready().await.map_err(unavailable) {
                    Ok(()) => {
                        client
                            .unary(request, PathAndQuery::from_static(EXPORT), AsWritten)
                            .await
                    }
                    Err(status) => Err(status),
                };
                answer
                    .map(tonic::Response::into_inner)
                    .map_err(|status| of_status(&status))
            }
            Line::Http(client, uri, compression) => {
                let body = match compression {
                    Compression::None => request.to_bytes(),
                    Compression::Gzip => request.to_gzip(),
                };
                let mut request = Request::post(uri.clone())
                    .body(Full::new(body))
                    .map_err(|error| Failure::last("malformed", error.to_string()))?;
                *request.headers_mut() = self.headers.clone();
                let protobuf = http::HeaderValue::from_static("application/x-protobuf");
                request.headers_mut().insert(header::CONTENT_TYPE, protobuf);
                if *compression == Compression::Gzip {
                    let gzip = http::HeaderValue::from_static("gzip");
                    request.headers_mut().insert(header::CONTENT_ENCODING, gzip);
                }
                let answer = client.request(request).await;
                let answer = answer.map_err(|error| Failure {
                    text: with_causes(&error),
                    kind: "unavailable",
                    again: Some(Duration::ZERO),
                })?;
                let (head, body) = answer.into_parts();
                let body = Limited::new(body, MAX_ANSWER).collect().await;
                if head.status != StatusCode::OK {
                    return Err(of_http(head.status, &head.headers));
                }
                let body = body
                    .map_err(|error| Failure::last("malformed", error.to_string()))?
                    .to_bytes();
                // Nobody sends anything else, and if so the spans may or may not be there.
                ExportTraceServiceResponse::decode(body).map_err(|error| Failure::last("malformed", error.to_string()))
            }
        }
    }

    fn took(&mut self, count: usize, answer: &ExportTraceServiceResponse) {
        let rejected = answer
            .partial_success
            .as_ref()
            .map_or(0, |partial| partial.rejected_spans);
        let rejected = u64::try_from(rejected).unwrap_or_default().min(count as u64);
        if rejected > 0 {
            let why = answer
                .partial_success
                .as_ref()
                .map_or("", |partial| partial.error_message.as_str());
            tracing::debug!(rejected, why, "the collector did not take all spans");
            self.exported.with(&["rejected"]).inc_by(rejected);
        }
        self.exported.with(&[""]).inc_by(count as u64 - rejected);
        if std::mem::take(&mut self.is_failing) {
            tracing::info!(endpoint = self.endpoint, "traces are exported again");
        }
    }

    fn says_failing(&mut self, error: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(
                endpoint = self.endpoint,
                error,
                "traces cannot be exported and are dropped; this is said once until it works again"
            );
        }
    }
}

impl Failure {
    fn last(kind: &'static str, text: String) -> Self {
        Self {
            text,
            kind,
            again: None,
        }
    }
}

/// OTLP/gRPC, "Failures": which codes are worth another try.
fn of_status(status: &Status) -> Failure {
    let kind = crate::rpc::code_name(status.code().into());
    let again = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Some(Duration::ZERO),
        _ => None,
    };
    Failure {
        text: format!("{kind}: {}", status.message()),
        kind,
        again,
    }
}

/// OTLP/HTTP, "Retryable Response Codes" and "OTLP/HTTP Throttling".
fn of_http(status: StatusCode, headers: &HeaderMap) -> Failure {
    let asked = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    Failure {
        text: format!("the collector answers {status}"),
        kind: "http",
        again: matches!(status.as_u16(), 429 | 502 | 503 | 504).then_some(asked),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Layers that say what the one below says.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination")
            .field("endpoint", &self.endpoint)
            .field("protocol", &self.protocol)
            .field("compression", &self.compression)
            .field("tls", &self.tls)
            .field("headers", &self.headers.len())
            .field("timeout", &self.timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_help_is_tried_again() {
        for (status, again) in [
            (429, true),
            (502, true),
            (503, true),
            (504, true),
            (500, false),
            (400, false),
            (404, false),
        ] {
            let failure = of_http(StatusCode::from_u16(status).expect("a status"), &HeaderMap::new());
            assert_eq!(failure.again.is_some(), again, "{status}");
        }
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, http::HeaderValue::from_static("7"))]);
        let failure = of_http(StatusCode::SERVICE_UNAVAILABLE, &headers);
        assert_eq!(failure.again, Some(Duration::from_secs(7)));
        for (code, again) in [
            (Code::Unavailable, true),
            (Code::InvalidArgument, false),
            (Code::Unauthenticated, false),
        ] {
            assert_eq!(of_status(&Status::new(code, "x")).again.is_some(), again, "{code:?}");
        }
    }
}
