//! `tessera user`: flags to settings, and the life of the process.

use user_svc::{Config, StartError, Users};

use super::{
    End, Protection, Reporting, Ways, admin, advertise, announce, beside, discoverable, events, not_started, store,
};
use crate::{
    args::UserArgs,
    failure::Failure,
    registry::{
        credentials::{self, Followed},
        security,
    },
};

/// Runs a user service until it is asked to end.
pub(crate) async fn run(args: UserArgs) -> Result<(), Failure> {
    let protection = Protection {
        tls: args.host.tls.files.tls_cert.is_some(),
        callers: false,
        insecure: args.member.shown.insecure,
    };
    protection.allows("--listen", args.listen.0, Ways::Service)?;
    let end = End::watch(args.host.exit_with_parent)?;
    let secured = security::member(&args.host.tls, &args.member.registry)?;
    let shown = credentials::followed(&args.member.shown)?;
    let store = store(args.store, &args.data_dir, "users.db")?;
    let client = secured.as_ref().and_then(|secured| secured.tls.client());
    let token = shown.as_ref().map(Followed::token);
    let reporting = Reporting::member(&args.host, &args.member, client, token)?;
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
        service_config: args.service_config,
        namespace: args.member.namespace,
        zone: args.member.zone,
        instance_id: args.host.instance_id,
        drain_linger: args.member.drain_linger,
        drain_grace: args.host.drain_grace,
        heartbeat_interval: args.member.heartbeat_interval,
        heartbeat_misses: args.member.heartbeat_misses,
        hold_ttl: args.hold_ttl,
        purchase_lease: args.purchase_lease,
        ..Config::default()
    };
    let mut running = Users::start(config).await.map_err(|error| match error {
        StartError::ServiceConfig(ref source) if !matches!(source, lb::ConnectError::NotReady(_)) => {
            Failure::usage("--service-config cannot be used").because(source)
        }
        error => not_started("user", &error),
    })?;
    let reports = reporting.start("user-svc", running.instance_id());
    let failure = match discoverable(running.registrar()).await {
        Ok(()) => {
            announce("user", running.local_addr(), running.admin_addr())?;
            end.or(running.failed()).await
        }
        Err(refused) => Some(refused),
    };
    let report = running.stop().await;
    reports.stop().await;
    tracing::info!(?report, "stopped");
    failure.map_or(Ok(()), Err)
}
