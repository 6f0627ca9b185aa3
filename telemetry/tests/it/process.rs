//! `init` as a binary uses it: each case is a process of its own (this test binary again), because logging, propagators
//! and exporter are installed once a process and follow its environment.

use std::{
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
};
use telemetry::{Config, LogFormat, client::CallSpan};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

/// The process under test: installs telemetry, makes a call's spans, logs a line within it, flushes and ends.
#[test]
#[ignore = "started by the other tests of this file"]
fn child() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let config = Config {
            service_name: "ticket-svc".into(),
            service_version: "1.2.3".into(),
            instance_id: Some("t-1".into()),
            log_format: LogFormat::Json,
            default_filter: "info".into(),
        };
        let guard = telemetry::init(config).expect("installed");
        // What a flood and a failure look like is asked for by other tests.
        let asked = |name| std::env::var(name).ok().and_then(|value| value.parse::<i32>().ok());
        let (calls, code) = (asked("CHILD_CALLS"), asked("CHILD_CODE").unwrap_or(0));
        let before = resident_kib();
        for _ in 0..calls.unwrap_or(3) {
            let call = CallSpan::start("/pkg.Svc/Do", "user-svc");
            if calls.is_none() {
                let _entered = call.context().clone().attach();
                tracing::info!("calling");
            }
            call.finish(code);
        }
        println!("grown_kib {}", resident_kib().saturating_sub(before));
        let deadline = if calls.is_some() { 30 } else { 3 };
        guard.shutdown(Duration::from_secs(deadline)).await;
        print!("{}", telemetry::metrics::encode());
    });
}

/// Memory that the process has.
fn resident_kib() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    resident.unwrap_or_default() * 4
}

pub(crate) fn run(variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command
        .args(["--exact", "process::child", "--ignored", "--nocapture"])
        .stdin(Stdio::null());
    for (name, _) in std::env::vars()
        .filter(|(name, _)| name.starts_with("OTEL_") || name.starts_with("TESSERA_") || name == "RUST_LOG")
    {
        command.env_remove(name);
    }
    let output = command
        .env("OTEL_BSP_SCHEDULE_DELAY", "20")
        .envs(variables.iter().copied())
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    output
}

pub(crate) fn logged(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .filter(|line| line.starts_with('{'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn without_an_endpoint_nothing_is_dialled_and_nothing_said_about_it() {
    let lines = logged(&run(&[]));
    assert_eq!(lines.len(), 3, "{lines:#?}");
    for line in lines {
        assert!(
            line.contains("\"message\":\"calling\"") && line.contains("\"trace_id\":\""),
            "{line}"
        );
    }
}

#[test]
fn what_cannot_be_honoured_is_said_once() {
    for (variables, expected) in [
        (&[("OTEL_PROPAGATORS", "jaeger")][..], "jaeger is not supported"),
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url")][..],
            "no traces are exported to not a url",
        ),
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector:4317")][..],
            "no traces are exported to ftp://",
        ),
        (
            &[("OTEL_TRACES_EXPORTER", "otlp")][..],
            "needs OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
    ] {
        let lines = logged(&run(variables));
        let warnings: Vec<&String> = lines.iter().filter(|line| line.contains("\"WARN\"")).collect();
        assert_eq!(warnings.len(), 1, "{variables:?}: {lines:#?}");
        assert!(warnings[0].contains(expected), "{}", warnings[0]);
    }
}

/// A collector that is away must cost one log line, and no call and no shutdown may wait for it.
#[test]
fn a_collector_that_is_away_is_mentioned_once() {
    let started = Instant::now();
    // Port 9 (discard): nobody listens there.
    let lines = logged(&run(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")]));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let warnings: Vec<&String> = lines.iter().filter(|line| line.contains("\"WARN\"")).collect();
    assert_eq!(warnings.len(), 1, "{lines:#?}");
    assert!(warnings[0].contains("traces cannot be exported"), "{}", warnings[0]);
    assert_eq!(lines.len(), 4, "the three calls and the warning: {lines:#?}");
}

/// Keeps what it receives.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.lock().expect("not poisoned").push(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_endpoint_spans_arrive_with_their_resource() {
    for (more, service_name) in [
        (None, "ticket-svc"),
        (Some(("OTEL_SERVICE_NAME", "renamed")), "renamed"),
    ] {
        let collector = Collector::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let server = tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(TraceServiceServer::new(collector.clone()))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let output = tokio::task::spawn_blocking(move || {
            let mut variables = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
            variables.extend(more);
            run(&variables)
        });
        let lines = logged(&output.await.expect("it ran"));
        assert_eq!(lines.len(), 3, "nothing but the calls: {lines:#?}");
        server.abort();

        let received = collector.0.lock().expect("not poisoned").clone();
        let mut spans = 0;
        for resource_spans in received.iter().flat_map(|request| &request.resource_spans) {
            let resource = resource_spans.resource.as_ref().expect("a resource");
            assert_eq!(
                text(&resource.attributes, "service.name").as_deref(),
                Some(service_name)
            );
            assert_eq!(text(&resource.attributes, "service.version").as_deref(), Some("1.2.3"));
            assert_eq!(
                text(&resource.attributes, "service.instance.id").as_deref(),
                Some("t-1")
            );
            assert!(text(&resource.attributes, "process.pid").is_some());
            for span in resource_spans.scope_spans.iter().flat_map(|scope| &scope.spans) {
                assert_eq!(span.name, "pkg.Svc/Do");
                assert_eq!(text(&span.attributes, "rpc.system.name").as_deref(), Some("grpc"));
                spans += 1;
            }
        }
        assert_eq!(spans, 3);
    }
}
