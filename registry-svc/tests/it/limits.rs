//! Bad input: each row is a request that is refused and the field that the answer must name.

use std::{
    future,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use proto::registry::v1 as wire;
use tower_service::Service as _;

use crate::support::{Client, Fixture, fields, ids, instance, register, registration};

/// The field that the answer must name, and what spoils a request that is otherwise good.
type Rows<T> = [(&'static str, fn(&mut T))];

const REGISTER: &Rows<wire::RegisterRequest> = &[
    ("instances", |r| r.instances.clear()),
    ("instances", |r| r.instances = vec![instance("a-svc", ""); 65]),
    ("instances[1].id", |r| {
        r.instances = vec![instance("a-svc", "x"), instance("a-svc", "x")]
    }),
    ("request_id", |r| r.request_id = "not-a-uuid".into()),
    ("heartbeat_interval", |r| {
        r.heartbeat_interval = Some(seconds(0, 99_999_999))
    }),
    ("heartbeat_interval", |r| r.heartbeat_interval = Some(seconds(3_601, 0))),
    ("heartbeat_interval", |r| r.heartbeat_interval = Some(seconds(-1, 0))),
    ("heartbeat_interval", |r| {
        r.heartbeat_interval = Some(seconds(i64::MAX, 0))
    }),
    // prost's own conversion normalises these first; in a debug build the smallest one panicked there.
    ("heartbeat_interval", |r| {
        r.heartbeat_interval = Some(seconds(i64::MIN, 0))
    }),
    ("heartbeat_interval", |r| {
        r.heartbeat_interval = Some(seconds(i64::MIN, i32::MIN))
    }),
    ("heartbeat_interval", |r| {
        r.heartbeat_interval = Some(seconds(i64::MIN, i32::MAX))
    }),
    ("heartbeat_interval", |r| r.heartbeat_interval = Some(seconds(1, -1))),
    ("heartbeat_interval", |r| {
        r.heartbeat_interval = Some(seconds(0, i32::MAX))
    }),
    ("heartbeat_interval", |r| {
        r.heartbeat_interval = Some(seconds(0, 100_000_000))
    }),
    ("misses_allowed", |r| r.misses_allowed = 101),
    ("lease_secret", |r| r.lease_id = "0".repeat(32)),
    ("lease_id", |r| r.lease_secret = "0".repeat(32)),
    ("lease_id", |r| {
        (r.lease_id, r.lease_secret) = ("0".repeat(65), "x".into())
    }),
    ("instances[0].namespace", |r| r.instances[0].namespace = "Prod".into()),
    ("instances[0].service", |r| r.instances[0].service.clear()),
    ("instances[0].service", |r| r.instances[0].service = "<script>".into()),
    ("instances[0].service", |r| {
        r.instances[0].service = "a".repeat(1_000_000)
    }),
    ("instances[0].id", |r| r.instances[0].id = "..".into()),
    ("instances[0].id", |r| r.instances[0].id = "\u{1b}[31m".into()),
    ("instances[0].id", |r| r.instances[0].id = "x".repeat(129)),
    ("instances[0].endpoints", |r| r.instances[0].endpoints.clear()),
    ("instances[0].endpoints", |r| {
        r.instances[0].endpoints = vec![r.instances[0].endpoints[0].clone(); 9]
    }),
    ("instances[0].endpoints[0].host", |r| {
        r.instances[0].endpoints[0].host = "0.0.0.0".into()
    }),
    ("instances[0].endpoints[0].host", |r| {
        r.instances[0].endpoints[0].host = "http://a:80/".into()
    }),
    ("instances[0].endpoints[0].host", |r| {
        r.instances[0].endpoints[0].host.clear()
    }),
    ("instances[0].endpoints[0].port", |r| {
        r.instances[0].endpoints[0].port = 0
    }),
    ("instances[0].endpoints[0].port", |r| {
        r.instances[0].endpoints[0].port = 70_000
    }),
    ("instances[0].endpoints[0].protocol", |r| {
        r.instances[0].endpoints[0].protocol = 9
    }),
    ("instances[0].version", |r| r.instances[0].version = "latest".into()),
    ("instances[0].group", |r| r.instances[0].group = "a b".into()),
    ("instances[0].zone", |r| r.instances[0].zone = "EU".into()),
    ("instances[0].tag", |r| r.instances[0].tag = "1".into()),
    ("instances[0].weight", |r| r.instances[0].weight = Some(1_001)),
    ("instances[0].weight", |r| r.instances[0].weight = Some(u32::MAX)),
    ("instances[0].status", |r| r.instances[0].status = -1),
    ("instances[0].grpc_services", |r| {
        r.instances[0].grpc_services = vec!["a.B".into(); 65]
    }),
    ("instances[0].grpc_services[0]", |r| {
        r.instances[0].grpc_services = vec!["a/b".into()]
    }),
    ("instances[0].metadata", |r| {
        r.instances[0].metadata = (0..65).map(|n| (format!("k{n}"), String::new())).collect()
    }),
    ("instances[0].metadata", |r| {
        r.instances[0].metadata = [("Key".to_owned(), String::new())].into()
    }),
    ("instances[0].metadata", |r| {
        r.instances[0].metadata = [("k".to_owned(), "v".repeat(1_025))].into()
    }),
    ("instances[0].metadata", |r| {
        r.instances[0].metadata = (0..17).map(|n| (format!("k{n}"), "v".repeat(1_000))).collect();
    }),
    ("instances[0].started_at", |r| {
        r.instances[0].started_at = Some(time(-1, 0))
    }),
    ("instances[0].started_at", |r| {
        r.instances[0].started_at = Some(time(i64::MAX, 0))
    }),
    ("instances[0].started_at", |r| {
        r.instances[0].started_at = Some(time(0, 1_000_000_000))
    }),
    ("instances[0].epoch", |r| r.instances[0].epoch = 1),
    ("instances[0].revision", |r| r.instances[0].revision = 1),
    ("instances[0].lease_id", |r| r.instances[0].lease_id = "x".into()),
    ("instances[0].override", |r| {
        r.instances[0].r#override = Some(wire::GovernanceOverride::default())
    }),
];

const fn seconds(seconds: i64, nanos: i32) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos }
}

const fn time(seconds: i64, nanos: i32) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos }
}

#[tokio::test]
async fn a_bad_registration_names_its_field_and_registers_nothing() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    for (row, (field, spoil)) in REGISTER.iter().enumerate() {
        let mut request = wire::RegisterRequest {
            misses_allowed: 4,
            ..registration([instance("a-svc", "")])
        };
        spoil(&mut request);
        let error = client.register(request).await.expect_err(field);
        assert_eq!(fields(&error), [*field], "row {row}: {}", error.message());
        assert!(
            error.message().len() < 500,
            "the value is not repeated: {}",
            error.message()
        );
        assert!(!error.message().contains(char::is_control), "{:?}", error.message());
    }
    assert_eq!(ids(&mut client, "").await, Vec::<String>::new());
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once_but_not_without_end() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let mut request = registration([instance("A", "/")]);
    request.instances[0].endpoints[0].port = 0;
    let error = client.register(request).await.expect_err("three mistakes");
    assert_eq!(
        fields(&error),
        [
            "instances[0].service",
            "instances[0].id",
            "instances[0].endpoints[0].port"
        ]
    );
    let error = client
        .register(registration(vec![wire::Instance::default(); 64]))
        .await
        .expect_err("128 mistakes");
    assert_eq!(fields(&error).len(), 16);
}

#[tokio::test]
async fn bad_calls_of_an_owner_name_their_field() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let lease = register(&mut client, "a-svc", "1").await;
    let (lease_id, lease_secret) = (lease.lease_id, lease.lease_secret);

    let good = wire::DeregisterRequest {
        lease_id: lease_id.clone(),
        lease_secret: lease_secret.clone(),
        ..Default::default()
    };
    let rows: &Rows<wire::DeregisterRequest> = &[
        ("lease_id", |r| r.lease_id.clear()),
        ("lease_secret", |r| r.lease_secret.clear()),
        ("instance_ids[1]", |r| r.instance_ids = vec!["a".into(), "a/b".into()]),
        ("instance_ids", |r| r.instance_ids = vec!["a".into(); 1_025]),
        ("reason", |r| r.set_reason(wire::RemovalReason::Expired)),
        ("reason", |r| r.reason = 77),
        ("detail", |r| r.detail = "x".repeat(257)),
        ("detail", |r| r.detail = "a\nb".into()),
    ];
    for (field, spoil) in rows {
        let mut request = good.clone();
        spoil(&mut request);
        assert_eq!(fields(&client.deregister(request).await.expect_err(field)), [*field]);
    }

    let good = wire::UpdateInstanceRequest {
        lease_id: lease_id.clone(),
        lease_secret: lease_secret.clone(),
        instance: Some(instance("a-svc", "1")),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["weight".into()],
        }),
        epoch: lease.epoch,
    };
    let rows: &Rows<wire::UpdateInstanceRequest> = &[
        ("instance", |r| r.instance = None),
        ("instance.id", |r| r.instance.as_mut().expect("set").id.clear()),
        ("update_mask", |r| r.update_mask = None),
        ("update_mask", |r| {
            r.update_mask.as_mut().expect("set").paths = vec!["zone".into()]
        }),
        ("epoch", |r| r.epoch = 0),
        ("epoch", |r| r.epoch = -1),
        ("instance.weight", |r| {
            r.instance.as_mut().expect("set").weight = Some(1_001)
        }),
    ];
    for (field, spoil) in rows {
        let mut request = good.clone();
        spoil(&mut request);
        assert_eq!(
            fields(&client.update_instance(request).await.expect_err(field)),
            [*field]
        );
    }

    let renew = wire::RenewRequest {
        lease_id,
        lease_secret: String::new(),
    };
    assert_eq!(
        fields(&client.renew(renew).await.expect_err("no secret")),
        ["lease_secret"]
    );
    assert_eq!(ids(&mut client, "a-svc").await, ["1"], "nothing happened to it");
}

#[tokio::test]
async fn bad_questions_name_their_field() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let rows: &Rows<wire::ListInstancesRequest> = &[
        ("namespace", |r| r.namespace = "A".into()),
        ("service", |r| r.service = "a/b".into()),
        ("page_size", |r| r.page_size = -1),
        ("page_size", |r| r.page_size = 1_001),
        ("page_token", |r| r.page_token = "garbage".into()),
        ("page_token", |r| r.page_token = "0a".into()),
        ("page_token", |r| r.page_token = "0".repeat(10_000)),
        ("selector.version", |r| {
            r.selector = Some(wire::Selector {
                version: "1".into(),
                ..Default::default()
            })
        }),
        ("selector.zone", |r| {
            r.selector = Some(wire::Selector {
                zone: "Z".into(),
                ..Default::default()
            })
        }),
        ("selector.tag", |r| {
            r.selector = Some(wire::Selector {
                tag: "-".into(),
                ..Default::default()
            })
        }),
        ("selector.group", |r| {
            r.selector = Some(wire::Selector {
                group: "-".into(),
                ..Default::default()
            })
        }),
    ];
    for (field, spoil) in rows {
        let mut request = wire::ListInstancesRequest::default();
        spoil(&mut request);
        assert_eq!(
            fields(&client.list_instances(request).await.expect_err(field)),
            [*field]
        );
    }
    let services = wire::ListServicesRequest {
        page_size: -1,
        namespace: "_".into(),
        ..Default::default()
    };
    assert_eq!(
        fields(&client.list_services(services).await.expect_err("two")),
        ["namespace", "page_size"]
    );
    let nobody = wire::GetInstanceRequest::default();
    assert_eq!(
        fields(&client.get_instance(nobody).await.expect_err("two")),
        ["service", "id"]
    );
    let watch = wire::WatchRequest {
        service: "A".into(),
        ..Default::default()
    };
    assert_eq!(fields(&client.watch(watch).await.expect_err("a name")), ["service"]);
}

#[tokio::test]
async fn a_lease_holds_so_many_and_no_more() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let batch = |n: usize| registration((0..64).map(move |i| instance("a-svc", &format!("i{n}-{i}"))));
    let first = client.register(batch(0)).await.expect("registers").into_inner();
    let join = |client: &mut Client, mut request: wire::RegisterRequest| {
        request.lease_id.clone_from(&first.lease_id);
        request.lease_secret.clone_from(&first.lease_secret);
        let mut client = client.clone();
        async move { client.register(request).await }
    };
    for n in 1..16 {
        join(&mut client, batch(n)).await.expect("1,024 fit");
    }
    let error = join(&mut client, registration([instance("a-svc", "one-more")]))
        .await
        .expect_err("full");
    assert_eq!(crate::support::reason(&error), "LEASE_FULL");
    join(&mut client, registration([instance("a-svc", "i0-0")]))
        .await
        .expect("one of its own fits");
}

/// A request's body that has one piece and then neither more nor an end.
struct Unfinished(Option<bytes::Bytes>);

impl http_body::Body for Unfinished {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, tonic::Status>>> {
        match self.0.take() {
            Some(piece) => Poll::Ready(Some(Ok(http_body::Frame::data(piece)))),
            None => Poll::Pending,
        }
    }
}

/// 1.3 million empty instances became 570 MB, held for as long as the sender did not end its request.
#[tokio::test]
async fn a_message_of_countless_values_is_refused_before_it_is_decoded() {
    let fixture = Fixture::start().await;
    let mut channel = fixture.channel().await;
    for (method, key, field) in [
        ("Register", 0x12, "instances"),
        ("KeepAlive", 0x0a, "renewals"),
        ("Deregister", 0x1a, "instance_ids"),
    ] {
        let message = [key, 0].repeat(100_000);
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        let piece = [&[0][..], &length, &message].concat();
        let request = http::Request::post(format!("/tessera.registry.v1.RegistryService/{method}"))
            .header("content-type", "application/grpc")
            .body(tonic::body::Body::new(Unfinished(Some(piece.into()))))
            .expect("a request");
        future::poll_fn(|cx| channel.poll_ready(cx)).await.expect("connected");
        // Sooner than a request that does not end is given up.
        let answered = tokio::time::timeout(Duration::from_secs(5), channel.call(request)).await;
        let response = answered.expect("at once").expect("answers");
        let status = match tonic::Status::from_header_map(response.headers()) {
            Some(status) => status,
            None => trailers(response.into_body()).await,
        };
        assert_eq!(fields(&status), [field], "{method}");
    }
}

/// The status of a stream that ends without a message.
async fn trailers(body: tonic::body::Body) -> tonic::Status {
    let mut body = pin!(body);
    let frame = future::poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await;
    let trailers = frame.expect("an end").expect("no reset").into_trailers();
    tonic::Status::from_header_map(&trailers.expect("no message")).expect("a status")
}
