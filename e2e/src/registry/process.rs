//! One `tessera registry` that is killed, stopped and started again, on a folder and an address that stay.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::wire::Client;
use crate::{Ended, Process};

/// See the module. The process ends with it.
#[derive(Debug)]
pub struct RegistryProcess {
    address: String,
    admin: String,
    folder: PathBuf,
    flags: Vec<String>,
    process: Option<Process>,
    /// Removed with it, unless the folder is the test's own.
    _own: Option<TempDir>,
}

impl RegistryProcess {
    /// Starts one on a fresh folder.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The same with more flags, at every start.
    ///
    /// # Panics
    /// When there is no temporary folder.
    pub async fn with(flags: &[&str]) -> Self {
        let own = tempfile::tempdir().expect("a folder");
        let mut registry = Self::on(&own.path().join("registry"), flags).await;
        registry._own = Some(own);
        registry
    }

    /// The same on a given folder.
    pub async fn on(folder: &Path, flags: &[&str]) -> Self {
        Self::at(&loopback(), folder, flags).await
    }

    /// The same on a given folder and address, with any free port.
    pub async fn at(host: &str, folder: &Path, flags: &[&str]) -> Self {
        let mut registry = Self {
            address: format!("{host}:0"),
            admin: String::new(),
            folder: folder.to_owned(),
            flags: flags.iter().map(ToString::to_string).collect(),
            process: None,
            _own: None,
        };
        registry.begin().await;
        registry
    }

    /// Starts it, again, where it was.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub async fn begin(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let folder = self.folder.display().to_string();
        let args = ["registry", "--listen", &self.address, "--admin-listen"];
        let args = args.into_iter().chain(["127.0.0.1:0", "--data-dir", &folder]);
        let args = args.chain(self.flags.iter().map(String::as_str));
        let mut process = Process::spawn("registry", args, &[]);
        (self.address, self.admin) = process.addresses().await;
        self.process = Some(process);
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) -> Ended {
        let process = self.take();
        process.signal(Signal::KILL);
        process.end().await
    }

    /// Waits until it ends by itself.
    pub async fn end(&mut self) -> Ended {
        self.take().end().await
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> Ended {
        self.take().stop().await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// The process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    fn take(&mut self) -> Process {
        self.process.take().expect("it runs")
    }

    /// `host:port`, the same after every restart.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The admin address of this run.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Where it keeps its store.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A connection of its own, made when first used and made again after each restart.
    ///
    /// # Panics
    /// Never: the address is one.
    pub fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address))
            .expect("an address")
            .connect_timeout(Duration::from_secs(5))
            .connect_lazy()
    }

    /// A client with a connection of its own.
    pub fn client(&self) -> Client {
        Client::new(self.channel()).max_decoding_message_size(64 << 20)
    }

    /// Resident bytes of the process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process().pid().as_raw_nonzero()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kib.expect("a size in kB") * 1_024
    }

    /// Bytes of its store.
    ///
    /// # Panics
    /// When there is none.
    pub fn stored(&self) -> u64 {
        let files = std::fs::read_dir(&self.folder).expect("its folder");
        files
            .flatten()
            .filter_map(|file| Some(file.metadata().ok()?.len()))
            .sum()
    }
}

impl Drop for RegistryProcess {
    /// A test that fails tells what its registries said last: a fault may have ended one that was to go on.
    fn drop(&mut self) {
        if let Some(process) = self.process.as_ref().filter(|_| std::thread::panicking()) {
            let said = process.stderr();
            let last: Vec<&str> = said.lines().rev().take(LAST_WORDS).collect();
            eprintln!("the registry at {} said last:", self.address);
            last.iter().rev().for_each(|line| eprintln!("    {line}"));
        }
    }
}

/// Lines.
const LAST_WORDS: usize = 12;

/// A loopback address of its own for each server. The port of a registry that is down is free for anybody on the same
/// address: clients that dial it over and over would in the end be given it as their *source* port, and even connect to
/// themselves. Sources are 127.0.0.1, so they never meet.
pub(crate) fn loopback() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 100;
    format!("127.{}.{high}.{}", 100 + number, low.clamp(1, 254))
}
