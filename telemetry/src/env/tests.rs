//! A row for each variable: what it does, and what is said of a value that cannot be read.

use super::*;

fn read(variables: &[(&str, &str)]) -> Environment {
    Environment::read(|name| {
        variables
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    })
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");

#[test]
fn an_empty_environment_exports_nothing_and_says_nothing() {
    let read = read(&[]);
    assert!(read.traces.is_none() && !read.names_service && read.warnings.is_empty());
    assert_eq!(read.propagators, Propagators::DEFAULT);
    assert_eq!(read.sampling, sampling::Settings::default());
    let Exporting { batch, lengths, .. } = read.exporting;
    assert_eq!(lengths, Lengths(None));
    let seconds = Duration::from_secs;
    let (delay, timeout) = (seconds(5), seconds(30));
    assert_eq!(
        batch,
        BatchSettings {
            delay,
            timeout,
            queue: 2_048,
            batch: 512
        }
    );
}

#[test]
fn where_traces_go() {
    let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    for (variables, expected, warnings) in [
        (vec![ENDPOINT], Some("http://collector:4317"), 0),
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], None, 0),
        (
            vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1")],
            Some("http://t:1"),
            0,
        ),
        (
            vec![ENDPOINT, ("OTEL_TRACES_EXPORTER", "otlp")],
            Some("http://collector:4317"),
            0,
        ),
        (vec![ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")], None, 0),
        (vec![ENDPOINT, ("OTEL_TRACES_EXPORTER", "zipkin")], None, 1),
        (vec![("OTEL_TRACES_EXPORTER", "otlp")], None, 1),
        (vec![ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")], None, 0),
        (
            vec![ENDPOINT, ("OTEL_SDK_DISABLED", "false")],
            Some("http://collector:4317"),
            0,
        ),
        (
            vec![ENDPOINT, ("OTEL_SDK_DISABLED", "1")],
            Some("http://collector:4317"),
            1,
        ),
        (
            vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            Some("http://collector:4317"),
            0,
        ),
        (vec![ENDPOINT, http], Some("http://collector:4317/v1/traces"), 0),
        (
            vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/"), http],
            Some("http://c:4318/v1/traces"),
            0,
        ),
        (
            vec![("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/x"), http],
            Some("http://c:4318/x"),
            0,
        ),
        (
            vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
            Some("http://collector:4317"),
            1,
        ),
        (
            vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"), http],
            Some("http://collector:4317"),
            0,
        ),
        (
            vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")],
            Some("http://collector:4317"),
            0,
        ),
        (
            vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")],
            Some("http://collector:4317"),
            1,
        ),
        (
            vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none")],
            Some("http://collector:4317"),
            0,
        ),
        (
            vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/a.pem")],
            Some("http://collector:4317"),
            1,
        ),
        (
            vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/a.pem")],
            Some("http://collector:4317"),
            1,
        ),
        (
            vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/a")],
            Some("http://collector:4317"),
            1,
        ),
        (
            vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_INSECURE", "true")],
            Some("http://collector:4317"),
            0,
        ),
        (
            vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "no")],
            Some("http://collector:4317"),
            1,
        ),
        (vec![("OTEL_CONFIG_FILE", "/otel.yaml")], None, 1),
        (vec![("OTEL_METRICS_EXPORTER", "otlp")], None, 1),
        (
            vec![("OTEL_METRICS_EXPORTER", "prometheus"), ("OTEL_LOGS_EXPORTER", "none")],
            None,
            0,
        ),
        (vec![("OTEL_LOGS_EXPORTER", "otlp")], None, 1),
    ] {
        let read = read(&variables);
        let endpoint = read.traces.as_ref().map(|traces| traces.endpoint.as_str());
        assert_eq!(endpoint, expected, "{variables:?}");
        assert_eq!(read.warnings.len(), warnings, "{variables:?}: {:?}", read.warnings);
    }
}

#[test]
fn how_a_request_is_made() {
    for (variables, expected, warnings) in [
        (vec![], 10_000, 0),
        (vec![("OTEL_EXPORTER_OTLP_TIMEOUT", "250")], 250, 0),
        (
            vec![
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
                ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "70"),
            ],
            70,
            0,
        ),
        (vec![("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")], 10_000, 1),
    ] {
        let read = read(&[&[ENDPOINT][..], &variables].concat());
        let timeout = read.traces.expect("a destination").timeout;
        assert_eq!(timeout, Duration::from_millis(expected), "{variables:?}");
        assert_eq!(read.warnings.len(), warnings, "{variables:?}");
    }
    let list = (
        "OTEL_EXPORTER_OTLP_HEADERS",
        "api-key = s%20ecret ,x=1, nonsense, b\u{7f}d=1",
    );
    let read = read(&[ENDPOINT, list]);
    let headers = read.traces.expect("a destination").headers;
    assert_eq!(headers.get("api-key").map(HeaderValue::as_bytes), Some(&b"s ecret"[..]));
    assert_eq!(headers.get("x").map(HeaderValue::as_bytes), Some(&b"1"[..]));
    assert_eq!((headers.len(), read.warnings.len()), (2, 2));
    assert!(headers["api-key"].is_sensitive() && !read.warnings.concat().contains("nonsense"));
}

#[test]
fn batches_and_limits() {
    let ms = Duration::from_millis;
    let of = |variables: &[(&str, &str)]| {
        let read = read(variables);
        (
            read.exporting.batch,
            read.exporting.limits,
            read.exporting.lengths,
            read.warnings.len(),
        )
    };
    let usual = of(&[]).0;
    for (variable, expected, warnings) in [
        (
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            BatchSettings { delay: ms(20), ..usual },
            0,
        ),
        (
            ("OTEL_BSP_EXPORT_TIMEOUT", "70"),
            BatchSettings {
                timeout: ms(70),
                ..usual
            },
            0,
        ),
        (
            ("OTEL_BSP_MAX_QUEUE_SIZE", "4096"),
            BatchSettings { queue: 4_096, ..usual },
            0,
        ),
        (
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            BatchSettings {
                queue: 100,
                batch: 100,
                ..usual
            },
            0,
        ),
        (
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "9"),
            BatchSettings { batch: 9, ..usual },
            0,
        ),
        (
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "9000"),
            BatchSettings { batch: 2_048, ..usual },
            1,
        ),
        (("OTEL_BSP_MAX_QUEUE_SIZE", "0"), usual, 1),
        (("OTEL_BSP_SCHEDULE_DELAY", "-5"), usual, 1),
    ] {
        let (batch, _, _, found) = of(&[variable]);
        assert_eq!((batch, found), (expected, warnings), "{variable:?}");
    }
    let numbers = |limits: SpanLimits| {
        [
            limits.max_attributes_per_span,
            limits.max_events_per_span,
            limits.max_links_per_span,
            limits.max_attributes_per_event,
            limits.max_attributes_per_link,
        ]
    };
    for (variable, expected) in [
        (("OTEL_ATTRIBUTE_COUNT_LIMIT", "7"), [7, 128, 128, 7, 7]),
        (("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "7"), [7, 128, 128, 128, 128]),
        (("OTEL_SPAN_EVENT_COUNT_LIMIT", "7"), [128, 7, 128, 128, 128]),
        (("OTEL_SPAN_LINK_COUNT_LIMIT", "7"), [128, 128, 7, 128, 128]),
        (("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "7"), [128, 128, 128, 7, 128]),
        (("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "7"), [128, 128, 128, 128, 7]),
        (("OTEL_ATTRIBUTE_COUNT_LIMIT", "many"), [128; 5]),
    ] {
        assert_eq!(numbers(of(&[variable]).1), expected, "{variable:?}");
    }
    for (variables, expected) in [
        (vec![("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "9")], Some(9)),
        (
            vec![
                ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "5"),
                ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "9"),
            ],
            Some(5),
        ),
        (vec![("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "long")], None),
    ] {
        assert_eq!(of(&variables).2, Lengths(expected), "{variables:?}");
    }
}

#[test]
fn propagators_are_chosen_by_name() {
    let none = Propagators::NONE;
    for (list, expected, warnings) in [
        ("tracecontext,baggage", Propagators::DEFAULT, 0),
        (
            "tracecontext",
            Propagators {
                trace_context: true,
                ..none
            },
            0,
        ),
        (" baggage ", Propagators { baggage: true, ..none }, 0),
        ("none", none, 0),
        ("b3", Propagators { b3: true, ..none }, 0),
        (
            "b3multi,baggage",
            Propagators {
                b3_multi: true,
                baggage: true,
                ..none
            },
            0,
        ),
        (
            "jaeger,tracecontext",
            Propagators {
                trace_context: true,
                ..none
            },
            1,
        ),
    ] {
        let read = read(&[("OTEL_PROPAGATORS", list)]);
        assert_eq!(read.propagators, expected, "{list}");
        assert_eq!(read.warnings.len(), warnings, "{list}");
    }
}

#[test]
fn the_environment_may_name_the_service() {
    assert!(read(&[("OTEL_SERVICE_NAME", "x")]).names_service);
    assert!(read(&[("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name = x")]).names_service);
    assert!(!read(&[("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=x")]).names_service);
}
