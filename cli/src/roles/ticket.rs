//! `tessera ticket`: flags to settings, and the life of the process.

use ticket_svc::{Access, Config, Tickets};

use super::{
    End, Protection, Reporting, Ways, admin, advertise, announce, beside, discoverable, events, not_started, store,
};
use crate::{
    args::TicketArgs,
    failure::Failure,
    registry::{
        credentials::{self, Followed},
        security,
    },
};

/// Runs a ticket service until it is asked to end.
pub(crate) async fn run(args: TicketArgs) -> Result<(), Failure> {
    let protection = Protection {
        // With TLS everybody could still do everything, encrypted.
        tls: args.host.tls.files.tls_cert.is_some() && !args.open,
        callers: false,
        insecure: args.member.shown.insecure,
    };
    protection.allows("--listen", args.listen.0, Ways::Service)?;
    let end = End::watch(args.host.exit_with_parent)?;
    let secured = security::member(&args.host.tls, &args.member.registry)?;
    let shown = credentials::followed(&args.member.shown)?;
    let client = secured.as_ref().and_then(|secured| secured.tls.client());
    let token = shown.as_ref().map(Followed::token);
    let reporting = Reporting::member(&args.host, &args.member, client, token)?;
    let store = store(args.store, &args.data_dir, "tickets.db")?;
    let config = Config {
        listen: args.listen.0,
        admin_listen: admin(&args.host, args.listen, &protection)?,
        advertise: advertise::address(args.advertise.as_deref(), &args.member, args.listen)?,
        registry: args.member.registry.iter().map(ToString::to_string).collect(),
        tls: secured.as_ref().map(|secured| secured.tls.clone()),
        discovery_cache: beside(&store, "discovery"),
        store: store.into(),
        events: events(args.events.as_deref())?,
        token: shown.as_ref().map(Followed::token),
        token_in_the_clear: args.member.shown.insecure,
        access: match (args.open, args.identity_keys) {
            (true, _) => Access::Open,
            (false, Some(file)) => Access::KeyFile(file),
            (false, None) => Access::Discovered,
        },
        namespace: args.member.namespace,
        zone: args.member.zone,
        instance_id: args.host.instance_id,
        drain_linger: args.member.drain_linger,
        drain_grace: args.host.drain_grace,
        heartbeat_interval: args.member.heartbeat_interval,
        heartbeat_misses: args.member.heartbeat_misses,
        hold_places: args.hold_places as usize,
        seed: args.seed,
    };
    let mut running = Tickets::start(config)
        .await
        .map_err(|error| not_started("ticket", &error))?;
    let reports = reporting.start("ticket-svc", running.instance_id());
    let failure = match discoverable(running.registrar()).await {
        Ok(()) => {
            announce("ticket", running.local_addr(), running.admin_addr())?;
            end.or(running.failed()).await
        }
        Err(refused) => Some(refused),
    };
    let report = running.stop().await;
    reports.stop().await;
    tracing::info!(?report, "stopped");
    failure.map_or(Ok(()), Err)
}
