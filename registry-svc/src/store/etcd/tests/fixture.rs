//! Stores over one etcd that the tests of this process share, each with a prefix of its own.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{runtime::Runtime, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::super::{
    EtcdUrl, Tuning,
    cluster::{Cluster, Reading, SharedCluster},
    wire::{KeyValue, end_of},
};
use crate::{
    catalog::Batch,
    etcd_server::{EtcdServer, pause},
    model::{Replicas, Revision},
    store::{Etcd, News, Store as _, Verdict, tests::model::batch, tests::suite::Shelf},
};

/// No wait is longer: far above what anything takes, so that only a hang fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A prefix in an etcd.
pub(super) struct Place {
    pub(super) runtime: Runtime,
    pub(super) prefix: String,
    pub(super) tuning: Tuning,
    /// With what it is dialled, if with TLS.
    pub(super) tls: Option<tls::Client>,
    server: Server,
}

enum Server {
    Shared(Arc<EtcdServer>),
    Own(EtcdServer),
}

/// The etcd of all tests that do not harm it; it ends with the last of them.
fn shared() -> Option<Arc<EtcdServer>> {
    static SHARED: Mutex<Weak<EtcdServer>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return Some(server);
    }
    let server = Arc::new(EtcdServer::start()?);
    *shared = Arc::downgrade(&server);
    Some(server)
}

impl Place {
    /// In an etcd that may be killed, paused and emptied.
    pub(super) fn alone() -> Option<Self> {
        Some(Self::of(Server::Own(EtcdServer::start()?)))
    }

    /// The same, started with more arguments.
    pub(super) fn alone_with(arguments: &[&str]) -> Option<Self> {
        Some(Self::of(Server::Own(EtcdServer::start_with(arguments)?)))
    }

    /// In the etcd of all.
    pub(super) fn shared() -> Option<Self> {
        Some(Self::of(Server::Shared(shared()?)))
    }

    fn of(server: Server) -> Self {
        Self {
            runtime: Runtime::new().expect("a runtime"),
            prefix: format!("/test/{:016x}", rand::random::<u64>()),
            tuning: Tuning::default(),
            tls: None,
            server,
        }
    }

    pub(super) fn server(&self) -> &EtcdServer {
        match &self.server {
            Server::Shared(server) => server,
            Server::Own(server) => server,
        }
    }

    pub(super) fn own_server(&mut self) -> &mut EtcdServer {
        match &mut self.server {
            Server::Own(server) => server,
            Server::Shared(_) => panic!("others use it"),
        }
    }

    /// A store over these members.
    pub(super) fn over(&self, members: &str) -> Etcd {
        let (url, stop) = (self.url(members), CancellationToken::new());
        Etcd::tuned(&url, self.tls.as_ref(), self.runtime.handle(), stop, self.tuning).expect("opens")
    }

    pub(super) fn url(&self, members: &str) -> EtcdUrl {
        let scheme = if self.tls.is_some() { "etcds" } else { "etcd" };
        let url = format!("{scheme}://{members}{}", self.prefix);
        url.parse().expect("an address")
    }

    /// The cluster without a replica.
    pub(super) fn cluster(&self) -> SharedCluster {
        let _within = self.runtime.enter();
        let url = self.url(&self.server().address());
        Arc::new(Cluster::new(&url, self.tls.as_ref()).expect("an address"))
    }

    /// All keys below the prefix, and what they hold.
    pub(super) fn everything(&self) -> Vec<KeyValue> {
        let cluster = self.cluster();
        let prefix = format!("{}/", self.prefix);
        self.runtime.block_on(async {
            let mut found = Vec::new();
            let mut pages = cluster.pages(prefix.clone(), end_of(&prefix), Reading::at_length(0));
            while let Some(page) = pages.next().await.expect("etcd answers") {
                found.extend(page);
            }
            found
        })
    }

    /// The keys below a folder of the prefix.
    pub(super) fn keys(&self, folder: &str) -> Vec<String> {
        let folder = format!("{}/{folder}", self.prefix);
        let keys = self.everything().into_iter();
        keys.map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
            .filter(|key| key.starts_with(&folder))
            .collect()
    }
}

impl Shelf for Place {
    type Store = Etcd;

    fn new() -> Option<Self> {
        Self::shared()
    }

    fn open(&self) -> Etcd {
        self.over(&self.server().address())
    }

    fn raw(&self) -> Vec<u8> {
        let everything = self.everything().into_iter();
        everything.flat_map(|kv| [kv.key, kv.value].concat()).collect()
    }
}

/// Has a store load, and listens to its news.
pub(super) fn listen(store: &mut Etcd) -> Listener {
    store.load().expect("loads");
    store.history().expect("reads");
    let within = store.runtime.clone();
    let _within = within.enter();
    Listener(store.news().expect("it is shared"))
}

/// Commits on a thread of its own, as the driver's writer does.
pub(super) fn begin_commit(mut store: Etcd, revision: u64) -> JoinHandle<(Etcd, Verdict)> {
    std::thread::spawn(move || {
        let verdict = store
            .commit(&[batch(revision, 1, false)], Revision::ZERO)
            .expect("no error");
        (store, verdict)
    })
}

/// The news of a store, with bounded waits.
pub(super) struct Listener(pub(super) mpsc::Receiver<News>);

impl Listener {
    /// The next, whatever it is.
    pub(super) fn next(&mut self) -> News {
        let begun = Instant::now();
        loop {
            match self.0.try_recv() {
                Ok(news) => return news,
                Err(mpsc::error::TryRecvError::Disconnected) => panic!("the news have ended"),
                Err(mpsc::error::TryRecvError::Empty) => {
                    assert!(begun.elapsed() < PATIENCE, "no news");
                    pause();
                }
            }
        }
    }

    /// The next batches; what else comes is passed over.
    pub(super) fn batches(&mut self) -> Vec<Arc<Batch>> {
        loop {
            if let News::Batches(batches) = self.next() {
                return batches;
            }
        }
    }

    /// Passes news over until one fits.
    pub(super) fn until(&mut self, fits: impl Fn(&News) -> bool) -> News {
        let begun = Instant::now();
        loop {
            let news = self.next();
            if fits(&news) {
                return news;
            }
            assert!(!matches!(news, News::Failed(_)), "{news:?}");
            assert!(begun.elapsed() < PATIENCE, "the news do not come");
        }
    }

    /// The next replicas that fit.
    pub(super) fn replicas(&mut self, fits: impl Fn(&Replicas) -> bool) -> Replicas {
        let news = self.until(|news| matches!(news, News::Replicas(replicas) if fits(replicas)));
        match news {
            News::Replicas(replicas) => replicas,
            other => panic!("{other:?}"),
        }
    }
}

/// Waits for what a task does in the background.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        pause();
    }
}
