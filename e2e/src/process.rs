//! One run of the `tessera` binary: its output line by line, and an end that always comes.

use std::{
    ffi::OsStr,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
};

use crate::{binary::tessera, wait};

/// A running `tessera`. Killed when dropped, so that nothing outlives its test.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// How a process ended, with all it said.
#[derive(Debug)]
pub struct Ended {
    /// The exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

type Output = Arc<Mutex<String>>;

impl Ended {
    /// The exit code; -1 when a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Fails the test unless the exit code is 0.
    ///
    /// # Panics
    /// With both outputs, when it is not.
    pub fn success(self) -> Self {
        assert!(
            self.status.success(),
            "{}\nstdout:\n{}\nstderr:\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Standard output as one JSON document.
    ///
    /// # Panics
    /// When it is not one.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON: {error}\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }
}

/// Runs `tessera ARGS` to its end, at most for [`wait::PATIENCE`] twice over.
pub async fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    Process::spawn("tessera", args, &[]).end().await
}

impl Process {
    /// Starts `tessera ARGS` with these additional environment variables.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn spawn<S: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = S>, env: &[(&str, String)]) -> Self {
        Self::run(Command::new(tessera()), name, args, env)
    }

    /// The same in a network namespace, which needs root.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn spawn_in<S: AsRef<OsStr>>(
        namespace: &str,
        name: &str,
        args: impl IntoIterator<Item = S>,
        env: &[(&str, String)],
    ) -> Self {
        // `ip` becomes what it starts, so the process is ours.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(tessera());
        Self::run(command, name, args, env)
    }

    fn run<S: AsRef<OsStr>>(
        mut command: Command,
        name: &str,
        args: impl IntoIterator<Item = S>,
        env: &[(&str, String)],
    ) -> Self {
        command
            .args(args)
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .env_remove("RUST_LOG")
            .env("NO_COLOR", "1")
            .envs(env.iter().map(|(key, value)| (*key, value)))
            // Where a person who cloned the repository would be.
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the binary starts");
        let stdout = collect(child.stdout.take().expect("piped"));
        let stderr = collect(child.stderr.take().expect("piped"));
        Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
        }
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.lock().expect("not poisoned").clone()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("not poisoned").clone()
    }

    /// Waits for a line on standard output that `wanted` accepts.
    ///
    /// # Panics
    /// With both outputs, when it does not come in time or the process ends first.
    pub async fn line<T>(&mut self, what: &str, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
        let name = self.name.clone();
        let mut answer = None;
        for attempt in 0.. {
            let ended = self.child.try_wait().expect("its state").is_some();
            answer = self.stdout().lines().find_map(&mut wanted);
            if answer.is_some() {
                break;
            }
            let late = attempt * 25 > wait::PATIENCE.as_millis();
            assert!(
                !ended && !late,
                "{name}: no line with {what}\nstdout:\n{}\nstderr:\n{}",
                self.stdout(),
                self.stderr()
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        answer.expect("the loop ends with an answer")
    }

    /// The addresses (gRPC, admin) that a role printed once it serves.
    pub async fn addresses(&mut self) -> (String, String) {
        self.line("its addresses", addresses).await
    }

    /// The same; nothing, when it ends before it has said them.
    ///
    /// # Panics
    /// When it does neither in time.
    pub async fn addresses_or_end(&mut self) -> Option<(String, String)> {
        wait::until("addresses or an end", || {
            let ended = self.child.try_wait().expect("its state").is_some();
            let found = self.stdout().lines().find_map(addresses);
            let known = if ended || found.is_some() {
                Ok(found)
            } else {
                Err("neither")
            };
            std::future::ready(known)
        })
        .await
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it has ended.
    pub fn pid(&self) -> Pid {
        let id = self.child.id().expect("it runs");
        Pid::from_raw(i32::try_from(id).expect("a pid fits")).expect("a pid is not 0")
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("its own child can be signalled");
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// With both outputs, when it does not within twice [`wait::PATIENCE`].
    pub async fn end(mut self) -> Ended {
        let Ok(status) = tokio::time::timeout(wait::PATIENCE * 2, self.child.wait()).await else {
            panic!(
                "{}: still running\nstdout:\n{}\nstderr:\n{}",
                self.name,
                self.stdout(),
                self.stderr()
            );
        };
        let status = status.expect("its status");
        // The readers end with the pipes; they hold the other references.
        wait::until("the pipes to be read", || async {
            if Arc::strong_count(&self.stdout) + Arc::strong_count(&self.stderr) == 2 {
                Ok(())
            } else {
                Err("readers run")
            }
        })
        .await;
        Ended {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    pub async fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.end().await
    }
}

fn addresses(line: &str) -> Option<(String, String)> {
    let (_, rest) = line.split_once(" listening on ")?;
    let (grpc, rest) = rest.split_once(" (admin ")?;
    Some((grpc.to_owned(), rest.trim_end_matches(')').to_owned()))
}

fn collect(pipe: impl AsyncRead + Unpin + Send + 'static) -> Output {
    let output = Output::default();
    let sink = Arc::clone(&output);
    tokio::spawn(async move {
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut text = sink.lock().expect("not poisoned");
            text.push_str(&line);
            text.push('\n');
        }
    });
    output
}
