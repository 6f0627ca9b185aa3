//! Calls go where rules, tags and zones say, and nowhere else.

use std::{collections::BTreeMap, sync::Arc};

use lb::{HeaderMatch, MethodMatch, RouteRule, Routes, Split, Subset, Subsetting, ZonePreference};
use registry_client::{Discovery, Instance, Snapshot};
use telemetry::WithContext as _;
use tokio::sync::watch;
use tonic::{Code, Request, Status};

use crate::support::{TestServer, all_ready, ask, client, eventually, ready, reason};

/// What an instance says of itself.
type Kind = fn(&mut Instance);

/// Servers by the names of their instances, and how to change the set.
struct Fleet {
    servers: BTreeMap<String, TestServer>,
    told: watch::Sender<Arc<Snapshot>>,
}

impl Fleet {
    fn start(instances: &[(&str, Kind)]) -> (Self, lb::Builder) {
        let servers: BTreeMap<String, TestServer> = instances
            .iter()
            .map(|(id, _)| ((*id).to_owned(), TestServer::start()))
            .collect();
        let rows = instances.iter().map(|(id, change)| {
            let mut instance = Instance::new("s", *id, &servers[*id].addr());
            change(&mut instance);
            instance
        });
        let (told, snapshots) = watch::channel(Arc::new(Snapshot::fresh(1, rows)));
        let builder = lb::Channel::builder(Discovery::fed_by("s", snapshots));
        (Self { servers, told }, builder)
    }

    fn remove(&self, id: &str) {
        let current = self.told.borrow().clone();
        let rows = current.instances.iter().filter(|instance| instance.id != id);
        let rows: Vec<Instance> = rows.map(|instance| (**instance).clone()).collect();
        self.told
            .send(Arc::new(Snapshot::fresh(current.revision + 1, rows)))
            .expect("watched");
    }

    async fn ready(&self, channel: &lb::Channel) {
        all_ready(channel, self.servers.len()).await;
    }
}

/// One call with that metadata; the id of who answered.
async fn call(channel: &lb::Channel, metadata: &[(&'static str, &str)]) -> Result<String, Status> {
    let mut request = Request::new(ask(""));
    for (key, value) in metadata {
        request.metadata_mut().insert(*key, value.parse().expect("a value"));
    }
    let response = client(channel).check(request).await?;
    let picked = response
        .extensions()
        .get::<lb::Picked>()
        .expect("every response says who");
    Ok(picked.instance_id.to_string())
}

/// How often each answers in so many calls.
async fn shares(channel: &lb::Channel, calls: usize, metadata: &[(&'static str, &str)]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        *counts
            .entry(call(channel, metadata).await.expect("answered"))
            .or_default() += 1;
    }
    counts
}

fn only(counts: &BTreeMap<String, usize>) -> Vec<&str> {
    counts.keys().map(String::as_str).collect()
}

const GRAY: Kind = |instance| instance.tag = "gray".to_owned();
const PLAIN: Kind = |_| {};
const FIRST: Kind = |instance| instance.version = "1.9.3".to_owned();
const SECOND: Kind = |instance| instance.version = "2.0.1".to_owned();

#[tokio::test]
async fn untagged_calls_never_reach_tagged_instances_and_a_tag_falls_back_unless_forced() {
    let (fleet, builder) = Fleet::start(&[("plain", PLAIN), ("gray", GRAY)]);
    let channel = builder.ready_timeout(std::time::Duration::ZERO).build();
    fleet.ready(&channel).await;
    assert_eq!(only(&shares(&channel, 50, &[]).await), ["plain"]);
    assert_eq!(only(&shares(&channel, 50, &[("tessera-tag", "gray")]).await), ["gray"]);
    let forced = [("tessera-tag", "gray"), ("tessera-tag-force", "true")];
    assert_eq!(only(&shares(&channel, 50, &forced).await), ["gray"]);
    assert_eq!(only(&shares(&channel, 50, &[("tessera-tag", "blue")]).await), ["plain"]);

    fleet.remove("gray");
    eventually("it is gone", || channel.endpoints().len() == 1).await;
    assert_eq!(only(&shares(&channel, 50, &[("tessera-tag", "gray")]).await), ["plain"]);
    let status = call(&channel, &forced).await.expect_err("there is no gray one");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "NO_ROUTE")
    );
    assert!(
        status.message().contains("the tag \"gray\", forced"),
        "{}",
        status.message()
    );
}

#[tokio::test]
async fn with_tagged_instances_alone_an_untagged_call_has_nowhere_to_go() {
    let (_fleet, builder) = Fleet::start(&[("gray", GRAY)]);
    let channel = builder.ready_timeout(std::time::Duration::ZERO).build();
    all_ready(&channel, 1).await;
    let status = call(&channel, &[]).await.expect_err("it is tagged");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "NO_ROUTE")
    );
    assert_eq!(
        call(&channel, &[("tessera-tag", "gray")]).await.expect("its tag"),
        "gray"
    );
}

#[tokio::test]
async fn a_tag_in_the_baggage_goes_with_every_call_of_the_chain() {
    let (fleet, builder) = Fleet::start(&[("plain", PLAIN), ("gray", GRAY)]);
    let channel = builder.build();
    fleet.ready(&channel).await;
    let mut headers = http::HeaderMap::new();
    headers.insert("baggage", http::HeaderValue::from_static("tessera.tag=gray"));
    // As a server does with what its caller sent.
    let cx = telemetry::propagation::extract(&headers);
    let answered = call(&channel, &[]).with_context(cx).await.expect("answered");
    assert_eq!(answered, "gray");
    let seen = fleet.servers["gray"].seen.metadata("baggage");
    assert_eq!(
        seen.as_deref(),
        Some("tessera.tag=gray"),
        "the next hop hears of it, too"
    );
    assert_eq!(call(&channel, &[]).await.expect("answered"), "plain");
}

#[tokio::test]
async fn the_first_rule_that_matches_decides_and_rules_change_live() {
    let (fleet, builder) = Fleet::start(&[("old", FIRST), ("new", SECOND)]);
    let new = || Subset::every().version(">=2.0.0").expect("a range");
    let old = || Subset::every().version("<2.0.0").expect("a range");
    let routes = Routes::try_new([
        RouteRule::new("others", old()).caller_service("somebody-else"),
        RouteRule::new("staff", new()).header(HeaderMatch::exact("x-staff", "yes").expect("a name")),
        RouteRule::new("watchers", new()).method(MethodMatch::Exact("/grpc.health.v1.Health/Watch".to_owned())),
        RouteRule::new("everybody", old()).method(MethodMatch::Prefix("/grpc.health.v1.".to_owned())),
    ])
    .expect("good rules");
    let channel = builder
        .routes(routes)
        .caller("tester")
        .policy(lb::Policy::RoundRobin)
        .build();
    fleet.ready(&channel).await;
    assert_eq!(only(&shares(&channel, 50, &[]).await), ["old"]);
    assert_eq!(only(&shares(&channel, 50, &[("x-staff", "yes")]).await), ["new"]);
    assert_eq!(only(&shares(&channel, 50, &[("x-staff", "no")]).await), ["old"]);
    let _watch = client(&channel).watch(ask("")).await.expect("opened");
    assert_eq!(fleet.servers["new"].seen.calls(), 51);

    channel.set_routes(&Routes::default());
    assert_eq!(only(&shares(&channel, 100, &[]).await), ["new", "old"]);
}

#[tokio::test]
async fn a_rule_with_nobody_is_passed_over_unless_forced() {
    let (fleet, builder) = Fleet::start(&[("old", FIRST)]);
    let rule = || RouteRule::new("to the third", Subset::every().version("^3").expect("a range"));
    let routes = |rule| Routes::try_new([rule]).expect("good");
    let channel = builder
        .ready_timeout(std::time::Duration::ZERO)
        .routes(routes(rule()))
        .build();
    fleet.ready(&channel).await;
    assert_eq!(call(&channel, &[]).await.expect("passed over"), "old");
    channel.set_routes(&routes(rule().forced()));
    let status = call(&channel, &[]).await.expect_err("nobody is of version 3");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "NO_ROUTE")
    );
    assert!(
        status.message().contains("\"to the third\" (version ^3)"),
        "{}",
        status.message()
    );
}

#[tokio::test]
async fn a_gray_release_takes_its_share_and_who_is_in_stays_in() {
    let (fleet, builder) = Fleet::start(&[("old", FIRST), ("new", SECOND)]);
    let release = |weight: u32| {
        let parts = [
            (Subset::every().version("^2").expect("a range"), weight),
            (Subset::every().version("^1").expect("a range"), 100 - weight),
        ];
        let split = Split::try_new(parts)
            .expect("weights")
            .sticky_by("x-user")
            .expect("a name");
        Routes::try_new([RouteRule::new("release", split)]).expect("good")
    };
    let channel = builder.routes(release(20)).build();
    fleet.ready(&channel).await;
    // 1000 draws with a chance of 0.2: six standard deviations are 76.
    let drawn = shares(&channel, 1000, &[]).await;
    assert!((124..=276).contains(&drawn["new"]), "{drawn:?}");
    let mut before = Vec::new();
    for user in 0..300 {
        let user = format!("user-{user}");
        before.push(call(&channel, &[("x-user", &user)]).await.expect("answered"));
        assert_eq!(
            call(&channel, &[("x-user", &user)]).await.ok().as_ref(),
            before.last(),
            "it sticks"
        );
    }
    channel.set_routes(&release(50));
    let mut moved = 0;
    for (user, was) in before.iter().enumerate() {
        let is = call(&channel, &[("x-user", &format!("user-{user}"))])
            .await
            .expect("answered");
        assert!(was == "old" || is == "new", "user {user} was let in and is out again");
        moved += usize::from(*was != is);
    }
    assert!(moved > 30, "{moved} of 300 were let in by the next step");
}

#[tokio::test]
async fn calls_stay_in_the_zone_as_far_as_it_has_its_share_of_the_instances() {
    const A: Kind = |instance| instance.zone = "a".to_owned();
    const B: Kind = |instance| instance.zone = "b".to_owned();
    let preference = || ZonePreference::new().min_instances(3);
    let (fleet, builder) = Fleet::start(&[("a1", A), ("a2", A), ("b1", B)]);
    let at_home = builder.clone().zone("a").prefer_zone(preference()).build();
    fleet.ready(&at_home).await;
    assert_eq!(only(&shares(&at_home, 100, &[]).await), ["a1", "a2"]);
    // Half of the callers and a third of the instances: two thirds of the calls stay.
    let crowded = builder
        .clone()
        .zone("b")
        .policy(lb::Policy::WeightedRandom)
        .prefer_zone(preference())
        .build();
    fleet.ready(&crowded).await;
    let counts = shares(&crowded, 600, &[]).await;
    // Six standard deviations of 600 draws with a chance of 2/3 are 70.
    assert!((330..=470).contains(&counts["b1"]), "{counts:?}");
    let few = builder
        .policy(lb::Policy::RoundRobin)
        .zone("a")
        .prefer_zone(ZonePreference::new())
        .build();
    fleet.ready(&few).await;
    assert_eq!(
        shares(&few, 100, &[]).await.len(),
        3,
        "three are too few for zones to count"
    );
}

#[tokio::test]
async fn a_subset_is_all_that_is_connected_to() {
    let ids = ["a", "b", "c", "d", "e"].map(|id| (id, PLAIN));
    let (fleet, builder) = Fleet::start(&ids);
    let channel = builder.subset(Subsetting::try_new(2).expect("enough").seed(7)).build();
    all_ready(&channel, 2).await;
    assert_eq!(channel.endpoints().len(), 2);
    let connected = |fleet: &Fleet| {
        fleet
            .servers
            .values()
            .filter(|server| server.seen.connections() > 0)
            .count()
    };
    assert_eq!(connected(&fleet), 2);
    let (gone, stays) = (
        channel.endpoints()[0].instance_id.clone(),
        channel.endpoints()[1].instance_id.clone(),
    );
    fleet.remove(&gone);
    eventually("another one takes its place", || {
        ready(&channel) == 2 && channel.endpoints().iter().all(|endpoint| endpoint.instance_id != gone)
    })
    .await;
    assert!(channel.endpoints().iter().any(|endpoint| endpoint.instance_id == stays));
    assert_eq!(
        fleet.servers[&stays].seen.connections(),
        1,
        "who stays keeps the connection"
    );
}
