//! The opponents as child processes: each with its own folder on the same disk, its defaults as they are, and a free port.
//! Killed when dropped, and by the kernel when this process is killed.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{Failed, etcd, http2::Connection, zookeeper};

/// Debian's packages.
const ZOOKEEPER_JAR: &str = "/usr/share/java/zookeeper.jar";
/// A start that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Our registry.
    Tessera,
    /// etcd.
    Etcd,
    /// ZooKeeper.
    ZooKeeper,
}

/// A running opponent.
pub(crate) struct Server {
    child: Child,
    /// Where it serves.
    pub(crate) address: SocketAddr,
    kind: Kind,
    folder: PathBuf,
}

/// What a process has used and holds.
pub(crate) struct Usage {
    /// CPU time, user and system, in clock ticks of 10 ms: precise enough over seconds.
    pub(crate) cpu: Duration,
    /// Resident bytes.
    pub(crate) resident: u64,
}

/// `target/bench`, where results and the opponents' data go.
pub(crate) fn output() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench")
}

static ALONE: OnceLock<()> = OnceLock::new();

impl Kind {
    /// From now on nobody but our registry takes part.
    pub(crate) fn leave_others_out() {
        ALONE.get_or_init(|| ());
    }

    /// Whether it takes part: it is installed and wanted.
    pub(crate) fn is_installed(self) -> bool {
        if ALONE.get().is_some() {
            return self == Self::Tessera;
        }
        let runs = |command: &str, argument: &str| {
            Command::new(command)
                .arg(argument)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        match self {
            Self::Tessera => true,
            Self::Etcd => runs("etcd", "--version"),
            Self::ZooKeeper => Path::new(ZOOKEEPER_JAR).exists() && runs("java", "-version"),
        }
    }

    /// Starts it on an empty store, and waits until it serves.
    pub(crate) async fn start(self) -> Result<Server, Failed> {
        let name = match self {
            Self::Tessera => "tessera",
            Self::Etcd => "etcd",
            Self::ZooKeeper => "zookeeper",
        };
        let folder = output().join("tmp").join(format!("{name}-{}", std::process::id()));
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Server::launch(self, folder).await
    }
}

impl Server {
    async fn launch(kind: Kind, folder: PathBuf) -> Result<Self, Failed> {
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let log = fs::File::options().create(true).append(true).open(folder.join("log"))?;
        let mut command = match kind {
            Kind::Tessera => tessera(&folder),
            Kind::Etcd => etcd(&folder, port, free_port()?),
            Kind::ZooKeeper => zookeeper(&folder, port)?,
        };
        let stdout = if kind == Kind::Tessera {
            Stdio::piped()
        } else {
            Stdio::from(log.try_clone()?)
        };
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(log).spawn()?;
        let mut server = Self {
            child,
            address,
            kind,
            folder,
        };
        server.ready().await?;
        Ok(server)
    }

    async fn ready(&mut self) -> Result<(), Failed> {
        if let Some(stdout) = self.child.stdout.take() {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line)?;
            let address = line
                .split(" listening on ")
                .nth(1)
                .and_then(|rest| rest.split_whitespace().next());
            self.address = address.ok_or_else(|| self.dead())?.parse()?;
        }
        let begun = Instant::now();
        // ZooKeeper takes connections that it never answers while it starts.
        while !tokio::time::timeout(Duration::from_secs(1), self.answers())
            .await
            .unwrap_or(false)
        {
            if begun.elapsed() > PATIENCE || self.child.try_wait()?.is_some() {
                return Err(self.dead().into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn answers(&self) -> bool {
        match self.kind {
            Kind::Tessera => Connection::open(self.address).await.is_ok(),
            Kind::Etcd => match Connection::open(self.address).await {
                Ok(mut connection) => connection.call(etcd::RANGE, &etcd::probe(0)).await.is_ok(),
                Err(_) => false,
            },
            Kind::ZooKeeper => zookeeper::Session::open(self.address).await.is_ok(),
        }
    }

    fn dead(&self) -> String {
        format!(
            "{:?} does not start; its log is {}/log",
            self.kind,
            self.folder.display()
        )
    }

    /// kill -9, then a start on the same store: the server, and the time from the start until it serves.
    pub(crate) async fn restart(mut self) -> Result<(Self, Duration), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        let begun = Instant::now();
        // The folder must survive this one's end.
        let folder = std::mem::take(&mut self.folder);
        let server = Self::launch(self.kind, folder).await?;
        Ok((server, begun.elapsed()))
    }

    /// What it has used so far, from /proc.
    pub(crate) fn usage(&self) -> Result<Usage, Failed> {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let stat = fs::read_to_string(proc.join("stat"))?;
        // The second field is the command in parentheses and may contain spaces; utime and stime are the 14th and 15th.
        let after_command = stat.rsplit_once(')').ok_or("unreadable stat")?.1;
        let ticks = after_command.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|field| field.parse().unwrap_or(0)).sum();
        let status = fs::read_to_string(proc.join("status"))?;
        let resident = status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse::<u64>()
                    .ok()
            })
            .ok_or("no VmRSS")?;
        Ok(Usage {
            cpu: Duration::from_millis(ticks * 10),
            resident: resident * 1_024,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors mean that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.folder.as_os_str().is_empty() && std::env::var_os("BENCH_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A command whose process the kernel kills when ours is gone. `setpriv` (util-linux) becomes the command; without it a bench
/// that is itself killed leaves its opponents behind.
fn mortal(program: impl AsRef<OsStr>) -> Command {
    let installed = Command::new("setpriv")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn tessera(folder: &Path) -> Command {
    let mut command = mortal(e2e::tessera());
    command
        .args([
            "registry",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "off",
            "--data-dir",
        ])
        .arg(folder.join("data"))
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
        .env_remove("RUST_LOG");
    command
}

fn etcd(folder: &Path, port: u16, peer_port: u16) -> Command {
    let (client, peer) = (
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{peer_port}"),
    );
    let mut command = mortal("etcd");
    command.arg("--data-dir").arg(folder.join("data"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.arg(format!("--initial-cluster=default={peer}"));
    // Its log of slow requests would be the only one written while figures are taken.
    command.args(["--logger", "zap", "--log-level", "error"]);
    command
}

fn zookeeper(folder: &Path, port: u16) -> Result<Command, Failed> {
    let config = folder.join("zoo.cfg");
    let text = format!(
        "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nmaxClientCnxns=0\nadmin.enableServer=false\n",
        folder.join("data").display()
    );
    fs::write(&config, text)?;
    let mut command = mortal("java");
    command.args([
        "-cp",
        ZOOKEEPER_JAR,
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
    ]);
    command.arg(config);
    Ok(command)
}

/// Free at this moment. Nobody else on the machine is likely to take it in the next.
fn free_port() -> Result<u16, Failed> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
