//! The roles: from flags to a running service, and its end. One process runs one role; several together are `up`'s
//! business.

mod advertise;
pub(crate) mod agent;
pub(crate) mod announcement;
pub(crate) mod console;
mod exposure;
mod parent;
pub(crate) mod registry;
mod reporting;
pub(crate) mod ticket;
pub(crate) mod user;

use std::{
    fs::File,
    io::Read as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use announcement::Announcement;
use exposure::{Protection, Ways};
use registry_client::{Error, Registrar};
use reporting::Reporting;
use service_host::signal::Shutdown;
use user_svc::{InvalidNatsUrl, NatsUrl};

use crate::{
    args::{Admin, HostArgs, Listen},
    failure::{Failure, chain},
    output, signals,
};

/// What ends a process from outside: a signal, or the end of its parent.
struct End {
    shutdown: Shutdown,
    with_parent: bool,
}

impl End {
    /// From now on a signal is a request, not an end.
    fn watch(exit_with_parent: bool) -> Result<Self, Failure> {
        Ok(Self {
            shutdown: signals::install()?,
            with_parent: exit_with_parent,
        })
    }

    /// Waits until it is asked to end.
    async fn asked(&self) {
        tokio::select! {
            () = self.shutdown.wait() => {}
            () = parent::gone(self.with_parent) => tracing::info!("the parent is gone; stopping"),
        }
    }

    /// Waits until it is asked to end, or cannot go on: then with the reason.
    async fn or<E: std::error::Error + 'static>(&self, failed: impl Future<Output = E>) -> Option<Failure> {
        tokio::select! {
            () = self.asked() => None,
            error = failed => Some(Failure::new("the service cannot go on").because(&error)),
        }
    }
}

/// Whoever waits for the line on stdout wants to call the service next, and finds it by discovery: so that comes first. A
/// registry that is away must not keep a service from serving, so it is waited for no longer than this.
const DISCOVERABLE: Duration = Duration::from_secs(2);

/// Waits until callers can find the service. Fails only when the registry will never take it.
async fn discoverable(registrar: Option<&Registrar>) -> Result<(), Failure> {
    let Some(registrar) = registrar else {
        return Ok(());
    };
    match registrar.registered(DISCOVERABLE).await {
        Ok(()) => Ok(()),
        Err(error @ Error::Answered(_)) if !error.is_retryable() => {
            Err(Failure::new("the registry does not take this instance").because(&error))
        }
        Err(error) => {
            tracing::warn!(%error, "serving, though nobody finds this instance yet");
            Ok(())
        }
    }
}

/// Says on stdout that the service is there: the line that `up` and scripts wait for.
fn announce(role: &str, listen: SocketAddr, admin: Option<SocketAddr>) -> Result<(), Failure> {
    let announcement = Announcement {
        role: role.to_owned(),
        listen,
        admin,
    };
    output::write_stdout(&announcement.to_string())
}

/// Why a role did not start, with what to do about the usual causes.
fn not_started(role: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    let why = chain(error);
    let failure = Failure::new(format!("the {role} service cannot start")).why(&why);
    // Many of these errors say what to do by themselves.
    match advice(&why).filter(|_| !why.contains(';')) {
        Some(advice) => failure.advice(advice),
        None => failure,
    }
}

fn advice(why: &str) -> Option<&'static str> {
    let said = |text: &str| why.to_lowercase().contains(text);
    if said("in use") {
        Some("stop what listens there, or pass another --listen and --admin-listen")
    } else if said("permission denied") || said("not a directory") || said("unable to open") {
        Some("pass a --store or --data-dir that you may write")
    } else {
        None
    }
}

/// Where the administration port is to be.
fn admin(host: &HostArgs, listen: Listen, protection: &Protection) -> Result<Option<SocketAddr>, Failure> {
    let admin = match host.admin_listen {
        Some(admin) => {
            if let Admin::At(address) = admin {
                protection.allows("--admin-listen", address, Ways::Admin)?;
            }
            Ok(admin)
        }
        None => Admin::beside(protection.admin_beside(listen.0)),
    };
    admin.map(Admin::address).map_err(Failure::usage)
}

/// An address has some hundreds of characters; a file that is larger is another one.
const MAX_ADDRESS: u64 = 8 << 10;

/// The address that a text gives: itself, or what the file has that it names by `@FILE`. The command line can be read by every
/// user of the machine; a file need not be.
pub(crate) fn address(text: &str) -> Result<String, Failure> {
    read_address("the store's address", text)
}

fn read_address(what: &str, text: &str) -> Result<String, Failure> {
    let Some(file) = text.strip_prefix('@').map(Path::new) else {
        return Ok(text.to_owned());
    };
    let mut address = String::new();
    let read = File::open(file).and_then(|file| file.take(MAX_ADDRESS).read_to_string(&mut address));
    read.map_err(|error| Failure::usage(format!("{what} cannot be read from {}", file.display())).because(&error))?;
    Ok(address.trim().to_owned())
}

/// The store: as given, or a file of this name in the data directory, which is made.
fn store(store: Option<String>, data_dir: &Path, file: &str) -> Result<String, Failure> {
    match store {
        Some(store) => address(&store),
        None => Ok(folder(data_dir)?.join(file).display().to_string()),
    }
}

/// Where events go besides, as given or in a file.
fn events(events: Option<&str>) -> Result<Option<NatsUrl>, Failure> {
    let Some(events) = events else {
        return Ok(None);
    };
    let url = read_address("--events", events)?.parse();
    // The text itself may hold a password.
    url.map(Some).map_err(|error: InvalidNatsUrl| {
        Failure::usage("--events is no address of NATS")
            .why(error)
            .advice("give nats://HOST:PORT, or @FILE with it")
    })
}

/// A folder of this name beside a store that is a file; a store elsewhere has no beside.
fn beside(store: &str, name: &str) -> Option<PathBuf> {
    let file = match store.split_once(':') {
        Some(("sqlite", file)) => file.trim_start_matches("//").split('?').next()?,
        Some((scheme, rest)) if scheme.len() > 1 && rest.starts_with("//") => return None,
        _ => store,
    };
    let is_file = !file.is_empty() && file != ":memory:";
    is_file.then(|| Path::new(file).with_file_name(name))
}

/// The data directory, made when missing.
fn folder(folder: &Path) -> Result<PathBuf, Failure> {
    let made = std::fs::create_dir_all(folder);
    made.map(|()| folder.to_owned()).map_err(|error| {
        Failure::new(format!("the data directory {} cannot be written", folder.display()))
            .because(&error)
            .advice("pass --data-dir with a folder that you may write")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_beside_a_store_is_in_its_folder() {
        for (store, expected) in [
            ("/data/users.db", Some("/data/discovery")),
            ("users.db", Some("discovery")),
            ("sqlite:users.db", Some("discovery")),
            ("sqlite:///data/users.db?mode=rwc", Some("/data/discovery")),
            ("sqlite::memory:", None),
            ("postgres://db/users", None),
        ] {
            assert_eq!(beside(store, "discovery"), expected.map(PathBuf::from), "{store}");
        }
    }
}
