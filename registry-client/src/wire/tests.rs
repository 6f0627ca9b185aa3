//! What hostile or newer peers may send, and what becomes of it.

use prost::Message as _;
use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;

fn any_instance() -> v1::Instance {
    v1::Instance {
        service: "ticket-svc".into(),
        id: "a".into(),
        endpoints: vec![v1::Endpoint {
            protocol: 0,
            host: "10.0.0.1".into(),
            port: 7101,
        }],
        ..v1::Instance::default()
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let instance = Instance::from(any_instance());
    assert_eq!(instance.weight, 100);
    assert_eq!(instance.status, InstanceStatus::Up);
    assert_eq!(instance.grpc_address().as_deref(), Some("10.0.0.1:7101"));
    assert!(instance.is_callable());
}

#[test]
fn numbers_from_the_future_are_tolerated() {
    let mut wire = any_instance();
    wire.status = 99;
    wire.endpoints[0].protocol = -5;
    wire.endpoints[0].port = 70_000;
    let instance = Instance::from(wire);
    assert_eq!(instance.status, InstanceStatus::Unknown(99));
    assert_eq!(instance.endpoints[0].protocol, Protocol::Unknown(-5));
    assert_eq!(instance.endpoints[0].port, 0);
    assert!(!instance.is_callable());

    let step = WatchStep::from(v1::WatchResponse {
        revision: 7,
        confidence: Some(v1::Confidence { state: 42, age: None }),
        change: None,
        ..v1::WatchResponse::default()
    });
    assert_eq!(
        step,
        WatchStep::Bookmark {
            revision: 7,
            confidence: Confidence::Unknown(42)
        }
    );
}

#[test]
fn a_step_tells_its_history_and_its_cause() {
    let told = Told::from(v1::WatchResponse {
        revision: 7,
        history_id: "h1".into(),
        change: Some(v1::watch_response::Change::Snapshot(v1::Snapshot {
            instances: Vec::new(),
            cause: v1::snapshot::Cause::HistoryChanged.into(),
            more: false,
        })),
        ..v1::WatchResponse::default()
    });
    assert_eq!(told.history, "h1");
    assert!(
        matches!(
            told.step,
            WatchStep::Snapshot {
                revision: 7,
                cause: SnapshotCause::HistoryChanged,
                ..
            }
        ),
        "{told:?}"
    );
}

#[test]
fn an_event_without_content_is_passed_over() {
    let step = WatchStep::from(v1::WatchResponse {
        revision: 7,
        change: Some(v1::watch_response::Change::Delta(v1::Delta {
            events: vec![
                v1::InstanceEvent { event: None },
                v1::InstanceEvent {
                    event: Some(v1::instance_event::Event::Removed(v1::Removal {
                        id: "a".into(),
                        reason: 77,
                        removed_at: Some(prost_types::Timestamp {
                            seconds: i64::MIN,
                            nanos: 0,
                        }),
                        ..v1::Removal::default()
                    })),
                },
            ],
            ..Default::default()
        })),
        ..v1::WatchResponse::default()
    });
    let WatchStep::Delta { events, .. } = step else {
        panic!("{step:?}")
    };
    assert!(
        matches!(
            &events[..],
            [InstanceEvent::Removed {
                reason: RemovalReason::Unknown(77),
                removed_at: None,
                ..
            }]
        ),
        "{events:?}"
    );
}

#[test]
fn an_operators_word_is_laid_over_the_instances_own() {
    let mut wire = any_instance();
    wire.weight = Some(50);
    wire.r#override = Some(v1::GovernanceOverride {
        drained: true,
        weight: Some(10),
        who: "ops".into(),
        ..v1::GovernanceOverride::default()
    });
    let instance = Instance::from(wire);
    assert_eq!((instance.weight, instance.drained), (10, true));
    assert_eq!(instance.governed.map(|governed| governed.who).as_deref(), Some("ops"));
}

#[test]
fn an_instance_survives_the_way_out_and_back() {
    let mut instance = Instance::new("ticket-svc", "a", "[::1]:7101");
    instance.endpoints.push(Endpoint {
        protocol: Protocol::Http,
        host: "10.0.0.1".into(),
        port: 9101,
    });
    instance.weight = 7;
    instance.status = InstanceStatus::Draining;
    instance.metadata.insert("k".into(), "v".into());
    instance.grpc_services.push("tessera.ticket.v1.TicketService".into());
    instance.started_at = Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5));
    assert_eq!(Instance::from(v1::Instance::from(instance.clone())), instance);
}

/// prost-types negates the seconds of a negative duration, which overflows on the smallest number and panics in a debug
/// build: a peer's `RetryInfo` could have stopped a registrar.
#[test]
fn no_duration_panics() {
    let cases = [
        ((1, 500_000_000), Some(Duration::from_millis(1_500))),
        ((0, 0), Some(Duration::ZERO)),
        ((-1, 0), None),
        ((0, -1), None),
        ((i64::MIN, i32::MIN), None),
        ((i64::MAX, i32::MAX), None),
        (
            (i64::MAX, 999_999_999),
            Some(Duration::new(i64::MAX as u64, 999_999_999)),
        ),
    ];
    for ((seconds, nanos), expected) in cases {
        assert_eq!(
            duration(prost_types::Duration { seconds, nanos }),
            expected,
            "{seconds} s {nanos} ns"
        );
    }
}

#[test]
fn no_time_panics() {
    assert_eq!(timestamp(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), None);
    for seconds in [i64::MIN, -1, 0, i64::MAX] {
        for nanos in [i32::MIN, -1, 0, i32::MAX] {
            let _ = system_time(prost_types::Timestamp { seconds, nanos });
        }
    }
}

#[test]
fn an_error_answer_is_read_whole() {
    let mut details = ErrorDetails::new();
    details
        .set_error_info("LEASE_UNKNOWN", "tessera", std::collections::HashMap::new())
        .set_retry_info(Some(Duration::from_millis(1_250)))
        .add_bad_request_violation("lease_id", "unknown");
    let status = Status::with_error_details(Code::NotFound, "no such lease", details);
    let Error::Answered(answer) = error("http://r:7000", &status) else {
        panic!("not an answer")
    };
    assert_eq!(answer.code, Code::NotFound);
    assert_eq!(answer.reason, "LEASE_UNKNOWN");
    assert_eq!(answer.retry_after, Some(Duration::from_millis(1_250)));
    assert_eq!(answer.violations, [("lease_id".to_owned(), "unknown".to_owned())]);
}

#[test]
fn error_details_of_any_make_are_survived() {
    let retry = |seconds, nanos| {
        pb::RetryInfo {
            retry_delay: Some(prost_types::Duration { seconds, nanos }),
        }
        .encode_to_vec()
    };
    let any = |name: &str, value: Vec<u8>| prost_types::Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value,
    };
    let details = [
        vec![0xFF; 64],
        pb::Status {
            code: 5,
            message: String::new(),
            details: vec![
                any("RetryInfo", retry(i64::MIN, 0)),
                any("ErrorInfo", vec![0xFF; 9]),
                any("Whatever", vec![1, 2, 3]),
            ],
        }
        .encode_to_vec(),
    ];
    for bytes in details {
        let status = Status::with_details(Code::NotFound, "no", bytes.into());
        let Error::Answered(answer) = error("http://r:7000", &status) else {
            panic!("not an answer")
        };
        assert_eq!((answer.retry_after, answer.reason.as_str()), (None, ""));
    }
}

#[test]
fn a_local_failure_is_told_apart_from_an_answer() {
    let local = Status::from_error(Box::new(std::io::Error::other("broken pipe")));
    assert_eq!(
        error("http://r:7000", &local),
        Error::Unreachable {
            endpoint: "http://r:7000".into(),
            problem: "broken pipe".into()
        }
    );
}
