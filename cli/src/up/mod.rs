//! `tessera up`: the demo cluster as child processes of this one. For trying and for scripts; it is no process manager,
//! and where a cluster is meant to stay, each role is run by what the machine has for that.
//!
//! In reading order: `plan` (what to run), `ground` (may it), `cluster` (in which order), `keeper` (one child's life),
//! `restart` (when it is tried again), `log`, `progress`, `next` (what to type then).

mod cluster;
mod ground;
mod keeper;
mod log;
mod next;
mod plan;
mod progress;
mod restart;

use std::time::Duration;

use registry_client::Registry;
use serde_json::json;

use self::{
    cluster::{Cluster, Member, StartError},
    ground::{Ground, GroundError},
    plan::{Plan, PlanError, Role},
    progress::Progress,
};
use crate::{
    args::{LogFormat, UpArgs},
    demo::{self, Demo},
    failure::{Failure, chain},
    output::{Output, Table},
    signals,
};

/// A child registers right after it serves; this is for a machine that does ten other things.
const REGISTERED_PATIENCE: Duration = Duration::from_secs(15);

/// What commands are for stands in one column, as far as that fits beside them on most terminals.
const WIDTH_OF_COMMANDS: usize = 70;

/// Brings the cluster up, keeps it up until a signal (or runs the demo, with `--once`), and takes it down in order.
pub(crate) async fn run(args: &UpArgs, log_format: LogFormat, output: Output) -> Result<(), Failure> {
    let plan = Plan::try_new(args, log_format)?;
    // Before the first child: from here on a signal means an orderly end.
    let shutdown = signals::install()?;
    let _ground = Ground::take(&plan)?;
    let progress = Progress::new();
    let mut cluster = Cluster::new(plan)?;
    let outcome = tokio::select! {
        outcome = live(&mut cluster, args, output, &progress) => outcome,
        () = shutdown.wait() => if args.once {
            Err(Failure::new("interrupted before the demo was over"))
        } else {
            Ok(())
        },
    };
    progress.idle();
    cluster.stop(&progress).await;
    outcome
}

async fn live(cluster: &mut Cluster, args: &UpArgs, output: Output, progress: &Progress) -> Result<(), Failure> {
    cluster.start(progress).await?;
    let registry = registered(cluster, args, progress).await?;
    progress.idle();
    match present(cluster, args, output) {
        // With `--once` the demo is what was asked for; who reads along does not decide whether it runs.
        Err(failure) if args.once && failure.is_reader_gone() => {}
        presented => presented?,
    }
    if !args.once {
        cluster.supervise(progress).await;
        return Ok(());
    }
    let demo = Demo::of_one_buyer(registry);
    tokio::select! {
        outcome = demo::run(&demo, output) => outcome,
        () = cluster.supervise(progress) => Ok(()),
    }
}

/// Waits until the registry lists every child as callable.
async fn registered(cluster: &mut Cluster, args: &UpArgs, progress: &Progress) -> Result<Registry, Failure> {
    progress.doing("waiting until all are registered …".to_owned());
    let address = cluster
        .registry()
        .map(|address| format!("http://{address}"))
        .unwrap_or_default();
    let registry = crate::registry::connect([address.as_str()], &args.namespace, None)?;
    for role in [Role::Ticket, Role::User, Role::Console] {
        let wanted = cluster.members().iter().filter(|member| member.role == role).count();
        let service = role.service().unwrap_or_default();
        let mut watcher = registry.discover(service).watch();
        let enough = async {
            while watcher.borrow().callable().count() < wanted {
                if watcher.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        let enough = tokio::select! {
            enough = tokio::time::timeout(REGISTERED_PATIENCE, enough) => enough.unwrap_or(false),
            // Who dies now is told of at once, and is back before patience ends.
            () = cluster.supervise(progress) => false,
        };
        if !enough {
            return Err(Failure::new(format!(
                "not every {service} has registered within {} s",
                REGISTERED_PATIENCE.as_secs()
            ))
            .advice(format!("read {}", plan::logs(&args.data_dir).display())));
        }
    }
    Ok(registry)
}

/// Prints what runs where and what to type next.
fn present(cluster: &Cluster, args: &UpArgs, output: Output) -> Result<(), Failure> {
    let members = cluster.members();
    let document = json!({
        "event": "up",
        "data_dir": args.data_dir,
        "namespace": args.namespace,
        "registry": cluster.registry().map(|address| format!("http://{address}")),
        "members": members.iter().map(|member| json!({
            "name": member.serving.name,
            "service": member.role.service(),
            "address": member.serving.listen,
            "admin": member.serving.admin,
            "pid": member.serving.pid,
            "log": member.log,
        })).collect::<Vec<_>>(),
    });
    output.print(&document, || human(&members, args))
}

fn human(members: &[Member], args: &UpArgs) -> String {
    let mut table = Table::new(["name", "service", "address", "metrics and health", "process"]);
    for Member { role, serving, .. } in members {
        table.row([
            serving.name.clone(),
            role.service().unwrap_or_default().to_owned(),
            serving.listen.to_string(),
            serving
                .admin
                .map(|admin| format!("http://{admin}/metrics"))
                .unwrap_or_default(),
            serving.pid.to_string(),
        ]);
    }
    let mut text = format!(
        "\n{}\nStores and logs are in {}.\n",
        table.render(),
        args.data_dir.display()
    );
    if args.once {
        return text;
    }
    text.push_str("\nTry, in another terminal:\n");
    let bold = anstyle::Style::new().bold();
    let dim = anstyle::Style::new().dimmed();
    // Without a working directory there is no telling how the program is reached; then there are no hints.
    let hints =
        next::Surroundings::of_this_process(&args.namespace).map(|surroundings| next::hints(&surroundings, members));
    let hints = hints.unwrap_or_default();
    let width = hints
        .iter()
        .map(|hint| hint.command.len())
        .max()
        .unwrap_or(0)
        .min(WIDTH_OF_COMMANDS);
    for next::Hint { command, what } in hints {
        text.push_str(&format!("  {bold}{command:<width$}{bold:#}   {dim}# {what}{dim:#}\n"));
    }
    text.push_str("\nCtrl-C drains and stops it all.\n");
    text
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<GroundError> for Failure {
    fn from(error: GroundError) -> Self {
        let failure = Self::new(error.to_string()).advice(error.advice());
        match std::error::Error::source(&error) {
            Some(source) => failure.why(chain(source)),
            None => failure,
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Died { death, log } => {
                let when = if death.served {
                    "right after it had started"
                } else {
                    "before it served"
                };
                let what = format!("{} {} {when}", death.name, death.how);
                let failure = Self::new(what).advice(format!("its last lines follow, all are in {}", log.display()));
                death.last_lines.into_iter().fold(failure, Self::detail)
            }
            other => match std::error::Error::source(&other) {
                Some(source) => Self::new(other.to_string()).why(chain(source)),
                None => Self::new(other.to_string()),
            },
        }
    }
}
