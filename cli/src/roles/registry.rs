//! `tessera registry`: flags to settings, and the life of the process.

use registry_svc::{Access, Config, EtcdUrlError, Registry, StartError, StoreLocation};

use super::{End, Protection, Reporting, Ways, address, admin, announce, folder, not_started};
use crate::{
    args::{RegistryArgs, TokenArgs},
    failure::{Exit, Failure},
    registry::{
        credentials::{self, Followed},
        security,
    },
};

/// Runs the registry until it is asked to end.
pub(crate) async fn run(args: RegistryArgs) -> Result<(), Failure> {
    let identities = security::client_auth(&args.host.tls) != tls::ClientAuth::None;
    let protection = Protection {
        tls: args.host.tls.files.tls_cert.is_some(),
        callers: args.access.tokens.is_some() || identities,
        insecure: args.access.insecure,
    };
    protection.allows("--listen", args.listen.0, Ways::Registry)?;
    let end = End::watch(args.host.exit_with_parent)?;
    let secured = security::server(&args.host.tls)?;
    let leases = args.leases;
    let store = location(&args.store)?;
    // What it shows to itself does not leave this machine.
    let shown = credentials::followed(&TokenArgs {
        token: args.access.token.clone(),
        insecure: true,
    })?;
    let is_let_in = args.access.tokens.is_none() || shown.is_some();
    let dials = secured.as_ref().and_then(|secured| secured.tls.client()).cloned();
    let has_tls = args.host.tls.files.tls_cert.is_some();
    let report_args = args.host.report.clone();
    let is_secured = matches!(&store, StoreLocation::Etcd(url) if url.is_secured());
    let store_secured = security::store(&args.store_tls, is_secured)?;
    let config = Config {
        listen: args.listen.0,
        admin_listen: admin(&args.host, args.listen, &protection)?,
        tls: secured.as_ref().and_then(|secured| secured.tls.server().cloned()),
        data_dir: match store {
            StoreLocation::Embedded => folder(&args.data_dir)?,
            StoreLocation::Etcd(_) => args.data_dir,
        },
        store,
        store_tls: store_secured.as_ref().map(|secured| secured.client.clone()),
        access: match (args.access.tokens, identities) {
            (None, false) => Access::Open,
            (tokens, identities) => Access::Guarded { tokens, identities },
        },
        history_len: args.history_len,
        instance_id: args.host.instance_id,
        drain_grace: args.host.drain_grace,
        self_preservation: !leases.no_self_preservation,
        protection_share: leases.protection_share.into(),
        protection_window: leases.protection_window,
        protection_max: leases.protection_max,
        suspect_after: (!leases.suspect_after.is_zero()).then_some(leases.suspect_after),
        probe_allow: args.probe_allow,
        probe_tls: secured.as_ref().and_then(|secured| secured.tls.client().cloned()),
        max_instances_per_principal: args.max_instances_per_principal,
        ..Config::default()
    };
    let mut running = Registry::start(config).await.map_err(|error| match error {
        // It was asked for in a way that makes no sense; starting again and again changes nothing.
        StartError::Tokens(_) => not_started("registry", &error).exit(Exit::Usage),
        _ => not_started("registry", &error),
    })?;
    let reporting = if is_let_in {
        let token = shown.as_ref().map(Followed::token);
        Reporting::of_registry(&report_args, running.local_addr(), dials.as_ref(), has_tls, token)
    } else {
        tracing::info!(
            "this registry asks for tokens and has none for itself (--token), so it reports nothing to a monitor"
        );
        Reporting::none()
    };
    let reports = reporting.start("registry-svc", running.instance_id());
    announce("registry", running.local_addr(), running.admin_addr())?;
    let failure = end.or(running.failed()).await;
    // Where it finds the monitor is itself.
    reports.stop().await;
    let report = running.stop().await;
    tracing::info!(?report, "stopped");
    failure.map_or(Ok(()), Err)
}

/// The store that a text names. It is read here and not with the other flags: their errors repeat what was given, and this may
/// hold a password.
fn location(text: &str) -> Result<StoreLocation, Failure> {
    let text = &address(text)?;
    if text == "embedded" {
        return Ok(StoreLocation::Embedded);
    }
    let url = text.parse().map_err(|error: EtcdUrlError| {
        Failure::usage("--store is neither `embedded` nor the address of an etcd cluster").why(error)
    })?;
    Ok(StoreLocation::Etcd(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_embedded_or_an_etcd_and_its_password_is_never_repeated() {
        assert_eq!(location("embedded").ok(), Some(StoreLocation::Embedded));
        let url = "etcd://h1:2379,h2:2379/a/".parse().expect("an address");
        assert_eq!(location("etcd://h1,h2/a").ok(), Some(StoreLocation::Etcd(url)));
        for wrong in [
            "",
            "redb",
            "http://h1:2379",
            "etcd://root:secret@",
            "postgres://root:secret@h1",
            "@nowhere",
        ] {
            let failure = location(wrong).expect_err(wrong);
            assert!(!format!("{failure:?}").contains("secret"), "{failure:?}");
        }
    }

    /// Where a password is not on the command line, which every user of the machine can read.
    #[test]
    fn the_address_can_be_in_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store");
        let named = format!("@{}", path.display());
        std::fs::write(&path, "etcds://root:secret@h1/a\n").expect("written");
        let url = "etcds://root:secret@h1/a".parse().expect("an address");
        assert_eq!(location(&named).ok(), Some(StoreLocation::Etcd(url)));
        std::fs::write(&path, "root:secret@h1\n").expect("written");
        let failure = location(&named).expect_err("is none");
        assert!(!format!("{failure:?}").contains("secret"), "{failure:?}");
    }
}
