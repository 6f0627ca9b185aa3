//! All children together: in which order they start and stop, and what is told of them meanwhile.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    keeper::{Death, Event, Keeper, Serving},
    log::Log,
    plan::{ChildPlan, Plan, Role},
    progress::Progress,
};

/// At most two events for each of at most 35 children can wait; the cluster reads them as they come.
const EVENTS: usize = 128;
/// How often the size of the logs is looked at: at 1 MB/s a log is 10 MB over its bound at most.
const LOG_CHECK: Duration = Duration::from_secs(10);

/// Why a cluster did not come up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("the log {} cannot be written", path.display())]
    Log { path: PathBuf, source: std::io::Error },
    #[error("the path of this program is not known")]
    Binary(#[source] std::io::Error),
    #[error("{} {}", death.name, death.how)]
    Died { death: Death, log: PathBuf },
    #[error("no child is left to start")]
    Gone,
}

/// The running children.
pub(crate) struct Cluster {
    plan: Plan,
    binary: PathBuf,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    children: Vec<Kept>,
    serving: BTreeMap<String, Serving>,
}

/// A child that was started.
struct Kept {
    role: Role,
    log: Log,
    stop: CancellationToken,
    keeper: JoinHandle<()>,
}

/// A child in the list of what runs where.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Its role.
    pub(crate) role: Role,
    /// Where it is.
    pub(crate) serving: Serving,
    /// Its log.
    pub(crate) log: PathBuf,
}

impl Cluster {
    /// Nothing runs yet.
    pub(crate) fn new(plan: Plan) -> Result<Self, StartError> {
        let (sender, events) = mpsc::channel(EVENTS);
        Ok(Self {
            // Once: a rebuild while it runs must not turn every restart into another program.
            binary: std::env::current_exe().map_err(StartError::Binary)?,
            plan,
            sender,
            events,
            children: Vec::new(),
            serving: BTreeMap::new(),
        })
    }

    /// Starts everything; returns when every child serves, or with the first that died.
    pub(crate) async fn start(&mut self, progress: &Progress) -> Result<(), StartError> {
        // The registry first, since the others are told where it is; then one ticket service alone, since it may have
        // to make the store that the others share; then the rest together.
        let (registry, rest) = by_role(&self.plan, Role::Registry);
        self.start_together(registry, progress).await?;
        let mut rest = rest.into_iter();
        let first: Vec<ChildPlan> = rest.by_ref().take(1).collect();
        self.start_together(first, progress).await?;
        self.start_together(rest.collect(), progress).await
    }

    /// Where the registry listens, once it does.
    pub(crate) fn registry(&self) -> Option<SocketAddr> {
        self.serving.get("registry").map(|serving| serving.listen)
    }

    /// What runs where, in the order of the plan.
    pub(crate) fn members(&self) -> Vec<Member> {
        let member = |child: &ChildPlan| {
            self.serving.get(&child.name).map(|serving| Member {
                role: child.role,
                serving: serving.clone(),
                log: child.log(),
            })
        };
        self.plan.children.iter().filter_map(member).collect()
    }

    /// Tells of deaths and returns of children, and bounds their logs; for ever.
    pub(crate) async fn supervise(&mut self, progress: &Progress) {
        let mut log_check = tokio::time::interval(LOG_CHECK);
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Event::Died(death)) => progress.died(&death),
                    Some(Event::Serving(serving)) => {
                        progress.back(&serving);
                        self.serving.insert(serving.name.clone(), serving);
                    }
                    // Cannot be: `self.sender` is one of the senders.
                    None => std::future::pending().await,
                },
                _ = log_check.tick() => self.bound_logs(),
            }
        }
    }

    /// Stops everything: who calls before who is called, and the registry last, so that all can take their leave of it.
    pub(crate) async fn stop(mut self, progress: &Progress) {
        // From here on deaths are what was asked for; a keeper that wants to tell of one is not held up.
        self.events.close();
        for role in [Role::User, Role::Ticket, Role::Console, Role::Registry] {
            let (stage, rest) = std::mem::take(&mut self.children)
                .into_iter()
                .partition(|child| child.role == role);
            self.children = rest;
            let stage: Vec<Kept> = stage;
            if !stage.is_empty() {
                progress.stopping(role);
            }
            for child in &stage {
                child.stop.cancel();
            }
            for child in stage {
                if let Err(error) = child.keeper.await {
                    tracing::error!(%error, "the keeper of a child failed");
                }
            }
        }
    }

    async fn start_together(&mut self, plans: Vec<ChildPlan>, progress: &Progress) -> Result<(), StartError> {
        let mut missing = plans.len();
        progress.starting(&plans);
        for plan in plans {
            self.spawn(plan)?;
        }
        while missing > 0 {
            match self.events.recv().await {
                Some(Event::Serving(serving)) => {
                    missing -= 1;
                    progress.started(&serving);
                    self.serving.insert(serving.name.clone(), serving);
                }
                // One that dies now has something that a restart will not cure.
                Some(Event::Died(death)) => {
                    let plan = self.plan.children.iter().find(|child| child.name == death.name);
                    let log = plan.map(ChildPlan::log).unwrap_or_default();
                    return Err(StartError::Died { death, log });
                }
                None => return Err(StartError::Gone),
            }
        }
        Ok(())
    }

    fn spawn(&mut self, plan: ChildPlan) -> Result<(), StartError> {
        let path = plan.log();
        let log = Log::begin(path.clone()).map_err(|source| StartError::Log { path, source })?;
        let role = plan.role;
        let stop = CancellationToken::new();
        let keeper = Keeper {
            plan,
            binary: self.binary.clone(),
            log: log.clone(),
            registry: self.registry(),
            events: self.sender.clone(),
        };
        self.children.push(Kept {
            role,
            log,
            keeper: tokio::spawn(keeper.keep(stop.clone())),
            stop,
        });
        Ok(())
    }

    fn bound_logs(&self) {
        for child in &self.children {
            if let Err(error) = child.log.bound() {
                tracing::warn!(%error, log = %child.log.path().display(), "a log cannot be cut");
            }
        }
    }
}

fn by_role(plan: &Plan, role: Role) -> (Vec<ChildPlan>, Vec<ChildPlan>) {
    plan.children.iter().cloned().partition(|child| child.role == role)
}
