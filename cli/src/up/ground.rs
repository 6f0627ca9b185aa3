//! The ground that a cluster stands on, checked before anything is started: a data directory that is ours alone, and
//! free ports.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::plan::{ChildPlan, HOST, Plan, logs};

/// Why there is no ground to stand on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GroundError {
    #[error("the data directory {} cannot be written", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("another `tessera up`{} uses the data directory {}", pid_of(owner), path.display())]
    InUse { path: PathBuf, owner: Option<u32> },
    #[error("port {port} is in use ({whose})")]
    PortInUse {
        port: u16,
        whose: String,
        flag: &'static str,
    },
    #[error("port {port} cannot be used ({whose})")]
    PortRefused {
        port: u16,
        whose: String,
        flag: &'static str,
        source: io::Error,
    },
}

impl GroundError {
    /// What to do about it.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Unwritable { .. } => "pass --data-dir with a folder that you may write".to_owned(),
            Self::InUse { .. } => "stop that one, or pass another --data-dir".to_owned(),
            Self::PortInUse { flag, .. } => format!("stop what listens there or pass {flag}"),
            Self::PortRefused { flag, .. } => format!("pass another {flag}"),
        }
    }
}

/// The data directory is ours while this lives, and even `kill -9` gives it back: the lock is the kernel's.
#[derive(Debug)]
pub(crate) struct Ground {
    _lock: File,
}

impl Ground {
    /// Makes the folders, takes the lock and tries every port.
    pub(crate) fn take(plan: &Plan) -> Result<Self, GroundError> {
        let lock = lock(&plan.data_dir)?;
        for child in &plan.children {
            try_ports(child)?;
        }
        Ok(Self { _lock: lock })
    }
}

fn lock(data_dir: &Path) -> Result<File, GroundError> {
    let unwritable = |source| GroundError::Unwritable {
        path: data_dir.to_owned(),
        source,
    };
    fs::create_dir_all(logs(data_dir)).map_err(unwritable)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        // Not truncated: until the lock is ours, the content is the owner's.
        .truncate(false)
        .open(data_dir.join("up.lock"))
        .map_err(unwritable)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut owner = String::new();
            // Only for the message.
            let _ = file.read_to_string(&mut owner);
            return Err(GroundError::InUse {
                path: data_dir.to_owned(),
                owner: owner.trim().parse().ok(),
            });
        }
        Err(error) => return Err(unwritable(error.into())),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(unwritable)?;
    Ok(file)
}

fn try_ports(child: &ChildPlan) -> Result<(), GroundError> {
    let admin = child.admin_port().unwrap_or(0);
    let of_admin = format!("administration of {}, which is its port + 2000", child.name);
    for (port, whose) in [(child.port, child.name.clone()), (admin, of_admin)] {
        if port == 0 {
            continue;
        }
        let flag = child.role.port_flag();
        match TcpListener::bind(SocketAddr::from((HOST, port))) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(GroundError::PortInUse { port, whose, flag });
            }
            Err(source) => {
                return Err(GroundError::PortRefused {
                    port,
                    whose,
                    flag,
                    source,
                });
            }
        }
    }
    Ok(())
}

fn pid_of(owner: &Option<u32>) -> String {
    owner.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}
