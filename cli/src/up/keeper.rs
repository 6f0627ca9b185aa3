//! Keeps one child alive: starts it, waits until it serves, reports when it dies, and starts it again. Knows nothing of
//! the other children; in which order they start and stop is the cluster's to say.

use std::{
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    log::Log,
    plan::ChildPlan,
    restart::{Ports, Restart, ports_for},
};
use crate::roles::announcement::Announcement;

/// A role opens its store and binds in well under a second; this is for a machine that does ten other things.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// After this a child is killed. It must not be before the child's own bounds, which add up to 24.5 s: 7.5 s until callers
/// have acknowledged that it drains (2 s to tell the registry, 5.5 s for them), 10 s for calls in flight, 1 s each to unwind
/// connections, handlers and the administration port, 2 s to leave the registry and 2 s for spans to leave. The rest is
/// for the store to close.
const STOP_PATIENCE: Duration = Duration::from_secs(28);

/// What a keeper tells the cluster.
#[derive(Debug)]
pub(crate) enum Event {
    /// A child serves.
    Serving(Serving),
    /// A child died; it will be started again.
    Died(Death),
}

/// A child that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Serving {
    /// Which child.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Where its administration port is.
    pub(crate) admin: Option<SocketAddr>,
    /// Its process.
    pub(crate) pid: u32,
    /// How long it took.
    pub(crate) took: Duration,
}

/// The end of a child that nobody asked for.
#[derive(Debug)]
pub(crate) struct Death {
    /// Which child.
    pub(crate) name: String,
    /// For people: `was killed by signal 9`.
    pub(crate) how: String,
    /// Whether it had served.
    pub(crate) served: bool,
    /// The end of its log.
    pub(crate) last_lines: Vec<String>,
    /// When it is started again.
    pub(crate) again_in: Duration,
}

/// One child and what it needs to live.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// What to run.
    pub(crate) plan: ChildPlan,
    /// The binary, this one.
    pub(crate) binary: PathBuf,
    /// Where its log goes.
    pub(crate) log: Log,
    /// Where the registry listens, for those that register.
    pub(crate) registry: Option<SocketAddr>,
    /// Where events go. Bounded by the cluster.
    pub(crate) events: mpsc::Sender<Event>,
}

/// How a life ended.
enum End {
    /// As asked.
    Stopped,
    /// By itself.
    Died { how: String, served: bool },
}

impl Keeper {
    /// Keeps the child until told to stop; returns when it has ended.
    pub(crate) async fn keep(self, stop: CancellationToken) {
        let mut restart = Restart::new();
        let asked = self.plan.ports();
        let mut learnt = None;
        let mut refused = false;
        loop {
            let born = Instant::now();
            let log_start = self.log.size();
            let ports = ports_for(self.plan.role.port_role(), asked, learnt, refused);
            let (how, served) = match self.live(ports, &mut learnt, &stop).await {
                End::Stopped => return,
                End::Died { how, served } => (how, served),
            };
            refused = !served;
            let again_in = restart.wait_after(born.elapsed());
            let death = Death {
                name: self.plan.name.clone(),
                how,
                served,
                last_lines: self.log.last_lines(log_start),
                again_in,
            };
            // Nobody listens any more while the cluster stops.
            let _ = self.events.send(Event::Died(death)).await;
            tokio::select! {
                () = tokio::time::sleep(again_in) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One life of the child.
    async fn live(&self, ports: Ports, learnt: &mut Option<Ports>, stop: &CancellationToken) -> End {
        let born = Instant::now();
        let died = |how: String| End::Died { how, served: false };
        let mut child = match self.spawn(ports) {
            Ok(child) => child,
            Err(error) => return died(format!("could not be started: {error}")),
        };
        // Taken so that `wait` does not close it: the child reads its end as "your parent is gone".
        let _stdin = child.stdin.take();
        let announced = async {
            let mut lines = BufReader::new(child.stdout.take()?).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(announcement) = Announcement::parse(&line) {
                    return Some((announcement, lines));
                }
            }
            None
        };
        let announced = tokio::select! {
            announced = timeout(START_PATIENCE, announced) => announced,
            () = stop.cancelled() => return terminate(child).await,
        };
        let (announcement, _stdout) = match announced {
            Ok(Some(announced)) => announced,
            // It closed its output, which is what ending does.
            Ok(None) => return died(ended(wait(&mut child).await)),
            Err(_) => {
                // Its end is awaited inside; that it could not be killed means that it has ended.
                let _ = child.kill().await;
                return died(format!(
                    "did not serve within {} s and was killed",
                    START_PATIENCE.as_secs()
                ));
            }
        };
        *learnt = Some(Ports {
            listen: announcement.listen.port(),
            admin: announcement.admin.map_or(0, |admin| admin.port()),
        });
        let serving = Serving {
            name: self.plan.name.clone(),
            listen: announcement.listen,
            admin: announcement.admin,
            pid: child.id().unwrap_or_default(),
            took: born.elapsed(),
        };
        let _ = self.events.send(Event::Serving(serving)).await;
        tokio::select! {
            status = child.wait() => End::Died { how: ended(status.ok()), served: true },
            () = stop.cancelled() => terminate(child).await,
        }
    }

    fn spawn(&self, ports: Ports) -> std::io::Result<Child> {
        let mut command = Command::new(&self.binary);
        // What is meant for `up` is not meant for its children: they are told everything by flags. The service's name
        // in traces is its own.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TESSERA_") {
                command.env_remove(name);
            }
        }
        command
            .args(self.plan.arguments(ports, self.registry))
            .env_remove("OTEL_SERVICE_NAME")
            .env("TESSERA_EXIT_WITH_PARENT", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(self.log.open()?)
            // A terminal's Ctrl-C goes to its foreground group: to `up` alone, which then stops the children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// SIGTERM, and SIGKILL when that is not enough.
async fn terminate(mut child: Child) -> End {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        // Not yet waited for, so the number is still this child's. That it has just ended is no error.
        let _ = kill_process(pid, Signal::TERM);
    }
    if timeout(STOP_PATIENCE, child.wait()).await.is_err() {
        tracing::warn!(pid = child.id(), "a child did not stop in time and is killed");
        let _ = child.kill().await;
    }
    End::Stopped
}

async fn wait(child: &mut Child) -> Option<ExitStatus> {
    child.wait().await.ok()
}

fn ended(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(0), _)) => "ended, though nobody had asked".to_owned(),
        Some((Some(code), _)) => format!("exited with code {code}"),
        Some((None, Some(signal))) => format!("was killed by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

    use super::ended;

    #[test]
    fn an_end_reads_as_a_sentence() {
        let check = |raw: i32, expected: &str| assert_eq!(ended(Some(ExitStatus::from_raw(raw))), expected);
        check(0, "ended, though nobody had asked");
        check(1 << 8, "exited with code 1");
        check(9, "was killed by signal 9");
    }
}
