//! A real etcd on loopback for the tests of the store, of the registry and of the binary, which include this file.
//!
//! It runs below a shell that ends it when this process closes the shell's input: by dropping the fixture, by a panic, or by
//! dying. It is killed by its own id, never by name.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Runs the command given in the background, says its id, and ends it with its input.
const KEEPER: &str = r#""$@" >/dev/null 2>&1 & echo $!; cat >/dev/null; kill -9 $!; wait $!"#;

/// One member that is a cluster.
#[derive(Debug)]
pub(crate) struct EtcdServer {
    /// Dropped before the directory that it writes to.
    running: Option<Keeper>,
    directory: tempfile::TempDir,
    client: u16,
    peer: u16,
    /// Besides what every one is started with.
    arguments: Vec<String>,
}

#[derive(Debug)]
struct Keeper {
    shell: Child,
    etcd: String,
}

#[allow(dead_code, reason = "each of those that include this file uses but a part of it")]
impl EtcdServer {
    /// Starts one. `None`, and says so, where there is no etcd to start.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(arguments: &[&str]) -> Option<Self> {
        if Command::new("etcd").arg("--version").output().is_err() {
            eprintln!("skipped: no etcd on PATH (Debian: etcd-server)");
            return None;
        }
        // Another process may take a port between our look and etcd's start.
        (0..5).find_map(|_| {
            let mut server = Self {
                directory: tempfile::TempDir::new().expect("a directory"),
                client: free_port(),
                peer: free_port(),
                arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
                running: None,
            };
            server.begin().then_some(server)
        })
    }

    /// `host:port` for clients.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client)
    }

    /// Kills it as a crash does.
    pub(crate) fn kill(&mut self) {
        let keeper = self.running.take().expect("it runs");
        keeper.signal("-KILL");
        drop(keeper);
    }

    /// Starts it again on what it had.
    pub(crate) fn restart(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        // Its port may be in use for a moment by what the last one left.
        assert!((0..5).any(|_| self.begin()), "etcd starts again");
    }

    /// Stops its time.
    pub(crate) fn pause(&self) {
        self.running.as_ref().expect("it runs").signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.running.as_ref().expect("it runs").signal("-CONT");
    }

    /// `etcdctl`, where there is one; its output.
    pub(crate) fn etcdctl(&self, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(self.address());
        let output = command.args(arguments).output().ok()?;
        assert!(output.status.success(), "etcdctl {arguments:?}: {output:?}");
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Whether it was given a certificate.
    fn is_secured(&self) -> bool {
        self.arguments.iter().any(|argument| argument == "--cert-file")
    }

    /// Whether it came up.
    fn begin(&mut self) -> bool {
        let scheme = if self.is_secured() { "https" } else { "http" };
        let (client, peer) = (
            format!("{scheme}://127.0.0.1:{}", self.client),
            format!("http://127.0.0.1:{}", self.peer),
        );
        let mut shell = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .args(["etcd", "--name", "m1", "--log-level", "error", "--data-dir"])
            .arg(self.directory.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("m1={peer}")])
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let mut etcd = String::new();
        BufReader::new(shell.stdout.take().expect("piped"))
            .read_line(&mut etcd)
            .expect("the id");
        let keeper = Keeper {
            shell,
            etcd: etcd.trim().to_owned(),
        };
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            if std::net::TcpStream::connect(self.address()).is_ok() {
                self.running = Some(keeper);
                return true;
            }
            if !keeper.is_alive() {
                return false;
            }
            pause();
        }
        false
    }
}

impl Keeper {
    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.etcd]).status();
        assert!(status.is_ok_and(|status| status.success()), "{signal} reaches etcd");
    }

    fn is_alive(&self) -> bool {
        Command::new("kill")
            .args(["-0", &self.etcd])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Between two looks at what another process or task does.
#[allow(clippy::disallowed_methods, reason = "on a thread of a test, within a bound")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}
