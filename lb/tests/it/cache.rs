//! The registry is away when the caller starts: it calls by what it kept on disk.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use lb::RankedTarget;
use registry_client::{Discovery, Instance, Registry, Snapshot};
use tokio::sync::watch;

use crate::support::{TestServer, all_ready, check, eventually, in_time, reason};

fn instance(id: &str, server: &TestServer) -> Instance {
    Instance::new("s", id, &server.addr())
}

fn fed(snapshot: Snapshot) -> (watch::Sender<Arc<Snapshot>>, Discovery) {
    let (told, snapshots) = watch::channel(Arc::new(snapshot));
    (told, Discovery::fed_by("s", snapshots))
}

/// A registry that nobody listens for.
fn away() -> Discovery {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    Registry::connect([format!("http://{address}")])
        .expect("an address")
        .discover("s")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir)
        .map(|entries| entries.filter_map(Result::ok).collect())
        .unwrap_or_else(|_| Vec::new());
    let paths = entries.iter().map(std::fs::DirEntry::path);
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "set"))
        .collect()
}

/// What a process leaves that has called these.
async fn kept(dir: &Path, instances: impl IntoIterator<Item = Instance>) -> PathBuf {
    let (_told, discovery) = fed(Snapshot::fresh(7, instances));
    let channel = lb::Channel::builder(discovery).cache_dir(dir).build();
    eventually("the set is on disk", || files(dir).len() == 1).await;
    assert_eq!(channel.set_age(), None, "the registry stands by it");
    in_time(channel.close()).await;
    files(dir).remove(0)
}

#[tokio::test]
async fn a_cold_start_with_the_registry_away_calls_from_disk() {
    let (dir, server) = (tempfile::tempdir().expect("a directory"), TestServer::start());
    kept(dir.path(), [instance("a", &server)]).await;
    let channel = lb::Channel::builder(away()).cache_dir(dir.path()).build();
    assert_eq!(check(&channel).await.expect("answered"), server.addr());
    let age = channel.set_age().expect("nobody stands by it");
    assert!(age < Duration::from_secs(60), "{age:?}");
    let origin = channel.set_origin();
    assert!(
        origin.contains("kept on disk") && origin.contains("revision 7"),
        "{origin}"
    );
}

#[tokio::test]
async fn a_registry_that_is_merely_silent_is_not_waited_for_either() {
    let (dir, server) = (tempfile::tempdir().expect("a directory"), TestServer::start());
    kept(dir.path(), [instance("a", &server)]).await;
    let (told, discovery) = fed(Snapshot::connecting());
    let channel = lb::Channel::builder(discovery).cache_dir(dir.path()).build();
    assert_eq!(check(&channel).await.expect("answered"), server.addr());
    // Now it speaks, and the disk has no say any more.
    let other = TestServer::start();
    told.send(Arc::new(Snapshot::fresh(9, [instance("b", &other)])))
        .expect("watched");
    eventually("only the other one is left", || {
        let endpoints = channel.endpoints();
        endpoints.len() == 1 && endpoints[0].instance_id == "b"
    })
    .await;
    all_ready(&channel, 1).await;
    assert_eq!(check(&channel).await.expect("answered"), other.addr());
    assert_eq!(channel.set_age(), None);
}

#[tokio::test]
async fn a_wiped_registry_does_not_empty_a_set_that_was_kept() {
    let (dir, server) = (tempfile::tempdir().expect("a directory"), TestServer::start());
    let path = kept(dir.path(), [instance("a", &server)]).await;
    let before = std::fs::read(&path).expect("there");
    // Its first word is that there is nobody: it has lost what it knew, and its providers are about to find out.
    let (told, discovery) = fed(Snapshot::fresh(1, []));
    let channel = lb::Channel::builder(discovery).cache_dir(dir.path()).build();
    assert_eq!(check(&channel).await.expect("answered"), server.addr());
    assert_eq!(
        std::fs::read(&path).expect("there"),
        before,
        "nobody is nothing to keep"
    );
    told.send(Arc::new(Snapshot::fresh(2, [instance("a", &server)])))
        .expect("watched");
    eventually("the registry is believed again", || channel.set_age().is_none()).await;
    assert_eq!(check(&channel).await.expect("answered"), server.addr());
    assert_eq!(
        server.seen.connections(),
        2,
        "one of each channel: the instance stayed what it was"
    );
}

#[tokio::test]
async fn a_torn_file_is_as_good_as_none() {
    let (dir, server) = (tempfile::tempdir().expect("a directory"), TestServer::start());
    let path = kept(dir.path(), [instance("a", &server)]).await;
    let whole = std::fs::read(&path).expect("there");
    std::fs::write(&path, &whole[..whole.len() - 20]).expect("written");
    let channel = lb::Channel::builder(away())
        .cache_dir(dir.path())
        .ready_timeout(Duration::from_millis(600))
        .build();
    let status = check(&channel).await.expect_err("there is nobody");
    assert_eq!(reason(&status), "NO_INSTANCES", "{status}");
}

#[tokio::test]
async fn without_a_directory_nothing_is_kept() {
    let server = TestServer::start();
    let channel = lb::Channel::builder(away())
        .ready_timeout(Duration::from_millis(100))
        .build();
    let status = check(&channel).await.expect_err("there is nobody");
    assert_eq!(reason(&status), "NO_INSTANCES", "{status}");
    assert_eq!(server.seen.connections(), 0);
}

/// Ids of who answers twenty calls.
async fn answering(channel: &lb::Channel, servers: &[(&'static str, &TestServer)]) -> Vec<&'static str> {
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let address = check(channel).await.expect("answered");
        let (id, _) = servers
            .iter()
            .find(|(_, server)| server.addr() == address)
            .expect("one of them");
        ids.insert(*id);
    }
    ids.into_iter().collect()
}

#[tokio::test]
async fn of_several_registries_the_preferred_one_then_the_near_one_then_the_first() {
    let (far, near, best) = (TestServer::start(), TestServer::start(), TestServer::start());
    let (_far, of_far) = fed(Snapshot::fresh(1, [instance("far", &far)]));
    let (told_near, of_near) = fed(Snapshot::fresh(1, [instance("near", &near)]));
    let (told_best, of_best) = fed(Snapshot::fresh(1, [instance("best", &best)]));
    let target = lb::Target::several([
        RankedTarget::new(of_far),
        RankedTarget::new(of_near).zone("here"),
        RankedTarget::new(of_best).preferred(),
    ])
    .expect("three");
    let servers = [("far", &far), ("near", &near), ("best", &best)];
    let channel = lb::Channel::builder(target).zone("here").build();
    all_ready(&channel, 3).await;
    assert_eq!(answering(&channel, &servers).await, ["best"]);
    told_best.send(Arc::new(Snapshot::fresh(2, []))).expect("watched");
    all_ready(&channel, 2).await;
    assert_eq!(answering(&channel, &servers).await, ["near"]);
    told_near.send(Arc::new(Snapshot::fresh(2, []))).expect("watched");
    all_ready(&channel, 1).await;
    assert_eq!(answering(&channel, &servers).await, ["far"]);
}

#[tokio::test]
async fn several_registries_share_by_their_weights_and_one_that_is_gone_keeps_its_set() {
    let (one, other) = (TestServer::start(), TestServer::start());
    let (told, of_one) = fed(Snapshot::fresh(1, [instance("one", &one)]));
    let (_other, of_other) = fed(Snapshot::fresh(1, [instance("other", &other)]));
    let target = lb::Target::several([
        RankedTarget::new(of_one).weight(1),
        RankedTarget::new(of_other).weight(1),
    ])
    .expect("two");
    let channel = lb::Channel::builder(target).policy(lb::Policy::WeightedRandom).build();
    all_ready(&channel, 2).await;
    let servers = [("one", &one), ("other", &other)];
    assert_eq!(answering(&channel, &servers).await, ["one", "other"]);
    // Nothing will ever come from there again: what it told last stays.
    drop(told);
    let (_late, of_late) = fed(Snapshot::fresh(1, []));
    assert_eq!(answering(&channel, &servers).await, ["one", "other"]);
    let nested = lb::Target::several([RankedTarget::new(of_late)]).expect("one");
    assert!(lb::Target::several([RankedTarget::new(nested)]).is_err());
    assert!(lb::Target::several([]).is_err());
}
