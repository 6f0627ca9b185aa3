//! Collectors as they may be: over HTTP, silent, refusing, talking nonsense; and more spans than anybody can take.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Output,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;

use crate::process::{logged, run};

/// Reads one HTTP/1.1 request with a length: its head in lower case and its body.
fn read_request(socket: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())?;
            while bytes.len() < end + 4 + length {
                let read = socket.read(&mut piece).ok().filter(|read| *read > 0)?;
                bytes.extend_from_slice(&piece[..read]);
            }
            return Some((head, bytes[end + 4..].to_vec()));
        }
        let read = socket.read(&mut piece).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
    }
}

type Heard = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A collector over HTTP that answers each request with what `answers` says, the last one for ever.
fn http_collector(answers: Vec<&'static str>) -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let heard = Heard::default();
    let told = Arc::clone(&heard);
    thread::spawn(move || {
        let mut number = 0;
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            while let Some(request) = read_request(&mut socket) {
                told.lock().expect("not poisoned").push(request);
                let answer = answers[number.min(answers.len() - 1)];
                number += 1;
                if socket.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    (endpoint, heard)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const LATER: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const NEVER: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
const GARBAGE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n\x7f\x7f\x7f\x7f\x7f";
const NO_HTTP: &str = "220 mail.example ESMTP\r\n";

fn exported(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| line.starts_with("otel_sdk_"));
    lines.map(str::to_owned).collect()
}

#[test]
fn protobuf_over_http_arrives_with_its_headers() {
    let (endpoint, heard) = http_collector(vec![LATER, OK]);
    let output = run(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=se%20cret"),
    ]);
    let heard = heard.lock().expect("not poisoned").clone();
    assert!(heard.len() >= 2, "the first was refused for now and sent again");
    for (head, _) in &heard {
        assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        assert!(head.contains("x-api-key: se cret"), "{head}");
    }
    // What was refused came once more.
    let taken = heard.iter().skip(1).map(|(_, body)| {
        let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("decodes");
        let scopes = request.resource_spans.into_iter().flat_map(|spans| spans.scope_spans);
        scopes.map(|scope| scope.spans.len()).sum::<usize>()
    });
    assert_eq!(taken.sum::<usize>(), 3);
    assert_eq!(
        logged(&output).len(),
        3,
        "nothing but the calls: one that is told to come again is not lost"
    );
    assert!(
        exported(&output).contains(&"otel_sdk_exporter_span_exported_total{error_type=\"\"} 3".to_owned()),
        "{output:?}"
    );
}

/// Whatever a collector does, the calls are made, one line says so, and the process ends in its time.
#[test]
fn no_collector_disturbs_a_call() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_at = format!("http://{}", silent.local_addr().expect("bound"));
    for (kind, endpoint, protocol) in [
        ("hangs", silent_at.clone(), "grpc"),
        ("hangs", silent_at, "http/protobuf"),
        ("refuses", http_collector(vec![NEVER]).0, "http/protobuf"),
        ("garbage", http_collector(vec![GARBAGE]).0, "http/protobuf"),
        ("garbage", http_collector(vec![NO_HTTP]).0, "http/protobuf"),
        ("garbage", http_collector(vec![NO_HTTP]).0, "grpc"),
    ] {
        let began = Instant::now();
        let output = run(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
        ]);
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "{kind} {protocol}: {:?}",
            began.elapsed()
        );
        let lines = logged(&output);
        assert_eq!(
            lines.len(),
            4,
            "{kind} {protocol}: the calls and one warning: {lines:#?}"
        );
        let warnings = lines
            .iter()
            .filter(|line| line.contains("traces cannot be exported"))
            .count();
        assert_eq!(warnings, 1, "{kind} {protocol}: {lines:#?}");
        let lost: u64 = exported(&output)
            .iter()
            .filter(|line| line.contains("exporter_span_exported") && !line.contains("error_type=\"\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        assert_eq!(lost, 3, "{kind} {protocol}: what is lost is counted: {output:?}");
    }
}

/// More spans than the queue holds, while the collector hangs: memory is bounded, and all that is not there is counted.
#[test]
fn a_flood_is_dropped_and_counted() {
    const OFFERED: u64 = 100_000;
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("bound"));
    let output = run(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "300"),
        ("CHILD_CALLS", &OFFERED.to_string()),
    ]);
    let metrics = exported(&output);
    let of = |name: &str| -> u64 {
        metrics
            .iter()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    };
    let dropped = of("otel_sdk_processor_span_processed_total{error_type=\"queue_full\"}");
    let handed = of("otel_sdk_processor_span_processed_total{error_type=\"\"}");
    assert_eq!(dropped + handed, OFFERED, "{metrics:#?}");
    assert!(dropped > OFFERED / 2, "{metrics:#?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().parse().ok()).expect(name)
    };
    // 2,048 spans of some 1 KiB wait, and as many may be on their way.
    assert!(number("grown_kib") < 32 * 1_024, "{text}");
}
