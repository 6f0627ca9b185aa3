//! The binary `tessera`. This file is the life of the process; what each command does is in the module of its name.

mod account;
mod allocator;
mod args;
mod backup;
mod call;
mod channel;
mod command;
mod demo;
mod explain;
mod failure;
mod govern;
mod healthcheck;
mod inspect;
mod instances;
mod monitor;
mod output;
mod registry;
mod roles;
mod services;
mod signals;
mod status;
mod token;
mod trace;
mod up;
mod watch;

use std::{process::ExitCode, time::Duration};

use crate::{args::Cli, failure::Failure};

/// How long spans may take to leave at the end: a collector that is away must not keep a command from ending.
const FLUSH: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    // Ends the process with code 2 and a hint when the command line is wrong.
    let cli: Cli = clap::Parser::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new("no threads can be started").because(&error).report(),
    };
    let code = runtime.block_on(live(cli));
    // A name that is still being looked up must not hold up the end.
    runtime.shutdown_background();
    code
}

async fn live(mut cli: Cli) -> ExitCode {
    let telemetry = match telemetry::init(command::telemetry(&mut cli)) {
        Ok(telemetry) => telemetry,
        Err(error) => return Failure::usage("logging cannot be set up").because(&error).report(),
    };
    let outcome = command::run(cli).await;
    telemetry.shutdown(FLUSH).await;
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
