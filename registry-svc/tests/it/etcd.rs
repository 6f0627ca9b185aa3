//! Registries over one etcd: to clients they are one registry.

use std::{
    io::{Read as _, Write as _},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use proto::registry::v1::{
    self as wire, confidence::State, governance_service_client::GovernanceServiceClient,
    registry_service_client::RegistryServiceClient, snapshot::Cause, watch_response::Change,
};
use registry_svc::{Config, Registry, Running, StoreLocation};
use tokio::{runtime::Runtime, time::Instant};
use tonic::Code;

use crate::{
    etcd_server::EtcdServer,
    support::{
        Client, PATIENCE, Renewing, Watch, fleeting, ids, instance, lasting, reason, registration, renewal, until_ids,
    },
};

/// A registry over an etcd, on a runtime of its own so that it can die without a word.
struct Replica {
    runtime: Option<Runtime>,
    running: Option<Running>,
    address: String,
}

impl Replica {
    async fn start(etcd: &EtcdServer) -> Self {
        Self::with_grace(etcd, Config::default().orphan_grace).await
    }

    /// With another grace for what dead replicas leave.
    async fn with_grace(etcd: &EtcdServer, orphan_grace: Duration) -> Self {
        let store = format!("etcd://{}", etcd.address()).parse().expect("an address");
        let config = Config {
            listen: "127.0.0.1:0".parse().expect("an address"),
            store: StoreLocation::Etcd(store),
            drain_grace: Duration::from_secs(5),
            orphan_grace,
            ..Config::default()
        };
        let runtime = Runtime::new().expect("a runtime");
        let deadline = Instant::now() + PATIENCE;
        // On a busy machine etcd may not answer in time, and whoever runs a registry starts it again.
        let running = loop {
            match runtime.spawn(Registry::start(config.clone())).await.expect("no panic") {
                Ok(running) => break running,
                Err(error) => assert!(Instant::now() < deadline, "the registry does not start: {error:?}"),
            }
        };
        Self {
            address: format!("http://{}", running.local_addr()),
            running: Some(running),
            runtime: Some(runtime),
        }
    }

    async fn client(&self) -> Client {
        RegistryServiceClient::connect(self.address.clone())
            .await
            .expect("it listens")
    }

    /// As SIGTERM does.
    async fn stop(mut self) {
        let report = self.running.take().expect("it runs").stop().await;
        assert!(report.failure.is_none(), "{report:?}");
    }

    /// As SIGKILL does: nothing of it runs any more, and it takes no leave.
    fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.end();
    }
}

/// Registers one instance under a lasting lease. On a busy machine etcd may be away for longer than a registry makes its callers
/// wait; they repeat the request, as its id allows, and it is done once.
async fn register(client: &mut Client, service: &str, id: &str) -> wire::RegisterResponse {
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
    let request = wire::RegisterRequest {
        request_id: format!("00000000-0000-4000-8000-{number:012x}"),
        ..lasting([instance(service, id)])
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.register(request.clone()).await {
            Ok(registered) => return registered.into_inner(),
            Err(status) if status.code() == Code::Unavailable && Instant::now() < deadline => {
                tokio::task::yield_now().await;
            }
            Err(status) => panic!("{status:?}"),
        }
    }
}

async fn list(client: &mut Client, service: &str) -> wire::ListInstancesResponse {
    let request = wire::ListInstancesRequest {
        service: service.to_owned(),
        ..Default::default()
    };
    client.list_instances(request).await.expect("lists").into_inner()
}

/// Polls until the replica is at a revision.
async fn until_revision(client: &mut Client, revision: i64) -> wire::ListInstancesResponse {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list = list(client, "").await;
        if list.revision >= revision {
            return list;
        }
        assert!(
            Instant::now() < deadline,
            "waited for revision {revision}, it is at {}",
            list.revision
        );
        tokio::task::yield_now().await;
    }
}

/// A change is one trace for the watchers of every replica, however they hear of it: by the watch, or from the history.
#[tokio::test(flavor = "multi_thread")]
async fn watchers_of_every_replica_are_told_whose_doing_a_change_is() {
    let Some(etcd) = EtcdServer::start() else { return };
    let (one, two) = (Replica::start(&etcd).await, Replica::start(&etcd).await);
    let (mut a, mut b) = (one.client().await, two.client().await);
    let first = register(&mut a, "a-svc", "1").await;
    until_revision(&mut b, first.revision).await;
    let mut watch = Watch::open(&mut b, "a-svc", first.revision).await;

    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut request = tonic::Request::new(lasting([instance("a-svc", "2")]));
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", parent.parse().expect("a value"));
    let second = a.register(request).await.expect("registered").into_inner();
    let told = async |watch: &mut Watch| loop {
        let response = watch.next().await;
        if response.revision == second.revision
            && let Some(Change::Delta(delta)) = response.change
        {
            return delta.traceparent;
        }
    };
    assert_eq!(told(&mut watch).await, parent);
    // One that is started afterwards knows it from the log.
    let three = Replica::start(&etcd).await;
    let mut resumed = Watch::open(&mut three.client().await, "a-svc", first.revision).await;
    assert_eq!(told(&mut resumed).await, parent);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_is_told_all_of_them_know() {
    let Some(etcd) = EtcdServer::start() else { return };
    let (one, two) = (Replica::start(&etcd).await, Replica::start(&etcd).await);
    let (mut a, mut b) = (one.client().await, two.client().await);
    let first = register(&mut a, "a-svc", "1").await;
    let there = until_revision(&mut b, first.revision).await;
    assert_eq!((there.revision, there.instances), (1, list(&mut a, "").await.instances));
    // Each goes on from the other's revision, one after the other.
    for n in 2..10 {
        let client = if n % 2 == 0 { &mut b } else { &mut a };
        let next = register(client, "a-svc", &n.to_string()).await;
        assert_eq!(next.revision, n);
    }
    // At the same time they get in each other's way, and both get through.
    let many = |mut client: Client, name: &'static str| async move {
        for n in 0..50 {
            register(&mut client, name, &n.to_string()).await;
        }
    };
    tokio::join!(many(a.clone(), "b-svc"), many(b.clone(), "c-svc"));
    let here = until_revision(&mut a, 109).await;
    let there = until_revision(&mut b, 109).await;
    assert_eq!((here.revision, there.revision), (109, 109));
    assert_eq!(ids(&mut a, "b-svc").await, ids(&mut b, "b-svc").await);
    assert_eq!(ids(&mut a, "c-svc").await.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_at_another_replica() {
    let Some(etcd) = EtcdServer::start() else { return };
    let (one, two) = (Replica::start(&etcd).await, Replica::start(&etcd).await);
    let (mut a, mut b) = (one.client().await, two.client().await);
    register(&mut a, "a-svc", "1").await;
    let mut watch = Watch::open(&mut a, "a-svc", 0).await;
    let (at, cause, found) = watch.snapshot().await;
    assert_eq!((at, cause, found), (1, Cause::Initial, vec!["1".to_owned()]));
    for n in 2..=4 {
        register(&mut a, "a-svc", &n.to_string()).await;
        assert_eq!(watch.delta().await, (n, vec![format!("put {n}")]));
    }
    // It asks at once for what the other one may only just hear of.
    let newest = register(&mut a, "a-svc", "5").await.revision;
    let mut resumed = Watch::open(&mut b, "a-svc", newest).await;
    assert_eq!(resumed.bookmark().await, newest);
    let sixth = register(&mut b, "a-svc", "6").await.revision;
    assert_eq!(resumed.delta().await, (sixth, vec!["put 6".into()]));
    // And from further back without a gap or a repeat.
    let mut resumed = Watch::open(&mut b, "a-svc", 2).await;
    for n in 3..=6 {
        assert_eq!(resumed.delta().await, (n, vec![format!("put {n}")]));
    }
    one.stop().await;
    let seventh = register(&mut b, "a-svc", "7").await.revision;
    assert_eq!(resumed.delta().await, (seventh, vec!["put 7".into()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_all_of_them_is_not_a_relist() {
    let Some(etcd) = EtcdServer::start() else { return };
    let (one, two) = (Replica::start(&etcd).await, Replica::start(&etcd).await);
    let mut a = one.client().await;
    let lease = register(&mut a, "a-svc", "1").await;
    let newest = register(&mut a, "a-svc", "2").await.revision;
    until_revision(&mut two.client().await, newest).await;
    one.stop().await;
    two.stop().await;

    let again = Replica::start(&etcd).await;
    let mut client = again.client().await;
    assert_eq!(ids(&mut client, "a-svc").await, ["1", "2"]);
    let mut watch = Watch::open(&mut client, "a-svc", 1).await;
    assert_eq!(watch.delta().await, (2, vec!["put 2".into()]));
    client.renew(renewal(&lease)).await.expect("the secret is still good");
    let third = register(&mut client, "a-svc", "3").await.revision;
    assert_eq!(watch.delta().await, (third, vec!["put 3".into()]));
}

/// One owner comes to the other replica when its own dies, another one died with it: only that one's instance leaves.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lives_where_it_is_renewed() {
    let Some(etcd) = EtcdServer::start() else { return };
    let (one, two) = (Replica::start(&etcd).await, Replica::start(&etcd).await);
    let (mut a, mut b) = (one.client().await, two.client().await);
    let register = of_five_seconds("a-svc", "moves");
    let moves = a.register(register).await.expect("registers").into_inner();
    let register = fleeting([instance("a-svc", "orphan")]);
    let orphan = a.register(register).await.expect("registers").into_inner();
    until_revision(&mut b, orphan.revision).await;
    let mut watch = Watch::open(&mut b, "a-svc", orphan.revision).await;
    assert_eq!(watch.bookmark().await, orphan.revision);
    b.renew(renewal(&moves)).await.expect("any replica will do");
    a.renew(renewal(&orphan)).await.expect("its own too");
    one.kill();

    let renewing = Renewing::begin(&b, &moves);
    // Its session's time to live, its own, and the grace: some 21 s.
    let deadline = Instant::now() + PATIENCE * 3;
    while ids(&mut b, "a-svc").await != ["moves"] {
        assert!(Instant::now() < deadline, "the orphan stays");
        tokio::task::yield_now().await;
    }
    assert_eq!(watch.delta().await.1, ["removed orphan EXPIRED"]);
    renewing.end().await;
}

/// Each replica restored what it loaded as a registry that is alone does, over etcd too: as if all of it were its own. So it took
/// the leases of living replicas for those of one that had died, and once it was elected it ended them all, though they were
/// renewed in time; and it waited for owners that had never been away.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_loads_belongs_to_those_who_hear_it() {
    let Some(etcd) = EtcdServer::start() else { return };
    // Together with the time to live longer than it takes a replica on a busy machine to find that its session is gone, and to make
    // it again.
    let grace = Duration::from_secs(5);
    let one = Replica::with_grace(&etcd, grace).await;
    let mut a = one.client().await;
    register(&mut a, "b-svc", "lasting").await;
    let lease = a.register(of_five_seconds("a-svc", "1")).await.expect("registers");
    // In a task of its own: etcdctl may take long.
    let renewing = Renewing::begin(&a, lease.get_ref());
    // The first session is its own. Without it the other one is the elder.
    let Some(session) = etcd.etcdctl(&["get", "--prefix", "--keys-only", "/tessera/registry/session/"]) else {
        return;
    };
    let two = Replica::with_grace(&etcd, grace).await;
    let mut b = two.client().await;
    let deadline = Instant::now() + PATIENCE;
    // Three hours is what one of the leases may live without a heartbeat, and a minute is the longest recovery.
    while confidence(&list(&mut b, "").await) != Some(State::Fresh) {
        assert!(Instant::now() < deadline, "it waits for owners who are heard elsewhere");
        tokio::task::yield_now().await;
    }
    etcd.etcdctl(&["del", session.trim()]);
    // What a replica leaves that stops after that ends later than what the elected one took for such at its election.
    let three = Replica::with_grace(&etcd, grace).await;
    let orphan = three.client().await.register(of_five_seconds("c-svc", "orphan")).await;
    until_revision(&mut b, orphan.expect("registers").get_ref().revision).await;
    three.stop().await;
    let deadline = Instant::now() + 2 * PATIENCE;
    while !ids(&mut b, "c-svc").await.is_empty() {
        tokio::task::yield_now().await;
        assert!(Instant::now() < deadline, "the orphan stays");
        assert_eq!(ids(&mut b, "a-svc").await, ["1"]);
    }
    assert_eq!(ids(&mut b, "a-svc").await, ["1"]);
    renewing.end().await;
}

/// Long enough for whoever renews it to be kept waiting by a busy machine.
fn of_five_seconds(service: &str, id: &str) -> wire::RegisterRequest {
    wire::RegisterRequest {
        misses_allowed: 50,
        ..fleeting([instance(service, id)])
    }
}

fn confidence(list: &wire::ListInstancesResponse) -> Option<State> {
    list.confidence.as_ref().map(wire::Confidence::state)
}

/// The numbers of etcd's own metrics that begin so, added up.
fn etcd_counts(etcd: &EtcdServer, name: &str) -> f64 {
    let mut stream = std::net::TcpStream::connect(etcd.address()).expect("it listens");
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", etcd.address());
    stream.write_all(request.as_bytes()).expect("asks");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answers");
    let samples = text.lines().filter(|line| line.starts_with(name));
    let values: Vec<f64> = samples
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .collect();
    assert!(!values.is_empty(), "etcd counts {name}");
    values.iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_never_reach_etcd() {
    let Some(etcd) = EtcdServer::start() else { return };
    let (one, two) = (Replica::start(&etcd).await, Replica::start(&etcd).await);
    let (mut a, mut b) = (one.client().await, two.client().await);
    let mut leases = Vec::new();
    for n in 0..200 {
        let client = if n % 2 == 0 { &mut a } else { &mut b };
        leases.push(register(client, "a-svc", &n.to_string()).await);
    }
    until_revision(&mut a, 200).await;
    until_revision(&mut b, 200).await;

    let writes = || etcd_counts(&etcd, "etcd_server_proposals_committed_total");
    let requests = || etcd_counts(&etcd, "grpc_server_handled_total");
    let (writes_before, requests_before) = (writes(), requests());
    let begun = Instant::now();
    let mut renewals = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        for (n, lease) in leases.iter().enumerate() {
            let client = if n % 2 == 0 { &mut a } else { &mut b };
            client.renew(renewal(lease)).await.expect("it lives");
            renewals += 1;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (writes, requests) = (writes() - writes_before, requests() - requests_before);
    assert!(renewals >= 1_000, "enough of them to tell: {renewals}");
    assert!(writes < 1.0, "{writes} writes for {renewals} renewals");
    // Each replica looks at the head every second and prolongs its session every three.
    assert!(
        requests <= 2.0 * 2.0 * seconds + 4.0,
        "{requests} requests in {seconds} s for {renewals} renewals"
    );
    let request = wire::ListInstancesRequest {
        service: "a-svc".to_owned(),
        page_size: 1_000,
        ..Default::default()
    };
    let list = a.list_instances(request).await.expect("lists").into_inner();
    assert_eq!(list.instances.len(), leases.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_readers_are_served_and_nobody_lapses() {
    let Some(etcd) = EtcdServer::start() else { return };
    let one = Replica::start(&etcd).await;
    let mut client = one.client().await;
    let registered = client
        .register(fleeting([instance("a-svc", "1")]))
        .await
        .expect("registers");
    let lease = registered.into_inner();
    let mut watch = Watch::open(&mut client, "a-svc", lease.revision).await;
    etcd.pause();
    let deadline = Instant::now() + PATIENCE;
    let stale = loop {
        let list = list(&mut client, "a-svc").await;
        client.renew(renewal(&lease)).await.expect("renewals go on");
        if confidence(&list) == Some(State::Stale) {
            break list;
        }
        assert!(Instant::now() < deadline, "never stale");
        tokio::task::yield_now().await;
    };
    let age = stale.confidence.and_then(|confidence| confidence.age).expect("its age");
    assert!(age.seconds >= 3, "{age:?}");
    // Watchers hear of it.
    loop {
        let response = watch.next().await;
        if response
            .confidence
            .is_some_and(|confidence| confidence.state() == State::Stale)
        {
            break;
        }
    }
    // Writes are refused with a reason, whether one is on its way or not.
    let mut reasons = Vec::new();
    for _ in 0..2 {
        let refused = client
            .register(registration([instance("a-svc", "2")]))
            .await
            .expect_err("no store");
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        reasons.push(reason(&refused));
    }
    assert_eq!(reasons.last().map(String::as_str), Some("STORE_AWAY"), "{reasons:?}");
    // It cannot know that nobody else reaches etcd, so it sends owners away: by either way, and while it has their leases.
    let deadline = Instant::now() + PATIENCE;
    let away = loop {
        match client.renew(renewal(&lease)).await {
            Ok(_) => assert!(Instant::now() < deadline, "renewals go on for ever"),
            Err(status) => break status,
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((away.code(), reason(&away).as_str()), (Code::Unavailable, "STORE_AWAY"));
    let round = wire::KeepAliveRequest {
        renewals: vec![renewal(&lease)],
    };
    let mut stream = client
        .keep_alive(tokio_stream::once(round))
        .await
        .expect("opens")
        .into_inner();
    let ended = stream.message().await.expect_err("ends");
    assert_eq!(
        (ended.code(), reason(&ended).as_str()),
        (Code::Unavailable, "STORE_AWAY")
    );
    // Nobody renews for far longer than the time to live.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert!(ids(&mut client, "a-svc").await.contains(&"1".to_owned()));
    }
    etcd.resume();
    let deadline = Instant::now() + PATIENCE;
    while confidence(&list(&mut client, "a-svc").await) == Some(State::Stale) {
        if let Err(status) = client.renew(renewal(&lease)).await {
            assert_eq!(reason(&status), "STORE_AWAY");
        }
        assert!(Instant::now() < deadline, "stale for ever");
    }
    client.renew(renewal(&lease)).await.expect("it lives");
    // What was refused did not happen; what comes now does.
    until_ids(&mut client, "a-svc", &["1"]).await;
    client
        .register(registration([instance("b-svc", "3")]))
        .await
        .expect("registers");
}

/// A replica that answered for all of them would have said that every caller knew, and those that watch the others would not.
#[tokio::test(flavor = "multi_thread")]
async fn each_tells_of_its_own_watches_and_names_the_others() {
    let Some(etcd) = EtcdServer::start() else { return };
    let (one, two) = (Replica::start(&etcd).await, Replica::start(&etcd).await);
    let (mut a, mut b) = (one.client().await, two.client().await);
    let registered = register(&mut a, "a-svc", "1").await;
    until_revision(&mut b, registered.revision).await;
    let mut watch = Watch::open(&mut b, "a-svc", 0).await;
    watch.snapshot().await;
    let asked = wire::AwaitWatchersRequest {
        service: "a-svc".into(),
        id: "1".into(),
        revision: registered.revision,
        timeout: Some(prost_types::Duration::default()),
        ..Default::default()
    };
    let ask = async |client: &mut Client| {
        client
            .await_watchers(asked.clone())
            .await
            .expect("answers")
            .into_inner()
    };
    // Until each knows that the other one is there.
    let deadline = Instant::now() + PATIENCE;
    let (of_one, of_two) = loop {
        let (of_one, of_two) = (ask(&mut a).await, ask(&mut b).await);
        if of_one.unheard_replicas == [of_two.replica.clone()] && of_two.unheard_replicas == [of_one.replica.clone()] {
            break (of_one, of_two);
        }
        assert!(Instant::now() < deadline, "{of_one:?} {of_two:?}");
        tokio::task::yield_now().await;
    };
    assert!(!of_one.replica.is_empty() && of_one.replica != of_two.replica);
    assert_eq!(of_one.unacknowledged_watch_ids, [""; 0]);
    assert_eq!(of_two.unacknowledged_watch_ids, [watch.id()]);
    let acknowledged = wire::AckWatchRequest {
        watch_id: watch.id(),
        revision: registered.revision,
    };
    let elsewhere = a.ack_watch(acknowledged.clone()).await.expect_err("is another's");
    assert_eq!(
        (elsewhere.code(), reason(&elsewhere).as_str()),
        (Code::NotFound, "WATCH_UNKNOWN")
    );
    b.ack_watch(acknowledged).await.expect("is its own");
    assert_eq!(ask(&mut b).await.unacknowledged_watch_ids, [""; 0]);
    two.stop().await;
    one.stop().await;
}

/// What was decided at one replica holds at another, over the death of the first, a registration at the second and a start of all of
/// them from what etcd has; and it ends at all of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_decides_outlives_the_replica_that_was_asked() {
    let Some(etcd) = EtcdServer::start() else { return };
    let (one, two) = (Replica::start(&etcd).await, Replica::start(&etcd).await);
    let mut operator = GovernanceServiceClient::connect(one.address.clone())
        .await
        .expect("listens");
    let (mut a, mut b) = (one.client().await, two.client().await);
    register(&mut a, "a-svc", "1").await;
    let drain = |until: Option<SystemTime>| wire::DrainRequest {
        instance: Some(wire::InstanceRef {
            service: "a-svc".into(),
            id: "1".into(),
            ..Default::default()
        }),
        who: "ann".into(),
        why: "a slow disk".into(),
        until: until.map(Into::into),
        ack_timeout: Some(prost_types::Duration::default()),
    };
    let drained = operator.drain(drain(None)).await.expect("drains").into_inner();
    let is_drained = |list: &wire::ListInstancesResponse| {
        let laid = list.instances.first().and_then(|instance| instance.r#override.as_ref());
        laid.is_some_and(|laid| laid.drained && laid.who == "ann")
    };
    assert!(is_drained(&until_revision(&mut b, drained.revision).await));
    one.kill();
    let again = register(&mut b, "a-svc", "1").await;
    assert!(
        is_drained(&until_revision(&mut b, again.revision).await),
        "it is the name that is drained"
    );

    let three = Replica::start(&etcd).await;
    let mut c = three.client().await;
    assert!(is_drained(&list(&mut c, "a-svc").await), "also to who loads it");
    let mut operator = GovernanceServiceClient::connect(three.address.clone())
        .await
        .expect("listens");
    let soon = SystemTime::now() + Duration::from_millis(500);
    operator.drain(drain(Some(soon))).await.expect("drains");
    // The dead one may have been the elected one: the next is, once its session has ended.
    let deadline = Instant::now() + 2 * PATIENCE;
    while is_drained(&list(&mut b, "a-svc").await) || is_drained(&list(&mut c, "a-svc").await) {
        assert!(Instant::now() < deadline, "it does not end");
        tokio::task::yield_now().await;
    }
    let request = wire::ExplainInstanceRequest {
        instance: drain(None).instance,
    };
    let told = operator.explain_instance(request).await.expect("explains").into_inner();
    let steps: Vec<_> = told.steps.iter().map(wire::InstanceStep::what).collect();
    use wire::instance_step::What;
    assert_eq!(
        steps,
        [
            What::OverrideEnded,
            What::Drained,
            What::Registered,
            What::Removed,
            What::Drained,
            What::Registered
        ]
    );
    three.stop().await;
    two.stop().await;
}
