//! A lease's secret that has fallen into other hands, or has been taken along into another service: it is good only with a token
//! that covers what the lease keeps.

use proto::registry::v1::keep_alive_result::Outcome;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

type Client = RegistryServiceClient<Channel>;

fn instance(service: &str, id: &str) -> wire::Instance {
    wire::Instance {
        namespace: "team".into(),
        service: service.into(),
        id: id.into(),
        endpoints: vec![wire::Endpoint {
            host: "127.0.0.1".into(),
            port: 1,
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(super) async fn register(client: &mut Client, token: &str, service: &str, id: &str) -> wire::RegisterResponse {
    let request = wire::RegisterRequest {
        instances: vec![instance(service, id)],
        ..Default::default()
    };
    let answer = client.register(bearing(token, request)).await;
    answer.expect("registers").into_inner()
}

fn renewal(lease: &wire::RegisterResponse) -> wire::RenewRequest {
    wire::RenewRequest {
        lease_id: lease.lease_id.clone(),
        lease_secret: lease.lease_secret.clone(),
    }
}

/// A KeepAlive stream of one token.
struct Beats {
    rounds: mpsc::Sender<wire::KeepAliveRequest>,
    answers: Streaming<wire::KeepAliveResponse>,
}

impl Beats {
    async fn open(client: &mut Client, token: &str) -> Self {
        let (rounds, receiver) = mpsc::channel(1);
        let answers = client.keep_alive(bearing(token, ReceiverStream::new(receiver))).await;
        Self {
            rounds,
            answers: answers.expect("open").into_inner(),
        }
    }

    /// Whether each of the leases lives on by it.
    async fn beat(&mut self, leases: &[&wire::RegisterResponse]) -> Vec<bool> {
        let renewals = leases.iter().map(|lease| renewal(lease)).collect();
        let round = wire::KeepAliveRequest { renewals };
        self.rounds.send(round).await.expect("open");
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await;
        let answer = answer.expect("in time").expect("open").expect("an answer");
        let results = answer.results.into_iter();
        results
            .map(|result| matches!(result.outcome, Some(Outcome::Ttl(_))))
            .collect()
    }
}

fn refusal<T: std::fmt::Debug>(answer: Result<tonic::Response<T>, Status>) -> (Code, String) {
    let status = answer.expect_err("refused");
    (status.code(), reason(&status))
}

/// Any register scope was enough beside the secret: whoever had found one in a log or a crash dump could keep a dead instance alive,
/// or take a live one out, with a token of another team.
#[tokio::test]
async fn a_stolen_secret_is_no_good_with_a_token_of_another_service() {
    let guarded = Guarded::start().await;
    let (_, owner) = guarded.token(&["register:team/app"]).await;
    let mut client = Client::new(guarded.channel().await);
    let lease = register(&mut client, &owner, "app", "one").await;
    let denied = |reason: &str| (Code::PermissionDenied, reason.to_owned());
    for scopes in [
        &["register:other/*"][..],
        &["register:other/app"],
        &["register:team/app-2", "register:team/ap"],
    ] {
        let (_, thief) = guarded.token(scopes).await;
        let not_covered = denied("LEASE_NOT_COVERED");
        let renewed = client.renew(bearing(&thief, renewal(&lease))).await;
        assert_eq!(refusal(renewed), not_covered, "{scopes:?}");
        let end = wire::DeregisterRequest {
            lease_id: lease.lease_id.clone(),
            lease_secret: lease.lease_secret.clone(),
            ..Default::default()
        };
        let some = wire::DeregisterRequest {
            instance_ids: vec!["one".into()],
            ..end.clone()
        };
        for end in [end, some] {
            assert_eq!(
                refusal(client.deregister(bearing(&thief, end)).await),
                not_covered,
                "{scopes:?}"
            );
        }
        let update = wire::UpdateInstanceRequest {
            lease_id: lease.lease_id.clone(),
            lease_secret: lease.lease_secret.clone(),
            epoch: lease.epoch,
            instance: Some(wire::Instance {
                weight: Some(1),
                ..instance("app", "one")
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["weight".into()],
            }),
        };
        let updated = client.update_instance(bearing(&thief, update)).await;
        assert_eq!(refusal(updated), denied("SCOPE_MISSING"), "{scopes:?}");
        // Nor is it kept alive on a stream that is good for another lease.
        let mut beats = Beats::open(&mut client, &thief).await;
        assert_eq!(beats.beat(&[&lease]).await, [false], "{scopes:?}");
        assert_eq!(beats.beat(&[&lease]).await, [false], "{scopes:?}");
    }
    // To register one's own under somebody's lease would keep that lease, too.
    let (_, joins) = guarded.token(&["register:other/app"]).await;
    let own = wire::Instance {
        namespace: "other".into(),
        ..instance("app", "two")
    };
    let join = wire::RegisterRequest {
        instances: vec![own],
        lease_id: lease.lease_id.clone(),
        lease_secret: lease.lease_secret.clone(),
        ..Default::default()
    };
    let joined = client.register(bearing(&joins, join)).await;
    assert_eq!(refusal(joined), denied("LEASE_NOT_COVERED"));

    // Whether a secret is right is told only to those who might use it as much as they like: to all others it is one answer less.
    let wrong = wire::RenewRequest {
        lease_secret: "x".into(),
        ..renewal(&lease)
    };
    let unknown = refusal(client.renew(bearing(&joins, wrong)).await);
    assert_eq!(unknown, (Code::NotFound, "LEASE_UNKNOWN".to_owned()));
    client.renew(bearing(&owner, renewal(&lease))).await.expect("its own");
}

#[tokio::test]
async fn a_stream_carries_what_its_token_covers_and_refuses_the_rest_alone() {
    let guarded = Guarded::start().await;
    let (_, app) = guarded.token(&["register:team/app"]).await;
    let (_, shop) = guarded.token(&["register:team/shop"]).await;
    let (_, both) = guarded.token(&["register:team/app", "register:team/shop"]).await;
    let mut client = Client::new(guarded.channel().await);
    let of_app = register(&mut client, &app, "app", "one").await;
    let of_shop = register(&mut client, &shop, "shop", "one").await;
    for (token, expected) in [(&app, [true, false]), (&shop, [false, true]), (&both, [true, true])] {
        let mut beats = Beats::open(&mut client, token).await;
        // The second round is by what the stream remembers.
        for _ in 0..3 {
            assert_eq!(beats.beat(&[&of_app, &of_shop]).await, expected);
        }
        // One that is remembered says nothing of the next.
        assert_eq!(beats.beat(&[&of_shop]).await, expected[1..]);
        assert_eq!(beats.beat(&[&of_app]).await, expected[..1]);
    }
}

/// What a stream remembers of a lease must not outlive what the lease is.
#[tokio::test]
async fn a_lease_that_another_service_has_joined_is_looked_at_again() {
    let guarded = Guarded::start().await;
    let (_, app) = guarded.token(&["register:team/app"]).await;
    let (_, both) = guarded.token(&["register:team/*"]).await;
    let mut client = Client::new(guarded.channel().await);
    let lease = register(&mut client, &app, "app", "one").await;
    let mut narrow = Beats::open(&mut client, &app).await;
    let mut wide = Beats::open(&mut client, &both).await;
    assert_eq!(narrow.beat(&[&lease]).await, [true]);
    let join = |service: &str, id: &str| wire::RegisterRequest {
        instances: vec![instance(service, id)],
        lease_id: lease.lease_id.clone(),
        lease_secret: lease.lease_secret.clone(),
        ..Default::default()
    };
    client
        .register(bearing(&app, join("app", "two")))
        .await
        .expect("one more of its own");
    for _ in 0..3 {
        assert_eq!(narrow.beat(&[&lease]).await, [true]);
    }
    client
        .register(bearing(&both, join("shop", "one")))
        .await
        .expect("it may");
    // The first one finds out that something has come.
    narrow.beat(&[&lease]).await;
    assert_eq!(narrow.beat(&[&lease]).await, [false]);
    assert_eq!(wide.beat(&[&lease]).await, [true]);
    let renewed = client.renew(bearing(&app, renewal(&lease))).await;
    assert_eq!(refusal(renewed).0, Code::PermissionDenied);
}
