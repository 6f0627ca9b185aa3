//! `tessera registry`: flags to settings, and the life of the process.

use registry_svc::{Config, Registry};

use super::{End, admin, announce, folder, not_started};
use crate::{args::RegistryArgs, failure::Failure};

/// Runs the registry until it is asked to end.
pub(crate) async fn run(args: RegistryArgs) -> Result<(), Failure> {
    let end = End::watch(&args.host)?;
    let leases = args.leases;
    let config = Config {
        listen: args.listen.0,
        admin_listen: admin(&args.host, args.listen)?,
        data_dir: folder(&args.data_dir)?,
        history_len: args.history_len,
        instance_id: args.host.instance_id,
        drain_grace: args.host.drain_grace,
        self_preservation: !leases.no_self_preservation,
        protection_share: leases.protection_share.into(),
        protection_window: leases.protection_window,
        protection_max: leases.protection_max,
        suspect_after: (!leases.suspect_after.is_zero()).then_some(leases.suspect_after),
        ..Config::default()
    };
    let mut running = Registry::start(config)
        .await
        .map_err(|error| not_started("registry", &error))?;
    announce("registry", running.local_addr(), running.admin_addr())?;
    let failure = end.or(running.failed()).await;
    let report = running.stop().await;
    tracing::info!(?report, "stopped");
    failure.map_or(Ok(()), Err)
}
