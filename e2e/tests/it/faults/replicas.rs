//! Rows 20 and 21. Replicas over etcd, while members of etcd and replicas are killed, stopped and started again.

use std::time::Duration;

use e2e::{
    etcd::Cluster,
    registry::{Fleet, Ledger, Load, Recorder, RegistryProcess, Truth, wire},
    trial::{Need, Trial},
    wait,
};
use proto::registry::v1::{RegisterResponse, confidence::State};
use registry_client::{Registration, Registry};
use rustix::process::Signal;
use tonic::{Code, Request};

const ETCD: Need = Need::Tool("etcd");
/// Of the leases: several times shorter than every fault is long.
const TTL: Duration = Duration::from_secs(2);

/// Two replicas over three members, with everything that goes on at them.
struct Scene {
    etcd: Cluster,
    replicas: [RegistryProcess; 2],
    fleets: [Fleet; 2],
    loads: [Load; 2],
    /// One at each replica, and one that goes from one to the other when it breaks.
    recorders: [Recorder; 3],
    /// Of the first replica.
    origin: RegisterResponse,
    begin: wire::Listing,
}

impl Scene {
    async fn begin(trial: &mut Trial) -> Self {
        let etcd = Cluster::start(3).await;
        let url = etcd.url();
        let flags = ["--store", url.as_str(), "--history-len", "1000000"];
        let replicas = [RegistryProcess::with(&flags).await, RegistryProcess::with(&flags).await];
        let mut client = replicas[0].client();
        let origin = client
            .register(wire::lasting([wire::instance("origin", "origin")]))
            .await;
        let origin = origin.expect("registers").into_inner();
        let begin = wire::list(&mut client, "").await.expect("lists");
        let fleets = [
            Fleet::start(&replicas[0], "b-svc", "one", 30, TTL).await,
            Fleet::start(&replicas[1], "b-svc", "two", 30, TTL).await,
        ];
        let recorders = [&replicas[..1], &replicas[1..], &replicas[..]].map(|replicas| {
            let channels = replicas.iter().map(RegistryProcess::channel);
            Recorder::over(channels, wire::WatchRequest::default())
        });
        let loads = [
            Load::whatever_happens(&replicas[0], Load::books("a-svc", 3, &mut trial.rng)),
            Load::whatever_happens(&replicas[1], Load::books("c-svc", 3, &mut trial.rng)),
        ];
        let scene = Self {
            etcd,
            replicas,
            fleets,
            loads,
            recorders,
            origin,
            begin,
        };
        scene.flows().await;
        scene
    }

    /// Writes and heartbeats are answered at both replicas.
    async fn flows(&self) {
        for load in &self.loads {
            load.flows(30).await;
        }
        self.beats().await;
    }

    /// Heartbeats are answered at both replicas.
    async fn beats(&self) {
        for fleet in &self.fleets {
            fleet.beats(5).await;
        }
    }

    /// Both come to answer heartbeats with "renew it elsewhere": also the one that has granted the lease.
    async fn sends_owners_away(&self) {
        for replica in &self.replicas {
            let client = replica.client();
            wait::until("heartbeats to be sent away", || async {
                match client.clone().renew(wire::renewal(&self.origin)).await {
                    Err(status) if status.code() == Code::Unavailable => Ok(()),
                    answer => Err(format!("{answer:?}")),
                }
            })
            .await;
        }
    }

    /// Waits until both answer with this confidence, and go on answering reads.
    async fn trusts(&self, expected: State) {
        for replica in &self.replicas {
            let client = replica.client();
            wait::until("a confidence", || async {
                let listed = client
                    .clone()
                    .list_instances(wire::ListInstancesRequest::default())
                    .await;
                let confidence = listed.map_err(|error| error.to_string())?.into_inner().confidence;
                let confidence = confidence.unwrap_or_default();
                match confidence.state() {
                    state if state == expected => Ok(()),
                    _ => Err(format!("{confidence:?}")),
                }
            })
            .await;
        }
    }

    /// A write is answered at all within its deadline, and with nothing but "not now".
    async fn writes_are_refused(&self) {
        for replica in &self.replicas {
            let mut request = Request::new(wire::lasting([wire::instance("d-svc", "refused")]));
            request.set_timeout(Duration::from_secs(5));
            let status = replica
                .client()
                .register(request)
                .await
                .expect_err("there is no quorum");
            assert!(
                matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
                "{status:?}"
            );
        }
    }

    /// Everything stands still: both replicas hold the same, nobody lapsed, and all watches were told the same history.
    async fn end(self) {
        let Self {
            replicas,
            fleets,
            loads,
            recorders,
            origin: _,
            begin,
            etcd,
        } = self;
        let mut books = Vec::new();
        for load in loads {
            books.extend(load.stop().await);
        }
        let mut client = replicas[0].client();
        let last = client.register(wire::lasting([wire::instance("origin", "last")])).await;
        let last = last.expect("registers").into_inner().revision;
        for recorder in &recorders {
            recorder.reaches(last).await;
        }
        let listing = converge(&replicas).await;
        books.iter_mut().for_each(|ledger: &mut Ledger| ledger.check(&listing));
        for fleet in &fleets {
            assert_eq!(fleet.lost(), [""; 0], "nobody is to register again");
        }
        let truth = Truth::read(&replicas[1], begin).await;
        for (number, recorder) in recorders.into_iter().enumerate() {
            let journal = recorder.stop();
            assert_eq!(journal.removed(wire::RemovalReason::Expired), [""; 0], "nobody lapsed");
            journal.check(&format!("watch {number}"), &truth, |_, _| true);
            assert_eq!(journal.relists(), 0, "watch {number}: a resume is not a relist");
        }
        drop(etcd);
    }
}

/// Waits until all replicas hold the same at the same revision, and returns that.
async fn converge(replicas: &[RegistryProcess]) -> wire::Listing {
    wait::until("the replicas to agree", || async {
        let mut listings = Vec::new();
        for replica in replicas {
            let listing = wire::list(&mut replica.client(), "").await;
            listings.push(listing.map_err(|error| error.to_string())?);
        }
        let first = listings.remove(0);
        match listings.iter().find(|other| other.revision != first.revision) {
            Some(behind) => Err(format!("{} and {}", first.revision, behind.revision)),
            None => {
                for other in listings {
                    assert_eq!(
                        first.instances, other.instances,
                        "different at revision {}",
                        first.revision
                    );
                }
                Ok(first)
            }
        }
    })
    .await
}

/// Row 20. A follower is lost and returns; the leader is lost and returns. Writes go on after the election.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_member_of_etcd_stops_nothing_for_long() {
    let name = "a_lost_member_of_etcd_stops_nothing_for_long";
    let Some(mut trial) = Trial::with(name, &[ETCD]).await else {
        return;
    };
    let mut scene = Scene::begin(&mut trial).await;
    for leads in [false, true] {
        let leader = scene.etcd.leads().await;
        let lost = if leads {
            leader
        } else {
            (leader + 1) % scene.etcd.size()
        };
        scene.etcd.kill(lost).await;
        scene.flows().await;
        scene.etcd.begin(lost);
        scene.flows().await;
    }
    scene.end().await;
}

/// Row 20. Two of three are lost, for longer than any lease lives: writes are refused, reads and watches go on and say
/// STALE, and owners are sent elsewhere. When etcd is back, so is everything, and nobody has lapsed.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_quorum_makes_replicas_stale_and_expires_nobody() {
    let name = "a_lost_quorum_makes_replicas_stale_and_expires_nobody";
    let Some(mut trial) = Trial::with(name, &[ETCD]).await else {
        return;
    };
    let mut scene = Scene::begin(&mut trial).await;
    let leader = scene.etcd.leads().await;
    let lost = [leader, (leader + 1) % 3];
    for member in lost {
        scene.etcd.kill(member).await;
    }
    scene.trusts(State::Stale).await;
    scene.writes_are_refused().await;
    // For longer than any lease lives.
    scene.sends_owners_away().await;
    for member in lost {
        scene.etcd.begin(member);
    }
    scene.etcd.leads().await;
    scene.trusts(State::Fresh).await;
    scene.flows().await;
    scene.end().await;
}

/// Row 20. One member, the leader, and then all of etcd stand still and go on: a stopped peer still has its connections, so
/// nothing fails at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_etcd_expires_nobody() {
    let name = "a_stopped_etcd_expires_nobody";
    let Some(mut trial) = Trial::with(name, &[ETCD]).await else {
        return;
    };
    let scene = Scene::begin(&mut trial).await;
    let leader = scene.etcd.leads().await;
    scene.etcd.signal(leader, Signal::STOP);
    scene.flows().await;
    scene.etcd.signal(leader, Signal::CONT);
    scene.flows().await;
    for member in 0..3 {
        scene.etcd.signal(member, Signal::STOP);
    }
    scene.trusts(State::Stale).await;
    scene.writes_are_refused().await;
    scene.sends_owners_away().await;
    for member in 0..3 {
        scene.etcd.signal(member, Signal::CONT);
    }
    scene.trusts(State::Fresh).await;
    scene.flows().await;
    scene.end().await;
}

/// Row 21. Replicas are killed in turn, under watches that go to the other one: each resumes where it was, without gap, repeat
/// or time travel. Providers that know both addresses are never missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_at_the_other_replica() {
    let name = "a_watch_resumes_at_the_other_replica";
    let Some(mut trial) = Trial::with(name, &[ETCD]).await else {
        return;
    };
    let etcd = Cluster::start(3).await;
    let url = etcd.url();
    let flags = ["--store", url.as_str(), "--history-len", "1000000"];
    let mut replicas = [RegistryProcess::with(&flags).await, RegistryProcess::with(&flags).await];
    let mut client = replicas[0].client();
    let origin = client
        .register(wire::lasting([wire::instance("origin", "origin")]))
        .await;
    origin.expect("registers");
    let begin = wire::list(&mut client, "").await.expect("lists");
    let both = Registry::connect(replicas.iter().map(RegistryProcess::address)).expect("addresses");
    let providers: Vec<_> = (0..20)
        .map(|number| {
            let provider = Registration::new("b-svc", "127.0.0.1:7001").id(format!("provider-{number}"));
            both.register(provider.heartbeat(TTL / 5, 5))
        })
        .collect();
    for provider in &providers {
        provider.registered(wait::PATIENCE).await.expect("registers");
    }
    let mut consumer = both.discover("b-svc").watch();
    consumer
        .wait_for(|set| set.instances.len() == 20)
        .await
        .expect("watches");
    let recorders: Vec<Recorder> = (0..10)
        .map(|number| {
            let order = [&replicas[number % 2], &replicas[(number + 1) % 2]];
            Recorder::over(order.map(RegistryProcess::channel), wire::WatchRequest::default())
        })
        .collect();
    let mut books = Load::books("a-svc", 4, &mut trial.rng);
    for kill in 0..trial.times(6) {
        let (lost, stays) = (kill % 2, (kill + 1) % 2);
        let load = Load::whatever_happens(&replicas[stays], books);
        load.flows(50).await;
        replicas[lost].kill().await;
        load.flows(50).await;
        let told = load.acked();
        assert!(told >= 100, "there was traffic");
        replicas[lost].begin().await;
        books = load.stop().await;
        let listing = converge(&replicas).await;
        books.iter_mut().for_each(|ledger| ledger.check(&listing));
        for provider in &providers {
            provider.registered(wait::PATIENCE).await.expect("is registered");
        }
        assert_eq!(
            consumer.borrow_and_update().instances.len(),
            20,
            "providers are never missed"
        );
    }
    let mut client = replicas[1].client();
    let last = client.register(wire::lasting([wire::instance("origin", "last")])).await;
    let last = last.expect("registers").into_inner().revision;
    for recorder in &recorders {
        recorder.reaches(last).await;
    }
    converge(&replicas).await;
    let truth = Truth::read(&replicas[0], begin).await;
    for (number, recorder) in recorders.into_iter().enumerate() {
        let journal = recorder.stop();
        journal.check(&format!("watch {number}"), &truth, |_, _| true);
        assert_eq!(journal.relists(), 0, "watch {number}: a resume is not a relist");
        for reason in [wire::RemovalReason::Expired, wire::RemovalReason::Replaced] {
            let left: Vec<&str> = journal.removed(reason);
            let left: Vec<&str> = left.into_iter().filter(|id| id.starts_with("provider")).collect();
            assert_eq!(left, [""; 0], "no provider left: {reason:?}");
        }
    }
}
