//! Register, Deregister, and what they do to each other.

use proto::registry::v1 as wire;
use tonic::Code;

use crate::support::{Fixture, deregistration, fields, ids, instance, reason, register, registration, renewal};

#[tokio::test]
async fn an_instance_is_told_as_it_was_registered_with_defaults_filled_in() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let mut rich = instance("ticket-svc", "t-1");
    rich.version = "1.4.2".into();
    rich.zone = "eu-central-1a".into();
    rich.grpc_services = vec!["tessera.ticket.v1.TicketService".into()];
    rich.metadata = [("git.sha".to_owned(), "abc".to_owned())].into();
    rich.started_at = Some(prost_types::Timestamp {
        seconds: 1_700_000_000,
        nanos: 42,
    });
    let answer = client
        .register(registration([rich.clone()]))
        .await
        .expect("registers")
        .into_inner();
    assert_eq!(answer.instance_ids, ["t-1"]);
    assert_eq!(
        answer.ttl,
        Some(prost_types::Duration { seconds: 15, nanos: 0 }),
        "5 s x 3 by default"
    );
    assert_eq!((answer.revision, answer.epoch), (1, 1));

    let request = wire::GetInstanceRequest {
        service: "ticket-svc".into(),
        id: "t-1".into(),
        ..Default::default()
    };
    let got = client.get_instance(request).await.expect("is there").into_inner();
    let mut expected = rich;
    expected.namespace = "default".into();
    expected.weight = Some(100);
    expected.set_status(wire::InstanceStatus::Up);
    expected.endpoints[0].set_protocol(wire::Protocol::Grpc);
    expected.epoch = 1;
    expected.revision = 1;
    expected.lease_id = answer.lease_id;
    assert_eq!(got.instance, Some(expected));
    assert_eq!(got.confidence.expect("told").state(), wire::confidence::State::Fresh);
}

#[tokio::test]
async fn many_instances_share_one_lease_and_one_revision() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let answer = client
        .register(registration([
            instance("a-svc", "1"),
            instance("a-svc", ""),
            instance("b-svc", "1"),
        ]))
        .await
        .expect("registers")
        .into_inner();
    assert_eq!(answer.revision, 1);
    assert!(
        answer.instance_ids[1].starts_with("a-svc-"),
        "chosen by us: {:?}",
        answer.instance_ids
    );

    // The same lease takes more, and keeps its terms.
    let mut more = registration([instance("b-svc", "2")]);
    more.lease_id = answer.lease_id.clone();
    more.lease_secret = answer.lease_secret.clone();
    let joined = client.register(more).await.expect("joins").into_inner();
    assert_eq!(
        (&joined.lease_id, &joined.lease_secret),
        (&answer.lease_id, &answer.lease_secret)
    );
    assert_eq!((joined.ttl, joined.revision), (answer.ttl, 2));

    // An id names the instances of the lease that have it, whatever their service.
    let mut some = deregistration(&answer);
    some.instance_ids = vec!["1".into()];
    client.deregister(some).await.expect("ends some");
    assert_eq!(ids(&mut client, "b-svc").await, ["2"]);
    client.renew(renewal(&answer)).await.expect("the lease lives");
    client.deregister(deregistration(&answer)).await.expect("ends all");
    assert_eq!(ids(&mut client, "").await, Vec::<String>::new());
    let gone = client.renew(renewal(&answer)).await.expect_err("the lease has ended");
    assert_eq!((gone.code(), reason(&gone).as_str()), (Code::NotFound, "LEASE_UNKNOWN"));
}

#[tokio::test]
async fn a_batch_is_registered_as_a_whole_or_not_at_all() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let first = register(&mut client, "a-svc", "1").await;
    let mut ending = deregistration(&first);
    ending.instance_ids = vec!["1".into(), "nobody".into()];
    let refused = client.deregister(ending).await.expect_err("one of them is unknown");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::NotFound, "INSTANCE_UNKNOWN")
    );
    assert_eq!(ids(&mut client, "a-svc").await, ["1"], "nothing was ended");
}

#[tokio::test]
async fn a_wrong_secret_is_as_good_as_an_unknown_lease() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let lease = register(&mut client, "a-svc", "1").await;
    let wrong = wire::RegisterResponse {
        lease_secret: "0".repeat(32),
        ..lease.clone()
    };
    let unknown = wire::RegisterResponse {
        lease_id: "0".repeat(32),
        ..lease.clone()
    };
    let foreign = wire::RegisterResponse {
        lease_id: "not-ours".into(),
        ..lease.clone()
    };
    for claim in [wrong, unknown, foreign] {
        let errors = [
            client.renew(renewal(&claim)).await.expect_err("renew"),
            client.deregister(deregistration(&claim)).await.expect_err("deregister"),
            client
                .register(wire::RegisterRequest {
                    lease_id: claim.lease_id.clone(),
                    lease_secret: claim.lease_secret.clone(),
                    ..registration([instance("a-svc", "2")])
                })
                .await
                .expect_err("join"),
        ];
        for error in errors {
            assert_eq!(
                (error.code(), reason(&error).as_str()),
                (Code::NotFound, "LEASE_UNKNOWN")
            );
            use tonic_types::StatusExt as _;
            let delay = error
                .get_details_retry_info()
                .expect("says when")
                .retry_delay
                .expect("a delay");
            assert!((100..1_000).contains(&delay.as_millis()), "jittered: {delay:?}");
        }
    }
    assert_eq!(ids(&mut client, "a-svc").await, ["1"]);
}

/// A process that was frozen past its time, or a second one with the same id, must not act for the one that took over.
#[tokio::test]
async fn the_former_owner_is_fenced_off() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let former = register(&mut client, "a-svc", "1").await;
    let present = register(&mut client, "a-svc", "1").await;
    assert!(present.epoch > former.epoch);

    let mut one = deregistration(&former);
    one.instance_ids = vec!["1".into()];
    let update = |owner: &wire::RegisterResponse, epoch| wire::UpdateInstanceRequest {
        lease_id: owner.lease_id.clone(),
        lease_secret: owner.lease_secret.clone(),
        instance: Some(instance("a-svc", "1")),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["weight".into()],
        }),
        epoch,
    };
    let rejoin = wire::RegisterRequest {
        lease_id: former.lease_id.clone(),
        lease_secret: former.lease_secret.clone(),
        ..registration([instance("a-svc", "1")])
    };
    let errors = [
        client.renew(renewal(&former)).await.expect_err("renew"),
        client.deregister(one).await.expect_err("deregister one"),
        client
            .deregister(deregistration(&former))
            .await
            .expect_err("deregister all"),
        client
            .update_instance(update(&former, former.epoch))
            .await
            .expect_err("update"),
        client
            .update_instance(update(&present, former.epoch))
            .await
            .expect_err("update at a former epoch"),
        client
            .register(rejoin)
            .await
            .expect_err("register under the lost lease"),
    ];
    for error in errors {
        assert_eq!(
            (error.code(), reason(&error).as_str()),
            (Code::FailedPrecondition, "STALE_EPOCH"),
            "{error:?}"
        );
    }
    client
        .renew(renewal(&present))
        .await
        .expect("the present owner is unharmed");
    client
        .update_instance(update(&present, present.epoch))
        .await
        .expect("and in charge");
    assert_eq!(ids(&mut client, "a-svc").await, ["1"]);
}

/// Joining with one of the two terms set the other one back to its default: 5 misses of a minute's interval became 25 s.
#[tokio::test]
async fn a_lease_that_is_joined_keeps_its_own_terms_for_what_is_left_out() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let lasting = wire::RegisterRequest {
        heartbeat_interval: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        misses_allowed: 10,
        ..registration([instance("a-svc", "1")])
    };
    let lease = client.register(lasting).await.expect("registers").into_inner();
    let again = |interval: Option<(i64, i32)>, misses_allowed| wire::RegisterRequest {
        lease_id: lease.lease_id.clone(),
        lease_secret: lease.lease_secret.clone(),
        heartbeat_interval: interval.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos }),
        misses_allowed,
        ..registration([instance("a-svc", "1")])
    };
    for (interval, misses, expected) in [
        (None, 0, 600),
        (None, 5, 300),
        (Some((10, 0)), 0, 50),
        (None, 6, 60),
        (Some((1, 0)), 2, 2),
        (None, 0, 2),
    ] {
        let answer = client
            .register(again(interval, misses))
            .await
            .expect("joins")
            .into_inner();
        assert_eq!(answer.ttl.expect("told").seconds, expected, "{interval:?} x {misses}");
    }
    // Fine with the default of 3 misses or over any other lease, but with this one's two it is too short.
    let error = client
        .register(again(Some((0, 200_000_000)), 0))
        .await
        .expect_err("400 ms");
    assert_eq!(fields(&error), ["heartbeat_interval", "misses_allowed"]);
    client.renew(renewal(&lease)).await.expect("nothing happened to it");
}
