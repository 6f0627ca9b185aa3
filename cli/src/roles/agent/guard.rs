//! `tessera agent-guard`: ends what the agent started when the agent itself no longer can, `kill -9` included. It leads the
//! command's process group and holds the other end of a pipe from the agent; an agent that ends in order kills it with the
//! rest of the group, so whatever is read here is the end of one that did not.

use rustix::process::{Signal, getpgrp, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};

use crate::{args::GuardArgs, failure::Failure, roles::parent};

/// Waits for the end of the agent, then ends the group, itself included.
pub(crate) async fn run(args: GuardArgs) -> Result<(), Failure> {
    let caught = |kind| signal(kind).map_err(|error| Failure::new("signals cannot be caught").because(&error));
    // What is sent to the whole group, by ourselves below or by the command, must leave the guard standing until the end.
    let _caught = (
        caught(SignalKind::terminate())?,
        caught(SignalKind::interrupt())?,
        caught(SignalKind::hangup())?,
    );
    parent::gone(true).await;
    let group = getpgrp();
    // An error would be that there is no such group, and we are in it.
    let _ = kill_process_group(group, Signal::TERM);
    tokio::time::sleep(args.drain_grace).await;
    let _ = kill_process_group(group, Signal::KILL);
    Ok(())
}
