//! From a parsed command line to the module that does it, and how the process presents itself in logs and traces
//! meanwhile.

use uuid::Uuid;

use crate::registry::security;
use crate::{
    account,
    args::{Cli, Command, LogFormat},
    backup, call,
    demo::{self, Demo},
    explain,
    failure::Failure,
    govern, healthcheck, inspect, instances, monitor,
    output::Output,
    roles, services, token, up, watch,
};

/// Does what was asked.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let output = Output::new(cli.output);
    match cli.command {
        Command::Up(args) => up::run(&args, cli.log_format, output).await,
        Command::Demo(args) => demo::run(&Demo::try_new(&args)?, output).await,
        Command::Services(args) => services::run(&args, output).await,
        Command::Instances(args) => instances::run(&args, output).await,
        Command::Watch(args) => watch::run(&args, output).await,
        Command::Call(args) => call::run(&args, output).await,
        Command::Healthcheck(args) => healthcheck::run(&args, output).await,
        Command::Drain(args) => govern::drain(&args, output).await,
        Command::Undrain(args) => govern::undrain(&args, output).await,
        Command::Weight(args) => govern::weight(&args, output).await,
        Command::Explain(args) => explain::run(&args, output).await,
        Command::Lb(args) => inspect::balance::run(&args, output).await,
        Command::LogLevel(args) => inspect::log_level::run(&args, output).await,
        Command::Top(args) => monitor::top(&args, output).await,
        Command::Stats(args) => monitor::stats(&args, output).await,
        Command::Backup(args) => backup::backup(&args, output).await,
        Command::Restore(args) => backup::restore(&args, output).await,
        Command::Token(args) => token::run(&args, output),
        Command::Account(args) => account::run(&args, output).await,
        Command::Certs(args) => security::certs::run(&args, output),
        Command::Events(args) => inspect::events::run(&args, output).await,
        Command::TicketCode(args) => inspect::ticket_code::run(&args, output),
        Command::Registry(args) => roles::registry::run(args).await,
        Command::Ticket(args) => roles::ticket::run(args).await,
        Command::User(args) => roles::user::run(args).await,
        Command::Console(args) => roles::console::run(args).await,
        Command::Agent(args) => roles::agent::run(args).await,
        Command::AgentGuard(args) => roles::agent::guard(args).await,
    }
}

/// How this process presents itself. A role without an instance id is given one, so that the registry, the traces and
/// the logs call it the same.
pub(crate) fn telemetry(cli: &mut Cli) -> telemetry::Config {
    // A command says what went wrong in its own words; the logs of the libraries below it are for those who ask
    // (RUST_LOG).
    let (service, instance, filter) = match &mut cli.command {
        Command::Registry(args) => ("registry-svc", Some(&mut args.host.instance_id), "info"),
        Command::Ticket(args) => ("ticket-svc", Some(&mut args.host.instance_id), "info"),
        Command::User(args) => ("user-svc", Some(&mut args.host.instance_id), "info"),
        Command::Console(args) => ("console", Some(&mut args.host.instance_id), "info"),
        Command::Agent(_) => ("tessera-agent", None, "info"),
        Command::Up(_) => ("tessera-cli", None, "off,tessera=warn"),
        _ => ("tessera-cli", None, "off"),
    };
    let instance_id = instance.map(|id| {
        let random = || format!("{service}-{}", &Uuid::new_v4().simple().to_string()[..8]);
        id.get_or_insert_with(random).clone()
    });
    telemetry::Config {
        service_name: service.to_owned(),
        service_version: env!("CARGO_PKG_VERSION").to_owned(),
        instance_id,
        log_format: match cli.log_format {
            LogFormat::Auto => telemetry::LogFormat::Auto,
            LogFormat::Text => telemetry::LogFormat::Text,
            LogFormat::Json => telemetry::LogFormat::Json,
        },
        default_filter: filter.to_owned(),
    }
}
