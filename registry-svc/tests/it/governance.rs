//! What operators decide, over the wire.

use std::time::SystemTime;

use proto::registry::v1::{self as wire, governance_service_client::GovernanceServiceClient};
use tokio::time::Instant;
use tonic::{Code, transport::Channel};

use crate::support::{Client, Fixture, PATIENCE, Watch, deregistration, fields, instance, reason, register};

async fn governance(fixture: &Fixture) -> GovernanceServiceClient<Channel> {
    GovernanceServiceClient::new(fixture.channel().await)
}

fn reference(id: &str) -> Option<wire::InstanceRef> {
    Some(wire::InstanceRef {
        service: "a-svc".into(),
        id: id.into(),
        ..Default::default()
    })
}

fn set_weight(id: &str, weight: Option<u32>) -> wire::SetWeightRequest {
    wire::SetWeightRequest {
        instance: reference(id),
        weight,
        who: "ann".into(),
        why: "a slow disk".into(),
        until: None,
    }
}

fn undrain(id: &str) -> wire::UndrainRequest {
    wire::UndrainRequest {
        instance: reference(id),
        who: "ann".into(),
        ..Default::default()
    }
}

async fn get(client: &mut Client, id: &str) -> wire::Instance {
    let request = wire::GetInstanceRequest {
        service: "a-svc".into(),
        id: id.into(),
        ..Default::default()
    };
    let answer = client.get_instance(request).await.expect("gets").into_inner();
    answer.instance.expect("is registered")
}

async fn callable(client: &mut Client) -> u32 {
    let list = client.list_services(wire::ListServicesRequest::default()).await;
    list.expect("lists").into_inner().services[0].callable
}

#[tokio::test]
async fn a_weight_is_told_and_sticks() {
    let mut fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let owner = register(&mut client, "a-svc", "1").await;
    let mut watch = Watch::open(&mut client, "a-svc", 1).await;
    let mut operator = governance(&fixture).await;
    let answer = operator.set_weight(set_weight("1", Some(0))).await.expect("sets").into_inner();
    let told = answer.instance.expect("is registered");
    assert_eq!((answer.revision, told.revision, told.epoch), (2, 2, 1), "it is no registration");
    assert_eq!(watch.delta().await, (2, vec!["put 1".to_owned()]));
    let check = |told: &wire::Instance| {
        let laid = told.r#override.as_ref().expect("is laid over it");
        let [decision] = laid.decisions.as_slice() else {
            panic!("one decision, not {laid:?}")
        };
        assert_eq!(decision.kind(), wire::governance_decision::Kind::Weight);
        assert_eq!((told.weight, laid.weight, laid.drained), (Some(100), Some(0), false));
        assert_eq!((laid.who.as_str(), laid.why.as_str()), ("ann", "a slow disk"));
        assert_eq!((decision.who.as_str(), decision.revision), ("ann", 2));
        assert!(decision.at.is_some() && laid.until.is_none());
    };
    check(&told);
    assert_eq!(callable(&mut client).await, 0);
    let again = operator.set_weight(set_weight("1", Some(0))).await.expect("sets").into_inner();
    assert_eq!(again.revision, 2, "the same once more is the same");

    // Its owner says something else, leaves and comes back; the registry is started again.
    client.deregister(deregistration(&owner)).await.expect("leaves");
    fixture.restart().await;
    let (mut client, mut operator) = (fixture.client().await, governance(&fixture).await);
    let error = operator.set_weight(set_weight("1", Some(5))).await.expect_err("is not there");
    assert_eq!((error.code(), reason(&error).as_str()), (Code::NotFound, "INSTANCE_UNKNOWN"));
    register(&mut client, "a-svc", "1").await;
    check(&get(&mut client, "1").await);
    fixture.restart().await;
    let (mut client, mut operator) = (fixture.client().await, governance(&fixture).await);
    check(&get(&mut client, "1").await);

    let answer = operator.set_weight(set_weight("1", None)).await.expect("takes it away").into_inner();
    assert!(answer.instance.expect("is registered").r#override.is_none());
    assert_eq!(callable(&mut client).await, 1);
}

#[tokio::test]
async fn what_is_kept_of_one_that_left_can_be_taken_back() {
    let fixture = Fixture::start().await;
    let (mut client, mut operator) = (fixture.client().await, governance(&fixture).await);
    let owner = register(&mut client, "a-svc", "1").await;
    operator.set_weight(set_weight("1", Some(7))).await.expect("sets");
    client.deregister(deregistration(&owner)).await.expect("leaves");
    let nothing = operator.undrain(undrain("1")).await.expect("there is no drain").into_inner();
    assert_eq!(nothing.revision, 3, "the present one");
    let answer = operator.set_weight(set_weight("1", None)).await.expect("takes it away").into_inner();
    assert!(answer.instance.is_none() && answer.revision == 4);
    for error in [
        operator.undrain(undrain("1")).await.map(drop).expect_err("nothing is kept"),
        operator.undrain(undrain("2")).await.map(drop).expect_err("never was there"),
    ] {
        assert_eq!((error.code(), reason(&error).as_str()), (Code::NotFound, "INSTANCE_UNKNOWN"));
    }
}

#[tokio::test]
async fn what_has_an_end_ends() {
    let fixture = Fixture::start().await;
    let (mut client, mut operator) = (fixture.client().await, governance(&fixture).await);
    register(&mut client, "a-svc", "1").await;
    let mut watch = Watch::open(&mut client, "a-svc", 1).await;
    let soon = SystemTime::now() + std::time::Duration::from_millis(400);
    let request = wire::SetWeightRequest {
        until: Some(soon.into()),
        ..set_weight("1", Some(0))
    };
    operator.set_weight(request).await.expect("sets");
    assert_eq!(watch.delta().await, (2, vec!["put 1".to_owned()]));
    assert_eq!(watch.delta().await, (3, vec!["put 1".to_owned()]), "it has ended by itself");
    let deadline = Instant::now() + PATIENCE;
    while get(&mut client, "1").await.r#override.is_some() {
        assert!(Instant::now() < deadline);
    }
}

#[tokio::test]
async fn a_wrong_decision_is_told_field_by_field() {
    let fixture = Fixture::start().await;
    let (mut client, mut operator) = (fixture.client().await, governance(&fixture).await);
    register(&mut client, "a-svc", "1").await;
    let past = prost_types::Timestamp { seconds: 1, nanos: 0 };
    let far = prost_types::Timestamp {
        seconds: 250_000_000_000,
        nanos: 0,
    };
    let long = "é".repeat(257);
    let weights = [
        (wire::SetWeightRequest::default(), vec!["instance", "who"]),
        (set_weight("", Some(1)), vec!["instance.id"]),
        (set_weight("1", Some(1_001)), vec!["weight"]),
        (
            wire::SetWeightRequest {
                until: Some(past),
                who: "a\nb".into(),
                why: long.clone(),
                ..set_weight("1", Some(1))
            },
            vec!["until", "who", "why"],
        ),
        (
            wire::SetWeightRequest {
                until: Some(far),
                who: "é".repeat(129),
                ..set_weight("1", Some(1))
            },
            vec!["until", "who"],
        ),
        (
            wire::SetWeightRequest {
                until: Some(far),
                ..set_weight("1", None)
            },
            vec!["until"],
        ),
    ];
    for (request, expected) in weights {
        let error = operator.set_weight(request).await.map(drop).expect_err("is wrong");
        assert_eq!(fields(&error), expected);
    }
    let request = wire::UndrainRequest {
        why: "\u{1b}[31m".into(),
        ..undrain("1")
    };
    let error = operator.undrain(request).await.map(drop).expect_err("is wrong");
    assert_eq!(fields(&error), ["why"]);
    let request = wire::DrainRequest {
        instance: reference("1"),
        until: Some(past),
        ack_timeout: Some(prost_types::Duration { seconds: 301, nanos: 0 }),
        ..Default::default()
    };
    let error = operator.drain(request).await.map(drop).expect_err("is wrong");
    assert_eq!(fields(&error), ["until", "ack_timeout", "who"]);
    // What an instance says of itself cannot forge it.
    let forged = wire::Instance {
        r#override: Some(wire::GovernanceOverride::default()),
        ..instance("a-svc", "2")
    };
    let error = client.register(crate::support::registration([forged])).await.map(drop);
    assert_eq!(fields(&error.expect_err("is output only")), ["instances[0].override"]);
    assert!(get(&mut client, "1").await.r#override.is_none(), "nothing was stored");
}

fn drain(id: &str) -> wire::DrainRequest {
    wire::DrainRequest {
        instance: reference(id),
        who: "ann".into(),
        why: "a slow disk".into(),
        ack_timeout: Some(prost_types::Duration {
            seconds: 0,
            nanos: 50_000_000,
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_drain_returns_when_every_watcher_has_acknowledged() {
    let fixture = Fixture::start().await;
    let (mut client, mut operator) = (fixture.client().await, governance(&fixture).await);
    register(&mut client, "a-svc", "1").await;
    let alone = operator.drain(drain("1")).await.expect("drains").into_inner();
    assert_eq!((alone.revision, alone.unacknowledged_watch_ids, alone.unheard_replicas), (2, vec![], vec![]));
    assert_eq!(callable(&mut client).await, 0);
    operator.undrain(undrain("1")).await.expect("undrains");
    assert_eq!(callable(&mut client).await, 1);

    let mut watch = Watch::open(&mut client, "a-svc", 3).await;
    let patient = wire::DrainRequest {
        ack_timeout: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..drain("1")
    };
    let mut waiting = operator.clone();
    let drained = tokio::spawn(async move { waiting.drain(patient).await });
    let told = watch.next().await;
    assert_eq!((told.revision, crate::support::events(&told)), (4, vec!["put 1".to_owned()]));
    // Told is not acknowledged: once more it is drained already, and there is one to be waited for.
    let again = operator.drain(drain("1")).await.expect("is drained").into_inner();
    assert_eq!((again.revision, again.unacknowledged_watch_ids), (4, vec![told.watch_id.clone()]));
    assert!(!drained.is_finished());
    let request = wire::AckWatchRequest {
        watch_id: told.watch_id,
        revision: told.revision,
    };
    client.ack_watch(request).await.expect("acknowledges");
    let answer = tokio::time::timeout(PATIENCE, drained).await.expect("returns").expect("runs");
    let answer = answer.expect("drains").into_inner();
    assert_eq!((answer.revision, answer.unacknowledged_watch_ids), (4, vec![]));
    let error = operator.drain(drain("2")).await.map(drop).expect_err("is not there");
    assert_eq!((error.code(), reason(&error).as_str()), (Code::NotFound, "INSTANCE_UNKNOWN"));
}
