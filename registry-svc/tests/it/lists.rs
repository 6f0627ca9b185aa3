//! ListServices, ListInstances, GetInstance.

use proto::registry::v1 as wire;
use tonic::Code;

use crate::support::{Fixture, ids, instance, reason, register, registration};

#[tokio::test]
async fn pages_tell_everything_once_while_the_list_changes() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    for service in ["a-svc", "b-svc"] {
        let instances = (0..10).map(|n| instance(service, &format!("i{n}")));
        client.register(registration(instances)).await.expect("registers");
    }
    let mut told = Vec::new();
    let mut request = wire::ListInstancesRequest {
        page_size: 3,
        ..Default::default()
    };
    for page in 0.. {
        let list = client
            .list_instances(request.clone())
            .await
            .expect("lists")
            .into_inner();
        assert!(list.instances.len() <= 3);
        told.extend(
            list.instances
                .into_iter()
                .map(|instance| format!("{}/{}", instance.service, instance.id)),
        );
        // Comes before what was told and must not push anything over a page's edge; comes after and may be told.
        register(&mut client, "a-svc", &format!("a{page}")).await;
        if list.next_page_token.is_empty() {
            break;
        }
        request.page_token = list.next_page_token;
    }
    let expected: Vec<String> = ["a-svc", "b-svc"]
        .iter()
        .flat_map(|s| (0..10).map(move |n| format!("{s}/i{n}")))
        .collect();
    assert_eq!(told, expected);

    // A token is for its own request.
    request.page_token = {
        let first = wire::ListInstancesRequest {
            page_size: 3,
            ..Default::default()
        };
        client
            .list_instances(first)
            .await
            .expect("lists")
            .into_inner()
            .next_page_token
    };
    request.service = "b-svc".into();
    let refused = client.list_instances(request).await.expect_err("another request");
    assert_eq!(crate::support::fields(&refused), ["page_token"]);
}

#[tokio::test]
async fn a_page_of_large_instances_ends_before_a_stock_client_would_refuse_it() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    for service in 0..3 {
        let large = (0..64).map(|n| {
            let mut large = instance(&format!("s{service}"), &format!("i{n}"));
            large.metadata = (0..15).map(|key| (format!("k{key}"), "v".repeat(1_024))).collect();
            large.grpc_services = (0..64).map(|n| format!("s{n}.{}", "x".repeat(200))).collect();
            large
        });
        client
            .register(registration(large))
            .await
            .expect("the largest registration is accepted");
    }
    let mut told = 0;
    let mut request = wire::ListInstancesRequest {
        page_size: 1_000,
        ..Default::default()
    };
    loop {
        let list = client.list_instances(request.clone()).await.expect("fits").into_inner();
        told += list.instances.len();
        if list.next_page_token.is_empty() {
            break;
        }
        request.page_token = list.next_page_token;
    }
    assert_eq!(told, 192);
}

#[tokio::test]
async fn services_are_counted() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let mut old = instance("a-svc", "1");
    old.version = "1.0.0".into();
    let mut new = instance("a-svc", "2");
    new.version = "1.1.0".into();
    let mut down = instance("a-svc", "3");
    down.set_status(wire::InstanceStatus::Down);
    let mut weightless = instance("a-svc", "4");
    weightless.weight = Some(0);
    let mut elsewhere = instance("c-svc", "1");
    elsewhere.namespace = "staging".into();
    client
        .register(registration([
            old,
            new,
            down,
            weightless,
            instance("b-svc", "1"),
            elsewhere,
        ]))
        .await
        .expect("registers");

    let mut request = wire::ListServicesRequest {
        page_size: 1,
        ..Default::default()
    };
    let first = client.list_services(request.clone()).await.expect("lists").into_inner();
    let summary = wire::ServiceSummary {
        service: "a-svc".into(),
        instances: 4,
        callable: 2,
        versions: vec!["1.0.0".into(), "1.1.0".into()],
    };
    assert_eq!(first.services, [summary]);
    assert_eq!(first.revision, 1);
    request.page_token = first.next_page_token;
    let second = client.list_services(request).await.expect("lists").into_inner();
    assert_eq!(second.services[0].service, "b-svc");
    assert_eq!(second.next_page_token, "", "the other namespace is another world");
}

#[tokio::test]
async fn selectors_narrow() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let mut blue = instance("a-svc", "blue");
    blue.zone = "z1".into();
    blue.tag = "blue".into();
    blue.version = "1.0.0".into();
    blue.group = "g".into();
    client
        .register(registration([blue, instance("a-svc", "plain")]))
        .await
        .expect("registers");
    let select = |field: fn(&mut wire::Selector) -> &mut String, value: &str| {
        let mut selector = wire::Selector::default();
        *field(&mut selector) = value.to_owned();
        wire::ListInstancesRequest {
            service: "a-svc".into(),
            selector: Some(selector),
            ..Default::default()
        }
    };
    for (request, expected) in [
        (select(|s| &mut s.zone, "z1"), 1),
        (select(|s| &mut s.zone, "z2"), 0),
        (select(|s| &mut s.tag, "blue"), 1),
        (select(|s| &mut s.version, "1.0.0"), 1),
        (select(|s| &mut s.version, "1.0.1"), 0),
        (select(|s| &mut s.group, "g"), 1),
        (select(|s| &mut s.group, ""), 2),
    ] {
        let found = client
            .list_instances(request.clone())
            .await
            .expect("lists")
            .into_inner()
            .instances;
        assert_eq!(found.len(), expected, "{request:?}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let request = wire::GetInstanceRequest {
        service: "a-svc".into(),
        id: "1".into(),
        ..Default::default()
    };
    let error = client.get_instance(request).await.expect_err("nobody");
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::NotFound, "INSTANCE_UNKNOWN")
    );
    assert!(error.message().contains("default/a-svc/1"), "{error:?}");
    assert_eq!(ids(&mut client, "a-svc").await, Vec::<String>::new());
}

/// A service of which each instance says another version made ListServices answer with more than a client accepts.
#[tokio::test]
async fn a_service_of_many_versions_names_some_of_them() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let instances = (10..60).map(|n| wire::Instance {
        version: format!("1.0.{n}"),
        ..instance("a-svc", &n.to_string())
    });
    client.register(registration(instances)).await.expect("registers");
    let list = client.list_services(wire::ListServicesRequest::default()).await;
    let summary = &list.expect("lists").into_inner().services[0];
    assert_eq!((summary.instances, summary.versions.len()), (50, 32));
    assert!(summary.versions.is_sorted());
}
