//! What every fault test begins with: the machine to itself, a seed that is printed, and the tools that it needs, or a printed
//! reason why it is skipped.

use std::{fmt, path::Path, process::Command};

use rand::{SeedableRng as _, rngs::StdRng};
use tokio::sync::{Mutex, MutexGuard};

/// Faults change what a whole machine does: two at once would each explain the other's failure.
static ALONE: Mutex<()> = Mutex::const_new(());

/// One run of a fault test. The next begins when this is dropped.
#[derive(Debug)]
pub struct Trial {
    /// All randomness of the test comes from here: operations and the times of faults. How the kernel schedules does not.
    pub rng: StdRng,
    _alone: MutexGuard<'static, ()>,
}

/// What a fault test cannot do without.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// The right to mount, to make network namespaces and to write packet filters.
    Root,
    /// A program on PATH.
    Tool(&'static str),
}

impl Trial {
    /// Waits for its turn and prints the seed: `FAULT_SEED` if that is set, else a fresh one.
    ///
    /// # Panics
    /// When `FAULT_SEED` is not a number.
    pub async fn begin(name: &str) -> Self {
        let alone = ALONE.lock().await;
        let seed = match std::env::var("FAULT_SEED") {
            Ok(seed) => seed.parse().expect("FAULT_SEED is a number"),
            Err(_) => rand::random(),
        };
        eprintln!("{name}: FAULT_SEED={seed}");
        Self {
            rng: StdRng::seed_from_u64(seed),
            _alone: alone,
        }
    }

    /// As [`Trial::begin`], or `None` with a printed reason when this machine lacks something.
    pub async fn with(name: &str, needs: &[Need]) -> Option<Self> {
        match needs.iter().find(|need| !need.is_met()) {
            Some(need) => {
                eprintln!("{name}: skipped, it needs {need}");
                None
            }
            None => Some(Self::begin(name).await),
        }
    }

    /// How often to do something: `usual`, times `FAULT_SCALE` in percent if that is set.
    ///
    /// # Panics
    /// When `FAULT_SCALE` is not a number.
    pub fn times(&self, usual: usize) -> usize {
        let percent = match std::env::var("FAULT_SCALE") {
            Ok(percent) => percent.parse().expect("FAULT_SCALE is a number"),
            Err(_) => 100,
        };
        (usual * percent / 100).max(1)
    }
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Tool(name) => find(name),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Tool(name) => write!(f, "`{name}` (tools/setup.sh installs it on Debian)"),
        }
    }
}

fn find(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .any(|folder| Path::new(&folder).join(name).is_file())
}

/// Runs an administrator's program to its end.
///
/// # Panics
/// When it fails, with what it said.
pub fn sh(program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).output();
    let done = done.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        done.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}
