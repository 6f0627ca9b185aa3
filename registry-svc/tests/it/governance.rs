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
    assert_eq!(watch.bookmark().await, 1);
    let mut operator = governance(&fixture).await;
    let answer = operator
        .set_weight(set_weight("1", Some(0)))
        .await
        .expect("sets")
        .into_inner();
    let told = answer.instance.expect("is registered");
    assert_eq!(
        (answer.revision, told.revision, told.epoch),
        (2, 2, 1),
        "it is no registration"
    );
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
    let again = operator
        .set_weight(set_weight("1", Some(0)))
        .await
        .expect("sets")
        .into_inner();
    assert_eq!(again.revision, 2, "the same once more is the same");

    // Its owner says something else, leaves and comes back; the registry is started again.
    client.deregister(deregistration(&owner)).await.expect("leaves");
    fixture.restart().await;
    let (mut client, mut operator) = (fixture.client().await, governance(&fixture).await);
    let error = operator
        .set_weight(set_weight("1", Some(5)))
        .await
        .expect_err("is not there");
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::NotFound, "INSTANCE_UNKNOWN")
    );
    register(&mut client, "a-svc", "1").await;
    check(&get(&mut client, "1").await);
    fixture.restart().await;
    let (mut client, mut operator) = (fixture.client().await, governance(&fixture).await);
    check(&get(&mut client, "1").await);

    let answer = operator
        .set_weight(set_weight("1", None))
        .await
        .expect("takes it away")
        .into_inner();
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
    let nothing = operator
        .undrain(undrain("1"))
        .await
        .expect("there is no drain")
        .into_inner();
    assert_eq!(nothing.revision, 3, "the present one");
    let answer = operator
        .set_weight(set_weight("1", None))
        .await
        .expect("takes it away")
        .into_inner();
    assert!(answer.instance.is_none() && answer.revision == 4);
    for error in [
        operator
            .undrain(undrain("1"))
            .await
            .map(drop)
            .expect_err("nothing is kept"),
        operator
            .undrain(undrain("2"))
            .await
            .map(drop)
            .expect_err("never was there"),
    ] {
        assert_eq!(
            (error.code(), reason(&error).as_str()),
            (Code::NotFound, "INSTANCE_UNKNOWN")
        );
    }
}

#[tokio::test]
async fn what_has_an_end_ends() {
    let fixture = Fixture::start().await;
    let (mut client, mut operator) = (fixture.client().await, governance(&fixture).await);
    register(&mut client, "a-svc", "1").await;
    let mut watch = Watch::open(&mut client, "a-svc", 1).await;
    assert_eq!(watch.bookmark().await, 1);
    let soon = SystemTime::now() + std::time::Duration::from_millis(400);
    let request = wire::SetWeightRequest {
        until: Some(soon.into()),
        ..set_weight("1", Some(0))
    };
    operator.set_weight(request).await.expect("sets");
    assert_eq!(watch.delta().await, (2, vec!["put 1".to_owned()]));
    assert_eq!(
        watch.delta().await,
        (3, vec!["put 1".to_owned()]),
        "it has ended by itself"
    );
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
    assert_eq!(
        (alone.revision, alone.unacknowledged_watch_ids, alone.unheard_replicas),
        (2, vec![], vec![])
    );
    assert_eq!(callable(&mut client).await, 0);
    operator.undrain(undrain("1")).await.expect("undrains");
    assert_eq!(callable(&mut client).await, 1);

    let mut watch = Watch::open(&mut client, "a-svc", 3).await;
    assert_eq!(watch.bookmark().await, 3);
    let patient = wire::DrainRequest {
        ack_timeout: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..drain("1")
    };
    let mut waiting = operator.clone();
    let drained = tokio::spawn(async move { waiting.drain(patient).await });
    let told = watch.next().await;
    assert_eq!(
        (told.revision, crate::support::events(&told)),
        (4, vec!["put 1".to_owned()])
    );
    // Told is not acknowledged: once more it is drained already, and there is one to be waited for.
    let again = operator.drain(drain("1")).await.expect("is drained").into_inner();
    assert_eq!(
        (again.revision, again.unacknowledged_watch_ids),
        (4, vec![told.watch_id.clone()])
    );
    assert!(!drained.is_finished());
    let watches = explain(&mut operator, "1").await.watches;
    let [watcher] = watches.as_slice() else {
        panic!("one watch, not {watches:?}")
    };
    // Who resumes after a revision may not have applied it.
    let stands = (watcher.told_revision, watcher.acknowledged_revision);
    assert_eq!((watcher.watch_id.as_str(), stands), (told.watch_id.as_str(), (4, 0)));
    assert!(watcher.peer.starts_with("127.0.0.1:") && watcher.told_at.is_some() && watcher.acknowledged_at.is_none());
    let request = wire::AckWatchRequest {
        watch_id: told.watch_id,
        revision: told.revision,
    };
    client.ack_watch(request).await.expect("acknowledges");
    let answer = tokio::time::timeout(PATIENCE, drained)
        .await
        .expect("returns")
        .expect("runs");
    let answer = answer.expect("drains").into_inner();
    assert_eq!((answer.revision, answer.unacknowledged_watch_ids), (4, vec![]));
    let watches = explain(&mut operator, "1").await.watches;
    assert!(watches[0].acknowledged_revision == 4 && watches[0].acknowledged_at.is_some());
    let error = operator.drain(drain("2")).await.map(drop).expect_err("is not there");
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::NotFound, "INSTANCE_UNKNOWN")
    );
}

async fn explain(operator: &mut GovernanceServiceClient<Channel>, id: &str) -> wire::ExplainInstanceResponse {
    let request = wire::ExplainInstanceRequest {
        instance: reference(id),
    };
    operator.explain_instance(request).await.expect("explains").into_inner()
}

/// Each step as `revision what who`, the newest first.
fn steps(told: &wire::ExplainInstanceResponse) -> Vec<String> {
    let step = |step: &wire::InstanceStep| {
        let what = step.what().as_str_name().trim_start_matches("WHAT_");
        format!("{} {what} {}", step.revision, step.who).trim_end().to_owned()
    };
    told.steps.iter().map(step).collect()
}

#[tokio::test]
async fn what_became_of_an_instance_is_told_over_restarts() {
    let mut fixture = Fixture::start().await;
    let (mut client, mut operator) = (fixture.client().await, governance(&fixture).await);
    let owner = register(&mut client, "a-svc", "1").await;
    operator.set_weight(set_weight("1", Some(7))).await.expect("sets");
    operator.set_weight(set_weight("1", None)).await.expect("takes it away");
    operator.set_weight(set_weight("1", Some(3))).await.expect("sets");
    fixture.restart().await;
    let (mut client, mut operator) = (fixture.client().await, governance(&fixture).await);
    let told = explain(&mut operator, "1").await;
    let expected = [
        "4 WEIGHT_SET ann",
        "3 WEIGHT_SET ann",
        "2 WEIGHT_SET ann",
        "1 REGISTERED",
    ];
    assert_eq!(steps(&told), expected);
    assert!(
        told.steps
            .iter()
            .all(|step| step.at.is_some() && step.peer.starts_with("127.0.0.1:"))
    );
    let [newest, .., oldest] = told.steps.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(
        (newest.why.as_str(), newest.detail.as_str()),
        ("a slow disk", "weight 3")
    );
    assert_eq!(
        (oldest.lease_id.as_str(), oldest.detail.as_str()),
        (owner.lease_id.as_str(), "at 127.0.0.1:7101")
    );
    assert_eq!((told.revision, told.compacted_revision, told.more_steps), (4, 0, false));
    assert!(told.removal.is_none() && told.confidence.is_some());
    assert_eq!(told.instance.expect("is registered").r#override, told.r#override);

    let leaves = wire::DeregisterRequest {
        detail: "rolled out 1.4.3".into(),
        ..deregistration(&owner)
    };
    client.deregister(leaves).await.expect("leaves");
    let told = explain(&mut operator, "1").await;
    assert_eq!(steps(&told)[..2], ["5 REMOVED", "4 WEIGHT_SET ann"]);
    let removal = told.removal.expect("how it left");
    assert_eq!(
        (removal.detail.as_str(), removal.id.as_str()),
        ("rolled out 1.4.3", "1")
    );
    assert_eq!(told.steps[0].lease_id, owner.lease_id, "whose it was");
    assert!(told.instance.is_none() && told.r#override.expect("is kept").weight == Some(3));
}

#[tokio::test]
async fn what_nobody_knows_is_not_invented() {
    let fixture = Fixture::with(|config| config.history_len = 2).await;
    let (mut client, mut operator) = (fixture.client().await, governance(&fixture).await);
    let request = wire::ExplainInstanceRequest {
        instance: reference("1"),
    };
    let error = operator.explain_instance(request).await.map(drop).expect_err("unknown");
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::NotFound, "INSTANCE_UNKNOWN")
    );
    for id in ["1", "2", "3"] {
        register(&mut client, "a-svc", id).await;
    }
    let told = explain(&mut operator, "1").await;
    assert!(told.instance.is_some() && told.steps.is_empty() && told.compacted_revision == 1);
    let request = wire::ExplainInstanceRequest::default();
    let error = operator
        .explain_instance(request)
        .await
        .map(drop)
        .expect_err("of which?");
    assert_eq!(fields(&error), ["instance"]);
    let request = wire::ExplainInstanceRequest {
        instance: reference("9"),
    };
    let error = operator.explain_instance(request).await.map(drop).expect_err("unknown");
    assert!(error.message().contains("up to revision 1 is forgotten"), "{error}");
}
