//! `tessera console`: flags to settings, and the life of the process.

use console_svc::{Config, Console, SERVICE};

use super::{End, Protection, Reporting, Ways, admin, advertise, announce, discoverable, not_started, store};
use crate::{
    args::ConsoleArgs,
    failure::Failure,
    registry::{
        credentials::{self, Followed},
        security,
    },
};

/// Runs the monitor until it is asked to end.
pub(crate) async fn run(args: ConsoleArgs) -> Result<(), Failure> {
    let is_guarded = security::client_auth(&args.host.tls) != tls::ClientAuth::None;
    let protection = Protection {
        tls: args.host.tls.files.tls_cert.is_some(),
        callers: is_guarded,
        insecure: args.member.shown.insecure,
    };
    protection.allows("--listen", args.listen.0, Ways::Service)?;
    let end = End::watch(args.host.exit_with_parent)?;
    let secured = security::member(&args.host.tls, &args.member.registry)?;
    let shown = credentials::followed(&args.member.shown)?;
    let client = secured.as_ref().and_then(|secured| secured.tls.client());
    let token = shown.as_ref().map(Followed::token);
    let reporting = Reporting::member(&args.host, &args.member, client, token)?;
    let config = Config {
        listen: args.listen.0,
        admin_listen: admin(&args.host, args.listen, &protection)?,
        advertise: advertise::address(args.advertise.as_deref(), &args.member, args.listen)?,
        registry: args.member.registry.iter().map(ToString::to_string).collect(),
        tls: secured.as_ref().map(|secured| secured.tls.clone()),
        is_guarded,
        store: store(args.store, &args.data_dir, "monitor.redb")?.into(),
        max_bytes: usize::try_from(args.memory)
            .unwrap_or(usize::MAX)
            .saturating_mul(1 << 20),
        token: shown.as_ref().map(Followed::token),
        token_in_the_clear: args.member.shown.insecure,
        namespace: args.member.namespace,
        zone: args.member.zone,
        instance_id: args.host.instance_id,
        drain_linger: args.member.drain_linger,
        drain_grace: args.host.drain_grace,
        heartbeat_interval: args.member.heartbeat_interval,
        heartbeat_misses: args.member.heartbeat_misses,
    };
    let mut running = Console::start(config)
        .await
        .map_err(|error| not_started("console", &error))?;
    let reports = reporting.start(SERVICE, running.instance_id());
    let failure = match discoverable(running.registrar()).await {
        Ok(()) => {
            announce("console", running.local_addr(), running.admin_addr())?;
            end.or(running.failed()).await
        }
        Err(refused) => Some(refused),
    };
    // Its last report is to itself.
    reports.stop().await;
    let report = running.stop().await;
    tracing::info!(?report, "stopped");
    failure.map_or(Ok(()), Err)
}
