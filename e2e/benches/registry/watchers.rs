//! Many watches, each its own stream, on a few connections; and the one who changes what they watch.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    rc::Rc,
    time::{Duration, Instant},
};

use prost::Message as _;
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    Failed, etcd,
    http2::{Connection, Out, Peer, WIDE},
    server::{Kind, Server},
    tessera::{self, Changed, Told},
    zookeeper::{Came, Session},
};

/// Nothing takes as long, unless it is lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// The path of the node that ZooKeeper's sessions watch.
const NODE: &str = "/watched";

/// What all watches together have been told.
#[derive(Default)]
pub(crate) struct Tally {
    ready: Cell<usize>,
    told: RefCell<Vec<Instant>>,
    removed: Cell<usize>,
    last: Cell<Option<Instant>>,
    failure: RefCell<Option<String>>,
    news: Notify,
}

impl Tally {
    fn tell(&self, at: Instant, removed: usize) {
        self.told.borrow_mut().push(at);
        self.removed.set(self.removed.get() + removed);
        self.last.set(self.last.get().max(Some(at)));
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), Failed> {
        let wait = async {
            while !done(self) {
                if let Some(failure) = self.failure.borrow().clone() {
                    return Err(Failed::from(failure));
                }
                self.news.notified().await;
            }
            Ok(())
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(result) => result,
            Err(_) => Err(format!(
                "{what}: {} ready, {} told, {} removals after {PATIENCE:?}",
                self.ready.get(),
                self.told.borrow().len(),
                self.removed.get()
            )
            .into()),
        }
    }

    /// Watches that have begun.
    pub(crate) fn ready(&self) -> usize {
        self.ready.get()
    }

    /// Removals that were told, of all watches together.
    pub(crate) fn removed(&self) -> usize {
        self.removed.get()
    }

    /// When something was told last.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.last.get()
    }

    /// Forgets what was told.
    pub(crate) fn reset(&self) {
        self.told.borrow_mut().clear();
        self.removed.set(0);
        self.last.set(None);
    }
}

/// Open watches. They end when this is dropped.
pub(crate) struct Watchers {
    /// What they are told.
    pub(crate) tally: Rc<Tally>,
    count: usize,
    _tasks: JoinSet<()>,
}

/// How watches are opened.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// So many connections.
    pub(crate) connections: usize,
    /// So many watches on each.
    pub(crate) each: usize,
    /// The first one's service; with `spread`, each next one's is the next.
    pub(crate) service: u64,
    /// Whether each watches another service.
    pub(crate) spread: bool,
    /// Whether the first of all stops reading once it has had this many bytes.
    pub(crate) stalled_after: Option<u32>,
}

impl Watchers {
    /// Opens them, and waits until each has been told how things are.
    pub(crate) async fn open(server: &Server, kind: Kind, plan: Plan) -> Result<Self, Failed> {
        let mut idle = Vec::new();
        for index in 0..plan.connections {
            idle.push(match plan.stalled_after {
                Some(window) if index == 0 => Connection::open_narrow(server.address, window).await?,
                _ => Connection::open(server.address).await?,
            });
        }
        Self::on(idle, kind, plan).await
    }

    /// The same on connections that are there.
    pub(crate) async fn on(connections: Vec<Connection>, kind: Kind, plan: Plan) -> Result<Self, Failed> {
        let tally = Rc::new(Tally::default());
        let mut tasks = JoinSet::new();
        for (index, mut connection) in connections.into_iter().enumerate() {
            let mut watching = Watching {
                kind,
                tally: Rc::clone(&tally),
                begun: HashSet::new(),
                stalled: None,
            };
            for nth in 0..plan.each {
                let offset = if plan.spread { index * plan.each + nth } else { 0 };
                let service = plan.service + offset as u64;
                let stream = match kind {
                    Kind::Tessera => connection.out.call(tessera::WATCH, &tessera::watch(service)),
                    _ => {
                        let stream = connection.out.open(etcd::WATCH);
                        connection.out.send(stream, &etcd::watch(service));
                        stream
                    }
                };
                match plan.stalled_after {
                    Some(_) if (index, nth) == (0, 0) => watching.stalled = Some(stream),
                    Some(window) if index == 0 => connection.out.widen(stream, WIDE - window),
                    _ => {}
                }
            }
            let tally = Rc::clone(&tally);
            tasks.spawn_local(async move {
                loop {
                    if let Err(error) = connection.turn(&mut watching).await {
                        *tally.failure.borrow_mut() = Some(format!("a watch: {error}"));
                        tally.news.notify_one();
                        return;
                    }
                    tally.news.notify_one();
                }
            });
        }
        let count = plan.connections * plan.each - usize::from(plan.stalled_after.is_some());
        let watchers = Self {
            tally,
            count,
            _tasks: tasks,
        };
        watchers
            .tally
            .until("watches to begin", |tally| tally.ready() == count)
            .await?;
        Ok(watchers)
    }

    /// ZooKeeper's: one session each, which reads again when its watch fires, for an event carries no data.
    pub(crate) async fn sessions(server: &Server, count: usize) -> Result<Self, Failed> {
        let tally = Rc::new(Tally::default());
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let mut session = Session::open(server.address).await?;
            session.get(NODE, true);
            session.answer().await?;
            tally.ready.set(tally.ready.get() + 1);
            let tally = Rc::clone(&tally);
            tasks.spawn_local(async move {
                loop {
                    let turn = session.turn(|came, session| {
                        match came {
                            Came::Event => session.get(NODE, true),
                            Came::Answer(_) => tally.tell(session.read_at, 0),
                        }
                        Ok(())
                    });
                    if let Err(error) = turn.await {
                        *tally.failure.borrow_mut() = Some(format!("a session: {error}"));
                        tally.news.notify_one();
                        return;
                    }
                    tally.news.notify_one();
                }
            });
        }
        Ok(Self {
            tally,
            count,
            _tasks: tasks,
        })
    }

    /// Makes one change: when each of the watches was told of it, after it was sent.
    pub(crate) async fn change(&self, changer: &mut Changer) -> Result<Vec<Duration>, Failed> {
        self.tally.reset();
        let request = changer.prepare()?;
        let begun = Instant::now();
        changer.send(&request).await?;
        let count = self.count;
        self.tally
            .until("watches to be told", |tally| tally.told.borrow().len() >= count)
            .await?;
        let told = self.tally.told.borrow();
        Ok(told.iter().map(|at| at.saturating_duration_since(begun)).collect())
    }
}

struct Watching {
    kind: Kind,
    tally: Rc<Tally>,
    begun: HashSet<u32>,
    stalled: Option<u32>,
}

impl Peer for Watching {
    fn message(&mut self, out: &mut Out, stream: u32, message: &[u8]) -> Result<(), Failed> {
        if self.stalled == Some(stream) {
            return Ok(());
        }
        let told = match self.kind {
            Kind::Tessera => tessera::told(message),
            _ => etcd::told(message),
        };
        match told {
            Told::Nothing => {}
            Told::State if self.begun.insert(stream) => self.tally.ready.set(self.tally.ready.get() + 1),
            // All there is, said again because this one was slow: it has been told.
            Told::State => self.tally.tell(out.read_at, 0),
            Told::Change(change) => {
                let removed = match self.kind {
                    Kind::Tessera => tessera::removals(change),
                    _ => etcd::removals(change),
                };
                self.tally.tell(out.read_at, removed);
            }
        }
        Ok(())
    }

    fn ended(&mut self, _: &mut Out, stream: u32) -> Result<(), Failed> {
        Err(format!("stream {stream} was ended").into())
    }
}

/// Changes one instance, or key, or node.
pub(crate) enum Changer {
    /// UpdateInstance.
    Tessera(Box<(Connection, Changed)>),
    /// Put: connection, service, changes so far.
    Etcd(Box<Connection>, u64, u64),
    /// setData.
    ZooKeeper(Box<Session>, u64),
}

impl Changer {
    /// The changer of instance 0 of `service`, which it registers.
    pub(crate) async fn new(server: &Server, kind: Kind, service: u64) -> Result<Self, Failed> {
        match kind {
            Kind::Tessera => {
                let mut connection = Connection::open(server.address).await?;
                let request = Changed::registration(service, 0)?;
                let answer = connection.call(tessera::REGISTER, &request.encode_to_vec()).await?;
                let changed = Changed::registered(request, &answer)?;
                Ok(Self::Tessera(Box::new((connection, changed))))
            }
            Kind::Etcd => {
                let connection = Connection::open(server.address).await?;
                Ok(Self::Etcd(Box::new(connection), service, 0))
            }
            Kind::ZooKeeper => {
                let mut session = Session::open(server.address).await?;
                session.create(NODE, &crate::payload::record(), false);
                session.answer().await?;
                Ok(Self::ZooKeeper(Box::new(session), 0))
            }
        }
    }

    fn prepare(&mut self) -> Result<Vec<u8>, Failed> {
        match self {
            Self::Tessera(inner) => Ok(inner.1.next()),
            Self::Etcd(_, service, change) => {
                *change += 1;
                etcd::change(*service, 0, *change)
            }
            Self::ZooKeeper(_, change) => {
                *change += 1;
                let mut record = crate::payload::record();
                record[..8].copy_from_slice(&change.to_be_bytes());
                Ok(record)
            }
        }
    }

    async fn send(&mut self, request: &[u8]) -> Result<(), Failed> {
        match self {
            Self::Tessera(inner) => inner.0.call(tessera::UPDATE_INSTANCE, request).await.map(drop),
            Self::Etcd(connection, ..) => connection.call(etcd::PUT, request).await.map(drop),
            Self::ZooKeeper(session, _) => {
                session.set(NODE, request);
                session.answer().await
            }
        }
    }
}
