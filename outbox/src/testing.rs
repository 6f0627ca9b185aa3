//! A NATS server of one test, with JetStream in a temporary folder, and what a reader of its stream finds there. It ends with the
//! test, however that comes about, and its folder goes with it.
//!
//! What ends it is a shell whose input ends with the test's process, also by SIGKILL (`service_store::testing::Server` says why).

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use serde_json::Value;

use crate::nats::STREAM;

/// Ends what it started when its input ends. TERM, INT and HUP are for the tests.
const SHELL: &str = r#"
trap '' INT TERM HUP
"$@" >>"$0/log" 2>&1 </dev/null &
while read -r word; do :; done
kill -9 $! 2>/dev/null
wait
"#;

/// For a machine that does ten other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server. Dropped, it is gone.
#[derive(Debug)]
pub struct NatsServer {
    folder: tempfile::TempDir,
    port: u16,
    /// More of its command line.
    flags: Vec<String>,
    shell: Mutex<Option<Child>>,
}

/// A message as it is in the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// What it was published under.
    pub subject: String,
    /// Its headers, each as `NAME: VALUE`, sorted.
    pub headers: Vec<String>,
    /// The CloudEvent.
    pub event: Value,
}

impl NatsServer {
    /// Starts one on a free port of this machine. `None`, and a word on stderr, where there is no NATS.
    #[must_use]
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// Starts one with more on its command line.
    #[must_use]
    pub async fn start_with(flags: &[&str]) -> Option<Self> {
        if program().is_none() {
            eprintln!("SKIPPED: no nats-server on this machine; tools/setup.sh installs it");
            return None;
        }
        let folder = tempfile::Builder::new()
            .prefix("tessera-nats-")
            .tempdir()
            .expect("a temporary folder");
        let mut server = Self {
            folder,
            port: 0,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            shell: Mutex::new(None),
        };
        server.port = server.run("-1").await;
        Some(server)
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it, as SIGKILL does.
    pub fn crash(&self) {
        let shell = self.shell.lock().expect("no panic").take();
        if let Some(mut shell) = shell {
            drop(shell.stdin.take());
            drop(shell.wait());
        }
    }

    /// Starts it again where it was, with what it had on disk.
    pub async fn up(&self) {
        self.run(&self.port.to_string()).await;
    }

    /// Starts it, waits until it listens, and tells where.
    async fn run(&self, port: &str) -> u16 {
        let folder = self.folder.path();
        for old in ports_files(folder) {
            drop(fs::remove_file(old));
        }
        let shell = Command::new("sh")
            .args(["-c", SHELL])
            .arg(folder)
            .arg(program().expect("there is one"))
            .args(["-a", "127.0.0.1", "-p", port, "-js"])
            .arg("-sd")
            .arg(folder.join("data"))
            .arg("--ports_file_dir")
            .arg(folder)
            .args(&self.flags)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        *self.shell.lock().expect("no panic") = Some(shell);
        let give_up = Instant::now() + PATIENCE;
        loop {
            let found = ports_files(folder).into_iter().find_map(|file| port_in(&file));
            if let Some(port) = found {
                return port;
            }
            let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < give_up, "nats-server did not start: {}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything in the stream, in its order; nothing before there is one. `url`: as whoever may read it.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn messages(&self) -> Vec<Message> {
        let client = async_nats::connect(self.url()).await.expect("connected");
        let Ok(mut stream) = jetstream::new(client).get_stream(STREAM).await else {
            return Vec::new();
        };
        let last = stream.info().await.expect("an answer").state.last_sequence;
        let mut messages = Vec::new();
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await.expect("a message");
            let mut headers: Vec<String> = message
                .headers
                .iter()
                .flat_map(|(name, values)| values.iter().map(move |value| format!("{name}: {value}")))
                .collect();
            headers.sort();
            messages.push(Message {
                subject: message.subject.to_string(),
                headers,
                event: serde_json::from_slice(&message.payload).expect("JSON"),
            });
        }
        messages
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.crash();
    }
}

/// Debian keeps it out of PATH.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .map(|folder| folder.join("nats-server"))
        .find(|file| file.is_file())
}

fn ports_files(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder)
        .expect("our folder")
        .flatten()
        .map(|file| file.path());
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "ports"))
        .collect()
}

/// Half written, it is none yet.
fn port_in(file: &Path) -> Option<u16> {
    let ports: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let (_, port) = ports["nats"][0].as_str()?.rsplit_once(':')?;
    port.parse().ok()
}
