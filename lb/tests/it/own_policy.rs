//! A policy that is written outside of the crate chooses, by what it sees.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use lb::{Choose, Draw, HashKey, Instances, Policy};
use registry_client::{Discovery, Instance, Snapshot};
use tokio::sync::watch;

use crate::support::{TestServer, all_ready, ask, client, in_time};

/// Always the instance whose metadata say so; with a key, whichever that is the number of.
#[derive(Debug)]
struct Favourite {
    key: Option<HashKey>,
    asked: Arc<AtomicUsize>,
}

impl Choose for Favourite {
    fn name(&self) -> &'static str {
        "favourite"
    }

    fn key(&self) -> Option<&HashKey> {
        self.key.as_ref()
    }

    fn choose(&self, instances: &Instances<'_>, draw: &Draw) -> Option<usize> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if let Some(key) = draw.key() {
            return Some((key % instances.len() as u64) as usize);
        }
        instances
            .iter()
            .position(|instance| instance.metadata("favourite") == Some("yes") && instance.zone() == "here")
    }
}

async fn shares(channel: &lb::Channel, calls: usize, user: &str) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..calls {
        let mut request = tonic::Request::new(ask(""));
        request.metadata_mut().insert("user", user.parse().expect("a value"));
        let response = in_time(client(channel).check(request)).await.expect("answered");
        let by = response.extensions().get::<lb::Picked>().expect("said").clone();
        *shares.entry(by.instance_id.to_string()).or_default() += 1;
    }
    shares
}

#[tokio::test]
async fn it_chooses_by_metadata_by_keys_and_not_at_all() {
    let servers: Vec<TestServer> = (0..3).map(|_| TestServer::start()).collect();
    let instances = servers.iter().enumerate().map(|(n, server)| {
        let mut instance = Instance::new("s", format!("i{n}"), &server.addr());
        instance.zone = "here".to_owned();
        let favourite = if n == 1 { "yes" } else { "no" };
        instance.metadata.insert("favourite".to_owned(), favourite.to_owned());
        instance
    });
    let (_registry, told) = watch::channel(Arc::new(Snapshot::fresh(1, instances)));
    let build = |key| {
        let asked = Arc::new(AtomicUsize::new(0));
        let policy = Policy::own(Favourite {
            key,
            asked: Arc::clone(&asked),
        });
        let channel = lb::Channel::builder(Discovery::fed_by("s", told.clone())).policy(policy);
        (channel.build(), asked)
    };
    let (channel, asked) = build(None);
    all_ready(&channel, 3).await;
    assert_eq!(
        shares(&channel, 10, "ann").await,
        BTreeMap::from([("i1".to_owned(), 10)])
    );
    assert_eq!(asked.load(Ordering::SeqCst), 10);
    assert_eq!(channel.explain().policy, "favourite");

    let (keyed, _) = build(Some(HashKey::Header(http::HeaderName::from_static("user"))));
    all_ready(&keyed, 3).await;
    let mut met = BTreeMap::new();
    for user in ["ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal"] {
        let kept = shares(&keyed, 4, user).await;
        assert_eq!(kept.len(), 1, "{user}: {kept:?}");
        met.extend(kept);
    }
    assert!(met.len() > 1, "{met:?}");

    // A config that counts more takes its place, and gives it back.
    let config = r#"{"loadBalancingConfig": [{"round_robin": {}}]}"#;
    channel.configure(&config.parse().expect("good")).expect("usable");
    assert_eq!(shares(&channel, 9, "ann").await.len(), 3);
    channel.configure(&lb::ServiceConfig::default()).expect("usable");
    assert_eq!(shares(&channel, 9, "ann").await.len(), 1);
}
