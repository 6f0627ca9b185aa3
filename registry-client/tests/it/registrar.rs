//! An instance stays registered, whatever its registry does.

use std::time::Duration;

use proto::registry::v1;
use registry_client::{Drained, Error, InstanceStatus, Registrar, RegistrarStatus, Registration, Registry, Removal};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    fake::{Call, Fake, Fate, refusal},
    soon,
    wire_cutter::WireCutter,
};

mod drains;

fn registration() -> Registration {
    Registration::new("ticket-svc", "127.0.0.1:7101").id("ticket-1")
}

fn to(urls: &[String]) -> Registry {
    Registry::connect(urls).expect("valid endpoints").prefer_first()
}

async fn registered(registry: &Registry) -> Registrar {
    let registrar = registry.register(registration());
    registrar.registered(crate::PATIENCE).await.expect("registered");
    registrar
}

async fn until(registrar: &Registrar, what: &str, condition: impl FnMut(&RegistrarStatus) -> bool) {
    soon(what, registrar.subscribe().wait_for(condition))
        .await
        .expect("the registrar lives");
}

fn is_registered(epoch: i64) -> impl FnMut(&RegistrarStatus) -> bool {
    move |status| matches!(status, RegistrarStatus::Registered { epoch: e, .. } if *e == epoch)
}

fn renewals(calls: &[Call]) -> usize {
    calls.iter().filter(|call| matches!(call, Call::Renew)).count()
}

#[tokio::test(start_paused = true)]
async fn it_tells_what_it_was_given_and_beats() {
    let fake = Fake::start().await;
    let registry = to(&[fake.url()]).with_namespace("tests");
    let registrar = registry.register(
        registration()
            .version("1.4.2")
            .group("blue")
            .zone("eu-1a")
            .tag("canary")
            .grpc_services(["tessera.ticket.v1.TicketService"])
            .metadata("team", "sales")
            .weight(50)
            .heartbeat(Duration::from_secs(2), 4),
    );
    registrar.registered(crate::PATIENCE).await.expect("registered");
    assert_eq!(
        registrar.status(),
        RegistrarStatus::Registered {
            instance_id: "ticket-1".into(),
            epoch: 1,
            revision: 1
        }
    );

    let request = &fake.registrations()[0];
    assert_eq!(request.request_id.len(), 36, "a UUID: {}", request.request_id);
    assert_eq!(
        request.heartbeat_interval,
        Some(prost_types::Duration { seconds: 2, nanos: 0 })
    );
    assert_eq!(request.misses_allowed, 4);
    let instance = &request.instances[0];
    assert_eq!(
        (&*instance.namespace, &*instance.service, &*instance.id),
        ("tests", "ticket-svc", "ticket-1")
    );
    assert_eq!(
        (&*instance.version, &*instance.group, &*instance.zone, &*instance.tag),
        ("1.4.2", "blue", "eu-1a", "canary")
    );
    assert_eq!(instance.grpc_services, ["tessera.ticket.v1.TicketService"]);
    assert_eq!(
        (instance.weight, instance.metadata["team"].as_str()),
        (Some(50), "sales")
    );
    assert_eq!(
        instance.endpoints,
        [v1::Endpoint {
            protocol: 1,
            host: "127.0.0.1".into(),
            port: 7101
        }]
    );
    assert!(instance.started_at.is_some());

    let mut status = registrar.subscribe();
    status.borrow_and_update();
    let begin = Instant::now();
    fake.until("ten heartbeats", |calls| renewals(calls) >= 10).await;
    let took = begin.elapsed().as_secs_f64();
    assert!((17.0..=20.1).contains(&took), "ten heartbeats of 2 s took {took} s");
    assert_eq!(fake.registrations().len(), 1);
    assert!(
        matches!(status.has_changed(), Ok(false)),
        "ten times the same is no news"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_does_not_register_twice() {
    let fake = Fake::start().await;
    fake.script([Fate::Lose(refusal(Code::Unavailable, "DRAINING", None))]);
    let registrar = registered(&to(&[fake.url()])).await;
    let [first, second] = &fake.registrations()[..] else {
        panic!("{:?}", fake.calls())
    };
    assert_eq!(first, second, "the same id and the same body");
    assert_eq!(fake.leases(), ["lease-1"]);
    drop(registrar);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_lease_is_registered_again_when_the_registry_says() {
    let fake = Fake::start().await;
    let registrar = registered(&to(&[fake.url()])).await;
    fake.forget_leases();
    until(&registrar, "a second registration", is_registered(2)).await;

    let calls = fake.timed_calls();
    let times: Vec<Instant> = calls
        .iter()
        .filter(|(_, call)| matches!(call, Call::Register(_)) || matches!(call, Call::Renew))
        .map(|(at, _)| *at)
        .collect();
    let [.., refused, again] = times[..] else {
        panic!("{calls:?}")
    };
    assert!(
        (Duration::from_secs(3)..Duration::from_millis(3_100)).contains(&(again - refused)),
        "RetryInfo said 3 s: {:?}",
        again - refused
    );
    let [first, second] = &fake.registrations()[..] else {
        panic!()
    };
    assert_eq!(first.instances, second.instances, "the same instance");
    assert_ne!(first.request_id, second.request_id, "in a new request");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_instance_registers_again() {
    let fake = Fake::start().await;
    let registrar = registered(&to(&[fake.url()])).await;
    fake.script([Fate::Refuse(refusal(Code::FailedPrecondition, "STALE_EPOCH", None))]);
    until(&registrar, "trouble", |status| {
        matches!(status, RegistrarStatus::Retrying { .. })
    })
    .await;
    let RegistrarStatus::Retrying { reason, .. } = registrar.status() else {
        panic!("{:?}", registrar.status())
    };
    assert_eq!(reason.reason(), "STALE_EPOCH");
    until(&registrar, "a second registration", is_registered(2)).await;
}

/// go-kratos gave up its heartbeats for ever after a restart of etcd (go-kratos/kratos 3883).
#[tokio::test(start_paused = true)]
async fn a_registry_that_is_away_for_an_hour_is_found_again() {
    let fake = Fake::start().await;
    let wire = WireCutter::before(fake.address).await;
    let registrar = registered(&to(&[wire.url()])).await;
    wire.cut();
    until(&registrar, "trouble", |status| {
        matches!(status, RegistrarStatus::Retrying { .. })
    })
    .await;
    let RegistrarStatus::Retrying { since, reason } = registrar.status() else {
        panic!("{:?}", registrar.status())
    };
    assert!(matches!(reason, Error::Unreachable { .. }), "{reason}");

    tokio::time::sleep(Duration::from_secs(3_600)).await;
    fake.forget_leases();
    assert!(matches!(registrar.status(), RegistrarStatus::Retrying { since: s, .. } if s == since));
    wire.mend();
    until(&registrar, "a second registration", is_registered(2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_starts_late_is_waited_for() {
    let fake = Fake::start().await;
    let wire = WireCutter::before(fake.address).await;
    wire.cut();
    let registrar = to(&[wire.url()]).register(registration());
    let error = registrar.registered(Duration::from_secs(20)).await.expect_err("cut");
    assert!(
        matches!(&error, Error::NotRegistered { last, .. } if last.contains(&wire.url())),
        "{error}"
    );
    wire.mend();
    registrar.registered(crate::PATIENCE).await.expect("registered");
}

#[tokio::test(start_paused = true)]
async fn the_other_endpoint_takes_over() {
    let (one, two) = (Fake::start().await, Fake::start().await);
    let wire = WireCutter::before(one.address).await;
    let registrar = registered(&to(&[wire.url(), two.url()])).await;
    assert_eq!((one.calls().len(), two.calls().len()), (1, 0));
    wire.cut();
    // It does not know the lease: in this script the two share no store.
    two.until("a registration", |calls| {
        calls.iter().any(|call| matches!(call, Call::Register(_)))
    })
    .await;
    until(&registrar, "registered", is_registered(1)).await;
    two.until("heartbeats", |calls| renewals(calls) >= 3).await;
    assert_eq!(one.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_says_unavailable_is_passed_over_within_the_call() {
    let (one, two) = (Fake::start().await, Fake::start().await);
    one.script([Fate::Refuse(refusal(Code::Unavailable, "STORE_AWAY", None))]);
    let begin = Instant::now();
    let _registrar = registered(&to(&[one.url(), two.url()])).await;
    assert!(begin.elapsed() < Duration::from_millis(100), "without a back-off");
    assert_eq!((one.calls().len(), two.calls().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_registry_costs_no_lease_while_another_lives() {
    let (one, two) = (Fake::start().await, Fake::start().await);
    let wire = WireCutter::before(one.address).await;
    let _registrar = registered(&to(&[wire.url(), two.url()])).await;
    wire.freeze();
    let begin = Instant::now();
    two.until("a heartbeat", |calls| renewals(calls) >= 1).await;
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "of a TTL of 15 s: {:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_heard_then_acknowledged_then_the_instance_leaves() {
    let fake = Fake::start().await;
    let registrar = registered(&to(&[fake.url()])).await;
    let begin = Instant::now();
    assert_eq!(registrar.drain(Duration::from_secs(5)).await, Drained::Acknowledged);
    let took = begin.elapsed();
    assert!(took < Duration::from_millis(100), "as long as it takes: {took:?}");
    let RegistrarStatus::Draining { epoch: 1, revision, .. } = registrar.status() else {
        panic!("{:?}", registrar.status())
    };
    let calls = fake.calls();
    let [.., Call::Update(update), Call::Await(wait)] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert_eq!(
        (wait.service.as_str(), wait.id.as_str(), wait.revision),
        ("ticket-svc", "ticket-1", revision)
    );
    let update = update.clone();
    assert_eq!(update.epoch, 1);
    assert_eq!(
        update.instance.map(|i| (i.id, i.status)),
        Some(("ticket-1".into(), v1::InstanceStatus::Draining.into()))
    );
    assert_eq!(update.update_mask.expect("required").paths, ["status"]);

    let mut status = registrar.subscribe();
    registrar.deregister(Removal::Drained).await;
    assert_eq!(*status.borrow_and_update(), RegistrarStatus::Left);
    let Some(Call::Deregister(request)) = fake.calls().pop() else {
        panic!("{:?}", fake.calls())
    };
    assert_eq!(request.reason, i32::from(v1::RemovalReason::Drained));
    assert_eq!(fake.leases(), [""; 0]);
    assert!(status.changed().await.is_err(), "the task has ended");
}

/// After `set_weight(5000)` the registry refused every later update, since each named the weight again: the instance stopped
/// without having drained.
#[tokio::test(start_paused = true)]
async fn a_weight_beyond_the_limit_costs_no_drain() {
    let fake = Fake::start().await;
    let registrar = registered(&to(&[fake.url()])).await;
    registrar.set_weight(5_000);
    let weight = |call: &Call| match call {
        Call::Update(update) => update.instance.as_ref().and_then(|instance| instance.weight),
        _ => None,
    };
    fake.until("the weight", |calls| {
        calls.iter().any(|call| weight(call) == Some(1_000))
    })
    .await;
    // What the registry refuses for a reason of its own.
    fake.script([Fate::Refuse(refusal(Code::InvalidArgument, "INVALID_ARGUMENT", None))]);
    registrar.set_metadata([("k".to_owned(), "x".repeat(2_000))].into());
    until(&registrar, "the refusal", |status| {
        matches!(status, RegistrarStatus::Retrying { .. })
    })
    .await;
    let begin = Instant::now();
    registrar.drain(Duration::ZERO).await;
    assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
    let masks: Vec<String> = fake
        .calls()
        .into_iter()
        .filter_map(|call| match call {
            Call::Update(update) => Some(update.update_mask.expect("required").paths.join("+")),
            _ => None,
        })
        .collect();
    assert_eq!(masks, ["weight", "metadata", "status"]);
}

#[tokio::test(start_paused = true)]
async fn a_draining_instance_stays_draining_when_it_registers_again() {
    let fake = Fake::start().await;
    let registrar = registered(&to(&[fake.url()])).await;
    registrar.set_weight(7);
    registrar.drain(Duration::ZERO).await;
    fake.forget_leases();
    until(
        &registrar,
        "a second registration",
        |status| matches!(status, RegistrarStatus::Draining { epoch, .. } if *epoch > 1),
    )
    .await;
    let again = fake.registrations().pop().expect("two");
    assert_eq!(again.instances[0].status, i32::from(v1::InstanceStatus::Draining));
    assert_eq!(again.instances[0].weight, Some(7));
}

#[tokio::test(start_paused = true)]
async fn leaving_a_hanging_registry_is_bounded() {
    let fake = Fake::start().await;
    let wire = WireCutter::before(fake.address).await;
    let registrar = registered(&to(&[wire.url()])).await;
    wire.freeze();
    let begin = Instant::now();
    assert_eq!(registrar.drain(Duration::from_secs(5)).await, Drained::Unheard);
    registrar.deregister(Removal::Drained).await;
    let took = begin.elapsed();
    assert!(
        took < Duration::from_millis(4_500),
        "2 s to drain, 0.3 s of linger, 2 s to leave: {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn leaving_does_not_wait_for_a_hanging_heartbeat() {
    let fake = Fake::start().await;
    let registrar = registered(&to(&[fake.url()])).await;
    fake.script([Fate::Hang]);
    fake.until("the heartbeat", |calls| renewals(calls) == 1).await;
    let begin = Instant::now();
    registrar.deregister(Removal::Deregistered).await;
    assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
    assert_eq!(fake.leases(), [""; 0]);
}

/// Any change cancelled the call in flight, and updates went first: a weight that changed faster than the network's round trip
/// let neither a heartbeat nor an update through.
#[tokio::test(start_paused = true)]
async fn changes_in_quick_succession_starve_neither_the_lease_nor_themselves() {
    let fake = Fake::start().await;
    fake.answer_after(Duration::from_millis(200));
    let registrar = registered(&to(&[fake.url()])).await;
    let begin = Instant::now();
    let mut again = tokio::time::interval(Duration::from_millis(50));
    for weight in (1..=1_000).cycle() {
        again.tick().await;
        registrar.set_weight(weight);
        if begin.elapsed() > Duration::from_secs(60) {
            break;
        }
    }
    let calls = fake.calls();
    let updates = calls.iter().filter(|call| matches!(call, Call::Update(_))).count();
    assert!((10..=14).contains(&renewals(&calls)), "{} heartbeats", renewals(&calls));
    assert!((200..=300).contains(&updates), "{updates} updates of 200 ms");
    assert_eq!(fake.registrations().len(), 1);
}

/// A lease lives from the request that made it, not from the answer that told of it at last. Planned from the answer, the first
/// heartbeat came when the lease had lapsed, and the instance, which had never been away, left and came again.
#[tokio::test(start_paused = true)]
async fn a_registration_that_was_answered_late_is_renewed_in_time() {
    let fake = Fake::start().await;
    let wire = WireCutter::before(fake.address).await;
    let registrar = to(&[wire.url()]).register(registration().heartbeat(Duration::from_secs(30), 2));
    registrar.registered(crate::PATIENCE).await.expect("registered");

    fake.forget_leases();
    fake.until("the refused heartbeat", |calls| renewals(calls) == 1).await;
    fake.script([Fate::Swallow]);
    fake.until("the registration", |_| fake.registrations().len() == 2)
        .await;
    // The lease of 60 s has begun; its answer is lost, and so is the way to ask for it: for 31 s, and a back-off of at most 10 s.
    let granted = Instant::now();
    wire.cut();
    tokio::time::sleep_until(granted + Duration::from_secs(31)).await;
    wire.mend();

    until(&registrar, "the answer", is_registered(2)).await;
    fake.until("a heartbeat", |calls| renewals(calls) == 2).await;
    assert!(granted.elapsed() < Duration::from_secs(45), "{:?}", granted.elapsed());
    fake.until("more heartbeats", |calls| renewals(calls) == 5).await;
    assert_eq!(fake.leases(), ["lease-2"]);
    let registrations = fake.registrations();
    assert_eq!(registrations.len(), 3);
    assert_eq!(registrations[1], registrations[2], "the same request");
}

/// With one miss allowed the deadline of a heartbeat was four fifths of the lease, of which half had gone when it was sent.
#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_hangs_does_not_cost_a_lease_of_one_interval() {
    let fake = Fake::start().await;
    let registrar = to(&[fake.url()]).register(registration().heartbeat(Duration::from_secs(5), 1));
    registrar.registered(crate::PATIENCE).await.expect("registered");
    for n in 1..=5 {
        fake.script([Fate::Hang]);
        fake.until("the one that hangs and its repeat", |calls| renewals(calls) == 2 * n)
            .await;
    }
    until(&registrar, "all is well", is_registered(1)).await;
    assert_eq!(fake.leases(), ["lease-1"]);
    assert_eq!(fake.registrations().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_registrar_is_silent() {
    let fake = Fake::start().await;
    let registrar = registered(&to(&[fake.url()])).await;
    let mut status = registrar.subscribe();
    drop(registrar);
    while soon("the task's end", status.changed()).await.is_ok() {}
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(fake.calls().len(), 1, "no heartbeat, no farewell: {:?}", fake.calls());
}

#[tokio::test(start_paused = true)]
async fn a_registrar_that_is_dropped_in_the_middle_of_a_call_does_not_linger() {
    let fake = Fake::start().await;
    fake.script([Fate::Hang]);
    let registrar = to(&[fake.url()]).register(registration());
    fake.until("the registration", |calls| calls.len() == 1).await;
    let mut status = registrar.subscribe();
    let begin = Instant::now();
    drop(registrar);
    while soon("the task's end", status.changed()).await.is_ok() {}
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_can_never_succeed_says_so_at_once() {
    let fake = Fake::start().await;
    let mut details = ErrorDetails::with_bad_request_violation("instances[0].endpoints[0].port", "must be 1 to 65535");
    details.set_error_info("INVALID_ARGUMENT", "tessera", std::collections::HashMap::new());
    let status = tonic::Status::with_error_details(Code::InvalidArgument, "bad registration", details);
    fake.script([Fate::Refuse(status)]);

    let registrar = to(&[fake.url()]).register(Registration::new("ticket-svc", "nonsense"));
    let begin = Instant::now();
    let error = registrar.registered(crate::PATIENCE).await.expect_err("refused");
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert!(!error.is_retryable());
    assert!(
        error
            .to_string()
            .contains("instances[0].endpoints[0].port: must be 1 to 65535"),
        "{error}"
    );
    assert_eq!(fake.registrations()[0].instances[0].endpoints[0].port, 0);
}

#[tokio::test(start_paused = true)]
async fn an_id_is_chosen_here_and_kept() {
    let fake = Fake::start().await;
    for id in [None, Some("")] {
        let mut registration = Registration::new("ticket-svc", "127.0.0.1:7101");
        if let Some(id) = id {
            registration = registration.id(id);
        }
        let registrar = to(&[fake.url()]).register(registration);
        let id = registrar.instance_id().to_owned();
        assert!(id.starts_with("ticket-svc-") && id.len() == 23, "{id}");
        registrar.registered(crate::PATIENCE).await.expect("registered");
        assert_eq!(fake.registrations().pop().expect("one").instances[0].id, id);
    }
}
