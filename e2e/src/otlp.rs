//! A trace backend in the test's process: receives OTLP over gRPC and over HTTP at one port, and keeps the spans, as Jaeger would.

mod posted;
mod tree;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

pub use self::tree::{CLIENT, CONSUMER, INTERNAL, Line, PRODUCER, SERVER, Tree, of, tree};

/// A received span, flattened to what tests look at.
#[derive(Debug, Clone)]
pub struct Span {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// 16 hexadecimal digits; empty for a root.
    pub parent_id: String,
    /// Its name.
    pub name: String,
    /// As in the protocol: 2 server, 3 client, 1 internal.
    pub kind: i32,
    /// When it began, in nanoseconds since 1970, by the clock of its process's machine.
    pub began: u64,
    /// As in the protocol: 0 unset, 1 ok, 2 error.
    pub status: i32,
    /// What is said of an error; empty without one.
    pub message: String,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// Its events in order: their names, and their attributes as text.
    pub events: Vec<(String, BTreeMap<String, String>)>,
    /// What it is linked to: traces and spans, in hexadecimal digits.
    pub links: Vec<(String, String)>,
    /// The attributes of its links, and the state that travels with its trace, as text.
    pub rest: String,
    /// The resource's attributes, as text.
    pub resource: BTreeMap<String, String>,
}

/// The receiver. Stops when dropped.
#[derive(Debug)]
pub struct Receiver {
    /// For OTEL_EXPORTER_OTLP_ENDPOINT.
    pub endpoint: String,
    spans: Spans,
    server: JoinHandle<()>,
}

type Spans = Arc<Mutex<Vec<Span>>>;

struct Collector(Spans);

impl Receiver {
    /// Listens on a free port.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
        let spans = Spans::default();
        let service = TraceServiceServer::new(Collector(Arc::clone(&spans)));
        let kept = Arc::clone(&spans);
        let server = tokio::spawn(async move {
            let serving = tonic::transport::Server::builder()
                .accept_http1(true)
                .add_service(service)
                .add_service(posted::Posted(kept));
            serving
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .expect("serves");
        });
        Self {
            endpoint,
            spans,
            server,
        }
    }

    /// The spans of a trace that have come so far.
    pub fn trace(&self, trace_id: &str) -> Vec<Span> {
        self.all()
            .into_iter()
            .filter(|span| span.trace_id == trace_id)
            .collect()
    }

    /// All spans that have come so far.
    pub fn all(&self) -> Vec<Span> {
        self.spans.lock().expect("not poisoned").clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        keep(&self.0, request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse { partial_success: None }))
    }
}

fn keep(spans: &Spans, request: ExportTraceServiceRequest) {
    let mut spans = spans.lock().expect("not poisoned");
    for resource_spans in request.resource_spans {
        let resource = texts(
            resource_spans
                .resource
                .map(|resource| resource.attributes)
                .unwrap_or_default(),
        );
        for span in resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                trace_id: hex(&span.trace_id),
                span_id: hex(&span.span_id),
                parent_id: hex(&span.parent_span_id),
                name: span.name,
                kind: span.kind,
                began: span.start_time_unix_nano,
                status: span.status.as_ref().map(|status| status.code).unwrap_or_default(),
                message: span.status.map(|status| status.message).unwrap_or_default(),
                attributes: texts(span.attributes),
                events: span
                    .events
                    .into_iter()
                    .map(|event| (event.name, texts(event.attributes)))
                    .collect(),
                links: span
                    .links
                    .iter()
                    .map(|link| (hex(&link.trace_id), hex(&link.span_id)))
                    .collect(),
                rest: format!("{:?} {}", span.links, span.trace_state),
                resource: resource.clone(),
            });
        }
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes
        .into_iter()
        .map(|pair| {
            let text = match pair.value.and_then(|value| value.value) {
                Some(Value::StringValue(text)) => text,
                Some(Value::IntValue(number)) => number.to_string(),
                Some(Value::BoolValue(truth)) => truth.to_string(),
                Some(other) => format!("{other:?}"),
                None => String::new(),
            };
            (pair.key, text)
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
